"""Access control: API keys, projects, rate limits, concurrency limits, usage and spending.

authentication/  keys and callers
limits/          permissions, rates, concurrency (by `llm_backend/fair_queue.py`)
usage/           meter, ledger, prices
idempotency/     repeated requests
wiring.py        all of these, opened for one server
"""

from llm_backend.access.authentication.api_keys import NewKey, new_key
from llm_backend.access.authentication.keyring import KEYS_REQUIRED, Keyring
from llm_backend.access.authentication.policy import DEFAULT_PROJECT, Project
from llm_backend.access.authentication.principal import Caller, Principal, fairness_key
from llm_backend.access.limits.websocket_session import MeteredSession
from llm_backend.access.usage.ledger import Ledger
from llm_backend.access.usage.meter import RequestMeter
from llm_backend.access.usage.spending import Spending
from llm_backend.access.usage.usage_parser import UsageTail, read_usage
from llm_backend.contract.body_bounds import text_bytes
from llm_backend.store.administration import Tokens

__all__ = [
    "DEFAULT_PROJECT",
    "KEYS_REQUIRED",
    "Caller",
    "Keyring",
    "Ledger",
    "MeteredSession",
    "NewKey",
    "Principal",
    "Project",
    "RequestMeter",
    "Spending",
    "Tokens",
    "UsageTail",
    "fairness_key",
    "new_key",
    "read_usage",
    "text_bytes",
]
