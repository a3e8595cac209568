"""Stored responses: values, rows and operations, with background responses and threads."""
