"""Composition root: settings in, ASGI application out. Builds and wires every object.

`wiring.py` shows the order in which everything is opened; each other module opens one part.
"""

from llm_backend.app.app import App, create_app
from llm_backend.app.database_startup import (
    migrate_database,
    open_administration,
    recount_file_bytes,
)
from llm_backend.app.engines import open_shared_engines
from llm_backend.app.startup_errors import CannotStart

__all__ = [
    "App",
    "CannotStart",
    "create_app",
    "migrate_database",
    "open_administration",
    "open_shared_engines",
    "recount_file_bytes",
]
