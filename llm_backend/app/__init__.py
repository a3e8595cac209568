"""Composition root: settings in, ASGI application out. Builds and wires every object.

`wiring.py` shows the order in which everything is opened; each other module opens one part.

Local models, from the settings to their engines:

per_model_settings.py  values of settings such as `draft_models`, by model (`NAME=VALUE`)
served_models.py       `Settings` -> a `ServedModel` for each model, files and templates checked
engine_configs.py      each model's engine configuration, and what is left to a memory plan
model_reconciler.py    `ModelReconciler.serve` -> registry and model manager hold exactly these
backends/local         `ModelHandle` -> `Engine`, loaded on demand by the `ModelManager`

`model_startup.py` opens this chain and `config_watch.py` runs it again on a changed config file.
`shared_engines.py` does so in the parent of several API processes.

Other modules:

app.py                 the ASGI application, opened and closed
api.py                 each operation's controller, and middleware in front of them
startup_errors.py      errors of the start
database_startup.py    the database and its migrations
stores.py              stores
jobs.py                background jobs of a process
search.py              extractor, vector index, search tools
upstreams.py           upstreams of the settings, and the names that they answer
folder_models.py       models of the models folder
model_planning.py      one memory plan for each model
observability.py       metrics, spans and log lines of local answers
"""

from llm_backend.app.app import App, create_app
from llm_backend.app.database_startup import (
    migrate_database,
    open_administration,
    recount_file_bytes,
)
from llm_backend.app.shared_engines import open_shared_engines
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
