"""Model manager shared by several processes: one process owns the engines, the others are clients.

    owner    ModelManagerServer: loads and unloads engines within the budget, notifies clients
    client   ModelManagerClient: a client's copy of the engine states, and its requests to the owner

Both communicate over a Unix socket in their shared folder, one JSON message a line.
"""

from llm_backend.backends.local.shared_manager.manager_client import ModelManagerClient
from llm_backend.backends.local.shared_manager.manager_server import ModelManagerServer

__all__ = ["ModelManagerClient", "ModelManagerServer"]
