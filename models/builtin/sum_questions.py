"""Questions for a sum: signs within a frame, words, or a little story."""

import math
import random
import re
from collections.abc import Iterable
from functools import cache

from models.builtin import words
from models.builtin.facts import read_yaml
from models.builtin.phrasing import Weighted, find_ends, normalise, parse, sample
from models.builtin.sums import LIMIT, Sum, in_words, large_sum

_FRAMES = read_yaml("skills")
_SUMS = read_yaml("sums")
_PREFIXES = [f"{normalise(prefix)} " for prefix in read_yaml("phrases")["prefixes"]]
_STORIES = {"+": "plus", "-": "minus"}
_APART_SHARE = 0.12  # of the differences whose first operand is not the smaller one
_NAME, _THING = "someone", "something"


def _any_of(written: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted(written, key=len, reverse=True)
    return re.compile(rf"\b(?:{'|'.join(longest_first)})\b", re.IGNORECASE)


_SPOKEN_NUMBER = _any_of(map(in_words, range(LIMIT + 1)))
_NAMES = _any_of(_SUMS["names"])
_THINGS = _any_of(_SUMS["things"])
_SPOKEN = {"+": "plus", "-": "minus", "*": "times"}


def phrase(one: Sum, rng: random.Random) -> str:
    """One question for the sum."""
    kind = rng.random()
    if one.sign != "*" and kind < 0.75:
        return story(one, rng)
    expression = _write_in_words(one, rng) if kind < 0.83 else _write_with_sign(one, rng)
    if kind > 0.95:
        return _among_words(expression, rng)
    if rng.random() < 0.5:
        return _sample("ask", rng).replace("{}", expression)
    return str(rng.choice(_FRAMES["sum"])).format(expression)


def story(one: Sum, rng: random.Random) -> str:
    """A whole question for a sum or a difference, of words around its operands."""
    if one.sign == "-" and one.left >= one.right and rng.random() < _APART_SHARE:
        text = _sample("apart", rng)
        slots = rng.sample(["{a}", "{b}"], 2)
    else:
        text = _sample(_STORIES[one.sign], rng)
        slots = ["{a}", "{b}"] if one.sign == "-" else sorted(("{a}", "{b}"), key=text.index)
    for slot, number in zip(slots, _show(one, rng), strict=True):
        text = text.replace(slot, number)
    return _name(text, rng)


def beyond(rng: random.Random) -> str:
    """A question with numbers that the model cannot answer."""
    if rng.random() < 0.6:
        return phrase(large_sum(rng), rng)
    text = _name(_sample("beyond", rng), rng)
    return re.sub(r"\{(\w)\}", lambda slot: _number(slot[1], rng), text)


def can_be_asked(question: str) -> bool:
    """True if the generator could make this wording of a sum or a difference of any numbers."""
    text = _without_numbers(question)
    starts = _ends_of_prefixes(text)
    return any(len(text) in find_ends(pattern, text, starts) for pattern in _wordings())


@cache
def _patterns(name: str) -> list[Weighted]:
    return [parse(pattern, _SUMS["macros"]) for pattern in _SUMS[name]]


def _sample(name: str, rng: random.Random) -> str:
    """One sentence of the patterns of that name; rich patterns come more often than poor ones."""
    patterns = _patterns(name)
    weights = [1 + math.log(pattern.sentences) for pattern in patterns]
    return sample(rng.choices(patterns, weights)[0], rng, power=0.2)


def _name(text: str, rng: random.Random) -> str:
    """The text with names and a thing in their slots, no blank before a mark."""
    for slot, name in zip("nmk", rng.sample(_SUMS["names"], 3), strict=True):
        text = text.replace(f"{{{slot}}}", name)
    text = text.replace("{t}", rng.choice(_SUMS["things"]))
    return re.sub(r" +([,.;:])", r"\1", text)


@cache
def _wordings() -> list[Weighted]:
    """Each wording of a sum or a difference, with 0 for each number."""
    expressions = ["0 plus 0", "0 minus 0"]
    expressions += [text for sign in _STORIES for text in _FRAMES["worded_sum"][sign]]
    asking = [*_SUMS["ask"], *(re.sub(r"[()]", " ", frame) for frame in _FRAMES["sum"])]
    patterns = [text.replace("{}", "$SUM") for text in asking]
    stories = {text for name in (*_STORIES.values(), "apart") for text in _SUMS[name]}
    patterns += map(_name_signs, stories)
    macros = {**_SUMS["macros"], "SUM": [re.sub(r"\{\d?\}", "0", text) for text in expressions]}
    macros = {name: list(map(_generalise, options)) for name, options in macros.items()}
    return [parse(_generalise(text), macros) for text in patterns]


def _ends_of_prefixes(text: str) -> set[int]:
    """The places where a question may begin: the front, and behind one prefix or more."""
    reached, ends = {0}, {0}
    while ends:
        ends = {
            start + len(prefix)
            for start in ends
            for prefix in _PREFIXES
            if text.startswith(prefix, start)
        }
        reached |= ends
    return reached


def _generalise(text: str) -> str:
    """The text with the same word for each name, for each thing and for each spoken number."""
    for slots, word in (("ab", "0"), ("nmk", _NAME), ("t", _THING)):
        text = re.sub(rf"\{{[{slots}]\}}", word, text)
    for written, word in ((_SPOKEN_NUMBER, " 0 "), (_NAMES, _NAME), (_THINGS, _THING)):
        text = written.sub(word, text)
    return text


def _without_numbers(question: str) -> str:
    return normalise(re.sub(r"\d+", " 0 ", _generalise(_name_signs(question.lower()))))


def _name_signs(text: str) -> str:
    """The text with words for the signs of sums and differences, if blanks surround a minus."""
    return text.replace("+", " plus ").replace(" - ", " minus ")


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
    """A number for the slot.

    `i` is of any size, `s` is small, `l` is large, `p` has two digits, `f` has a fraction.
    """
    if kind == "f":
        return f"{rng.randint(0, 99)}.{rng.randint(1, 99)}"
    if kind == "p":
        return f"{rng.randint(0, 99):02}"
    if kind == "s":
        return str(rng.randint(0, rng.choice((12, 30, LIMIT))))
    smallest = LIMIT + 1 if kind == "l" else 0
    return str(rng.randint(smallest, smallest + rng.choice((12, 120, 999, 9999))))
