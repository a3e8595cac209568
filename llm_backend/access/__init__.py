"""Who may use the server, and how much of it: keys, projects, limits, and what is used."""

from llm_backend.access.caller import DEFAULT_PROJECT, Asker, Caller
from llm_backend.access.estimate import text_bytes
from llm_backend.access.gate import Gate
from llm_backend.access.keyring import CLOSED, Keyring, NewKey, new_key
from llm_backend.access.ledger import Ledger
from llm_backend.access.meter import (
    Meter,
    answer_metered,
    answered_by,
    embedded,
    estimated,
    metered,
    metering,
    relayed,
    sent,
)
from llm_backend.access.policy import Policy, Project, policy_of
from llm_backend.access.session import Session
from llm_backend.access.spending import Spending
from llm_backend.access.told_usage import Tail, read_usage
from llm_backend.store.administration import Tokens

__all__ = [
    "CLOSED",
    "DEFAULT_PROJECT",
    "Asker",
    "Caller",
    "Gate",
    "Keyring",
    "Ledger",
    "Meter",
    "NewKey",
    "Policy",
    "Project",
    "Session",
    "Spending",
    "Tail",
    "Tokens",
    "answer_metered",
    "answered_by",
    "embedded",
    "estimated",
    "metered",
    "metering",
    "new_key",
    "policy_of",
    "read_usage",
    "relayed",
    "sent",
    "text_bytes",
]
