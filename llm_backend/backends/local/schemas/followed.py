"""Rewrites a client's JSON schema to one that llguidance can compile to a grammar.

The result is equivalent, or narrower or wider if no grammar can express the schema. Narrower is
harmless: each answer is valid by the client's schema. If it is wider, `is_exact` is False: an
answer must be validated against the client's schema before it is sent.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from llm_backend.backends.local.schemas.arrays import ARRAY_KEYWORDS, lower_array
from llm_backend.backends.local.schemas.conditions import CONDITIONS, conditions, exclusive
from llm_backend.backends.local.schemas.formats import format_of, lowered_pattern
from llm_backend.backends.local.schemas.kinds import Path, Schema, SchemaUnsupported, said
from llm_backend.backends.local.schemas.logic import Logic
from llm_backend.backends.local.schemas.node import Node, Whole
from llm_backend.backends.local.schemas.numbers import bounds, check_value, multiple
from llm_backend.backends.local.schemas.objects import OBJECT_KEYWORDS, lower_object
from llm_backend.backends.local.schemas.references import Place, References
from llm_backend.json_types import JsonValue

__all__ = ["Followed", "follow"]

_NUMBERS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
_GROUPS = (ARRAY_KEYWORDS, OBJECT_KEYWORDS, _NUMBERS)
_GROUPED: Mapping[str, Callable[[Whole, Node], dict[str, JsonValue]]] = {
    **dict.fromkeys(ARRAY_KEYWORDS, lower_array),
    **dict.fromkeys(OBJECT_KEYWORDS, lower_object),
    **dict.fromkeys(_NUMBERS, lambda _, node: bounds(node.schema, node.path)),
}
_COMBINING = {"allOf", "anyOf", "oneOf"}
_NODES_MOST = 40_000
_REFERENCES = {"$ref", "$dynamicRef", "$recursiveRef"}
_OLD_DRAFTS = ("draft-03", "draft-04", "draft-05", "draft-06", "draft-07")


@dataclass(frozen=True, kw_only=True)
class Followed:
    """Rewritten schema. `is_exact`: every value valid by it is valid by the client's schema.
    `places` maps the `id()` of each part to its path in the client's schema."""

    schema: dict[str, JsonValue]
    is_exact: bool
    places: Mapping[int, Path]
    held: Sequence[JsonValue]  # keeps the parts alive, so that their `id()`s stay unique

    def place(self, pointer: Sequence[str]) -> Path:
        """Maps a JSON pointer into this schema to the path in the client's schema."""
        part: JsonValue = self.schema
        found, rest = self.places.get(id(part), ()), list[str | int]()
        for step in pointer:
            name = int(step) if isinstance(part, list) else step
            part = part.get(name) if isinstance(part, dict) else part[name]
            rest.append(name)
            if id(part) in self.places:
                found, rest = self.places[id(part)], []
        return (*found, *rest[:1])


def follow(schema: JsonValue, path: Path, *, is_lenient: bool = False) -> Followed:
    """Rewrites a valid schema. Raises `SchemaUnsupported` at the first keyword that no grammar
    can express; with `is_lenient` such keywords are dropped."""
    return _Whole(schema, path, is_lenient).followed()


