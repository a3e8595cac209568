"""Words to copy and to ask about, real and made up, so that copying is not learnt by heart."""

import random
import re

from models.builtin.facts import read_yaml

_WORDS = read_yaml("words")
CITIES: list[str] = _WORDS["cities"]
COMMON: list[str] = _WORDS["common"]


def random_word(rng: random.Random, longest: int = 12) -> str:
    """A word that can be spoken but means nothing; sometimes with a capital."""
    syllables = rng.choices((1, 2, 3), (2, 4, 2))[0]
    word = "".join(
        rng.choice(_WORDS["onsets"]) + rng.choice(_WORDS["vowels"]) + rng.choice(_WORDS["codas"])
        for _ in range(syllables)
    )[:longest]
    return word.capitalize() if rng.random() < 0.25 else word


def place(rng: random.Random) -> str:
    """A city, two times in five one that does not exist."""
    return rng.choice(CITIES) if rng.random() < 0.6 else random_word(rng).capitalize()


def fill(frame: str, rng: random.Random) -> str:
    """A frame with each slot filled at random."""

    def value(match: re.Match[str]) -> str:
        slot = match[1]
        if slot == "word":
            return random_word(rng)
        if slot == "city":
            return place(rng)
        return str(rng.randint(2, 999)) if slot == "number" else rng.choice(_WORDS["slots"][slot])

    return re.sub(r"\{(\w+)\}", value, frame)
