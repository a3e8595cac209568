"""Writes of chats, several in a transaction: while their requests wait, or after the answers.

group_commit.py         concurrent writes share a transaction
write_behind_buffer.py  items written in batches after their answers
lost_writes.py          count and log of failed writes
"""
