"""The composition root: settings in, ASGI application out. Builds and wires every object.

`answering.py` shows in which order everything is opened; the other modules say how, by matter.
"""

from llm_backend.app.app import App, create_app
from llm_backend.app.database import migrate_database, opened_administration, recounted_files
from llm_backend.app.engines import opened_engines
from llm_backend.app.starting import CannotStart

__all__ = [
    "App",
    "CannotStart",
    "create_app",
    "migrate_database",
    "opened_administration",
    "opened_engines",
    "recounted_files",
]
