"""Questions for a sum: signs within a frame, words, or a little story."""

import random
import re
from functools import cache

from models.builtin import words
from models.builtin.facts import read_knowledge, read_yaml
from models.builtin.phrasing import Weighted, normalise, parse, recogniser, sample
from models.builtin.sums import LIMIT, Sum, in_words, large_sum

_FRAMES = read_yaml("skills")
_SUMS = read_yaml("sums")
_STORIES = {"+": "plus", "-": "minus"}
_SPOKEN_NUMBER = re.compile(
    rf"\b(?:{'|'.join(sorted(map(in_words, range(LIMIT + 1)), key=len, reverse=True))})\b"
)
_SPOKEN = {"+": "plus", "-": "minus", "*": "times"}


def phrase(one: Sum, rng: random.Random) -> str:
    """One question for the sum."""
    kind = rng.random()
    if one.sign != "*" and kind < 0.45:
        return story(one, rng)
    expression = _write_in_words(one, rng) if kind < 0.65 else _write_with_sign(one, rng)
    if kind > 0.88:
        return _among_words(expression, rng)
    if rng.random() < 0.5:
        return _sample("ask", rng).replace("{}", expression)
    return str(rng.choice(_FRAMES["sum"])).format(expression)


def story(one: Sum, rng: random.Random) -> str:
    """A whole question for a sum or a difference, of words around its operands."""
    left, right = _show(one, rng)
    text = _sample(_STORIES[one.sign], rng).replace("{a}", left).replace("{b}", right)
    return re.sub(r" +([,.])", r"\1", text)


def beyond(rng: random.Random) -> str:
    """A question with numbers that the model cannot answer."""
    if rng.random() < 0.6:
        return phrase(large_sum(rng), rng)
    return re.sub(r"\{(\w)\}", lambda slot: _number(slot[1], rng), _sample("beyond", rng))


def can_be_asked(question: str) -> bool:
    """True if the generator could make this wording of a sum or a difference of any numbers."""
    return _recogniser().fullmatch(_without_numbers(question)) is not None


@cache
def _patterns(name: str) -> list[Weighted]:
    return [parse(pattern, _SUMS["macros"]) for pattern in _SUMS[name]]


def _sample(name: str, rng: random.Random) -> str:
    """One sentence of the patterns of that name; rich patterns come more often than poor ones."""
    patterns = _patterns(name)
    weights = [pattern.sentences**0.25 for pattern in patterns]
    return sample(rng.choices(patterns, weights)[0], rng)


@cache
def _recogniser() -> re.Pattern[str]:
    """Matches each wording of a sum or a difference, normalised, with 0 for each number."""
    expressions = ["0 plus 0", "0 minus 0"]
    expressions += [text for sign in _STORIES for text in _FRAMES["worded_sum"][sign]]
    macros = _SUMS["macros"] | {"SUM": [re.sub(r"\{\d?\}", "0", text) for text in expressions]}
    asking = [*_SUMS["ask"], *(re.sub(r"[()]", " ", frame) for frame in _FRAMES["sum"])]
    patterns = [text.replace("{}", "$SUM") for text in asking]
    patterns += [
        re.sub(r"\{[ab]\}", "0", text) for name in _STORIES.values() for text in _SUMS[name]
    ]
    wordings = "|".join(
        recogniser(parse(_SPOKEN_NUMBER.sub("0", text), macros)) for text in patterns
    )
    before = "|".join(map(normalise, read_knowledge().prefixes))
    return re.compile(f" *(?:(?:{before}) +)*(?:{wordings}) *")


def _without_numbers(question: str) -> str:
    text = re.sub(r"\d+", " 0 ", _SPOKEN_NUMBER.sub(" 0 ", question.lower()))
    return normalise(text.replace("+", " plus ").replace("0  -", "0 minus"))


def _write_in_words(one: Sum, rng: random.Random) -> str:
    return str(rng.choice(_FRAMES["worded_sum"][one.sign])).format(*_show(one, rng))


def _write_with_sign(one: Sum, rng: random.Random) -> str:
    if rng.random() < 0.2:
        return f" {_SPOKEN[one.sign]} ".join(_show(one, rng))
    sign = rng.choice("*x×") if one.sign == "*" else one.sign
    return (
        f"{one.left}{sign}{one.right}" if rng.random() < 0.3 else f"{one.left} {sign} {one.right}"
    )


def _among_words(expression: str, rng: random.Random) -> str:
    """The expression among words that do not matter."""
    before, behind = (
        [rng.choice(words.COMMON) for _ in range(rng.choice((0, 1, 2, 4, 6)))] for _ in range(2)
    )
    return " ".join([*before, expression, *behind])


def _show(one: Sum, rng: random.Random) -> tuple[str, str]:
    """The operands in digits, or one time in ten in words."""
    if rng.random() < 0.1 and one.is_known:
        return in_words(one.left), in_words(one.right)
    return str(one.left), str(one.right)


def _number(kind: str, rng: random.Random) -> str:
    """A number for the slot: `n` of any size, `m` above the limit, `f` with a fraction."""
    if kind == "f":
        return f"{rng.randint(0, 99)}.{rng.randint(1, 99)}"
    smallest = LIMIT + 1 if kind == "m" else 0
    return str(rng.randint(smallest, smallest + rng.choice((12, 120, 999, 9999))))
