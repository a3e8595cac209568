"""System prompts of many kinds; the model is to answer the same under each of them."""

import random

from models.builtin.facts import read_yaml

_SYSTEMS = read_yaml("systems")


def system_prompt(rng: random.Random) -> str:
    """A short prompt, or one time in seven a long one of many sentences."""
    if rng.random() < 0.85:
        return rng.choice(_SYSTEMS["whole"])
    separator = rng.choice((" ", " ", "\n"))
    return separator.join(rng.sample(_SYSTEMS["sentences"], rng.randint(2, 12)))
