"""Meter of a request: models of a route, tokens of answers, embeddings and estimates."""

from typing import Any

import pytest

from llm_backend.access import Ledger, Principal, RequestMeter
from llm_backend.backends.base import Usage
from llm_backend.errors import RateLimited
from llm_backend.store.administration import UsageKey

CALLER = Principal(project_id="p", key_id="k", user_id=None)


@pytest.fixture
def ledger() -> Ledger:
    stored: Any = None  # nothing is written
    return Ledger(stored, clock=lambda: 120.0)


def amounts(ledger: Ledger) -> dict[tuple[str, str, str], tuple[int, int, int]]:
    """Returns requests, input and output tokens by kind, model and detail."""

    def name(key: UsageKey) -> tuple[str, str, str]:
        return key.kind, key.model, key.detail

    return {name(key): (one[0], one[1], one[3]) for key, one in ledger._amounts.items()}


async def test_steps_of_a_route_reserve_from_their_own_limits(ledger: Ledger) -> None:
    reserved: list[str] = []

    async def reserve_target(model: str) -> None:
        if model == "full":
            raise RateLimited("The limit is reached.")
        reserved.append(model)

    meter = RequestMeter(
        ledger,
        CALLER,
        kind="completions",
        model="route",
        is_route=True,
        reserve_target=reserve_target,
    )
    await meter.switch_model("a")
    await meter.switch_model("a")
    with pytest.raises(RateLimited):
        await meter.switch_model("full")
    meter.count_answer(Usage(prompt_tokens=3, completion_tokens=2))

    assert reserved == ["a"]
    assert amounts(ledger) == {("completions", "a", ""): (0, 3, 2)}


async def test_a_model_that_is_no_route_reserves_no_step(ledger: Ledger) -> None:
    async def reserve_target(model: str) -> None:
        raise AssertionError(model)

    meter = RequestMeter(
        ledger, CALLER, kind="completions", model="a", reserve_target=reserve_target
    )
    await meter.switch_model("a")

    assert meter.model == "a"


def test_embeddings_of_a_request_are_no_tokens_of_its_model(ledger: Ledger) -> None:
    meter = RequestMeter(ledger, CALLER, kind="completions", model="a")
    meter.count_embedding("embedder", 7)

    assert meter.tokens is None
    assert amounts(ledger) == {("embeddings", "embedder", ""): (0, 7, 0)}


def test_estimates_are_counted_apart_and_rounded_up(ledger: Ledger) -> None:
    meter = RequestMeter(ledger, CALLER, kind="completions", model="a")

    assert meter.count_estimate(input_bytes=5, output_bytes=8) == (2, 2)
    meter.count_request()
    assert amounts(ledger) == {
        ("completions", "a", "estimated"): (0, 2, 2),
        ("completions", "a", ""): (1, 0, 0),
    }


def test_work_has_begun_once_it_is_sent_or_has_tokens(ledger: Ledger) -> None:
    meter = RequestMeter(ledger, CALLER, kind="completions", model="a")
    assert not meter.is_begun
    meter.mark_abandoned()

    assert meter.is_begun
    assert meter.is_relayed
