"""Shared services of vector stores: database, vector index and embedding models."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from llm_backend import errors
from llm_backend.controllers.services.embedders import Embedders
from llm_backend.search import IndexFailure, VectorIndex
from llm_backend.store import VectorStores


@dataclass(frozen=True, kw_only=True)
class VectorStoreServices:
    """Database, vector index and embedding models. `vectors` is None if several API processes
    would need the embedded index, which belongs to one process."""

    stores: VectorStores
    vectors: VectorIndex | None
    embedders: Embedders

    @property
    def index(self) -> VectorIndex:
        """The vector index. Raises `Unsupported` if there is none."""
        self.check()
        assert self.vectors is not None, "it has just been checked"
        return self.vectors

    def check(self) -> None:
        """Raises `Unsupported` if there is no vector index."""
        if self.vectors is None:
            raise errors.Unsupported(
                "Vector stores of several API processes need a Qdrant server: set `qdrant_url`, "
                "or `processes` to 1."
            )


@contextmanager
def translate_index_errors() -> Iterator[None]:
    """Translates errors of the vector index into `ApiError`."""
    try:
        yield
    except IndexFailure as error:
        raise errors.ServiceUnavailable(
            str(error), retry_after_s=errors.OUTAGE_RETRY_AFTER_S
        ) from error
