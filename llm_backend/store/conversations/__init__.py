"""Stored conversations and their items."""
