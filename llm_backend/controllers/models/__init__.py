"""Models: list, retrieve, delete, load and unload."""
