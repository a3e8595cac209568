"""Model manager shared by several processes: one process owns the engines, the others are clients.

manager_messages.py  the messages between them, over a Unix socket in their shared folder
manager_server.py    ModelManagerServer: loads and unloads engines within the budget
manager_client.py    ModelManagerClient: a client's copy of the engine states, and its requests
remote_handle.py     RemoteModelHandle: a model handle of a client
engine_lease.py      EngineLease: a client's right to use one engine
"""

from llm_backend.backends.local.shared_manager.manager_client import ModelManagerClient
from llm_backend.backends.local.shared_manager.manager_server import ModelManagerServer

__all__ = ["ModelManagerClient", "ModelManagerServer"]
