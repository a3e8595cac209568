"""Folding: a completion cut into chunks comes back whole, and nothing that arrives can break it."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_backend.controllers.relay.chat_observer import ChatObserver
from llm_backend.controllers.rendering.chat_fold import fold
from llm_backend.json_types import JsonObject
from llm_backend.sse import DONE, encode
from tests.examples import examples

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
tokens = st.lists(
    st.fixed_dictionaries(
        {
            "token": texts,
            "logprob": st.floats(-9, 0),
            "bytes": st.none(),
            "top_logprobs": st.just([]),
        }
    ),
    max_size=4,
)
functions = st.fixed_dictionaries({"name": texts, "arguments": texts})
calls = st.fixed_dictionaries(
    {"id": texts, "type": st.just("function"), "function": functions}
) | st.fixed_dictionaries(
    {
        "id": texts,
        "type": st.just("custom"),
        "custom": st.fixed_dictionaries({"name": texts, "input": texts}),
    }
)
messages = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.none() | texts, "refusal": st.none() | texts},
    optional={
        "reasoning_content": texts,
        "tool_calls": st.lists(calls, min_size=1, max_size=3),
        "function_call": functions,
        "annotations": st.lists(st.just({"type": "url_citation"}), min_size=1, max_size=2),
        "audio": st.fixed_dictionaries(
            {"id": texts, "data": texts, "expires_at": st.integers(0, 2**40)}
        ),
        "unknown": texts,
    },
)
logprobs = st.none() | st.fixed_dictionaries({"content": tokens, "refusal": st.none()})
choices = st.fixed_dictionaries(
    {
        "message": messages,
        "logprobs": logprobs,
        "finish_reason": st.sampled_from(["stop", "length", "tool_calls", "content_filter"]),
    },
    optional={"stop_reason": texts},
)
completions = st.fixed_dictionaries(
    {
        "id": texts,
        "object": st.just("chat.completion"),
        "created": st.integers(0, 2**40),
        "model": texts,
        "choices": st.lists(choices, min_size=1, max_size=3).map(
            lambda drawn: [{"index": index, **choice} for index, choice in enumerate(drawn)]
        ),
    },
    optional={
        "usage": st.fixed_dictionaries({"total_tokens": st.integers(0, 99)}),
        "system_fingerprint": texts,
        "service_tier": st.just("default"),
        "unknown": texts,
    },
)


def pieces_of(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def fragments(value: JsonObject, size: int, whole: tuple[str, ...]) -> list[JsonObject]:
    """An object as objects to be joined: first its whole fields, then its texts in pieces."""
    cut = {
        name: text for name, text in value.items() if isinstance(text, str) and name not in whole
    }
    first = {name: other for name, other in value.items() if name not in cut}
    return [first, *({name: piece} for name in cut for piece in pieces_of(cut[name], size))]


def deltas_of(message: JsonObject, size: int) -> list[JsonObject]:
    plain = {k: v for k, v in message.items() if k not in ("tool_calls", "function_call", "audio")}
    deltas = fragments(plain, size, ("role",))
    for name in ("function_call", "audio"):
        if name in message:
            deltas += [{name: part} for part in fragments(message[name], size, ("id", "name"))]
    for index, call in enumerate(message.get("tool_calls", [])):
        kind = call["type"]
        head, *rest = fragments(call[kind], size, ("name",))
        opening = {"index": index, **call, kind: head}
        deltas.append({"tool_calls": [opening]})
        deltas += [{"tool_calls": [{"index": index, kind: part}]} for part in rest]
    return deltas


def chunks_of(completion: JsonObject, size: int) -> list[JsonObject]:
    """A completion as a server would stream it, its texts in pieces of this size."""
    top = {k: v for k, v in completion.items() if k not in ("choices", "usage")}
    top["object"] = "chat.completion.chunk"

    def chunk(choice: JsonObject, **fields: Any) -> JsonObject:
        spread = {"index": choice["index"], "finish_reason": None, "logprobs": None, **fields}
        return {**top, "obfuscation": "xyz", "usage": None, "choices": [spread]}

    lanes = []
    for choice in completion["choices"]:
        deltas = deltas_of(choice["message"], size)
        lane = [chunk(choice, delta=delta) for delta in deltas]
        held = choice["logprobs"]
        for token in (held or {}).get("content", []):
            said = {"content": [token], "refusal": None}
            lane.append(chunk(choice, delta={}, logprobs=said))
        if held and not held["content"]:
            lane.append(chunk(choice, delta={}, logprobs=held))
        last = {k: v for k, v in choice.items() if k not in ("message", "logprobs", "index")}
        lanes.append([*lane, chunk(choice, delta={}, **last)])
    longest = max(map(len, lanes))
    mixed = [lane[at] for at in range(longest) for lane in lanes if at < len(lane)]
    if "usage" in completion:
        mixed.append({**top, "choices": [], "usage": completion["usage"]})
    return mixed


def chunk_of(delta: JsonObject, **more: Any) -> JsonObject:
    return {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": None}], **more}


def event(value: object) -> bytes:
    return encode(orjson.dumps(value))


@settings(max_examples=examples(60))
@given(completions, st.integers(1, 7))
def test_a_completion_cut_into_chunks_comes_back(completion: JsonObject, size: int):
    chunks = chunks_of(completion, size)
    before = json.dumps(chunks)

    folded = fold(chunks)

    expected = {"usage": None, **completion}
    assert folded == expected
    assert json.dumps(chunks) == before


def test_the_first_empty_text_of_a_tool_call_is_null():
    call = {"index": 0, "id": "t", "function": {"name": "f", "arguments": ""}}
    folded = fold(
        [chunk_of({"role": "assistant", "content": ""}), chunk_of({"tool_calls": [call]})]
    )

    message = folded["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"] == [
        {"id": "t", "type": "function", "function": {"name": "f", "arguments": ""}}
    ]


def test_tool_calls_without_an_index_are_matched_by_id():
    first, more, second = (
        {"id": "a", "function": {"name": "f", "arguments": "{"}},
        {"function": {"arguments": "}"}},
        {"id": "b", "function": {"name": "g", "arguments": "{}"}},
    )
    folded = fold(chunk_of({"tool_calls": [call]}) for call in (first, more, second))

    made = folded["choices"][0]["message"]["tool_calls"]
    assert [(call["id"], call["function"]["arguments"]) for call in made] == [
        ("a", "{}"),
        ("b", "{}"),
    ]


def test_an_interrupted_choice_has_no_finish_reason():
    folded = fold([chunk_of({"content": "Hal"})])

    assert folded["choices"][0]["finish_reason"] is None
    assert folded["choices"][0]["message"]["content"] == "Hal"


names = st.sampled_from(
    ["index", "delta", "tool_calls", "function_call", "function", "content", "logprobs", "choices"]
) | st.sampled_from(["id", "name", "finish_reason", "role", "audio"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=examples(60))
@given(st.lists(st.dictionaries(names, JSON, max_size=5)), st.lists(JSON, max_size=3))
def test_no_json_breaks_a_fold_or_an_observer(chunks: list[JsonObject], choices: list[Any]):
    observer = ChatObserver()

    for chunk in [
        *chunks,
        {"choices": choices},
        {"choices": [{"delta": choice} for choice in choices]},
    ]:
        fold([chunk])
        observer.feed(encode(json.dumps(chunk).encode()))
    assert not observer.is_overlong
    observer.completion()


INVALID_INDEXES = ([], {}, True, 1.0, "1", None)


@pytest.mark.parametrize("index", INVALID_INDEXES)
def test_choice_with_an_invalid_index_is_ignored(index: object):
    chunks = [
        {"choices": [{"index": 1, "delta": {"role": "assistant"}}]},
        {"choices": [{"index": index, "delta": {"content": "x"}}]},
        {"choices": [{"index": index, "delta": {"content": "y"}}]},
    ]

    (choice,) = fold(chunks)["choices"]

    assert choice["message"]["content"] is None


def test_deep_nesting_breaks_nothing():
    deep = b'{"choices":[{"index":0,"delta":' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}]}"
    observer = ChatObserver()
    observer.feed(encode(deep) * 2)

    assert observer.completion() is None  # it could not be written down again


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_no_bytes_break_an_observer(body: bytes, cuts: list[int]):
    observer = ChatObserver(limit_bytes=200)

    for piece in cut_at(body, cuts):
        observer.feed(piece)
    assert observer.completion() is None
    assert not observer.is_complete


def cut_at(body: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted(min(cut, len(body)) for cut in cuts)
    return [body[start:end] for start, end in zip([0, *at], [*at, len(body)], strict=True)]


@settings(max_examples=examples(60))
@given(completions, st.booleans(), st.lists(st.integers(0, 5000), max_size=6))
def test_an_observer_gets_a_completion_however_it_is_sent(
    completion: JsonObject, streamed: bool, cuts: list[int]
):
    stream = b"".join(event(chunk) for chunk in chunks_of(completion, 3)) + DONE
    body = stream if streamed else orjson.dumps(completion)
    observer = ChatObserver()

    for piece in cut_at(body, cuts):
        observer.feed(piece)
    assert observer.is_complete
    assert observer.completion() == ({"usage": None, **completion} if streamed else completion)


FINISHED = event({"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
SAID = event(chunk_of({"content": "a"}))


@pytest.mark.parametrize(
    ("stream", "is_complete"),
    [
        (SAID + FINISHED, True),
        (SAID + FINISHED + DONE, True),
        (SAID, False),
        (SAID + event({"error": {"message": "no"}}) + DONE, False),
        (SAID + b"data: not json\n\n" + FINISHED + DONE, False),
        (b": ping\n\n" + SAID + FINISHED, True),
        (b"\xef\xbb\xbf" + SAID + FINISHED, True),
    ],
)
def test_an_observer_recognizes_a_complete_answer(stream: bytes, is_complete: bool):
    observer = ChatObserver()
    observer.feed(stream)

    assert observer.is_complete is is_complete
    completion = observer.completion()
    assert completion is not None
    assert completion["choices"][0]["message"]["content"] == "a"


@pytest.mark.parametrize("body", [b'{"id": "c", "choices": [', b'{"error": {}}', b"", b"[1]", DONE])
def test_an_observer_of_no_completion_has_none(body: bytes):
    observer = ChatObserver()
    observer.feed(body)

    assert observer.completion() is None
    assert not observer.is_complete


def test_an_observer_assigns_text_to_choices_wherever_events_are_cut():
    first, second = (
        event({"id": "c", "choices": [{"index": index, "delta": {"content": "ab"[index]}}]})
        for index in (0, 1)
    )
    observer = ChatObserver()

    for piece in (first, second[:-1], second[-1:], first, first):
        observer.feed(piece)

    completion = observer.completion()
    assert completion is not None
    assert [one["message"]["content"] for one in completion["choices"]] == ["aaa", "b"]


def test_an_observer_of_an_overlong_answer_stops_and_reports_it():
    observer = ChatObserver(limit_bytes=3 * len(SAID))
    for _ in range(100):
        observer.feed(SAID)

    assert observer.is_overlong
    assert not observer.is_complete
    completion = observer.completion()
    assert completion is not None
    assert completion["choices"][0]["message"]["content"] == "aaa"
