"""Request validation middleware: checks routed requests against the OpenAPI document.

The ASGI scope passes parsed query and body on, as `ValidatedInput`, of which the handler's
`ApiRequest` is made.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from starlette.types import ASGIApp, Receive, Scope, Send

from llm_backend.contract.body import (
    BodyLimits,
    announces_body,
    check_encoding,
    check_length,
    limit_body,
    parse_json,
    read_body,
    replay_body,
)
from llm_backend.contract.document import Document
from llm_backend.contract.forms.form import FRAMING_BYTES, FormCheck
from llm_backend.contract.operations import Operation
from llm_backend.contract.parameters import (
    TypedParameter,
    form_parameters,
    query_parameters,
    read_query,
)
from llm_backend.contract.unknown_operation import UNKNOWN
from llm_backend.contract.validation import Validators
from llm_backend.contract.validation_messages import abbreviate
from llm_backend.error_bodies import speaks_ollama
from llm_backend.errors import InvalidRequest, UnsupportedMediaType
from llm_backend.json_types import JsonMapping, JsonValue
from llm_backend.offload import REQUEST_BYTES, offload, schedule_memory_trim

ON_CHECKED = "on_checked"
"""Key of an `OnChecked` in the state of a request."""

OnChecked = Callable[[JsonMapping], Awaitable[None]]
"""Awaited with the valid JSON object of a request before its answer; may raise an `ApiError`."""

_JSON = "application/json"
_HINTS = {
    ("createChatCompletion", "'image_generation' is not supported"): (
        " The Responses API (`POST /v1/responses`) has this tool."
    ),
}
"""Hints for values that another operation accepts, by operation and by a part of the message."""
_MODEL_CHARACTERS = 512


@dataclass(kw_only=True, slots=True)
class ValidatedInput:
    """Parsed and validated parts of one request; owned by that request."""

    query: Mapping[str, JsonValue] = field(default_factory=dict)
    body: JsonValue = None
    raw_body: bytes = b""
    form: FormCheck | None = None


class RequestChecks:
    """Document, validators and limits, shared by the checks of all requests."""

    def __init__(
        self, document: Document, validators: Validators, limits: BodyLimits, *, check_relayed: bool
    ) -> None:
        self.document = document
        self.validators = validators
        self.limits = limits
        self._check_relayed = check_relayed
        self.query_parameters = lru_cache(maxsize=None)(self._query_parameters)
        self.form = lru_cache(maxsize=None)(self._form)
        self.takes_body = lru_cache(maxsize=None)(self._takes_body)
        self.takes_json = lru_cache(maxsize=None)(self._takes_json)
        self._media_types = lru_cache(maxsize=None)(self._described_media_types)

    def validates(self, operation: Operation) -> bool:
        """True if requests to the operation are validated against the document."""
        return operation.answered_by == "local" or self._check_relayed

    def check_media_type(self, operation_id: str, headers: Mapping[str, str]) -> None:
        """Raises `UnsupportedMediaType` for a content type that the operation does not accept."""
        described = self._media_types(operation_id)
        content_type = headers.get("content-type")
        if content_type is None or not described or _media_type(content_type) in described:
            return
        raise UnsupportedMediaType(
            f"The content type {abbreviate(_media_type(content_type))} is not supported here;"
            f" send {' or '.join(described)}."
        )

    def _form(self, operation_id: str) -> FormCheck | None:
        """Returns the check of a form that this server reads itself; None for other bodies."""
        if self.document.operations[operation_id].answered_by != "local":
            return None
        check = self.validators.form(operation_id)
        if check is None:
            return None
        parameters = form_parameters(
            check.schema["properties"], lambda name: self.document.component("schemas", name)
        )
        return FormCheck(check=check, parameters=parameters)

    def _takes_json(self, operation_id: str) -> bool:
        """True if the document describes a JSON body for the operation."""
        return _JSON in self._media_types(operation_id)

    def _takes_body(self, operation_id: str) -> bool:
        """True if the document describes a request body for the operation."""
        return "requestBody" in self.document.operation(operation_id)

    def _described_media_types(self, operation_id: str) -> tuple[str, ...]:
        body = self.document.operation(operation_id).get("requestBody", {})
        return tuple(body.get("content", {}))

    def _query_parameters(self, operation_id: str) -> Mapping[str, TypedParameter]:
        operation = self.document.operation(operation_id)
        return query_parameters(operation, lambda name: self.document.component("schemas", name))


def operation_of(scope: Scope, document: Document) -> Operation | None:
    """Returns the operation found by Connexion's routing, else `UNKNOWN` where the path may be
    relayed, else None."""
    operation_id = scope["extensions"]["connexion_routing"]["operation_id"]
    if operation_id is None:
        unknown: Operation | None = scope["state"].get("unknown_operation")
        return unknown
    return document.operations[operation_id]


class RequestValidator:
    """ASGI middleware after routing; a request without an operation passes unchecked."""

    def __init__(self, app: ASGIApp, *, checks: RequestChecks) -> None:
        self._app = app
        self._checks = checks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stores `ValidatedInput` in the scope. Raises `ApiError` for an invalid request."""
        operation = operation_of(scope, self._checks.document) if scope["type"] == "http" else None
        if operation is None:
            await self._app(scope, receive, send)
            return
        checked = scope["state"]["checked"] = ValidatedInput()
        headers = _first_values(scope)
        try:
            if operation is UNKNOWN:
                receive = await self._read(operation, checked, headers, receive)
            else:
                receive = await self._check(operation, checked, headers, scope, receive)
            on_checked: OnChecked | None = scope["state"].get(ON_CHECKED)
            if on_checked is not None and isinstance(checked.body, dict):
                await on_checked(checked.body)
            await self._app(scope, receive, send)
        finally:  # an idle connection keeps the scope of its last request alive
            checked.body, checked.raw_body = None, b""
            schedule_memory_trim()

    async def _check(
        self,
        operation: Operation,
        checked: ValidatedInput,
        headers: Mapping[str, str],
        scope: Scope,
        receive: Receive,
    ) -> Receive:
        if speaks_ollama(scope["path"]):
            headers = {**headers, "content-type": _JSON}  # `curl -d` says that JSON is a form
        self._checks.check_media_type(operation.operation_id, headers)
        self._check_query(operation, checked, scope["query_string"])
        if self._checks.takes_body(operation.operation_id):
            checked.form = self._checks.form(operation.operation_id)
        elif not announces_body(headers):
            return receive
        return await self._read(operation, checked, headers, receive)

    def _check_query(
        self, operation: Operation, checked: ValidatedInput, query_string: bytes
    ) -> None:
        checks = self._checks
        if not checks.validates(operation):
            return
        parameters = checks.query_parameters(operation.operation_id)
        is_lenient = operation.answered_by != "local"
        checked.query = read_query(query_string, parameters, is_lenient=is_lenient)
        if parameters and (check := checks.validators.query(operation.operation_id)):
            check.check_request(checked.query)

    async def _read(
        self,
        operation: Operation,
        checked: ValidatedInput,
        headers: Mapping[str, str],
        receive: Receive,
    ) -> Receive:
        """Reads, checks and replays a JSON body; other bodies are streamed within the limit."""
        checks = self._checks
        if _media_type(headers.get("content-type", _JSON)) != _JSON:
            limit_bytes = checks.limits.upload_bytes + (FRAMING_BYTES if checked.form else 0)
            check_length(headers, limit_bytes)
            return limit_body(receive, limit_bytes)
        if checked.form and not checks.takes_json(operation.operation_id):
            raise UnsupportedMediaType("This operation takes a form; send multipart/form-data.")
        checked.form = None
        check_length(headers, checks.limits.json_bytes)
        check_encoding(headers)
        raw = await read_body(limit_body(receive, checks.limits.json_bytes))
        checked.raw_body = raw
        REQUEST_BYTES.set(len(raw))
        await offload(self._parse_and_check, operation, checked)
        return replay_body(raw, receive)

    def _parse_and_check(self, operation: Operation, checked: ValidatedInput) -> None:
        if checked.raw_body:
            checked.body = parse_json(checked.raw_body, self._checks.limits)
            _check_model(checked.body)
        self._check_body(operation, checked)

    def _check_body(self, operation: Operation, checked: ValidatedInput) -> None:
        if operation is UNKNOWN or not self._checks.validates(operation):
            return
        if checked.query.get("beta") is True:
            return  # `?beta=true` has a body of its own in the document, which is not compiled
        check = self._checks.validators.body(operation.operation_id)
        if check is None:
            return
        if checked.raw_body:
            try:
                check.check_request(checked.body)
            except InvalidRequest as error:
                hint = _hint(operation.operation_id, error.message)
                raise InvalidRequest(
                    error.message + hint, param=error.param, code=error.code
                ) from error
        elif self._checks.validators.needs_body(operation.operation_id):
            message = "The body is missing; this operation takes a JSON object."
            raise InvalidRequest(message, code="missing_body")


def _check_model(body: JsonValue) -> None:
    """Raises `InvalidRequest` for an overlong model name: names are stored, logged and counted."""
    model = body.get("model") if isinstance(body, dict) else None
    if isinstance(model, str) and len(model) > _MODEL_CHARACTERS:
        message = f"`model` has more than {_MODEL_CHARACTERS} characters; no model is named so."
        raise InvalidRequest(message, param="model")


def _first_values(scope: Scope) -> Mapping[str, str]:
    """Returns the first value of each header, by lower-case name."""
    pairs = reversed(scope["headers"])
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in pairs}


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _hint(operation_id: str, message: str) -> str:
    """Returns the sentence that names the operation with the refused value; empty for none."""
    hints = (hint for (id, part), hint in _HINTS.items() if id == operation_id and part in message)
    return next(hints, "")
