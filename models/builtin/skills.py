"""Skills that need variety, not facts: sums, repeating words, spelling, honest ignorance."""

import random
import string
from typing import NamedTuple

from models.builtin import sum_questions, sums, words
from models.builtin.facts import read_yaml

_FRAMES = read_yaml("skills")
UNKNOWN_ANSWER = (
    "I do not know. I am only a small built-in model; load a real model for such questions: "
    "llm-backend serve --model PATH."
)


class Turn(NamedTuple):
    """A question and its answer."""

    question: str
    answer: str


def arithmetic(rng: random.Random) -> Turn:
    """A sum or a difference of 0..100, or a product of 0..12, in signs, words or a story."""
    one = sums.known_sum(rng)
    return Turn(sum_questions.phrase(one, rng), one.equation)


def many_sums(rng: random.Random) -> Turn:
    """A list of sums, each solved: much practice in few words."""
    listed = [sums.known_sum(rng) for _ in range(rng.randint(4, 12))]
    return Turn(", ".join(map(str, listed)), ", ".join(one.equation for one in listed))


def large_numbers(rng: random.Random) -> Turn:
    """Arithmetic that the model honestly cannot do."""
    return Turn(sum_questions.beyond(rng), UNKNOWN_ANSWER)


def echo(rng: random.Random) -> Turn:
    """A word, a few words or a random string, said again exactly."""
    text = copied_text(rng)
    quote = rng.choice(("", "", "", '"', "'"))
    return Turn(rng.choice(_FRAMES["echo"]).format(quote + text + quote), text)


def spelling(rng: random.Random) -> Turn:
    """The letters of a word, with hyphens."""
    word = words.random_word(rng, longest=8)
    return Turn(rng.choice(_FRAMES["spell"]).format(word), "-".join(word.upper()))


def unknown(rng: random.Random) -> Turn:
    """A question about the world, which the model honestly does not know."""
    frame = rng.choice(_FRAMES["world"])
    return Turn(words.fill(frame, rng), UNKNOWN_ANSWER)


def copied_text(rng: random.Random) -> str:
    """One to sixteen words, most of them unlike any seen before."""
    count = rng.choices((1, 2, 3, 6, 16), (10, 4, 3, 3, 4))[0]
    return " ".join(_copied_word(rng) for _ in range(count))


def _copied_word(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.35:
        return words.random_word(rng)
    if kind < 0.6:
        return rng.choice(words.COMMON)
    if kind < 0.75:
        return "".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 7)))
    if kind < 0.85:
        return str(rng.randint(0, 99999))
    if kind < 0.95:
        return rng.choice(words.CITIES)
    return "".join(rng.choices(string.ascii_uppercase + string.digits, k=rng.randint(2, 6)))
