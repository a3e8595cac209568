"""`format` and `pattern` of strings, rewritten for llguidance."""

import re
from collections.abc import Mapping

from llm_backend.backends.schemas.keywords import VALUE_KEYWORDS, Path, SchemaUnsupported
from llm_backend.json_types import JsonValue

_NATIVE = {"duration", "email", "ipv4", "ipv6", "uuid", "uri"}
_NARROWER = {"idn-email": "email", "idn-hostname": "hostname", "iri": "uri"}
# llguidance's own dates and times allow 29 February in any year and a leap second in any minute.
_LEAP_DAY = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29"
_DATE = (
    "([0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)"
    f"|02-(0[1-9]|1[0-9]|2[0-8]))|{_LEAP_DAY})"
)
_HOUR_MINUTE = "([01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = rf"{_HOUR_MINUTE}:[0-5][0-9](\.[0-9]{{1,9}})?(Z|[+-]{_HOUR_MINUTE})"
# Labels have letters at their ends and in third position: none begins with `xn--`. Four labels of
# 61 characters or eight of 29 stay within the 253 characters of a name.
_LABEL = "[A-Za-z0-9]([A-Za-z0-9]|[A-Za-z0-9-][A-Za-z0-9]([A-Za-z0-9-]{0,%d}[A-Za-z0-9])?)?"
_HOST = "|".join(
    rf"{_LABEL % middle}(\.{_LABEL % middle}){{0,{labels - 1}}}"
    for labels, middle in ((4, 57), (8, 25))
)
_POINTER = r"(/([^~/]|~[01])*)*"
_REFERENCE = r"([A-Za-z0-9._!$&'()*+,;=@-]|%[0-9A-Fa-f]{2})+"
_REFERENCES = rf"^/?{_REFERENCE}(/{_REFERENCE})*/?(\?{_REFERENCE})?(#{_REFERENCE})?$"
_PATTERNS: Mapping[str, str] = {
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "date-time": f"^{_DATE}T{_TIME}$",
    "hostname": f"^({_HOST})$",
    "json-pointer": f"^{_POINTER}$",
    "relative-json-pointer": f"^(0|[1-9][0-9]*)(#|{_POINTER})$",
    "uri-reference": _REFERENCES,
    "iri-reference": _REFERENCES,
    "uri-template": r"^([A-Za-z0-9._/:-]|\{[A-Za-z0-9_]+\})*$",
}
"""Patterns of formats. A pattern may be narrower than its format; every match is valid."""
_UNSUPPORTED = {"regex"}
_ANY = r"[\s\S]*"
_WORDS_LIMIT = 400  # limit of all characters of the excluded strings

_PARTS = re.compile(
    r"""\\0(?![0-9])              (?P<nul>)
    |   \\c(?P<control>[A-Za-z])
    |   \\(?P<back>[1-9])
    |   \\k<(?P<named>)
    |   \\.
    |   \[\^?\]?(?:\\.|[^\]\\])*\]?
    |   \((?P<around>\?<?[=!])
    """,
    re.VERBOSE | re.DOTALL,
)
_AROUND = {"?=": "lookahead", "?!": "lookahead", "?<=": "lookbehind", "?<!": "lookbehind"}
_ESCAPES = re.compile(r"\\0(?![0-9])|\\c([A-Za-z])|\\.", re.DOTALL)
_CLASSES = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]?|\\.", re.DOTALL)
_CONTROLS = re.compile(r"\[(\^|.*(\x00|\\x00|\\u0000|\\u\{0+\})-)", re.DOTALL)
"""Class that may have all control characters: a negated one, or one with a range from NUL."""
_CLASS_PARTS = re.compile(r"^\[\^?(?P<first>-(?=-))?|\\.|--|[\[&~]", re.DOTALL)
# ECMAScript's white space, which the validator knows, has U+FEFF; Unicode's has U+0085.
_SPACES = {r"\s": "[\\s\ufeff--\x85]", r"\S": "[\\S\x85--\ufeff]"}  # short: pattern size is limited
_SHORTHANDS = frozenset({r"\w", r"\W", r"\s", r"\S", r"\d", r"\D"})


def lower_format(name: str, path: Path) -> dict[str, str]:
    """Returns the keywords that enforce a format; none for an unknown one. Raises
    `SchemaUnsupported` for a known format that cannot be enforced."""
    if name in _UNSUPPORTED:
        known = ", ".join(sorted(_NATIVE | _NARROWER.keys() | _PATTERNS.keys()))
        raise SchemaUnsupported(f"The `format` `{name}` cannot be enforced, only {known}.", path)
    name = _NARROWER.get(name, name)
    if name in _PATTERNS:
        return {"pattern": _PATTERNS[name]}
    return {"format": name} if name in _NATIVE else {}


