"""Summaries, tags and ids for operations whose own are prose, or missing, made from their paths."""

import re

_VERBS = {"GET": "Get", "DELETE": "Delete", "PUT": "Replace", "PATCH": "Change", "POST": "Change"}


def summary_of(method: str, path: str) -> str:
    """Returns a line such as `List things`, `Create a thing` or `Cancel a thing`."""
    segments = [part for part in path.split("/") if part]
    fixed = [part for part in segments if not part.startswith("{")]
    if not fixed:
        return f"{_VERBS.get(method, method.title())} the root"
    noun = fixed[-1].replace("_", " ").replace("-", " ")
    is_item, is_plural = segments[-1].startswith("{"), noun.endswith("s")
    if is_item:
        return f"{_VERBS.get(method, method.title())} {_one(noun)}"
    if method == "GET":
        return f"List {noun}" if is_plural else f"Get the {noun}"
    if method == "POST" and is_plural:
        return f"Create {_one(noun)}"
    if method == "POST" and len(fixed) > 1 and len(segments) > len(fixed):
        return f"{noun.capitalize()} {_one(fixed[-2].replace('_', ' '))}"
    return f"{_VERBS.get(method, method.title())} the {noun}"


def id_of(method: str, path: str) -> str:
    """Returns the id of an operation without one, such as `getThingsThingId`."""
    return method.lower() + "".join(part.capitalize() for part in re.findall(r"[A-Za-z0-9]+", path))


def tag_of(path: str) -> str:
    """Returns the tag of an operation without one: the first part of its path."""
    return path.strip("/").split("/")[0].replace("_", " ").capitalize() or "Service"


def singular_of(plural: str) -> str:
    """Returns the name of one of several: `policies` becomes `policy`."""
    if plural.endswith("ies"):
        return plural.removesuffix("ies") + "y"
    if plural.endswith(("sses", "xes", "ches")):
        return plural.removesuffix("es")
    return plural.removesuffix("s") if not plural.endswith("ss") else plural


def _one(plural: str) -> str:
    noun = singular_of(plural)
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
