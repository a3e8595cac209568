"""Whatever a bridged upstream sends: a client gets an answer that keeps the document, or an error
that says that the upstream has failed, and never one that says that the server has.
"""

import asyncio
import copy
import json
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.controllers.relay.bridge.test_bridge import FUNCTION, ITEM, chunk, events
from tests.examples import examples
from tests.gateway import backend, gateway
from tests.upstream import FakeUpstream, Message, Relay, post

USER = {"role": "user", "content": "Hi"}
QUESTIONS = {
    "chat": (
        "/v1/responses",
        {
            "model": "far",
            "input": "Hi",
            "tools": [{"type": "function", **FUNCTION, "strict": False}],
        },
    ),
    "responses": (
        "/v1/chat/completions",
        {"model": "far", "messages": [USER], "tools": [{"type": "function", "function": FUNCTION}]},
    ),
}
CALL = {
    "index": 0,
    "id": "c1",
    "type": "function",
    "function": {"name": "weather", "arguments": "{"},
}
ARGUED = {"index": 0, "function": {"arguments": "}"}}
USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 1}}
TOLD = {"input_tokens": 1, "output_tokens": 1, "output_tokens_details": {"reasoning_tokens": 1}}
PLAIN = {
    "chat": [
        chunk({"role": "assistant", "reasoning_content": "Hm."}),
        chunk({"content": "Hello"}),
        chunk({"tool_calls": [CALL]}),
        chunk({"tool_calls": [ARGUED]}),
        chunk({}, "stop"),
        {**chunk({}), "choices": [], "usage": USAGE},
        {"error": {"message": "no", "code": "rate_limit_exceeded"}},
    ],
    "responses": [
        {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message"}},
        {"type": "response.output_text.delta", "delta": "Hello"},
        {"type": "response.output_item.added", "output_index": 1, "item": ITEM},
        {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": "{}"},
        {"type": "response.function_call_arguments.done", "output_index": 1, "arguments": "{}"},
        {"type": "response.incomplete", "response": {"incomplete_details": {"reason": "x"}}},
        {"type": "response.completed", "response": {"status": "completed", "usage": TOLD}},
        {"type": "response.failed", "response": {"error": {"message": "no", "code": "x"}}},
    ],
}
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2**70)
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "x", "c1", "stop", "length", "error", "\0", "weather"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab", max_size=2), inner),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of the values inside a JSON value."""
    inside: Any = value.items() if isinstance(value, dict) else ()
    inside = enumerate(value) if isinstance(value, list) else inside
    return [path, *(place for key, one in inside for place in places(one, (*path, key)))]


@st.composite
def spoilt(draw: st.DrawFn, plain: dict[str, Any]) -> Any:
    """An event with anything in one of its places."""
    place = draw(st.sampled_from(places(plain)))
    if not place:
        return draw(anything)
    event = copy.deepcopy(plain)
    within: Any = event
    for key in place[:-1]:
        within = within[key]
    within[place[-1]] = draw(anything)
    return event


def scripts(wire: str) -> st.SearchStrategy[list[Any]]:
    """Events in any order, some of them spoilt."""
    plain = st.sampled_from(PLAIN[wire])
    return st.lists(plain | plain.flatmap(spoilt), max_size=6)


def check(got: Message, *, is_streamed: bool) -> None:
    assert got.is_whole
    assert got.status in (200, 429, 502), got.body
    assert b"internal_error" not in got.body
    if got.status != 200 or not is_streamed:
        json.loads(got.body)
        return
    for line in got.body.split(b"\n"):
        if line.startswith(b"data: {"):
            json.loads(line.removeprefix(b"data: "))


@pytest.mark.hypothesis
@pytest.mark.parametrize("wire", ["chat", "responses"])
def test_random_events_are_answers_or_the_upstreams_failure(tmp_path, wire: str):
    path, question = QUESTIONS[wire]
    with asyncio.Runner() as runner:
        stack, fake = AsyncExitStack(), FakeUpstream()

        @settings(max_examples=examples(150), suppress_health_check=list(HealthCheck))
        @given(scripts(wire), st.booleans())
        def holds(script: list[Any], is_streamed: bool) -> None:
            fake.answer = events(*script) + b"data: [DONE]\n\n"
            body = json.dumps({**question, "stream": is_streamed}).encode()
            check(runner.run(relay.ask(post(body, path=path))), is_streamed=is_streamed)

        async def opened() -> Relay:
            await stack.enter_async_context(fake)
            return await stack.enter_async_context(
                gateway(
                    tmp_path, backends=[backend(fake, "a", wire=wire)], store_chats="always",
                    log_level="error", response_validation="enforce",
                )
            )  # fmt: skip

        relay = runner.run(opened())
        try:
            holds()
        finally:
            runner.run(stack.aclose())
