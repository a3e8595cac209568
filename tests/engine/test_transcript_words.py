"""Words of a transcript, of tokens that cut characters and words."""

from llm_backend.engine.transcript_words import TimedToken, timed_words


def words(language: str, *pieces: bytes) -> list[tuple[str, float, float]]:
    tokens = [
        TimedToken(bytes=piece, start_s=float(at), end_s=at + 1.0)
        for at, piece in enumerate(pieces)
    ]
    return [(one.text, one.start_s, one.end_s) for one in timed_words(tokens, language)]


def test_a_word_begins_with_a_space_and_keeps_its_punctuation():
    assert words("en", b" Good", b" morn", b"ing", b"!", b" Yes") == [
        ("Good", 0, 1),
        ("morning!", 1, 4),
        ("Yes", 4, 5),
    ]


def test_a_character_may_be_cut_between_tokens():
    first, second = " ü".encode()[:2], " ü".encode()[2:]

    assert words("de", first, second, b"ber") == [("über", 0, 3)]


def test_languages_without_spaces_have_a_word_for_each_token():
    assert [one for one, _, _ in words("ja", "今日".encode(), "は".encode())] == ["今日", "は"]


def test_half_a_character_at_the_end_is_replaced():
    assert words("de", b" a", b"\xc3") == [("a\ufffd", 0, 2)]


def test_bytes_that_are_no_character_are_replaced_and_keep_nothing_back():
    assert words("en", b"one", b"\xff", b" two", b" three") == [
        ("one\ufffd", 0, 2),
        ("two", 2, 3),
        ("three", 3, 4),
    ]


def test_a_character_that_is_never_completed_ends_before_the_next_word():
    assert words("en", b"a", b"\xff\xc3", b" two") == [("a\ufffd\ufffd", 0, 2), ("two", 2, 3)]
