"""Answers of language models that hear."""

import pytest

from llm_backend.backends.transcription.window_answer import WindowAnswer, join_windows
from llm_backend.engine.messages import TokenLogprob


def read(pieces: list[str], *, may_have_header: bool = True) -> tuple[str, list[str], str]:
    """The text, its tokens and the language of an answer that arrives in these pieces."""
    answer = WindowAnswer(may_have_header=may_have_header)
    told = [
        answer.feed(one, [TokenLogprob(token=1, bytes=one.encode(), logprob=-1)]) for one in pieces
    ]
    told.append(answer.finish())
    tokens = [one.bytes.decode() for _, logprobs in told for one in logprobs]
    return "".join(text for text, _ in told), tokens, answer.language


@pytest.mark.parametrize(
    ("pieces", "text", "tokens", "language"),
    [
        (["language", " German", "<asr_text>", "Guten", " Tag"], "Guten Tag", ["Guten", " Tag"],
         "German"),
        (["language Chinese,English<asr_text>", "Hi"], "Hi", ["Hi"], "Chinese,English"),
        (["language German", "<asr_text>Gu", "ten"], "Guten", ["Gu", "ten"], "German"),
        (["language None<asr_text>"], "", [], "None"),
        (["\n", "language German", "<asr_text>", "Hi"], "Hi", ["Hi"], "German"),
        (["language", " is a system"], "language is a system", ["language", " is a system"], ""),
        (["Lang", "uage"], "Language", ["Lang", "uage"], ""),
        (["lan"], "lan", ["lan"], ""),
        ([], "", [], ""),
    ],
)  # fmt: skip
def test_the_header_of_an_answer_is_its_language(pieces, text, tokens, language):
    assert read(pieces) == (text, tokens, language)


def test_tokens_without_text_come_with_the_next_text():
    answer = WindowAnswer(may_have_header=False)
    held, shown = (TokenLogprob(token=1, bytes=one, logprob=-1) for one in (b" <", b" b"))

    assert answer.feed("", [held]) == ("", ())
    assert answer.feed(" < b", [shown]) == (" < b", [held, shown])
    assert answer.finish() == ("", [])


def test_a_long_beginning_is_no_header():
    answer = WindowAnswer(may_have_header=True)
    sentence = "language " * 30

    assert answer.feed(sentence, ())[0] == sentence


def test_an_answer_without_a_header_is_not_held_back():
    answer = WindowAnswer(may_have_header=False)

    assert answer.feed("language ", ())[0] == "language "


@pytest.mark.parametrize(
    ("before", "text", "joined"),
    [("", " One", "One"), ("One.", "Two", " Two"), ("One. ", "Two", "Two"), ("一。", "二", "二")],
)
def test_windows_are_joined_by_a_space_where_the_script_has_one(before, text, joined):
    assert join_windows(before, text) == joined
