"""Random characters beside the pieces of a stream, so that sizes tell nothing."""

import orjson
import pytest

from llm_backend.backends.base import ChatDelta, ToolCall
from llm_backend.controllers.rendering import chunks
from llm_backend.controllers.rendering.chat_events import ChatEvents, ChatTranscript
from llm_backend.controllers.rendering.obfuscation import BLOCK, Obfuscation, obfuscation_for
from llm_backend.sse import Decoder, SimilarEvent

HEAD = chunks.ChunkHead(id="chatcmpl-1", kind="chat.completion.chunk", created_at=1, model="m")
TEXTS = ["a", " the", "fifteen letters", 'a "quoted" \\', "é", "\n", "😀", "\u2028"]


def data_of(event):
    (decoded,) = Decoder().feed(event)
    return orjson.loads(decoded.data)


@pytest.mark.parametrize(
    ("options", "usual", "is_there"),
    [
        (None, True, True),
        (None, False, False),
        ({"include_usage": True}, True, True),
        ({"include_obfuscation": False}, True, False),
        ({"include_obfuscation": True}, False, True),
    ],
)
def test_a_request_decides_and_else_the_setting(options, usual, is_there):
    assert (obfuscation_for(options, default=usual) is not None) == is_there


def test_events_of_short_pieces_are_all_of_one_size():
    events = ChatEvents(HEAD, ChatTranscript(), Obfuscation())
    made = [events.encode_delta(ChatDelta(choice=0, content=text)) for text in TEXTS]

    assert len({len(event) for event in made}) == 1


def test_obfuscation_adds_only_its_own_field():
    events = ChatEvents(HEAD, ChatTranscript(), Obfuscation())
    deltas = [ChatDelta(choice=0, content=text) for text in TEXTS]

    told = [data_of(events.encode_delta(delta)) for delta in deltas]

    assert all(0 < len(chunk.pop("obfuscation")) <= BLOCK for chunk in told)
    assert told == [chunks.chat_chunk(HEAD, delta) for delta in deltas]


def test_events_that_differ_in_their_texts_alone_are_still_marked_so():
    events = ChatEvents(HEAD, ChatTranscript(), Obfuscation())
    made = [events.encode_delta(ChatDelta(choice=0, content=text)) for text in "ab"]

    assert [isinstance(event, SimilarEvent) for event in made] == [False, True]


@pytest.mark.parametrize(
    "deltas",
    [
        [ChatDelta(choice=0, reasoning=text) for text in TEXTS],
        [
            ChatDelta(choice=0, tool_calls=[ToolCall(index=0, arguments=text)])
            for text in TEXTS
        ],
    ],
)  # fmt: skip
def test_reasoning_and_calls_are_hidden_alike(deltas):
    events = ChatEvents(HEAD, ChatTranscript(), Obfuscation())

    assert len({len(events.encode_delta(delta)) for delta in deltas}) == 1


def test_events_without_a_delta_are_not_padded():
    obfuscation = Obfuscation()
    said = {"type": "response.output_text.delta", "delta": "so"}
    done = {"type": "response.output_text.done", "text": "so"}

    assert len(obfuscation.with_event(said)["obfuscation"]) == BLOCK - len("so")
    assert obfuscation.with_event(done) is done


def test_no_two_pieces_have_the_same_beside_them():
    obfuscation = Obfuscation()
    beside = [obfuscation.padding(0) for _ in range(1000)]

    assert len(set(beside)) == 1000
