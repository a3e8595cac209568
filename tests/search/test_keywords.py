"""Words of texts in many scripts, as the search of vector stores and that of chats find them."""

import pytest

from llm_backend.search.keywords import _words
from llm_backend.store.chats.words import sought_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("தமிழ் நாடு", ["தமிழ்", "நாடு"]),
        ("Kunden\u00addaten\u00adbank", ["kundendatenbank"]),
        ("Çà Ünïté", ["ca", "unite"]),
        ("שָׁלוֹם", ["שלום"]),
        ("snake_case x-1 \u2764\ufe0f", ["snake", "case", "x", "1"]),
    ],
)
def test_words_keep_their_vowel_signs_and_lose_accents(text, words):
    assert list(_words(text)) == words
    assert sought_words(text) == words


def test_syllables_of_unspaced_scripts_are_paired_with_their_signs():
    assert list(_words("ที่ดี")) == ["ที", "ี่", "่ด", "ดี"]
    assert list(_words("ガギグ")) == ["ガギ", "ギグ"]
    assert sought_words("ガギグ") == ["ガギ", "ギグ"]
