"""schemathesis over every operation: whatever is sent, the document describes the answer.

`make test` sends the same few examples of each kind in every run, in one test. `make fuzz` sends
many others each time, in a test for each tag of the document, and chains of them along the
document's links. Data that breaks the document and data that keeps it, boundary values, missing
headers, wrong methods; what needs a model mostly names one that is there.
"""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from llm_backend.contract import Operation, load_document
from tests.fuzzing import FINDS, JOURNAL
from tests.image_server import FakeImageServer, running
from tests.serving import Served, serve
from tests.voice import PROGRAM
from tests.whisper_models import can_transcribe, require_transcription, write_whisper

CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_headers_conformance", "response_schema_conformance", "unsupported_method",
    "use_after_free",
)  # fmt: skip
KEY = "sk-fuzz"
WORDS = ("Selected", "Tested")
# Once in some hundred bodies of realtime sessions it cannot negate a part of their schema, and says
# so as the only kind of error, beside no failure.
LIMIT_OF_SCHEMATHESIS = re.compile(
    r"\A(?!.*^=+ FAILURES =+$).*a `not` whose complement.*"
    r"^Errors:\n[^\n]*Schema Error: \d+\n\n",
    re.DOTALL | re.MULTILINE,
)
KEPT_CHARACTERS = 200_000  # of what it tells, at most
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FEW = [
    "--phases", "coverage,fuzzing", "--max-examples", "2", "--seed", "1",
    "--generation-deterministic",
]  # fmt: skip
# Invalid ones are sent where no model hears or draws.
SOME_VALID = [
    "--phases", "fuzzing", "--mode", "positive", "--max-examples", "15", "--seed", "1",
    "--generation-deterministic",
]  # fmt: skip
# Of 57,500 requests of the coverage 37,000 would tell nothing more: bodies that are those of other
# operations, and large ones of operations that are checked and then not answered here.
LIKE_OTHERS = [
    "Getinputtokencounts",
    "Compactconversation",
    "createConversation",
    "createConversationItems",
    "renderChatPrompt",
    "createEvalRun",
    "createEval",
    "createFineTuningJob",
    "runGrader",
    "validateGrader",
]
WITHOUT_COVERAGE = """
[[operations]]
include-operation-id = {}
phases.coverage.enabled = false
"""
OF_MEDIA = (
    "createTranscription", "createTranslation", "createImage", "createImageEdit",
    "createImageVariation",
)  # fmt: skip
NOT_FUZZED = {
    "getOpenapiDocument",  # schemathesis leaves out the address that it read itself
    "getStatus",  # its answer has no end
}


@dataclass(frozen=True, kw_only=True)
class Part:
    """Operations, and how many cases of them."""

    options: list[str]
    config: str = ""
    operations: int | None  # that schemathesis can send to; chains need not reach all
    hooks: str = "schemathesis_hooks.py"


def part_of_suite() -> Part:
    """Few cases of every operation."""
    config = WITHOUT_COVERAGE.format(json.dumps(LIKE_OTHERS + relayed_operations_of_the_sdk()))
    return Part(options=FEW, config=config, operations=len(fuzzed_operations()))


def relayed_operations_of_the_sdk() -> list[str]:
    """Operations that sdk.yaml adds and that are not answered here: their bodies are large."""
    paths = yaml.load((ROOT / "openapi/sdk.yaml").read_bytes(), Loader=yaml.CSafeLoader)["paths"]
    added = [one["operationId"] for item in paths.values() for one in item.values()]
    operations = load_document().operations
    return [name for name in added if operations[name].answered_by != "local"]


def parts_of_fuzzing(examples: int) -> dict[str, Part]:
    """Parts with cases never sent before: one for each tag, and chains along all links."""
    tags = Counter(operation.tag for operation in fuzzed_operations())
    deletions = sum(operation.method == "DELETE" for operation in fuzzed_operations())

    def part(operations: int | None, phases: str, *filters: str) -> Part:
        many = ["--max-examples", str(examples), "--continue-on-failure", "--phases", phases,
                "--generation-allow-x00", "false"]  # fmt: skip  # no text may hold them
        return Part(options=[*many, *filters], operations=operations, hooks="fuzzing_hooks.py")

    by_tag = {
        tag: part(operations, "examples,coverage,fuzzing", "--include-tag", tag)
        for tag, operations in sorted(tags.items())
    }
    # Beside operations that create, it deletes only what they created.
    deleted = {"DELETE": part(deletions, "fuzzing", "--include-method", "DELETE")}
    return by_tag | deleted | {"chains": part(None, "stateful")}


