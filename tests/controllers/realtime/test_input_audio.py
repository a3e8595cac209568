"""Audio that a client sends: what is refused names what was sent."""

import base64

import pytest

from llm_backend.controllers.realtime.audio_formats import PCM
from llm_backend.controllers.realtime.input_audio import decode_turn
from llm_backend.errors import InvalidRequest, TooLarge


@pytest.mark.parametrize(
    ("duration_ms", "kind", "message"),
    [
        (1001, TooLarge, "The audio lasts 1001 ms; an item may hold at most 1 s."),
        (99, InvalidRequest, "The audio lasts 99 ms; a turn must have at least 100."),
    ],
)
def test_audio_of_an_item_is_refused_without_a_word_of_the_buffer(duration_ms, kind, message):
    encoded = base64.b64encode(bytes(48 * duration_ms)).decode()

    with pytest.raises(kind) as caught:
        decode_turn(encoded, PCM, limit_s=1, where="item.content[0].audio")

    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.param) == (message, "item.content[0].audio")
    assert "buffer" not in (caught.value.code or "")
