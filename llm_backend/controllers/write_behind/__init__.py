"""Writes of answered requests.

group_commit.py         concurrent writes share a transaction
write_behind_buffer.py  items written in batches after their answers
lost_writes.py          count and log of failed writes
"""
