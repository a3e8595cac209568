"""Retention: rows that are too old or too many are deleted, oldest first."""
