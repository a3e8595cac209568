"""Compiled JSON Schema validators: for each body, query, response and stream event.

They are compiled from slices of the document on first use and cached; compiling takes a
millisecond or two, checking microseconds. Thread-safe.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from threading import Lock

import orjson
from jsonschema_rs import Draft202012Validator

from llm_backend.contract.document import SCHEMAS_PREFIX, Document
from llm_backend.contract.validation_messages import ValidationMessage, find_failure
from llm_backend.errors import InvalidRequest
from llm_backend.json_types import JsonValue
from llm_backend.sse import NDJSON

_REFERENCE = re.compile(rb'"%b([^"]+)"' % SCHEMAS_PREFIX.encode())
_CLOSED = re.compile(rb'"additionalProperties":false,|,?"additionalProperties":false')


class ContractViolation(Exception):
    """Raised if a response of this server breaks the document: a bug of this server."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One compiled schema, with access to its parts for error messages."""

    schema: JsonValue
    is_valid: Callable[[JsonValue], bool]
    component: Callable[[str], JsonValue]
    validator: Callable[[JsonValue], Callable[[JsonValue], bool]]

    def check_request(self, value: JsonValue, *, param: str | None = None) -> None:
        """Raises `InvalidRequest`, naming the field, for a value that breaks the schema."""
        if not self.is_valid(value):
            found = self._failure(value)
            raise InvalidRequest(found.message, param=found.field or param, code=found.code)

    def check_response(self, value: JsonValue, operation_id: str) -> None:
        """Raises `ContractViolation` for a value that breaks the schema."""
        if not self.is_valid(value):
            raise ContractViolation(f"{operation_id}: {self._failure(value).message}")

    def _failure(self, value: JsonValue) -> ValidationMessage:
        return find_failure(value, self.schema, self.component, self.validator)


