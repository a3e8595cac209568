"""Resolution of `$ref` within a schema: JSON pointers, anchors, and ids."""

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote, urldefrag, urljoin

from llm_backend.backends.local.schemas.kinds import Path
from llm_backend.json_types import JsonValue

__all__ = ["Place", "References", "unresolved", "without_unused"]

_VALUES = frozenset({"const", "default", "enum", "examples"})
_DEFINITIONS = frozenset({"$defs", "definitions"})


@dataclass(frozen=True, kw_only=True)
class Place:
    """Subschema, its path, and the base URI of its references."""

    schema: JsonValue
    path: Path
    base: str


class References:
    """Reference targets of one schema, indexed once."""

    def __init__(self, schema: JsonValue) -> None:
        self.root = Place(schema=schema, path=(), base=_own_base(schema, ""))
        self.paths: dict[int, Path] = {}  # of all subschemas, by `id()`
        self._named = {("", ""): self.root}
        for place in _all_places(schema):
            self.paths[id(place.schema)] = place.path
            self._name(place)

    def _name(self, place: Place) -> None:
        uri, fragment = urldefrag(_id_of(place.schema))
        if uri:
            self._named.setdefault((place.base, ""), place)
        for anchor in (fragment, place.schema.get("$anchor"), place.schema.get("$dynamicAnchor")):
            if isinstance(anchor, str) and anchor:
                self._named.setdefault((place.base, anchor), place)

    def target(self, reference: str, base: str) -> Place | None:
        """Resolves a reference relative to this base URI; None if it is outside the schema."""
        uri, fragment = urldefrag(reference)
        uri = _joined(base, uri)
        fragment = unquote(fragment)
        if fragment and not fragment.startswith("/"):
            return self._named.get((uri, fragment))
        start = self._named.get((uri, ""))
        if start is None and uri == self.root.base:
            start = self.root
        return start and _below(start, fragment)


def unresolved(references: References) -> Path | None:
    """Returns the path of the first used reference without a target in the schema."""
    for place in _used(references):
        for keyword in ("$ref", "$dynamicRef"):
            reference = place.schema.get(keyword)
            if isinstance(reference, str) and references.target(reference, place.base) is None:
                return (*place.path, keyword)
    return None


def without_unused(schema: JsonValue) -> JsonValue:
    """Replaces unused definitions by the schema of any value."""
    if not isinstance(schema, dict):
        return schema
    used = {place.path[:2] for place in _used(References(schema))}
    kept = dict(schema)
    for keyword in _DEFINITIONS & schema.keys():
        if isinstance(schema[keyword], dict):
            kept[keyword] = {
                name: part if (keyword, name) in used else True
                for name, part in schema[keyword].items()
            }
    return kept


def _used(references: References) -> Iterator[Place]:
    """Yields all subschemas except unused definitions."""
    unread, seen = [references.root], set[Path]()
    while unread:
        place = unread.pop()
        if place.path in seen:
            continue
        seen.add(place.path)
        if isinstance(place.schema, dict):
            yield place
            for keyword in ("$ref", "$dynamicRef"):
                reference = place.schema.get(keyword)
                target = isinstance(reference, str) and references.target(reference, place.base)
                unread += [target] if target else []
        unread += _inside(place, _VALUES | _DEFINITIONS)


def _below(start: Place, pointer: str) -> Place | None:
    schema, path, base = start.schema, start.path, start.base
    for part in pointer.split("/")[1:]:
        name: str | int = part.replace("~1", "/").replace("~0", "~")
        if isinstance(schema, list):
            name = int(name) if str(name).isdecimal() and len(str(name)) < 10 else -1
            if not 0 <= name < len(schema):
                return None
        elif not isinstance(schema, dict) or name not in schema:
            return None
        schema = schema[name]
        path = (*path, name)
        base = _own_base(schema, base)
    return Place(schema=schema, path=path, base=base)


def _all_places(schema: JsonValue) -> Iterator[Place]:
    unread = [Place(schema=schema, path=(), base=_own_base(schema, ""))]
    while unread:
        place = unread.pop()
        if isinstance(place.schema, dict):
            yield place
        unread += _inside(place, _VALUES)


def _inside(place: Place, skipped: Container[str]) -> Iterator[Place]:
    """Yields the subschemas of a place, except those under the skipped keywords."""
    parts: Iterable[tuple[str | int, JsonValue]] = ()
    if isinstance(place.schema, dict):
        parts = [pair for pair in place.schema.items() if pair[0] not in skipped]
    elif isinstance(place.schema, list):
        parts = enumerate(place.schema)
    for name, part in parts:
        if isinstance(part, dict | list):
            yield Place(schema=part, path=(*place.path, name), base=_own_base(part, place.base))


def _own_base(schema: JsonValue, base: str) -> str:
    return _joined(base, urldefrag(_id_of(schema)).url) if isinstance(schema, dict) else base


def _id_of(schema: JsonValue) -> str:
    name = schema.get("$id", schema.get("id"))
    return name if isinstance(name, str) else ""


def _joined(base: str, uri: str) -> str:
    try:
        return urljoin(base, uri) if uri else base
    except ValueError:  # not a URI
        return uri
