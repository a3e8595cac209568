"""schemathesis over every operation: whatever is sent, the document describes the answer.

`make test` sends the same few examples of each kind in every run, `make fuzz` many others each
time, and chains of them along the document's links. Data that breaks the document and data that
keeps it, boundary values, missing headers, wrong methods; what needs a model mostly names one that
is there.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from llm_backend.contract import load_document
from tests.fuzzing import CASES
from tests.serving import Served, serve

CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_headers_conformance", "response_schema_conformance", "unsupported_method",
    "use_after_free",
)  # fmt: skip
KEY = "sk-fuzz"
WORDS = ("Selected", "Tested", "Generated")
KEPT_CHARACTERS = 200_000  # of what it tells, at most
HERE = Path(__file__).parent
FEW = [
    "--phases", "coverage,fuzzing", "--max-examples", "2", "--seed", "1",
    "--generation-deterministic",
]  # fmt: skip
# Of 57,500 requests of the coverage 37,000 would tell nothing more: bodies that are those of other
# operations, and large ones of operations that are checked and then not answered here.
LIKE_OTHERS = """
[[operations]]
include-operation-id = [
    "Getinputtokencounts", "Compactconversation", "createConversation", "createConversationItems",
    "renderChatPrompt",
    "createEvalRun", "createEval", "createFineTuningJob", "runGrader", "validateGrader",
]
phases.coverage.enabled = false
"""
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


@pytest.mark.hypothesis
def test_no_answer_is_one_that_the_document_does_not_describe(
    fuzzed, pytestconfig, tmp_path, record_property
):
    examples = pytestconfig.getoption("--fuzz-examples")
    config = (HERE / "schemathesis.toml").read_text()
    if examples is None:
        told = sent(fuzzed, config + LIKE_OTHERS, FEW, tmp_path)
    else:
        told = sent(fuzzed, config, many(examples), tmp_path)
    selected, tested, generated = (number(word, told.stdout) for word in WORDS)
    record_property(CASES, generated)

    assert told.returncode == 0, told.stdout[-KEPT_CHARACTERS:]
    assert tested == selected
    assert tested >= len(load_document().operations) - len(NOT_FUZZED)
    assert httpx.get(f"{fuzzed.address}/readyz").status_code == 200
    assert "Traceback" not in fuzzed.log.read_text()


def number(word: str, told: str) -> int:
    """A number of its summary."""
    found = re.search(rf"{word}: +([\d,]+)", told)
    return int(found[1].replace(",", "")) if found else 0


def many(examples: int) -> list[str]:
    """The options for what was never sent before."""
    phases = "examples,coverage,fuzzing,stateful"
    return ["--phases", phases, "--max-examples", str(examples), "--continue-on-failure"]


def sent(
    served: Served, config: str, options: list[str], folder: Path
) -> subprocess.CompletedProcess[str]:
    """schemathesis, as a person would run it."""
    file = folder / "schemathesis.toml"
    file.write_text(config)
    return subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            "--config-file", str(file),
            "run", f"{served.base_url}/openapi.json",
            "--url", served.base_url,
            "--header", f"Authorization: Bearer {KEY}",
            "--exclude-operation-id", "getStatus",
            "--checks", ",".join(CHECKS),
            "--workers", "1",
            "--suppress-health-check", "all",
            "--request-timeout", "60",
            *options,
        ],
        cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "SCHEMATHESIS_HOOKS": str(HERE / "schemathesis_hooks.py"),
             "PYTHONHASHSEED": "0"},
    )  # fmt: skip
