"""Prefix files: cached prefixes on disk, so that a restart does not lose a long system prompt.

The tokens and cells of a slot are written when the engine is idle, when another sequence needs the
slot, and at shutdown. A file is read into a free slot when a request arrives whose prompt begins
with its tokens; the scheduler then finds it there as a cached prefix.
"""

from llm_backend.engine.kv_cache.prefix_files.folder import PrefixFolder, open_folder
from llm_backend.engine.kv_cache.prefix_files.stored_prefixes import StoredPrefixes

__all__ = ["PrefixFolder", "StoredPrefixes", "open_folder"]
