"""Bodies of random cases without what the server refuses, so that they reach what is behind its
checks: of random bodies that keep the document, hardly one has no field that is not supported."""

import re
from collections.abc import Callable, Mapping
from typing import Any

_ACCEPTED: dict[str, Any] = {  # what takes the place of what is refused or missing
    "model": "builtin",
    "messages": [{"role": "user", "content": "Hi"}],
    "prompt": "Hi",
    "input": "Hi",
}
_TRIES = 15
_TEXT_CHARACTERS = 20  # of a text that is refused, because it may be too long


def drop_refused_fields(
    body: dict[str, Any], refusal: Callable[[dict[str, Any]], Mapping[str, Any] | None]
) -> None:
    """Drops what `refusal`, the error that a server answers, names by its `param`, one by one."""
    for _ in range(_TRIES):
        error = refusal(body)
        if error is None or not _drop(body, str(error.get("param"))):
            return


def _drop(body: dict[str, Any], param: str) -> bool:
    """Returns False if there is nothing to drop."""
    if param in _ACCEPTED and (param not in body or param == "model"):
        is_new = body.get(param) != _ACCEPTED[param]
        body[param] = _ACCEPTED[param]
        return is_new
    names = [name for name in body if param == name or param.startswith((f"{name}.", f"{name}["))]
    if not names:
        return False
    name = max(names, key=len)
    body[name] = value = _reduced(body[name], param[len(name) :])
    if value is None:
        del body[name]
    return True


def _reduced(value: object, place: str) -> object:
    """A list without the item that is refused, or a shorter text; None if nothing is left."""
    if isinstance(value, str) and len(value) > _TEXT_CHARACTERS:
        return value[:_TEXT_CHARACTERS]
    if not isinstance(value, list) or len(value) < 2:
        return None
    index = re.match(r"\[(\d+)\]", place)
    refused = int(index[1]) if index else len(value) - 1
    return [item for number, item in enumerate(value) if number != refused]
