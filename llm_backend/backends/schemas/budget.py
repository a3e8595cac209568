"""Budget of one request: the cost of compiling its JSON schemas.

The time to compile an expression is proportional to its compiled size. The validator does not
report that size, but refuses a larger one than it is given: an expression with repetitions is
compiled with growing sizes until one suffices.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from jsonschema_rs import FancyRegexOptions, ReferencingError, validator_for

from llm_backend.backends.schemas.formats import with_classes
from llm_backend.backends.schemas.keywords import VALUE_KEYWORDS, Path, SchemaUnsupported
from llm_backend.json_types import JsonValue

NODES = SUBSCHEMAS = 40_000
PATTERNS_BYTES = 8 * 1024 * 1024  # some 40 ms
_STEPS = 20_000
_ALTERNATIVES = 240  # llguidance follows all of them while an array begins
_FIRST_BYTES = 64 * 1024
_GROWTH = 1.5
# Compiled bytes that take as long as a character, a class or a property of an expression.
_CHARACTER_BYTES = 128
_CLASS_BYTES = 1600
_PLAIN_CLASS_BYTES = 400  # the validator's time grows with the square of their number
_PROPERTY_BYTES = 43_000
_CLASSES = re.compile(r"\\[wWsSdD]")
_PROPERTIES = re.compile(r"\\[pP]")
_REPETITIONS = re.compile(r"\{(\d{1,9})(?:,(\d{0,9}))?\}")


@dataclass(frozen=True, kw_only=True)
class SchemaLimits:
    """Limits of one request's schemas together: `nodes`, their values and names, and
    `patterns_bytes`, the compiled size of their expressions."""

    nodes: int = NODES
    patterns_bytes: int = PATTERNS_BYTES


@dataclass
class SchemaBudget:
    """Budget that all schemas of one request share. Its fields are what is left: `subschemas` may
    be rewritten, with `steps` of comparisons and `alternatives` of arrays without repeats."""

    limits: SchemaLimits = field(default_factory=SchemaLimits)
    subschemas: int = SUBSCHEMAS
    steps: int = _STEPS
    alternatives: int = _ALTERNATIVES

    def __post_init__(self) -> None:
        self._nodes = self.limits.nodes
        self._patterns_bytes = self.limits.patterns_bytes

    def spend(self, schema: JsonValue, path: Path) -> None:
        """Counts a schema at a path of the request. Raises `SchemaUnsupported` once the schemas
        have too many values or too large expressions."""
        self._spend_nodes(schema, path)
        for pattern, location in _patterns(schema):
            self._patterns_bytes -= self._size_of(
                pattern, is_value=bool(VALUE_KEYWORDS & {*location})
            )
            if self._patterns_bytes < 0:
                raise SchemaUnsupported(
                    "The regular expressions of the request's schemas take more than "
                    f"{self.limits.patterns_bytes} bytes when they are compiled, which is this "
                    "server's limit (`schema_patterns_limit_bytes`).",
                    (*path, *location),
                )

    def spend_alternatives(self, count: int) -> bool:
        """Returns True if `count` alternatives of arrays fit the budget, and counts them then."""
        if count > self.alternatives:
            return False
        self.alternatives -= count
        return True

    def _spend_nodes(self, schema: JsonValue, path: Path) -> None:
        unread = [schema]
        while unread and self._nodes >= 0:
            value = unread.pop()
            if isinstance(value, dict):
                self._nodes -= 2 * len(value)
                unread += value.values()
            elif isinstance(value, list):
                self._nodes -= len(value)
                unread += value
        if self._nodes < 0:
            raise SchemaUnsupported(
                f"The schemas of the request have more than {self.limits.nodes} values and names, "
                "which is this server's limit (`schema_nodes_limit`).",
                path,
            )

    def _size_of(self, pattern: str, *, is_value: bool) -> int:
        """Returns an upper bound of the compiled size; it exceeds the rest of the budget if the
        pattern is too large. An invalid pattern is refused later, by its keyword. `is_value`: the
        pattern is in a value, which `with_classes` does not rewrite, but a reference may lead to
        it."""
        classes = len(_CLASSES.findall(pattern))
        read_bytes = (
            _CHARACTER_BYTES * len(pattern)
            + _CLASS_BYTES * classes
            + _PROPERTY_BYTES * len(_PROPERTIES.findall(pattern))
            + is_value * _PLAIN_CLASS_BYTES * classes**2
        )
        left = self._patterns_bytes
        if read_bytes > left or _REPETITIONS.search(pattern) is None:
            return read_bytes
        size: float = max(_FIRST_BYTES, read_bytes)
        while size < left and not _compiles(pattern, int(size)):
            size *= _GROWTH
        if size < left:
            return int(size)
        if _compiles(pattern, left):
            return left
        return left + 1 if _compiles(_without_counts(pattern), left) else read_bytes


def _without_counts(pattern: str) -> str:
    """Returns an expression that is valid if the pattern is, and small."""
    return _REPETITIONS.sub(lambda found: "{1}" if _is_range(found) else found[0], pattern)


def _is_range(repetition: re.Match[str]) -> bool:
    first, last = repetition[1], repetition[2]
    return not last or int(first) <= int(last)


def _compiles(pattern: str, size_bytes: int) -> bool:
    options = FancyRegexOptions(size_limit=size_bytes)
    try:
        validator_for({"pattern": with_classes(pattern)}, offline=True, pattern_options=options)
    except (ReferencingError, ValueError):
        return False
    return True


def _patterns(schema: JsonValue) -> Iterator[tuple[str, Path]]:
    """Yields all expressions of a schema with their paths, those in values, too."""
    unread: list[tuple[JsonValue, Path]] = [(schema, ())]
    while unread:
        value, location = unread.pop()
        if isinstance(value, list):
            unread += [(one, (*location, index)) for index, one in enumerate(value)]
        if not isinstance(value, dict):
            continue
        for keyword, one in value.items():
            place = (*location, keyword)
            if keyword == "pattern" and isinstance(one, str):
                yield one, place
            elif keyword == "patternProperties" and isinstance(one, dict):
                yield from ((pattern, (*place, pattern)) for pattern in one)
            unread.append((one, place))
