"""The least busy upstream is asked, and weights hold with and without load."""

from collections import Counter
from dataclasses import dataclass

from llm_backend.backends.upstream.balance import Balance


@dataclass
class One:
    name: str
    weight: float = 1
    outstanding: int = 0


def test_the_least_busy_is_asked():
    balance, busy, idle = Balance(), One("a", outstanding=2), One("b", outstanding=1)

    assert [balance.choose([busy, idle]).name for _ in range(3)] == ["b", "b", "b"]


def test_turns_follow_the_weights_where_none_is_busy():
    balance, heavy, light = Balance(), One("a", weight=3), One("b", weight=1)
    chosen = Counter(balance.choose([heavy, light]).name for _ in range(400))

    assert chosen == {"a": 300, "b": 100}


def test_under_load_what_is_out_follows_the_weights():
    balance, heavy, light = Balance(), One("a", weight=2), One("b", weight=1)
    for _ in range(30):
        balance.choose([heavy, light]).outstanding += 1

    assert (heavy.outstanding, light.outstanding) == (20, 10)


def test_who_was_away_is_not_flooded():
    balance, here, back = Balance(), One("a"), One("b")
    for _ in range(100):
        balance.choose([here])
    chosen = [balance.choose([here, back]).name for _ in range(10)]

    assert Counter(chosen) == {"a": 5, "b": 5}
