"""Prefix files: cached prefixes on disk, so that a restart does not lose a long system prompt.

The tokens and cells of a slot are written when the engine is idle, when another sequence needs the
slot, and at shutdown. A file is read into a free slot when a request arrives whose prompt begins
with its tokens; the scheduler then finds it there as a cached prefix.

prefix_saver.py     saves prefixes of slots
prefix_restorer.py  restores prefixes into slots
prefix_folder.py    the files of one model, read and written by threads
prefix_file.py      the format of a file
model_identity.py   digest and folder name of a model
"""

from llm_backend.engine.kv_cache.prefix_files.prefix_folder import PrefixFolder, open_folder

__all__ = ["PrefixFolder", "open_folder"]
