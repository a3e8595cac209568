"""Results of made-up tools: plain text, sentences, or JSON objects of various keys."""

import random
from collections.abc import Mapping
from typing import Any

from models.builtin.facts import read_yaml
from models.builtin.words import random_word

Result = str | Mapping[str, Any]
_SKIES: list[str] = read_yaml("tools")["skies"]


def spoken(result: Result) -> str:
    """A result as the model tells it: text as it is, an object as "key value, key value"."""
    if isinstance(result, str):
        return result
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in result.items())


def random_result(arguments: Mapping[str, str], opening: str, rng: random.Random) -> Result:
    """A result that suits the call whose answer begins with `opening`."""
    number = str(rng.randint(-20, 9999 if rng.random() < 0.3 else 40))
    sky, place = rng.choice(_SKIES), next(iter(arguments.values()))
    if opening.startswith("The time"):
        clock = f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}"
        sentences = (f"It is {clock} in {place}.", f"The time in {place} is {clock}.")
        return rng.choice((clock, *sentences, {"time": clock}, {**arguments, "time": clock}))
    if opening.startswith("The weather"):
        return _weather_result(arguments, sky, rng)
    word = random_word(rng)
    objects = ({"result": number}, {word.lower(): number}, {"status": word})
    sentences = (
        f"The {word.lower()} is {number}.", f"It is {word.lower()} {number}.", f"{word} is done."
    )  # fmt: skip
    return rng.choice((number, word, f"{word} {number}", *objects, *sentences))


def _weather_result(arguments: Mapping[str, str], sky: str, rng: random.Random) -> Result:
    degrees, place = rng.randint(-20, 40), next(iter(arguments.values()))
    unit = rng.choice(("celsius", "fahrenheit"))
    return rng.choice(
        (
            f"{sky}, {degrees} C",
            f"{degrees} degrees and {sky}",
            f"{degrees}°C",
            f"It is {sky}.",
            f"It is {degrees} degrees in {place}.",
            f"It is {sky} in {place}, {degrees} degrees.",
            f"{place} has {degrees} degrees and is {sky}.",
            f"The weather in {place} is {sky}.",
            sky,
            {"temperature": degrees},
            {"temperature": degrees, "condition": sky},
            {**arguments, "temperature": str(degrees), "unit": unit},
            {"temp": degrees, "sky": sky, "wind": rng.randint(0, 90)},
            {"weather": sky},
        )
    )
