"""Requests of the server to its own application."""
