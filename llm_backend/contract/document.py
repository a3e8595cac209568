"""The compiled contract: what a starting server loads, and what it reads only when asked."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import orjson

from llm_backend.contract.fingerprint import FORMAT, SOURCES, digest_of
from llm_backend.contract.operations import Operation, Operations

__all__ = ["COMPILED", "ContractMissing", "Document", "load_document"]

Json: TypeAlias = Any  # a node of a parsed document: any JSON value

COMPILED = Path(__file__).with_name("compiled")
"""Where the build puts the compiled contract."""

_SOURCES = Path(__file__).parents[2] / "openapi"


class ContractMissing(RuntimeError):
    """There is no compiled contract, or it is not the one of the sources; says what to do."""


class Document:
    """The contract in memory: the table of operations at once, the rest on first use."""

    def __init__(self, compiled: Path, start: Mapping[str, Json]) -> None:
        self._compiled = compiled
        self.view: Mapping[str, Json] = start["view"]
        self.operations = Operations(Operation(**row) for row in start["operations"])

    def text(self) -> bytes:
        """The whole OpenAPI 3.1 document as JSON."""
        return self._file.read_bytes()

    def operation(self, operation_id: str) -> Mapping[str, Json]:
        """What the document says about an operation."""
        operation: Mapping[str, Json] = orjson.loads(self._slice("operations", operation_id))
        return operation

    def component(self, kind: str, name: str) -> bytes:
        """A component of the document as JSON text."""
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
        with self._file.open("rb") as file:  # a megabyte that is not held for some parts of it
            file.seek(offset)
            return file.read(length)


def load_document(compiled: Path = COMPILED, sources: Path = _SOURCES) -> Document:
    """Loads the compiled contract; raises `ContractMissing` where it is absent or out of date.

    It is compared with `sources` where these are at hand, which they are not in a wheel.
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
