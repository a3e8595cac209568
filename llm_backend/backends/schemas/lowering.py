"""Lowers a client's JSON schema to one that llguidance compiles to a grammar.

The result is equivalent, or narrower or wider if no grammar can express the schema. Narrower is
harmless: each answer is valid by the client's schema. If it is wider, `needs_no_validation` is
False: an answer must be validated against the client's schema before it is sent.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from llm_backend.backends.schemas.arrays import ARRAY_KEYWORDS, lower_array
from llm_backend.backends.schemas.budget import SUBSCHEMAS, SchemaBudget
from llm_backend.backends.schemas.conditions import (
    CONDITIONS,
    lower_conditions,
    make_exclusive,
)
from llm_backend.backends.schemas.formats import lower_format, lower_pattern
from llm_backend.backends.schemas.keywords import Path, Schema, SchemaUnsupported, keywords_of
from llm_backend.backends.schemas.logic import Logic
from llm_backend.backends.schemas.node import Lowering, Node
from llm_backend.backends.schemas.numbers import check_value, convert_bounds, convert_multiple
from llm_backend.backends.schemas.objects import OBJECT_KEYWORDS, lower_object
from llm_backend.backends.schemas.references import References, Subschema
from llm_backend.json_types import JsonValue

_BOUND_KEYWORDS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
_GROUPS = (ARRAY_KEYWORDS, OBJECT_KEYWORDS, _BOUND_KEYWORDS)
_GROUP_LOWERINGS: Mapping[str, Callable[[Lowering, Node], dict[str, JsonValue]]] = {
    **dict.fromkeys(ARRAY_KEYWORDS, lower_array),
    **dict.fromkeys(OBJECT_KEYWORDS, lower_object),
    **dict.fromkeys(_BOUND_KEYWORDS, lambda _, node: convert_bounds(node.schema, node.path)),
}
_COMBINATIONS = {"allOf", "anyOf", "oneOf"}
_REFERENCES = {"$ref", "$dynamicRef", "$recursiveRef"}
_OLD_DRAFTS = ("draft-03", "draft-04", "draft-05", "draft-06", "draft-07")


@dataclass(frozen=True, kw_only=True)
class LoweredSchema:
    """Rewritten schema. `needs_no_validation`: every value valid by it is valid by the client's
    schema, which may permit more. `paths` maps the `id()` of each part to its path in the client's
    schema."""

    schema: dict[str, JsonValue]
    needs_no_validation: bool
    paths: Mapping[int, Path]
    parts: Sequence[JsonValue]  # keeps the parts alive, so that their `id()`s stay unique

    def with_root(self, schema: Mapping[str, JsonValue]) -> "LoweredSchema":
        """Returns this schema with another root for the same place in the client's schema."""
        root = dict(schema)
        paths = {**self.paths, id(root): self.client_path(())}
        return replace(self, schema=root, paths=paths, parts=[*self.parts, root])

    def client_path(self, pointer: Sequence[str]) -> Path:
        """Maps a JSON pointer into this schema to the path in the client's schema."""
        part: JsonValue = self.schema
        path, unmapped = self.paths.get(id(part), ()), list[str | int]()
        for step in pointer:
            name = int(step) if isinstance(part, list) else step
            part = part.get(name) if isinstance(part, dict) else part[name]
            unmapped.append(name)
            if id(part) in self.paths:
                path, unmapped = self.paths[id(part)], []
        return (*path, *unmapped[:1])


def lower_schema(
    schema: JsonValue,
    path: Path,
    *,
    is_lenient: bool = False,
    budget: SchemaBudget | None = None,
) -> LoweredSchema:
    """Rewrites a valid schema within the budget of its request. Raises `SchemaUnsupported` at the
    first keyword that no grammar can express; with `is_lenient` such keywords are dropped."""
    return _SchemaLowering(schema, path, is_lenient, budget or SchemaBudget()).lower_root()


