"""Loads the compiled contract: the table of operations at startup, its schemas on demand."""

import os
import weakref
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import orjson

from llm_backend.contract.compilation.fingerprint import FORMAT, SOURCES, digest_of
from llm_backend.contract.operations import Operation, Operations
from llm_backend.json_types import JsonValue

COMPILED = Path(__file__).with_name("compiled")
"""Directory of the compiled contract, written by the build."""

SCHEMAS_PREFIX = "#/components/schemas/"
"""Beginning of a reference to one of the document's schemas."""

_SOURCES = Path(__file__).parents[2] / "openapi"


class ContractMissing(RuntimeError):
    """Raised if the compiled contract is absent or out of date; the message names the remedy."""


class Document:
    """The contract: the table of operations in memory, schemas parsed on first use.

    The files are opened once, because a compilation under a running server replaces them. They are
    read, not mapped into memory: pages of a mapping stay resident once they are read, with the
    pages around.
    """

    def __init__(self, compiled: Path, start: Mapping[str, JsonValue]) -> None:
        self._text = _CompiledFile(compiled / "openapi.json")
        self._index_text = _CompiledFile(compiled / "index.json")
        self.view: Mapping[str, JsonValue] = start["view"]
        self.operations = Operations(Operation(**row) for row in start["operations"])

    def text(self) -> bytes:
        """Returns the whole OpenAPI 3.1 document as JSON."""
        return self._text.read()

    def operation(self, operation_id: str) -> Mapping[str, JsonValue]:
        """Returns the document's operation object."""
        operation: Mapping[str, JsonValue] = orjson.loads(self._slice("operations", operation_id))
        return operation

    def component(self, kind: str, name: str) -> bytes:
        """Returns a component of the document as JSON text."""
        return self._slice(kind, name)

    @cached_property
    def _index(self) -> Mapping[str, Mapping[str, tuple[int, int]]]:
        index: Mapping[str, Mapping[str, tuple[int, int]]] = orjson.loads(self._index_text.read())
        return index

    def _slice(self, kind: str, name: str) -> bytes:
        offset, length = self._index[kind][name]  # the whole file is a megabyte
        return self._text.read(offset, length)


class _CompiledFile:
    """File that threads read at any offset; it stays open as long as this object exists."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        """Returns `length` bytes, or all."""
        size = os.fstat(self._file).st_size if length is None else length
        return os.pread(self._file, size, offset)


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
