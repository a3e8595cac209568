"""Limit of realtime sessions: for all keys together, and for one."""

from contextlib import ExitStack

import pytest

from llm_backend.controllers.services.session_limit import SessionLimit
from llm_backend.errors import LimitReached, ServiceUnavailable


def test_one_key_takes_its_share_of_the_sessions_and_no_more():
    limit = SessionLimit(3, key_limit=2)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(limit.acquire("key_a"))
        with pytest.raises(LimitReached), limit.acquire("key_a"):
            pass
        stack.enter_context(limit.acquire("key_b"))
        with pytest.raises(ServiceUnavailable), limit.acquire("key_c"):
            pass

    with limit.acquire("key_a"), limit.acquire("key_a"):
        pass


def test_a_server_without_keys_has_no_shares():
    limit = SessionLimit(3, key_limit=1)
    with limit.acquire(None), limit.acquire(None), limit.acquire(None):
        pass