class _Whole:
    """State of one schema's rewriting."""

    def __init__(self, schema: JsonValue, path: Path, is_lenient: bool) -> None:
        self._references = References(schema)
        self.logic = Logic(self._references)
        self._is_exact = True
        self._nodes_left = _NODES_MOST
        self._is_lenient = is_lenient
        self._path = path
        self._places: dict[int, Path] = {}
        self._held: list[JsonValue] = []
        self._names: dict[Path, str] = {}
        self._waiting: list[tuple[str, Place]] = []
        draft = schema.get("$schema") if isinstance(schema, dict) else None
        self._is_old = isinstance(draft, str) and any(old in draft for old in _OLD_DRAFTS)

    def followed(self) -> Followed:
        """Rewrites the whole schema."""
        root = self._references.root
        lowered = self.lower(Node(schema=root.schema, path=self._path, base=root.base))
        schema = lowered if isinstance(lowered, dict) else {"anyOf": [lowered]}
        definitions: dict[str, JsonValue] = {}
        while self._waiting:
            name, place = self._waiting.pop()
            path = (*self._path, *place.path)
            definitions[name] = self.lower(Node(schema=place.schema, path=path, base=place.base))
        if definitions:
            schema["$defs"] = definitions
        return Followed(
            schema=schema, is_exact=self._is_exact, places=self._places, held=self._held
        )

    def widen(self) -> None:
        """Records that the result is wider than the client's schema."""
        self._is_exact = False

    def facets(self, node: Node) -> list[JsonValue]:
        """Returns all schemas that the node's value must satisfy."""
        return [*self.logic.facets(node.schema, node.base), *node.context]

    def lower(self, node: Node) -> JsonValue:
        """Rewrites a node for llguidance."""
        schema = node.schema
        if not isinstance(schema, dict):
            return schema
        self._nodes_left -= 1
        if self._nodes_left < 0:
            raise SchemaUnsupported(
                "The conditions of the schema, combined, are too many.", node.path
            )
        own = self._references.paths.get(id(schema))
        if own is not None:
            node = replace(node, path=(*self._path, *own), is_made=False)
        if self._is_old and "$ref" in schema:
            schema = {"$ref": schema["$ref"]}
        lowered: dict[str, JsonValue] = {}
        for keyword in _in_order(schema):
            for name, value in self._said(keyword, node, schema).items():
                if name in lowered:  # a format rewritten to a pattern, beside a pattern
                    lowered["allOf"] = [*lowered.get("allOf", ()), {name: value}]
                else:
                    lowered[name] = value
        self._places[id(lowered)] = node.path
        self._held.append(lowered)
        return lowered

    def _said(self, keyword: str, node: Node, schema: Schema) -> dict[str, JsonValue]:
        try:
            return self._keyword(keyword, node, schema[keyword])
        except SchemaUnsupported:
            if not self._is_lenient:
                raise
            self.widen()
            return {}

    def _keyword(self, keyword: str, node: Node, value: JsonValue) -> dict[str, JsonValue]:
        if keyword in _GROUPED:
            return _GROUPED[keyword](self, node)
        if keyword in _COMBINING:
            return self._combined(keyword, node)
        if keyword in _REFERENCES:
            return self._reference(keyword, node, value)
        if keyword in CONDITIONS:
            return self._conditions(node)
        return self._alone(keyword, node, value, (*node.path, keyword))

    def _alone(
        self, keyword: str, node: Node, value: JsonValue, path: Path
    ) -> dict[str, JsonValue]:
        """Rewrites a keyword that is independent of others."""
        match keyword:
            case "type" | "minLength" | "maxLength" | "x-lark":
                return {keyword: int(value) if isinstance(value, float) else value}
            case "const" | "enum":
                check_value(value, path)
                return {keyword: value}
            case "multipleOf":
                return self._multiple(node, value, path)
            case "pattern":
                return {keyword: lowered_pattern(value, keyword, path)}
            case "format":
                return format_of(value, path)
        return {}

    def _combined(self, keyword: str, node: Node) -> dict[str, JsonValue]:
        context = self.facets(node)
        parts = node.schema[keyword]
        if keyword == "allOf":
            lowered = [
                self.lower(node.beside(part, keyword, place, context=context))
                for place, part in enumerate(parts)
            ]
            return {keyword: lowered}
        if keyword == "oneOf":
            parts = exclusive(self, node)
        branches = [
            node.branch(part, keyword, place, context=context) for place, part in enumerate(parts)
        ]
        return {"anyOf": [self.lower(replace(one, is_made=True)) for one in branches]}

    def _conditions(self, node: Node) -> dict[str, JsonValue]:
        context, found = self.facets(node), list[JsonValue]()
        for keyword, schema in conditions(self, node):
            if schema is None:
                self.widen()
            elif schema is not True:
                found.append(self.lower(node.made(schema, keyword, context)))
        return {"allOf": found} if found else {}

    def _multiple(self, node: Node, value: float, path: Path) -> dict[str, JsonValue]:
        types = node.schema.get("type")
        least = multiple(value, is_integer=types == "integer")
        if least is None:
            raise SchemaUnsupported(
                "`multipleOf` has more digits than answers can be held to.", path
            )
        return {"multipleOf": least}

    def _reference(self, keyword: str, node: Node, value: JsonValue) -> dict[str, JsonValue]:
        if keyword != "$ref":
            self.widen()  # its target may depend on the path of references
        place = self._references.target(str(value), node.base)
        if place is None:
            raise SchemaUnsupported(
                f"The reference `{str(value)[:100]}` leads to nothing within the schema.",
                (*node.path, keyword),
            )
        if self._is_endless(place):
            raise SchemaUnsupported(
                "The `$ref` leads to nothing but itself.", (*node.path, keyword)
            )
        if self.logic.is_nothing(place.schema, place.base):
            return {"anyOf": [False]}
        if place.path not in self._names:
            self._names[place.path] = f"d{len(self._names)}"
            self._waiting.append((self._names[place.path], place))
        return {"$ref": f"#/$defs/{self._names[place.path]}"}

    def _is_endless(self, place: Place) -> bool:
        """Returns True if the place is only a reference that leads to itself."""
        seen: set[Path] = set()
        while isinstance(place.schema, dict) and said(place.schema) == {"$ref"}:
            target = self._references.target(str(place.schema["$ref"]), place.base)
            if target is None or target.path in seen:
                return target is not None
            seen.add(target.path)
            place = target
        return False


def _in_order(schema: Schema) -> Iterator[str]:
    """Yields the keywords, one for each group that is rewritten together. An object's come at the
    place of its `properties`, whose order matters, and conditions last."""
    seen: set[frozenset[str]] = set()
    for keyword in schema:
        group = next((one for one in _GROUPS if keyword in one), None)
        if group is OBJECT_KEYWORDS and "properties" in schema and keyword != "properties":
            continue
        if keyword in CONDITIONS or (group is not None and group in seen):
            continue
        if group is not None:
            seen.add(group)
        yield keyword
    yield from [keyword for keyword in schema if keyword in CONDITIONS][:1]
