"""Noise of human questions: politeness, capitals, marks, fillers and typing errors."""

import random
import re
import string
from collections.abc import Sequence

from models.builtin.words import COMMON, random_word

_SENTENCE_START = re.compile(r"(?<=[.?!] )[a-z]")
_FILLERS = ("actually", "just", "really", "maybe", "again", "even", "simply", "exactly", "then")


def polite(
    question: str, prefixes: Sequence[str], suffixes: Sequence[str], rng: random.Random
) -> str:
    """The question with words before or behind it, one time in three."""
    question = add_prefix(question, prefixes, rng)
    if rng.random() < 0.12:
        question = question + rng.choice((", ", " ")) + rng.choice(suffixes)
    return question


def add_prefix(question: str, prefixes: Sequence[str], rng: random.Random) -> str:
    """The question with words before it, one time in four."""
    if rng.random() >= 0.24:
        return question
    return rng.choice(prefixes) + rng.choice((", ", ", ", " ", "! ", ": ", ". ")) + question


def add_typing_errors(question: str, rng: random.Random) -> str:
    """The question, one time in two with words or a letter lost, slipped in, moved or wrong.

    So the words that matter are recognised among words never seen and in any order.
    """
    words = question.split()
    if len(words) >= 5 and rng.random() < 0.08:
        words = [word for word in words if rng.random() < 0.8] or words
    if len(words) >= 3 and rng.random() < 0.08:
        words.insert(rng.randrange(1, len(words)), rng.choice(_FILLERS))
    words = insert_words(" ".join(words), rng).split()
    if rng.random() < 0.08:
        position = rng.randrange(len(words))
        words[position] = _typo(words[position], rng)
    if len(words) >= 5 and rng.random() < 0.08:
        words[rng.randrange(len(words))] = _any_word(rng)
    if rng.random() < 0.08:
        rng.shuffle(words)
    return " ".join(words)


def insert_words(question: str, rng: random.Random) -> str:
    """The question, one time in seven with up to four words that do not matter."""
    words = question.split()
    if rng.random() < 0.15:
        for _ in range(rng.randint(1, 4)):
            words.insert(rng.randint(0, len(words)), _any_word(rng))
    return " ".join(words)


def vary_style(question: str, rng: random.Random) -> str:
    """The question with or without a capital and an end mark."""
    style = rng.random()
    if style < 0.55:
        question = question[0].upper() + question[1:]
        question = question.replace(" i ", " I ")
        if rng.random() < 0.8:
            question = _SENTENCE_START.sub(lambda start: start[0].upper(), question)
    elif style < 0.57:
        question = question.upper()
    return question + rng.choices(("?", "", ".", "!", " ?"), (50, 38, 8, 3, 1))[0]


def _any_word(rng: random.Random) -> str:
    return rng.choice(COMMON) if rng.random() < 0.7 else random_word(rng)


def _typo(word: str, rng: random.Random) -> str:
    if len(word) < 4:
        return word
    at = rng.randrange(1, len(word) - 1)
    return rng.choice(
        (
            word[:at] + word[at + 1 :],
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[:at] + word[at] + word[at:],
            word[:at] + rng.choice(string.ascii_lowercase) + word[at + 1 :],
        )
    )
