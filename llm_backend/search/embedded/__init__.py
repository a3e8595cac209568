"""The vector index in this process: Qdrant's own engine over a folder."""

from llm_backend.search.embedded.index import EmbeddedIndex

__all__ = ["EmbeddedIndex"]
