"""Who may use the server, and how much of it: keys, projects, limits, and what is used."""

from llm_backend.access.caller import DEFAULT_PROJECT, Caller
from llm_backend.access.keyring import Keyring, NewKey, new_key
from llm_backend.access.policy import Policy, Project, policy_of

__all__ = [
    "DEFAULT_PROJECT",
    "Caller",
    "Keyring",
    "NewKey",
    "Policy",
    "Project",
    "new_key",
    "policy_of",
]
