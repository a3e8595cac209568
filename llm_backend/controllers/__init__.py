"""Controllers: the functions that answer the document's operations, by tag.

A function has the name of its operationId. `services.py` lists the dependencies of all of them;
`generation/`, `rendering/`, `relay/`, `write_behind/` and `internal/` are shared by several tags.
"""
