"""Lengths of time in seconds."""

DAY_S = 24 * 60 * 60
"""A day."""