class _SchemaLowering:
    """State of one schema's rewriting."""

    def __init__(
        self, schema: JsonValue, path: Path, is_lenient: bool, budget: SchemaBudget
    ) -> None:
        self._references = References(schema)
        self.logic = Logic(self._references, budget)
        self.budget = budget
        self._needs_no_validation = True
        self._is_lenient = is_lenient
        self._path = path
        self._paths: dict[int, Path] = {}
        self._parts: list[JsonValue] = []
        self._definition_names: dict[Path, str] = {}
        self._pending_definitions: list[tuple[str, Subschema]] = []
        draft = schema.get("$schema") if isinstance(schema, dict) else None
        self._is_old = isinstance(draft, str) and any(name in draft for name in _OLD_DRAFTS)

    def lower_root(self) -> LoweredSchema:
        """Rewrites the whole schema."""
        root = self._references.root
        lowered = self.lower(Node(schema=root.schema, path=self._path, base=root.base))
        schema = lowered if isinstance(lowered, dict) else {"anyOf": [lowered]}
        definitions: dict[str, JsonValue] = {}
        while self._pending_definitions:
            name, subschema = self._pending_definitions.pop()
            path = (*self._path, *subschema.path)
            definitions[name] = self.lower(
                Node(schema=subschema.schema, path=path, base=subschema.base)
            )
        if definitions:
            schema["$defs"] = definitions
        return LoweredSchema(
            schema=schema,
            needs_no_validation=self._needs_no_validation,
            paths=self._paths,
            parts=self._parts,
        )

    def mark_wider(self) -> None:
        """Records that the result is wider than the client's schema."""
        self._needs_no_validation = False

    def conjuncts(self, node: Node) -> list[JsonValue]:
        """Returns all schemas that the node's value must satisfy."""
        return [*self.logic.conjuncts(node.schema, node.base), *node.context]

    def lower(self, node: Node) -> JsonValue:
        """Rewrites a node for llguidance."""
        schema = node.schema
        if not isinstance(schema, dict):
            return schema
        self.budget.subschemas -= 1
        if self.budget.subschemas < 0:
            raise SchemaUnsupported(
                "The schemas of the request, with their conditions combined, have more than "
                f"{SUBSCHEMAS} subschemas.",
                node.path,
            )
        own = self._references.paths.get(id(schema))
        if own is not None:
            node = replace(node, path=(*self._path, *own), is_derived=False)
        if self._is_old and "$ref" in schema:
            schema = {"$ref": schema["$ref"]}
        lowered: dict[str, JsonValue] = {}
        for keyword in _ordered_keywords(schema):
            for name, value in self._lower_if_supported(keyword, node, schema).items():
                if name in lowered:  # a format rewritten to a pattern, beside a pattern
                    lowered["allOf"] = [*lowered.get("allOf", ()), {name: value}]
                else:
                    lowered[name] = value
        self._paths[id(lowered)] = node.path
        self._parts.append(lowered)
        return lowered

    def _lower_if_supported(self, keyword: str, node: Node, schema: Schema) -> dict[str, JsonValue]:
        try:
            return self._lower_keyword(keyword, node, schema[keyword])
        except SchemaUnsupported:
            if not self._is_lenient:
                raise
            self.mark_wider()
            return {}

    def _lower_keyword(self, keyword: str, node: Node, value: JsonValue) -> dict[str, JsonValue]:
        if keyword in _GROUP_LOWERINGS:
            return _GROUP_LOWERINGS[keyword](self, node)
        if keyword in _COMBINATIONS:
            return self._lower_combination(keyword, node)
        if keyword in _REFERENCES:
            return self._lower_reference(keyword, node, value)
        if keyword in CONDITIONS:
            return self._lower_conditions(node)
        return self._lower_independent(keyword, node, value, (*node.path, keyword))

    def _lower_independent(
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
                return self._lower_multiple(node, value, path)
            case "pattern":
                return {keyword: lower_pattern(value, keyword, path)}
            case "format":
                return lower_format(value, path)
        return {}

    def _lower_combination(self, keyword: str, node: Node) -> dict[str, JsonValue]:
        context = self.conjuncts(node)
        parts = node.schema[keyword]
        if keyword == "allOf":
            lowered = [
                self.lower(node.with_schema(part, keyword, index, context=context))
                for index, part in enumerate(parts)
            ]
            return {keyword: lowered}
        if keyword == "oneOf":
            parts = make_exclusive(self, node)
        branches = [
            node.branch(part, keyword, index, context=context) for index, part in enumerate(parts)
        ]
        return {"anyOf": [self.lower(replace(one, is_derived=True)) for one in branches]}

    def _lower_conditions(self, node: Node) -> dict[str, JsonValue]:
        context, conditions = self.conjuncts(node), list[JsonValue]()
        for keyword, schema in lower_conditions(self, node):
            if schema is None:
                self.mark_wider()
            elif schema is not True:
                conditions.append(self.lower(node.derive(schema, keyword, context)))
        return {"allOf": conditions} if conditions else {}

    def _lower_multiple(self, node: Node, value: float, path: Path) -> dict[str, JsonValue]:
        types = node.schema.get("type")
        multiple = convert_multiple(value, is_integer=types == "integer")
        if multiple is None:
            raise SchemaUnsupported("`multipleOf` has more digits than can be enforced.", path)
        return {"multipleOf": multiple}

    def _lower_reference(self, keyword: str, node: Node, value: JsonValue) -> dict[str, JsonValue]:
        if keyword != "$ref":
            self.mark_wider()  # its target may depend on the path of references
        subschema = self._references.resolve(str(value), node.base)
        if subschema is None:
            raise SchemaUnsupported(
                f"The reference `{str(value)[:100]}` cannot be resolved.",
                (*node.path, keyword),
            )
        if self._is_circular(subschema):
            raise SchemaUnsupported("The `$ref` is circular.", (*node.path, keyword))
        if self.logic.is_unsatisfiable(subschema.schema, subschema.base):
            return {"anyOf": [False]}
        if subschema.path not in self._definition_names:
            self._definition_names[subschema.path] = f"d{len(self._definition_names)}"
            self._pending_definitions.append((self._definition_names[subschema.path], subschema))
        return {"$ref": f"#/$defs/{self._definition_names[subschema.path]}"}

    def _is_circular(self, subschema: Subschema) -> bool:
        """Returns True if the subschema is only a reference that leads to itself."""
        seen: set[Path] = set()
        while isinstance(subschema.schema, dict) and keywords_of(subschema.schema) == {"$ref"}:
            target = self._references.resolve(str(subschema.schema["$ref"]), subschema.base)
            if target is None or target.path in seen:
                return target is not None
            seen.add(target.path)
            subschema = target
        return False


def _ordered_keywords(schema: Schema) -> Iterator[str]:
    """Yields the keywords, one for each group that is rewritten together. The group of object
    keywords has the position of `properties`, whose order matters; conditions come last."""
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
