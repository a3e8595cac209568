"""Uploads in parts: values, rows and operations."""
