"""Requests of the server to its own application.

`internal_request.py`  ASGI scope and body
"""
