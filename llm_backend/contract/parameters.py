"""Parameters: converts query strings and form fields to values of the document's types."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

import orjson

from llm_backend.contract.validation_messages import field_name
from llm_backend.errors import InvalidRequest
from llm_backend.json_types import JsonValue

_FIELDS = 1_000
_INTEGER = re.compile(r"[+-]?[0-9]{1,300}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,300}(\.[0-9]{1,300})?([eE][+-]?[0-9]{1,2})?")
_BOOLEANS = {"true": True, "false": False}


@dataclass(frozen=True, kw_only=True, slots=True)
class TypedParameter:
    """One parameter: its name, its JSON types, and those of its items or values."""

    name: str
    types: frozenset[str]
    item_types: frozenset[str] = frozenset()


def query_parameters(
    operation: Mapping[str, JsonValue], component: Callable[[str], bytes]
) -> dict[str, TypedParameter]:
    """Returns the query parameters of an operation by name.

    `component` returns a schema's JSON text.
    """
    described = [one for one in operation.get("parameters", ()) if one["in"] == "query"]
    return {one["name"]: _parameter(one["name"], one["schema"], component) for one in described}


def form_parameters(
    properties: Mapping[str, JsonValue], component: Callable[[str], bytes]
) -> dict[str, TypedParameter]:
    """Returns the fields of a form by name, given the properties of its schema."""
    return {name: _parameter(name, schema, component) for name, schema in properties.items()}


def read_query(
    query_string: bytes, parameters: Mapping[str, TypedParameter], *, is_lenient: bool
) -> dict[str, JsonValue]:
    """Parses a query string into typed values; `is_lenient` drops unknown names and allows repeats.

    Arrays are `name=a&name=b` or `name[]=a`, objects `name[key]=value`. A value of the wrong type
    stays a string, for the validator to refuse. Raises `InvalidRequest`.
    """
    return read_pairs(_pairs(query_string), parameters, is_lenient=is_lenient)


def read_pairs(
    pairs: Iterable[tuple[str, str]], parameters: Mapping[str, TypedParameter], *, is_lenient: bool
) -> dict[str, JsonValue]:
    """Converts decoded names and values into typed values, as `read_query` does."""
    values: dict[str, JsonValue] = {}
    for sent_name, text in pairs:
        name, key = _split(sent_name, parameters)
        parameter = parameters.get(name)
        if "\x00" in sent_name or "\x00" in text:
            raise _invalid(sent_name, "Parameters cannot hold NUL characters.")
        if parameter is not None:
            _add_value(values, parameter, key, text, is_lenient)
        elif not is_lenient:
            field = field_name((sent_name,)) or sent_name
            message = f"Unknown parameter: '{field}'."
            raise InvalidRequest(message, param=field, code="unknown_parameter")
    return values


def _parameter(
    name: str, schema: Mapping[str, JsonValue], component: Callable[[str], bytes]
) -> TypedParameter:
    types, inner = _types(schema, component)
    item_types = frozenset().union(*(_types(one, component)[0] for one in inner))
    return TypedParameter(name=name, types=types, item_types=item_types)


def _types(
    schema: Mapping[str, JsonValue], component: Callable[[str], bytes]
) -> tuple[frozenset[str], list[Mapping[str, JsonValue]]]:
    """Returns the types that a schema allows, and the schemas of its items or values."""
    if "$ref" in schema:
        return _types(orjson.loads(component(schema["$ref"].rsplit("/", 1)[1])), component)
    own = schema.get("type", [])
    types = frozenset([own] if isinstance(own, str) else own)
    inner = [schema[key] for key in ("items", "additionalProperties") if key in schema]
    inner += schema.get("properties", {}).values()
    for branch in [*schema.get("anyOf", ()), *schema.get("allOf", ())]:
        more_types, more_inner = _types(branch, component)
        types, inner = types | more_types, inner + more_inner
    return types, [one for one in inner if isinstance(one, dict)]


def _pairs(query_string: bytes) -> Iterable[tuple[str, str]]:
    if not query_string:
        return ()
    try:
        text = query_string.decode("ascii")
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_FIELDS)
    except UnicodeDecodeError:
        raise InvalidRequest("The query string is not percent-encoded UTF-8.") from None
    except ValueError:
        raise InvalidRequest(f"The query string has more than {_FIELDS} fields.") from None


def _split(sent_name: str, parameters: Mapping[str, TypedParameter]) -> tuple[str, str | None]:
    """Splits `metadata[k]` into name and key; maps `include[]` and `include` to the documented
    spelling."""
    if sent_name in parameters:
        return sent_name, None
    name, bracket, key = sent_name.partition("[")
    if not bracket:
        return (f"{sent_name}[]", None) if f"{sent_name}[]" in parameters else (sent_name, None)
    key = key.removesuffix("]")
    parameter = parameters.get(name)
    if parameter is None or not sent_name.endswith("]"):
        return sent_name, None
    if "object" in parameter.types:
        return name, key
    is_item = "array" in parameter.types and (key == "" or key.isdigit())
    return (name, None) if is_item else (sent_name, None)


def _add_value(
    values: dict[str, JsonValue],
    parameter: TypedParameter,
    key: str | None,
    text: str,
    is_lenient: bool,
) -> None:
    """Adds one value; refuses a repeated parameter, or takes the last value if `is_lenient`."""
    name = parameter.name
    if key is not None:
        found = values.setdefault(name, {})
        if not isinstance(found, dict) or (key in found and not is_lenient):
            raise _invalid(f"{name}[{key}]", "A parameter is given more than once.")
        found[key] = _coerce(text, parameter.item_types)
    elif "array" in parameter.types:
        values.setdefault(name, []).append(_coerce(text, parameter.item_types))
    elif name in values and not is_lenient:
        raise _invalid(name, "A parameter is given more than once.")
    else:
        values[name] = _coerce(text, parameter.types)


def _coerce(text: str, types: frozenset[str]) -> JsonValue:
    if "boolean" in types and text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    if "integer" in types and _INTEGER.fullmatch(text):
        return int(text)
    if "number" in types and _NUMBER.fullmatch(text):
        return float(text)
    return text


def _invalid(sent_name: str, message: str) -> InvalidRequest:
    return InvalidRequest(message, param=field_name((sent_name,)), code="invalid_value")
