"""schemathesis over every operation: whatever is sent, the document describes the answer.

`make test` sends a few examples of each kind, `make fuzz` many. Data that breaks the document and
data that keeps it, boundary values, missing headers, wrong methods.
"""

import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from llm_backend.contract import load_document
from tests.serving import Served, serve

CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_headers_conformance", "response_schema_conformance", "unsupported_method",
    "use_after_free",
)  # fmt: skip
KEY = "sk-fuzz"
WORDS = ("Selected", "Tested")
NOT_FUZZED = {
    "getOpenapiDocument",  # schemathesis leaves out the address that it read itself
    "getStatus",  # its answer has no end
}


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory):
    """A server of its own, whose answers stay short. It wants a key: an open one would want one,
    too, from the first on that is made in it."""
    key = {"LLM_BACKEND_API_KEYS": KEY}
    folder = tmp_path_factory.mktemp("fuzzed")
    with serve(folder, "--context-tokens", "64", environment=key) as served:
        yield served


def test_no_answer_is_one_that_the_document_does_not_describe(fuzzed, pytestconfig, tmp_path):
    examples = pytestconfig.getoption("--fuzz-examples") or 2
    told = fuzz(fuzzed, examples, tmp_path)

    assert told.returncode == 0, told.stdout[-12_000:]
    selected, tested = (int(re.search(rf"{word}: (\d+)", told.stdout)[1]) for word in WORDS)
    assert tested == selected
    assert tested >= len(load_document().operations) - len(NOT_FUZZED)
    assert httpx.get(f"{fuzzed.address}/readyz").status_code == 200
    assert "Traceback" not in fuzzed.log.read_text()


def fuzz(served: Served, examples: int, folder: Path) -> subprocess.CompletedProcess[str]:
    """schemathesis, as a person would run it."""
    return subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            "--config-file", str(Path(__file__).with_name("schemathesis.toml")),
            "run", f"{served.base_url}/openapi.json",
            "--url", served.base_url,
            "--header", f"Authorization: Bearer {KEY}",
            "--exclude-operation-id", "getStatus",
            "--phases", "coverage,fuzzing",
            "--max-examples", str(examples),
            "--checks", ",".join(CHECKS),
            "--workers", "1",
            "--suppress-health-check", "all",
            "--request-timeout", "60",
            "--seed", "1",
        ],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
