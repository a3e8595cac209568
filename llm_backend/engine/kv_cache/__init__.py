"""KV cache: cells by slot, cached prefixes, and prefix files.

cache.py       allocation of slots; reuse, copy and eviction of cached prefixes
slot_cells.py  these operations on the cells of the model and of its draft model
prefix_files/  cached prefixes on disk
"""
