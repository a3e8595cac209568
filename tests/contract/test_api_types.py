"""Generated types: in step with the contract, and right where a schema is intricate."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUB = ROOT / "llm_backend/contract/api_types.pyi"


def test_api_types_are_generated_from_the_contract() -> None:
    script = [sys.executable, "scripts/api_types.py"]
    printed = subprocess.run(script, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    assert STUB.read_text() == printed, "run `make docs`"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("CreateEmbeddingRequest", "model: str"),  # an enumeration beside any text
        ("CreateEmbeddingRequest", 'encoding_format: NotRequired[Literal["base64", "float"]]'),
        ("CreateChatCompletionRequest", "temperature: NotRequired[float | None]"),  # by allOf
        ("Response", 'object: Literal["response"]'),
        ("ListFilesQuery", "limit: NotRequired[int]"),
        ("CreateRerankRequest", "query: str"),  # of this server's own operation
    ],
)
def test_api_types_name_each_field(name: str, line: str) -> None:
    _, _, after = STUB.read_text().partition(f"class {name}(TypedDict):\n")
    fields = after.partition("\n\n")[0].splitlines()

    assert f"    {line}" in fields


def test_api_types_of_keys_that_are_no_names_are_calls() -> None:
    assert 'AuditLog = TypedDict(\n    "AuditLog",\n' in STUB.read_text()
