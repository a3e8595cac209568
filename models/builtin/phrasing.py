"""A tiny grammar of questions, to sample and to recognise: "(a|b|)" a choice, "$NAME" a list."""

import random
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

Macros = Mapping[str, Sequence[str]]


class Weighted(NamedTuple):
    """One alternative and the number of sentences it stands for, so that sampling is even."""

    parts: list["str | list[Weighted]"]
    sentences: int


def parse(pattern: str, macros: Macros) -> Weighted:
    """The tree of a pattern; an unbalanced parenthesis or an unknown macro is an error."""
    for name, options in macros.items():
        pattern = pattern.replace(f"${name}", f"({'|'.join(options)})")
    if re.search(r"\$[A-Z]", pattern):
        raise ValueError(f"unknown macro in {pattern!r}")
    options, rest = _options(pattern, 0)
    if rest != len(pattern):
        raise ValueError(f"unbalanced parenthesis in {pattern!r}")
    return Weighted([options], sum(option.sentences for option in options))


def sample(tree: Weighted, rng: random.Random) -> str:
    """One sentence of the pattern, blanks squeezed."""
    return " ".join(_sample(tree, rng).split())


def recogniser(tree: Weighted) -> str:
    """A regular expression for the normalised sentences of the pattern, blanks optional."""
    return "".join(
        (part.lower() if re.fullmatch(r"\w", part) else " *")
        if isinstance(part, str)
        else f"(?:{'|'.join(map(recogniser, part))})"
        for part in tree.parts
    )


def normalise(text: str) -> str:
    """Normalises a phrasing: no case, punctuation or repeated blanks."""
    return " ".join(re.sub(r"[^\w\s]", " ", text.lower()).split())


def _options(pattern: str, position: int) -> tuple[list[Weighted], int]:
    options: list[Weighted] = []
    parts: list[str | list[Weighted]] = []
    sentences = 1
    while position < len(pattern) and pattern[position] != ")":
        character = pattern[position]
        if character == "(":
            inner, position = _options(pattern, position + 1)
            if position >= len(pattern):
                raise ValueError(f"unbalanced parenthesis in {pattern!r}")
            parts.append(inner)
            sentences *= sum(option.sentences for option in inner)
        elif character == "|":
            options.append(Weighted(parts, sentences))
            parts, sentences = [], 1
        else:
            parts.append(character)
        position += 1
    options.append(Weighted(parts, sentences))
    return options, position


def _sample(tree: Weighted, rng: random.Random) -> str:
    return "".join(
        part if isinstance(part, str) else _sample(_choose(part, rng), rng) for part in tree.parts
    )


def _choose(options: list[Weighted], rng: random.Random) -> Weighted:
    """Between an even choice of options and an even choice of sentences: the root of the count."""
    return rng.choices(options, [option.sentences**0.5 for option in options])[0]