def lower_pattern(pattern: str, keyword: str, path: Path) -> str:
    """Rewrites a regular expression to llguidance's syntax. Raises `SchemaUnsupported` if
    there is no equivalent."""
    for part in _PARTS.finditer(pattern):
        construct = None
        if part["around"] is not None:
            construct = f"{_AROUND[part['around']]} (`({part['around']}`)"
        elif part["back"] is not None or part["named"] is not None:
            construct = f"a backreference (`{part[0]}`)"
        if construct is not None:
            raise SchemaUnsupported(
                f"The expression of this `{keyword}` uses {construct}, which is not supported.",
                path,
            )
    return _CLASSES.sub(_lower_class, _ESCAPES.sub(_escape, pattern))


def _lower_class(found: re.Match[str]) -> str:
    """Rewrites a class of characters. It loses NUL if it may have all control characters: in
    such a class llguidance permits quotation marks and backslashes, too."""
    lowered = _CLASS_PARTS.sub(_lower_class_part, found[0])
    return rf"[{lowered}--\x00]" if _CONTROLS.match(found[0]) else lowered


def _lower_class_part(found: re.Match[str]) -> str:
    r"""Rewrites a part of a class of characters for llguidance, where classes nest, `&&`, `~~` and
    `--` combine them, and `\s` has other members."""
    part = found[0]
    if part in _SPACES:
        return _SPACES[part]
    if part == "--":
        return r"-\-"
    if part in "[&~" and found.start():
        return f"\\{part}"
    return rf"{part[:-1]}\-" if found["first"] else part


def lower_escapes(schema: JsonValue) -> JsonValue:
    """Rewrites the expressions of a schema by `with_classes`."""
    if isinstance(schema, list):
        return [lower_escapes(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    plain: dict[str, JsonValue] = {}
    for keyword, value in schema.items():
        if keyword == "pattern" and isinstance(value, str):
            plain[keyword] = with_classes(value)
        elif keyword == "patternProperties" and isinstance(value, dict):
            plain[keyword] = _lower_keys(value)
        elif keyword in VALUE_KEYWORDS:
            plain[keyword] = value
        else:
            plain[keyword] = lower_escapes(value)
    return plain


def with_classes(pattern: str) -> str:
    r"""Rewrites `\0` and `\cA` as numbers, because not every regex engine supports them. Rewrites
    `\w`, `\s` and `\d` as classes, because for each such escape the validator takes time
    proportional to the whole expression."""
    return _CLASSES.sub(_as_class, _ESCAPES.sub(_escape, pattern))


def _lower_keys(schemas: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Rewrites the keys, which are expressions, and keeps them distinct."""
    lowered: dict[str, JsonValue] = {}
    for pattern, one in schemas.items():
        key = with_classes(pattern)
        while key in lowered:
            key = f"{key}(?:)"
        lowered[key] = lower_escapes(one)
    return lowered


def _as_class(found: re.Match[str]) -> str:
    return f"[{found[0]}]" if found[0] in _SHORTHANDS else found[0]


def _escape(found: re.Match[str]) -> str:
    if found[1]:
        return f"\\x{ord(found[1].upper()) - 64:02x}"
    return r"\x00" if found[0] == r"\0" else found[0]


def pattern_excluding(words: list[str]) -> str | None:
    """Returns a regular expression of all strings but these; None if it would be too long."""
    if sum(map(len, words)) > _WORDS_LIMIT:
        return None
    return f"^{_excluding(sorted(set(words)))}$"


def _excluding(words: list[str]) -> str:
    """Returns an expression, without anchors, of all strings but `words`."""
    begins = dict.fromkeys(word[0] for word in words if word)
    if not begins:
        return f"[\\s\\S]{_ANY}" if words else _ANY
    letters = "".join(f"\\u{{{ord(letter):x}}}" for letter in begins)
    choices = [f"[^{letters}]{_ANY}"]
    for letter in begins:
        other_ends = _excluding([word[1:] for word in words if word.startswith(letter)])
        choices.append(f"\\u{{{ord(letter):x}}}{other_ends}")
    if "" not in words:
        choices.append("")
    return f"(?:{'|'.join(choices)})"
