"""Texts are divided where a voice may pause."""

import pytest

from llm_backend.backends.speech.sentences import SentenceSplitter, split_beginning
from llm_backend.controllers.realtime.conversation import SpokenSentence, heard_text

TEXT = 'Yes. It costs 3.50 today. "Really?" she asked.\nThen: nothing 世界你好世界你好世界你好。End'


def test_the_sentences_of_a_text_do_not_depend_on_its_pieces():
    whole, by_one = SentenceSplitter(), SentenceSplitter()
    found = [*whole.feed(TEXT), *whole.finish()]
    pieces = [one for character in TEXT for one in by_one.feed(character)]
    pieces += by_one.finish()

    assert "".join(found) == "".join(pieces) == TEXT
    assert found[0] == "Yes. It costs 3.50 today. "
    assert found[-1] == "End"


def test_a_text_without_an_end_is_cut_at_a_blank():
    found = SentenceSplitter().feed("word " * 300)

    assert [len(one) for one in found] == [1000]


@pytest.mark.parametrize("blanks", [1, 2000])
def test_a_sentence_with_a_late_end_is_cut_at_a_blank(blanks):
    text = "word " * 790 + "end." + " " * blanks + "Another one."
    sentences = SentenceSplitter(300)
    found = [*sentences.feed(text), *sentences.finish()]

    assert "".join(found) == text
    assert max(map(len, found)) <= 300


WORDS = "word " * 6  # 30 characters


@pytest.mark.parametrize(
    ("sentence", "sizes"),
    [
        (WORDS * 2 + "more.", [65]),
        (WORDS * 5, [65, 85]),
        (WORDS + "word, " + WORDS * 4, [36, 120]),
        (WORDS + "word, " + "more, word " * 9, [53, 82]),
        ("One, " + WORDS * 5, [65, 90]),
        ("\u4e16\u754c\u3001" * 40, [60, 60]),
        ("x" * 200, [200]),
        (WORDS * 2 + "! " * 20, [100]),
    ],
)
def test_a_long_sentence_begins_with_a_part_that_ends_at_a_comma_or_a_blank(sentence, sizes):
    parts = split_beginning(sentence)

    assert "".join(parts) == sentence
    assert [len(one) for one in parts] == sizes


@pytest.mark.parametrize(
    ("end_ms", "heard"),
    [(0, ""), (999, ""), (1000, "One."), (2000, "One. Two three"), (3000, "One. Two three four.")],
)
def test_the_heard_text_ends_at_a_word(end_ms, heard):
    sentences = [
        SpokenSentence(text="One. ", duration_ms=1000),
        SpokenSentence(text="Two three four.", duration_ms=1500),
    ]

    assert heard_text(sentences, min(end_ms, 2500)) == heard


def test_sentences_without_audio_are_heard_only_before_others():
    sentences = [
        SpokenSentence(text="* * *\n"),
        SpokenSentence(text="One. ", duration_ms=1000),
        SpokenSentence(text="Two."),
    ]

    assert heard_text(sentences, 0) == ""
    assert heard_text(sentences, 1000) == "* * *\nOne."
