"""Deltas as events, made quickly or slowly; and kept, joined."""

from dataclasses import replace

import orjson
import pytest

from llm_backend.backends.base import ChatDelta, ToolCall
from llm_backend.controllers.rendering import chunks
from llm_backend.controllers.rendering.chat_events import ChatEvents, ChatTranscript
from llm_backend.controllers.rendering.chat_fold import fold
from llm_backend.engine.messages import TokenLogprob
from llm_backend.sse import Decoder, SimilarEvent

HEAD = chunks.ChunkHead(
    id="chatcmpl-1",
    kind="chat.completion.chunk",
    created_at=1,
    model='odd "content":"-" name',
    includes_usage=True,
)
CALL = ToolCall(index=0, id="call_1", name="look", arguments="{}")
LOGPROB = TokenLogprob(token=1, bytes=b"a", logprob=-0.5)


@pytest.mark.parametrize("text", ["plain", 'a "quoted" \\ text', "line\nbreak", "\u2028é😀", "\0"])
@pytest.mark.parametrize("choice", [0, 3])
def test_an_event_of_the_fast_path_equals_the_chunk(text, choice):
    events, delta = ChatEvents(HEAD, ChatTranscript()), ChatDelta(choice=choice, content=text)

    made = [events.encode_delta(delta) for _ in range(3)]

    chunk = chunks.chat_chunk(HEAD, delta)
    assert [orjson.loads(event.data) for data in made for event in Decoder().feed(data)] == [
        chunk,
        chunk,
        chunk,
    ]


def test_only_events_like_an_earlier_one_of_their_choice_are_marked_so():
    events = ChatEvents(HEAD, ChatTranscript())
    deltas = [
        ChatDelta(choice=0, content="a"),
        ChatDelta(choice=0, content="b"),
        ChatDelta(choice=1, content="c"),
        ChatDelta(choice=0, content="d", logprobs=[LOGPROB]),
        ChatDelta(choice=0, tool_calls=[CALL]),
        ChatDelta(choice=0, finish_reason="stop"),
        ChatDelta(choice=0),
    ]

    marked = [isinstance(events.encode_delta(delta), SimilarEvent) for delta in deltas]

    assert marked == [False, True, False, False, False, False, False]


def test_a_transcript_folds_to_what_its_deltas_fold_to():
    more = ToolCall(index=0, arguments="{}")
    deltas = [
        ChatDelta(choice=0, reasoning="h"),
        ChatDelta(choice=0, reasoning="m", content="a"),
        ChatDelta(choice=1, content="x"),
        ChatDelta(choice=0, content="b"),
        ChatDelta(choice=0, content="c", logprobs=[LOGPROB]),
        ChatDelta(choice=0, content="d"),
        ChatDelta(choice=0, tool_calls=[replace(CALL, arguments="")]),
        ChatDelta(choice=0, tool_calls=[more]),
        ChatDelta(choice=1, content="y", logprobs=[]),
        ChatDelta(choice=0, finish_reason="tool_calls"),
    ]
    transcript = ChatTranscript()
    for delta in deltas:
        transcript.add(delta)

    kept = transcript.deltas()

    whole, joined = (
        [chunks.chat_chunk(HEAD, delta) for delta in several] for several in (deltas, kept)
    )
    message = fold(whole)["choices"][0]["message"]
    assert fold(joined) == fold(whole)
    assert (message["reasoning_content"], message["content"]) == ("hm", "abcd")
    assert message["tool_calls"][0]["function"] == {"name": "look", "arguments": "{}"}
    assert len(kept) < len(deltas)


def test_a_transcript_may_be_read_before_its_end():
    transcript = ChatTranscript()
    transcript.add(ChatDelta(choice=0, content="a"))
    first = [delta.content for delta in transcript.deltas()]
    transcript.add(ChatDelta(choice=0, content="b"))

    assert (first, "".join(delta.content for delta in transcript.deltas())) == (["a"], "ab")
