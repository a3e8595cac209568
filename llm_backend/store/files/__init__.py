"""Stored files: values, rows and operations."""