class Validators:
    """Cache of the validators of a document, compiled on first use; thread-safe."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._lock = Lock()
        self._checks: dict[tuple[str, ...], Check | None] = {}
        self.media_types = lru_cache(maxsize=1024)(self._find_media_types)

    def body(self, operation_id: str) -> Check | None:
        """Returns the check of a JSON request body; None if the document describes none.

        Relayed bodies may hold unknown fields.
        """
        is_relayed = self._document.operations[operation_id].answered_by != "local"

        def schema(operation: Mapping[str, JsonValue]) -> JsonValue:
            content = operation.get("requestBody", {}).get("content", {})
            return content.get("application/json", {}).get("schema")

        return self._check((operation_id, "body"), schema, allows_unknown=is_relayed)

    def form(self, operation_id: str) -> Check | None:
        """Returns the check of a multipart body's fields as one object; files are strings."""

        def schema(operation: Mapping[str, JsonValue]) -> JsonValue:
            content = operation.get("requestBody", {}).get("content", {})
            found = content.get("multipart/form-data", {}).get("schema", {})
            name = found.get("$ref", "").removeprefix(SCHEMAS_PREFIX)
            return orjson.loads(self._document.component("schemas", name)) if name else found

        return self._check((operation_id, "form"), schema)

    def query(self, operation_id: str) -> Check | None:
        """Returns the check of the query parameters as one object of typed values."""

        def schema(operation: Mapping[str, JsonValue]) -> JsonValue:
            found = [p for p in operation.get("parameters", ()) if p["in"] == "query"]
            return found and {
                "type": "object",
                "properties": {p["name"]: p["schema"] for p in found},
                "required": [p["name"] for p in found if p.get("required")],
            }

        return self._check((operation_id, "query"), schema)

    def response(self, operation_id: str, status: int, media_type: str) -> Check | None:
        """Returns the check of a response body; None if the document does not describe it."""

        def schema(operation: Mapping[str, JsonValue]) -> JsonValue:
            response = self._response(operation, status)
            return response.get("content", {}).get(media_type, {}).get("schema")

        return self._check((operation_id, "response", str(status), media_type), schema)

    def event(self, operation_id: str) -> Check | None:
        """Returns the check of the data of one event, or line, of the operation's stream."""
        events = self.response(operation_id, 200, "text/event-stream")
        return events or self.response(operation_id, 200, NDJSON)

    def component(self, name: str) -> Check:
        """Returns the check of a schema by its name, of an event of a WebSocket for instance."""
        key = ("", name)
        with self._lock:
            check = self._checks.get(key)
            if check is None:
                check = self._checks[key] = self._compile(
                    {"$ref": f"{SCHEMAS_PREFIX}{name}"}, False
                )
            return check

    def event_validator(
        self, operation_id: str
    ) -> Callable[[bytes | Mapping[str, JsonValue]], None]:
        """Returns a function that raises `ContractViolation` for an invalid event.

        It takes the event's data, as bytes or parsed; `[DONE]` and error events always pass.
        """
        check = self.event(operation_id)

        def validate(data: bytes | Mapping[str, JsonValue]) -> None:
            if data == b"[DONE]":
                return
            value = orjson.loads(data) if isinstance(data, bytes) else data
            if check is not None and not (isinstance(value, dict) and "error" in value):
                check.check_response(value, operation_id)

        return validate

    def needs_body(self, operation_id: str) -> bool:
        """True if a request to the operation must have a body."""
        body = self._document.operation(operation_id).get("requestBody", {})
        return bool(body.get("required", False))

    def warm(self, operation_ids: Iterable[str]) -> None:
        """Compiles the request checks of these operations; called in a thread at startup."""
        for operation_id in operation_ids:
            self.query(operation_id)
            self.body(operation_id)
            self.form(operation_id)

    def _find_media_types(self, operation_id: str, status: int) -> frozenset[str] | None:
        """Returns the media types of a response; None for a status that is not described."""
        operation = self._document.operation(operation_id)
        if str(status) not in operation["responses"]:
            return None
        return frozenset(self._response(operation, status).get("content", {}))

    def _response(self, operation: Mapping[str, JsonValue], status: int) -> Mapping[str, JsonValue]:
        response: Mapping[str, JsonValue] = operation["responses"].get(str(status), {})
        if "$ref" in response:
            name = response["$ref"].rsplit("/", 1)[1]
            referred: Mapping[str, JsonValue] = orjson.loads(
                self._document.component("responses", name)
            )
            return referred
        return response

    def _check(
        self,
        key: tuple[str, ...],
        find: Callable[[Mapping[str, JsonValue]], JsonValue],
        *,
        allows_unknown: bool = False,
    ) -> Check | None:
        """Returns the compiled schema that `find` returns; `allows_unknown` permits other
        fields."""
        if key in self._checks:
            return self._checks[key]
        with self._lock:
            if key not in self._checks:
                schema = find(self._document.operation(key[0]))
                self._checks[key] = self._compile(schema, allows_unknown) if schema else None
            return self._checks[key]

    def _compile(self, schema: JsonValue, allows_unknown: bool) -> Check:
        @cache
        def validator_of(part: bytes) -> Callable[[JsonValue], bool]:
            text = self._closure(part)
            if allows_unknown:
                text = _CLOSED.sub(b"", text)
            return Draft202012Validator(
                text.decode(), validate_formats=False, offline=True
            ).is_valid

        def component(reference: str) -> JsonValue:
            found = self._document.component("schemas", reference.removeprefix(SCHEMAS_PREFIX))
            return orjson.loads(_CLOSED.sub(b"", found) if allows_unknown else found)

        return Check(
            schema=schema,
            is_valid=validator_of(orjson.dumps(schema)),
            component=component,
            validator=lambda part: validator_of(orjson.dumps(part)),
        )

    def _closure(self, schema: bytes) -> bytes:
        """Returns the schema as JSON text, together with every component that it references."""
        found: dict[str, bytes] = {}
        unread = [schema]
        while unread:
            for name in map(bytes.decode, _REFERENCE.findall(unread.pop())):
                if name not in found:
                    found[name] = self._document.component("schemas", name)
                    unread.append(found[name])
        components = b",".join(orjson.dumps(name) + b":" + text for name, text in found.items())
        return b'{"allOf":[' + schema + b'],"components":{"schemas":{' + components + b"}}}"
