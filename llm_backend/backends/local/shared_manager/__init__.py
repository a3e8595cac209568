"""A room of engines that several processes use: one owns it, the others are its lodgers.

    owner    SharedRoom: loads, unloads, keeps the budget, and tells the lodgers
    lodger   Lodging: what one of the others knows of the room, and its requests to the owner

They talk over a Unix socket in the folder that they share, one message a line.
"""

from llm_backend.backends.local.shared_manager.manager_client import ModelManagerClient
from llm_backend.backends.local.shared_manager.manager_server import ModelManagerServer

__all__ = ["ModelManagerClient", "ModelManagerServer"]
