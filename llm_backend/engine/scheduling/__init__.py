"""Scheduling: the waiting queue, admission, and the tokens of the next pass."""