def fuzzed_operations() -> list[Operation]:
    """The operations that schemathesis can send to."""
    operations = load_document().operations
    return [one for name, one in operations.items() if name not in NOT_FUZZED]


@pytest.fixture(scope="module")
def fuzzed(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory):
    """A server of its own, whose answers stay short. It wants a key: an open one would want one,
    too, from the first on that is made in it. When fuzzing, it transcribes and draws."""
    folder = tmp_path_factory.mktemp("fuzzed")
    environment = {
        "LLM_BACKEND_API_KEYS": KEY,
        "LLM_BACKEND_VOICE_PROGRAM": PROGRAM,
        "HF_ENDPOINT": "http://127.0.0.1:9",  # no hub is asked
    }
    if pytestconfig.getoption("--fuzz-examples") is None:
        with serve(folder, "--context-tokens", "64", environment=environment) as served:
            yield served
        return
    with serving_media(folder, environment) as served:
        yield served


@contextmanager
def serving_media(folder: Path, environment: dict[str, str]) -> Iterator[Served]:
    """A server with an image server, and with a model that transcribes where that is installed."""
    painter = FakeImageServer()
    with running(painter):
        config = folder / "config.yaml"
        config.write_text(json.dumps({"backends": [painter.backend()]}))  # which is YAML
        flags = ["--context-tokens", "128", "--config", str(config)]
        if can_transcribe():
            flags += ["--model", "builtin", "--model", str(write_whisper(folder / "hello.bin"))]
        with serve(folder, *flags, environment=environment) as served:
            yield served


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test of all operations in the suite; when fuzzing, each part has a test of its own."""
    if "part" in metafunc.fixturenames:
        examples = metafunc.config.getoption("--fuzz-examples")
        parts = {"all": part_of_suite()} if examples is None else parts_of_fuzzing(examples)
        metafunc.parametrize("part", parts.values(), ids=list(parts))


@pytest.mark.hypothesis
def test_no_answer_is_one_that_the_document_does_not_describe(fuzzed, part, tmp_path):
    logged = len(fuzzed.log.read_text(errors="replace"))
    told = sent(fuzzed, part, tmp_path)
    selected, tested = (number(word, told.stdout) for word in WORDS)

    is_fine = told.returncode == 0 or LIMIT_OF_SCHEMATHESIS.search(told.stdout)
    assert is_fine, told.stdout[-KEPT_CHARACTERS:]
    assert part.operations is None or tested == selected >= part.operations
    assert httpx.get(f"{fuzzed.address}/readyz").status_code == 200
    lines = fuzzed.log.read_text(errors="replace")[logged:]
    assert "Traceback" not in lines
    assert "breaks_contract" not in lines


def test_recordings_and_images_are_answered_as_the_document_describes(tmp_path):
    require_transcription()
    chosen = [word for name in OF_MEDIA for word in ("--include-operation-id", name)]
    part = Part(options=[*SOME_VALID, *chosen], operations=len(OF_MEDIA), hooks="media_hooks.py")
    with serving_media(tmp_path, {"LLM_BACKEND_API_KEYS": KEY}) as served:
        told = sent(served, part, tmp_path)
        metrics = httpx.get(f"{served.address}/metrics").text
        log = served.log.read_text(errors="replace")

    assert told.returncode == 0, told.stdout[-KEPT_CHARACTERS:]
    assert number("Tested", told.stdout) == len(OF_MEDIA)
    assert "Traceback" not in log
    assert "breaks_contract" not in log
    for name in OF_MEDIA:  # some of each were not only refused
        assert f'llm_backend_requests_total{{operation="{name}",status="200"}}' in metrics, name


def number(word: str, told: str) -> int:
    """A number of its summary."""
    found = re.search(rf"{word}: +([\d,]+)", told)
    return int(found[1].replace(",", "")) if found else 0


def sent(served: Served, part: Part, folder: Path) -> subprocess.CompletedProcess[str]:
    """schemathesis, as a person would run it."""
    file = folder / "schemathesis.toml"
    file.write_text((HERE / "schemathesis.toml").read_text() + part.config)
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
            *part.options,
        ],
        cwd=folder, stdout=subprocess.PIPE, text=True, check=False,
        # Little besides: for each request its client searches all variables for proxies, twice.
        env={"HOME": str(folder), "PATH": os.environ["PATH"], "PYTHONUTF8": "1",
             "PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT),
             "SCHEMATHESIS_HOOKS": str(HERE / part.hooks), "FUZZ_JOURNAL": str(JOURNAL),
             "FUZZ_FINDS": str(FINDS), "FUZZ_URL": served.base_url, "FUZZ_KEY": KEY},
    )  # fmt: skip
