"""Load balancing: the least busy upstream is chosen, by weight."""

from collections import Counter
from dataclasses import dataclass

from llm_backend.backends.upstream.balance import Balance


@dataclass
class One:
    name: str
    weight: float = 1
    outstanding: int = 0


def test_least_busy_upstream_is_chosen():
    balance, busy, idle = Balance(), One("a", outstanding=2), One("b", outstanding=1)

    assert [balance.choose([busy, idle]).name for _ in range(3)] == ["b", "b", "b"]


def test_idle_upstreams_take_turns_by_weight():
    balance, heavy, light = Balance(), One("a", weight=3), One("b", weight=1)
    chosen = Counter(balance.choose([heavy, light]).name for _ in range(400))

    assert chosen == {"a": 300, "b": 100}


def test_outstanding_requests_follow_the_weights_under_load():
    balance, heavy, light = Balance(), One("a", weight=2), One("b", weight=1)
    for _ in range(30):
        balance.choose([heavy, light]).outstanding += 1

    assert (heavy.outstanding, light.outstanding) == (20, 10)


def test_returning_upstream_gets_no_burst():
    balance, here, back = Balance(), One("a"), One("b")
    for _ in range(100):
        balance.choose([here])
    chosen = [balance.choose([here, back]).name for _ in range(10)]

    assert Counter(chosen) == {"a": 5, "b": 5}
