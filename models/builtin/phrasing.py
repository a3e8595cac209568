"""A tiny grammar of questions, to sample and to recognise: "(a|b|)" a choice, "$NAME" a list."""

import random
import re
from collections.abc import Mapping, Sequence, Set
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


def sample(tree: Weighted, rng: random.Random, power: float = 0.5) -> str:
    """One sentence of the pattern, blanks squeezed.

    An option is chosen in proportion to that power of its number of sentences: 0 is an even choice
    of options, 1 an even choice of sentences.
    """
    return " ".join(_sample(tree, rng, power).split())


def recogniser(tree: Weighted) -> str:
    """A regular expression for the normalised sentences of the pattern, blanks optional."""
    return "".join(
        (part.lower() if re.fullmatch(r"\w", part) else " *")
        if isinstance(part, str)
        else f"(?:{'|'.join(map(recogniser, part))})"
        for part in tree.parts
    )


def find_ends(tree: Weighted, text: str, starts: Set[int]) -> Set[int]:
    """The ends of all sentences of the pattern that begin at the starts in a normalised text.

    The same sentences as of the recogniser, without the seconds that `re` takes to compile one of
    very many words.
    """
    for part in tree.parts:
        if not isinstance(part, str):
            starts = set().union(*(find_ends(option, text, starts) for option in part))
        elif re.fullmatch(r"\w", part):
            starts = {start + 1 for start in starts if text.startswith(part.lower(), start)}
        else:
            starts = starts | {start + 1 for start in starts if text.startswith(" ", start)}
        if not starts:
            break
    return starts


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


def _sample(tree: Weighted, rng: random.Random, power: float) -> str:
    return "".join(
        part
        if isinstance(part, str)
        else _sample(rng.choices(part, [option.sentences**power for option in part])[0], rng, power)
        for part in tree.parts
    )
