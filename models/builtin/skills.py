"""Skills that need variety, not facts: small sums, repeating words, spelling, honest ignorance."""

import random
import string
from typing import NamedTuple

from models.builtin import words
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
    """Sums and differences of 0..99, products of 0..12, as signs or in words."""
    left, sign, right = _operands(rng)
    if rng.random() < 0.3:
        question = rng.choice(_FRAMES["worded_sum"][sign]).format(left, right)
    else:
        shown = rng.choice("*x×") if sign == "*" else sign
        question = f"{left}{shown}{right}" if rng.random() < 0.2 else f"{left} {shown} {right}"
    return Turn(rng.choice(_FRAMES["sum"]).format(question), _equation(left, sign, right))


def many_sums(rng: random.Random) -> Turn:
    """A list of sums, each solved: much practice in few words."""
    sums = [_operands(rng) for _ in range(rng.randint(4, 12))]
    question = ", ".join(f"{left} {sign} {right}" for left, sign, right in sums)
    return Turn(question, ", ".join(_equation(*operands) for operands in sums))


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


def _operands(rng: random.Random) -> tuple[int, str, int]:
    sign = rng.choices("+-*", (5, 4, 2))[0]
    limit = 12 if sign == "*" else 99
    left, right = (rng.randint(0, limit if rng.random() < 0.8 else 12) for _ in range(2))
    return left, sign, right


def _equation(left: int, sign: str, right: int) -> str:
    result = {"+": left + right, "-": left - right, "*": left * right}[sign]
    return f"{left} {sign} {right} = {result}"


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
