"""Multipart forms as streams: fields checked, files passed on as they arrive."""
