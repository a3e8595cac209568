"""Embedded vector index: Qdrant's engine in this process, over a folder."""

from llm_backend.search.embedded.index import EmbeddedIndex

__all__ = ["EmbeddedIndex"]
