"""KV cache: cells by slot, and cached prefixes in slots, in host memory and in files.

cache.py              allocation of slots; reuse, copy and eviction (LRU) of cached prefixes
slot_allocation.py    what a slot begins with: copies, a restored state, cached tokens
common_prefix.py      length of the common prefix of two token lists
prefix.py             tokens with the saved state of their cells
lower_tiers.py        the facade of the two tiers below the slots, which the generator uses
host_prefix_cache.py  states of prefixes in host memory
prefix_index.py       index of saved prefixes, in host memory or in files, by blocks of tokens
blocks.py             hashes of these blocks
prefix_files/         cached prefixes on disk

A prompt's prefix comes from one of three places. `PrefixRestorer.request` decides whether a file is
worth reading; until it is in a slot, `WaitingQueue` holds the sequence back. `Cache.allocate` then
takes a slot that has the prefix, or a state in host memory.
"""
