"""Streaming multipart forms: fields are validated, files passed on as they arrive."""
