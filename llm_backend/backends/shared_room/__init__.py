"""A room of engines that several processes use: one owns it, the others are its lodgers.

    owner    SharedRoom: loads, unloads, keeps the budget, and tells the lodgers
    lodger   Lodging: what one of the others knows of the room, and its requests to the owner

They talk over a Unix socket in the folder that they share, one message a line.
"""

from llm_backend.backends.shared_room.lodger import Lodging
from llm_backend.backends.shared_room.owner import SharedRoom

__all__ = ["Lodging", "SharedRoom"]
