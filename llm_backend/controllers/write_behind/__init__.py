"""Writes of answered requests: group commit, background tasks and the write-behind buffer."""
