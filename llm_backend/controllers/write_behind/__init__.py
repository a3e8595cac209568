"""Writes behind answers: group commit, background tasks and the write-behind buffer."""
