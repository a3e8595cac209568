"""Permits of realtime sessions: for all keys together, and for one."""

from contextlib import ExitStack

import pytest

from llm_backend.controllers.services.realtime_permits import SessionPermits
from llm_backend.errors import LimitReached, Overloaded


def test_one_key_takes_its_share_of_the_sessions_and_no_more():
    permits = SessionPermits(3, key_limit=2)
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(permits.acquire("key_a"))
        with pytest.raises(LimitReached), permits.acquire("key_a"):
            pass
        stack.enter_context(permits.acquire("key_b"))
        with pytest.raises(Overloaded), permits.acquire("key_c"):
            pass

    with permits.acquire("key_a"), permits.acquire("key_a"):
        pass


def test_a_server_without_keys_has_no_shares():
    permits = SessionPermits(3, key_limit=1)
    with permits.acquire(None), permits.acquire(None), permits.acquire(None):
        pass
