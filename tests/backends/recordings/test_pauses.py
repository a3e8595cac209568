"""Windows that end in pauses."""

import pytest

from llm_backend.backends.recordings.pauses import bytes_until_pause, bytes_until_quietest

SECOND = 32_000
SPEECH, SILENCE = b"\1" * SECOND, bytes(SECOND)


@pytest.mark.parametrize(
    ("window", "is_last", "expected"),
    [
        (SPEECH * 3, False, None),
        (SPEECH * 3, True, None),
        (SILENCE + SPEECH, False, 1.0),
        (SILENCE * 2, True, 2.0),
        (SPEECH + SILENCE * 3 + SPEECH + SILENCE + SPEECH, False, 1.0),
        (SPEECH + SILENCE + SPEECH + SILENCE + SPEECH, False, 3.0),
        (SPEECH + SILENCE + SPEECH + SILENCE + SPEECH, True, None),
        (SPEECH + SILENCE + SPEECH + SILENCE, True, 3.0),
        (SPEECH + bytes(640) + SPEECH, False, None),
    ],
)
def test_a_window_ends_in_the_first_long_pause_or_else_in_the_last(window, is_last, expected):
    size = bytes_until_pause(window, is_last=is_last)

    assert size == (None if expected is None else expected * SECOND)


def test_a_window_without_silence_is_cut_in_the_middle_of_its_last_quiet_moment():
    loud, quiet = b"\0\x20" * 16_000, b"\1\0" * 4_000
    whole = loud * 8 + quiet + loud + quiet + loud

    cut = bytes_until_quietest(whole)

    assert len(whole) - len(loud) - len(quiet) < cut < len(whole) - len(loud)
    assert bytes_until_quietest(quiet[:1000]) == 1000
