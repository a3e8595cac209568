"""Suggestions for names that are close to one that exists."""

import difflib
from collections.abc import Iterable


def closest_name(name: str, known: Iterable[str]) -> str | None:
    """Returns the known name that is most like `name`; None if none is close."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), None)


def did_you_mean(close: str | None) -> str:
    """Returns a sentence to append to an error, with a space before it; an empty text for None."""
    return f" Did you mean {close}?" if close else ""
