"""Embedded vector index: Qdrant's engine in this process, over a folder.

index.py        the index over a folder
folder.py       lock, files, recovery
open_shards.py  a bounded number of open collections
shard.py        one collection
optimizer.py    child process that builds a collection's graph
"""

from llm_backend.search.embedded.index import EmbeddedIndex

__all__ = ["EmbeddedIndex"]
