"""Loads the compiled contract: the table of operations at startup, its schemas on demand."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import orjson

from llm_backend.contract.compilation.fingerprint import FORMAT, SOURCES, digest_of
from llm_backend.contract.operations import Operation, Operations
from llm_backend.json_types import JsonValue

COMPILED = Path(__file__).with_name("compiled")
"""Directory of the compiled contract, written by the build."""

_SOURCES = Path(__file__).parents[2] / "openapi"


class ContractMissing(RuntimeError):
    """Raised if the compiled contract is absent or out of date; the message says what to do."""


class Document:
    """The contract: the table of operations in memory, schemas read from disk on first use."""

    def __init__(self, compiled: Path, start: Mapping[str, JsonValue]) -> None:
        self._compiled = compiled
        self.view: Mapping[str, JsonValue] = start["view"]
        self.operations = Operations(Operation(**row) for row in start["operations"])

    def text(self) -> bytes:
        """Returns the whole OpenAPI 3.1 document as JSON."""
        return self._file.read_bytes()

    def operation(self, operation_id: str) -> Mapping[str, JsonValue]:
        """Returns the document's operation object."""
        operation: Mapping[str, JsonValue] = orjson.loads(self._slice("operations", operation_id))
        return operation

    def component(self, kind: str, name: str) -> bytes:
        """Returns a component of the document as JSON text."""
        return self._slice(kind, name)

    @property
    def _file(self) -> Path:
        return self._compiled / "openapi.json"

    @cached_property
    def _index(self) -> Mapping[str, Mapping[str, tuple[int, int]]]:
        index: Mapping[str, Mapping[str, tuple[int, int]]] = orjson.loads(
            (self._compiled / "index.json").read_bytes()
        )
        return index

    def _slice(self, kind: str, name: str) -> bytes:
        offset, length = self._index[kind][name]
        # Only the slice is read: the whole file is a megabyte.
        with self._file.open("rb") as file:
            file.seek(offset)
            return file.read(length)


def load_document(compiled: Path = COMPILED, sources: Path = _SOURCES) -> Document:
    """Loads the compiled contract; raises `ContractMissing` if it is absent or out of date.

    Its digest is compared with `sources` if these exist; a wheel does not contain them.
    """
    try:
        start = orjson.loads((compiled / "start.json").read_bytes())
    except FileNotFoundError:
        raise ContractMissing("The contract has not been compiled; run `make setup`.") from None
    has_sources = all((sources / name).is_file() for name in SOURCES)
    is_stale = has_sources and start["digest"] != digest_of(sources)
    if start["format"] != FORMAT or is_stale:
        raise ContractMissing("The compiled contract is out of date; run `make setup`.")
    return Document(compiled, start)
