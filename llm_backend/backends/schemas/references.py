"""Resolution of `$ref` within a schema: JSON pointers, anchors, and ids."""

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import unquote, urldefrag, urljoin

from llm_backend.backends.schemas.keywords import VALUE_KEYWORDS, Path
from llm_backend.json_types import JsonValue

_DEFINITIONS = frozenset({"$defs", "definitions"})


@dataclass(frozen=True, kw_only=True)
class Subschema:
    """Subschema, its path, and the base URI of its references."""

    schema: JsonValue
    path: Path
    base: str


class References:
    """Reference targets of one schema, indexed once."""

    def __init__(self, schema: JsonValue) -> None:
        self.root = Subschema(schema=schema, path=(), base=_base_of(schema, ""))
        self.paths: dict[int, Path] = {}  # of all subschemas, by `id()`
        self._named = {("", ""): self.root}
        for subschema in _walk_subschemas(schema):
            self.paths[id(subschema.schema)] = subschema.path
            self._index_names(subschema)

    def _index_names(self, subschema: Subschema) -> None:
        uri, fragment = urldefrag(_id_of(subschema.schema))
        if uri:
            self._named.setdefault((subschema.base, ""), subschema)
        for anchor in (
            fragment,
            subschema.schema.get("$anchor"),
            subschema.schema.get("$dynamicAnchor"),
        ):
            if isinstance(anchor, str) and anchor:
                self._named.setdefault((subschema.base, anchor), subschema)

    def resolve(self, reference: str, base: str) -> Subschema | None:
        """Resolves a reference relative to this base URI; None if it is outside the schema."""
        uri, fragment = urldefrag(reference)
        uri = _join_uri(base, uri)
        fragment = unquote(fragment)
        if fragment and not fragment.startswith("/"):
            return self._named.get((uri, fragment))
        start = self._named.get((uri, ""))
        if start is None and uri == self.root.base:
            start = self.root
        return start and _follow_pointer(start, fragment)


def find_unresolved(references: References) -> Path | None:
    """Returns the path of the first used reference without a target in the schema."""
    for subschema in _walk_used(references):
        for keyword in ("$ref", "$dynamicRef"):
            reference = subschema.schema.get(keyword)
            if isinstance(reference, str) and references.resolve(reference, subschema.base) is None:
                return (*subschema.path, keyword)
    return None


def without_unused(schema: JsonValue) -> JsonValue:
    """Replaces unused definitions by `true`, the schema of any value."""
    if not isinstance(schema, dict):
        return schema
    used = {subschema.path[:2] for subschema in _walk_used(References(schema))}
    pruned = dict(schema)
    for keyword in _DEFINITIONS & schema.keys():
        if isinstance(schema[keyword], dict):
            pruned[keyword] = {
                name: part if (keyword, name) in used else True
                for name, part in schema[keyword].items()
            }
    return pruned


def _walk_used(references: References) -> Iterator[Subschema]:
    """Yields all subschemas except unused definitions."""
    unread, seen = [references.root], set[Path]()
    while unread:
        subschema = unread.pop()
        if subschema.path in seen:
            continue
        seen.add(subschema.path)
        if isinstance(subschema.schema, dict):
            yield subschema
            for keyword in ("$ref", "$dynamicRef"):
                reference = subschema.schema.get(keyword)
                target = isinstance(reference, str) and references.resolve(
                    reference, subschema.base
                )
                unread += [target] if target else []
        unread += _children(subschema, VALUE_KEYWORDS | _DEFINITIONS)


def _follow_pointer(start: Subschema, pointer: str) -> Subschema | None:
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
        base = _base_of(schema, base)
    return Subschema(schema=schema, path=path, base=base)


def _walk_subschemas(schema: JsonValue) -> Iterator[Subschema]:
    unread = [Subschema(schema=schema, path=(), base=_base_of(schema, ""))]
    while unread:
        subschema = unread.pop()
        if isinstance(subschema.schema, dict):
            yield subschema
        unread += _children(subschema, VALUE_KEYWORDS)


def _children(subschema: Subschema, skipped: Container[str]) -> Iterator[Subschema]:
    """Yields the subschemas of a subschema, except those under the skipped keywords."""
    parts: Iterable[tuple[str | int, JsonValue]] = ()
    if isinstance(subschema.schema, dict):
        parts = [pair for pair in subschema.schema.items() if pair[0] not in skipped]
    elif isinstance(subschema.schema, list):
        parts = enumerate(subschema.schema)
    for name, part in parts:
        if isinstance(part, dict | list):
            yield Subschema(
                schema=part, path=(*subschema.path, name), base=_base_of(part, subschema.base)
            )


def _base_of(schema: JsonValue, base: str) -> str:
    return _join_uri(base, urldefrag(_id_of(schema)).url) if isinstance(schema, dict) else base


def _id_of(schema: JsonValue) -> str:
    name = schema.get("$id", schema.get("id"))
    return name if isinstance(name, str) else ""


def _join_uri(base: str, uri: str) -> str:
    try:
        return urljoin(base, uri) if uri else base
    except ValueError:  # not a URI
        return uri
