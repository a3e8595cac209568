"""What all that concerns vector stores shares."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from llm_backend import errors
from llm_backend.controllers.vector_stores.embedders import Embedders
from llm_backend.search import IndexFailure, VectorIndex
from llm_backend.store import VectorStores

__all__ = ["VectorLibrary", "index_errors_translated"]

RETRY_AFTER_S = 5.0


@dataclass(frozen=True, kw_only=True)
class VectorLibrary:
    """The stores, the index of their vectors, and who makes these. There is no index where several
    processes would need the one that belongs to one process."""

    stores: VectorStores
    vectors: VectorIndex | None
    embedders: Embedders

    @property
    def index(self) -> VectorIndex:
        """Raises `Unsupported` where there is none."""
        self.check()
        assert self.vectors is not None, "it has just been checked"
        return self.vectors

    def check(self) -> None:
        """Raises `Unsupported` where there is no index to put files into."""
        if self.vectors is None:
            raise errors.Unsupported(
                "Vector stores of several API processes need a Qdrant server: set `qdrant_url`, "
                "or `processes` to 1."
            )


@contextmanager
def index_errors_translated() -> Iterator[None]:
    """Raises an `ApiError` for what the vector index raises within."""
    try:
        yield
    except IndexFailure as error:
        raise errors.Overloaded(str(error), retry_after_s=RETRY_AFTER_S) from error
