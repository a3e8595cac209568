"""Prefixes that no slot holds any longer, in files: a restart does not lose a long system prompt.

What a slot holds is written when the engine rests, when something else needs the slot, and at the
end; it is read into a free slot when somebody comes whose text begins so, and found there by the
scheduler like what any sequence has left behind.
"""

from llm_backend.engine.kv_cache.prefix_files.folder import PrefixFolder, open_folder
from llm_backend.engine.kv_cache.prefix_files.stored_prefixes import Prefixes

__all__ = ["PrefixFolder", "Prefixes", "open_folder"]
