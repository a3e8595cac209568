"""The ASGI application: Connexion's routing, authentication, validation, admission, dispatch.

A request passes, from the outside in:

    Envelope                      request id, `/v1` prefix
    ErrorRenderer                 any exception -> an error body
    LifespanMiddleware            start and stop                             (Connexion's)
    Routing                       path and method -> operationId             (mostly Connexion's)
    Authentication                key of `Authorization` or `x-api-key` -> caller
    RequestValidator              parameters and body, validated against the document
    Dispatcher                    operationId -> handler, response validated
      `admission`                 idempotency keys and admission control, around the handler
"""

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any, TypeAlias
from warnings import catch_warnings

from starlette.datastructures import Headers
from starlette.requests import Request as HttpRequest
from starlette.types import ASGIApp, Receive, Scope, Send

from llm_backend.contract.application.envelope import Envelope
from llm_backend.contract.application.error_handlers import ErrorRenderer
from llm_backend.contract.body import BodyLimits
from llm_backend.contract.document import Document
from llm_backend.contract.forms.form import FRAMING_BYTES, Form
from llm_backend.contract.forms.form_model import FormHead, prepend_head, read_form_head
from llm_backend.contract.operations import Operation
from llm_backend.contract.request import ApiRequest, Handler
from llm_backend.contract.request_validation import (
    RequestChecks,
    RequestValidator,
    ValidatedInput,
    operation_of,
)
from llm_backend.contract.response_validation import ResponseCheckMode, ResponseValidator
from llm_backend.contract.unknown_operation import UNKNOWN, UnknownPaths
from llm_backend.contract.validation import Validators
from llm_backend.errors import InvalidRequest
from llm_backend.temporary_files import TemporaryFiles
from llm_backend.unused_imports import block_imports

with (
    block_imports(
        "flask",
        asgiref__sync=("async_to_sync",),
        html=(),
        jinja2=(),
        jsonschema=("Draft4Validator", "RefResolver", "ValidationError"),
        jsonschema__exceptions=("RefResolutionError", "ValidationError"),
        jsonschema__validators=("extend",),
        requests=(),
        httpx=(),
        starlette__templating=("Jinja2Templates",),
        starlette__testclient=("TestClient",),
        urllib__request=(),
        werkzeug=("Request",),
        werkzeug__local=("LocalProxy",),
    ),
    catch_warnings(action="ignore", category=DeprecationWarning),  # Connexion's own imports
):
    from connexion.middleware import ConnexionMiddleware
    from connexion.middleware.abstract import ROUTING_CONTEXT
    from connexion.middleware.lifespan import LifespanMiddleware
    from connexion.middleware.main import API
    from connexion.middleware.routing import RoutingMiddleware
    from connexion.resolver import Resolution, Resolver
    from connexion.spec import OpenAPISpecification

Authenticate: TypeAlias = Callable[[Mapping[str, str], Operation], Awaitable[Any]]
"""Maps headers and operation to the caller; raises `Unauthorized` or `Forbidden`."""

SendResponse: TypeAlias = Callable[[ApiRequest, Send], Awaitable[None]]
"""Sends the whole response to one request, through admission control's `send`."""

Admission: TypeAlias = Callable[[ApiRequest, SendResponse, Send], Awaitable[None]]
"""Admission control: refuses, delays or answers a request, and meters the response."""

_log = logging.getLogger(__name__)

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def build_app(
    document: Document,
    validators: Validators,
    services: Any,
    *,
    handler_of: Callable[[Operation], Handler],
    authenticate: Authenticate,
    limits: BodyLimits,
    check_relayed: bool,
    response_checks: ResponseCheckMode,
    admission: Admission | None = None,
    logs_bodies: bool = False,
    no_relay_reason: str | None = "there is no upstream",
    temporary_files: TemporaryFiles | None = None,
) -> ASGIApp:
    """Builds the application over `document`; resolves every handler, raises for a missing one.

    `handler_of` returns an operation's handler, which is called with `services` and an
    `ApiRequest`. `admission` is called for every valid request, with the function that answers it.
    `logs_bodies` writes JSON bodies to the log, to debug a client. `no_relay_reason` is the reason
    why an operation outside of the document is not relayed; None if it is relayed.
    """
    unknown = UnknownPaths(no_relay_reason)
    resolver = HandlerResolver(document, services, handler_of)
    checks = RequestChecks(document, validators, limits, check_relayed=check_relayed)
    app = ConnexionMiddleware(
        Dispatcher(
            document,
            resolver,
            ResponseValidator(validators, response_checks),
            admission or _admit,
            unknown,
            stored_limit_bytes=limits.recording_bytes + FRAMING_BYTES,
            temporary_files=temporary_files or TemporaryFiles(),
            logs_bodies=logs_bodies,
        ),
        lifespan=lambda _app: nullcontext(),  # the caller opens and closes the services
        middlewares=[
            partial(ErrorRenderer, operations=document.operations),
            LifespanMiddleware,
            partial(Routing, document=document),
            partial(Authentication, document=document, authenticate=authenticate, unknown=unknown),
            partial(RequestValidator, checks=checks),
        ],
        resolver=resolver,
    )
    # `add_api` would validate the document by OpenAPI's schema, copy it, and resolve references.
    app.apis.append(API(CompiledView(document.view), base_path="", **vars(app.options)))
    return Envelope(app)


class CompiledView(OpenAPISpecification):  # type: ignore[misc]  # Connexion ships no types
    """The view of the compiled contract, which was validated when it was compiled and has no
    references."""

    def __init__(self, view: Mapping[str, Any]) -> None:
        self._spec = self._raw_spec = dict(view)
        self._set_defaults(self._spec)


class HandlerResolver(Resolver):  # type: ignore[misc]  # Connexion ships no types
    """Resolves each operation's handler once; Connexion calls `resolve` several times."""

    def __init__(
        self, document: Document, services: Any, handler_of: Callable[[Operation], Handler]
    ) -> None:
        super().__init__()
        operations = {**document.operations, UNKNOWN.operation_id: UNKNOWN}
        self._resolutions = {
            name: Resolution(partial(handler_of(operation), services), name)
            for name, operation in operations.items()
        }

    def resolve(self, operation: Any) -> Any:
        """Returns the resolution of an operation (Connexion's interface)."""
        return self._resolutions[operation.operation_id]

    def handler(self, operation_id: str) -> Callable[[ApiRequest], Awaitable[Any]]:
        """Returns the handler with its services bound."""
        function: Callable[[ApiRequest], Awaitable[Any]] = self._resolutions[operation_id].function
        return function


class Routing(RoutingMiddleware):  # type: ignore[misc]  # Connexion ships no types
    """Connexion's routing behind a table of the paths without parameters.

    Most requests have such a path, and no pattern has to be matched to find it.
    """

    def __init__(self, app: ASGIApp, *, document: Document) -> None:
        super().__init__(app)
        self._without_parameters = {
            (operation.method, operation.path): operation.operation_id
            for operation in document.operations.values()
            if "{" not in operation.path
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stores the operationId in the scope, as Connexion does."""
        operation_id = self._find_operation(scope)
        if operation_id is None:
            await super().__call__(scope, receive, send)
            return
        found = {ROUTING_CONTEXT: {"api_base_path": "", "operation_id": operation_id}}
        scope["extensions"] = {**scope.get("extensions", {}), **found}
        scope["path_params"] = {}
        await self.app(scope, receive, send)

    def _find_operation(self, scope: Scope) -> str | None:
        # The patterns leave out a `root_path`; the table holds no prefix.
        if scope["type"] != "http" or scope.get("root_path"):
            return None
        return self._without_parameters.get((scope["method"], scope["path"]))


class Authentication:
    """ASGI middleware: authenticates the caller before the body is read.

    Refuses paths with control characters. Route patterns treat a line break in their own way:
    Connexion would take such a path for a path of another API, and would not validate it.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        document: Document,
        authenticate: Authenticate,
        unknown: UnknownPaths,
    ) -> None:
        self._app = app
        self._document = document
        self._authenticate = authenticate
        self._unknown = unknown

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stores the operation in the state, and the caller unless the operation is public.

        An internal request of this server has a caller in the state already.
        """
        if scope["type"] == "http":
            if _CONTROL.search(scope["path"]):
                raise InvalidRequest("The path holds control characters.")
            operation = operation_of(scope, self._document)
            if operation is None:
                operation = scope["state"]["unknown_operation"] = self._unknown.operation(scope)
            if operation is not None:
                scope["state"]["operation_id"] = operation.operation_id
                if not operation.is_public and "caller" not in scope["state"]:
                    headers = Headers(scope=scope)
                    scope["state"]["caller"] = await self._authenticate(headers, operation)
        await self._app(scope, receive, send)


class Dispatcher:
    """Calls the handler of the routed operation, and sends its response."""

    def __init__(
        self,
        document: Document,
        resolver: HandlerResolver,
        response_validator: ResponseValidator,
        admission: Admission,
        unknown: UnknownPaths,
        *,
        stored_limit_bytes: int,
        temporary_files: TemporaryFiles,
        logs_bodies: bool,
    ) -> None:
        self._document = document
        self._resolver = resolver
        self._response_validator = response_validator
        self._admission = admission
        self._unknown = unknown
        self._stored_limit_bytes = stored_limit_bytes
        self._temporary_files = temporary_files
        self._logs_bodies = logs_bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers HTTP requests; closes websockets, which are not served here."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        operation = operation_of(scope, self._document)
        if operation is None:
            raise self._unknown.error(scope)
        state = scope["state"]
        checked: ValidatedInput = state["checked"]
        http = HttpRequest(scope, receive)
        names_model = checked.form is not None and "model" in checked.form.parameters
        is_local = operation.answered_by == "local"
        head: FormHead | None = None
        if names_model or not is_local:
            limit_bytes = self._stored_limit_bytes if names_model and is_local else None
            head = await read_form_head(http, self._temporary_files, stored_limit_bytes=limit_bytes)
        if head is not None:
            http = prepend_head(http, head)
        request = ApiRequest(
            operation=operation,
            http=http,
            request_id=state["request_id"],
            caller=state.get("caller"),
            path={"path": state["sent_path"]} if operation is UNKNOWN else scope["path_params"],
            query=checked.query,
            body=checked.body,
            raw_body=checked.raw_body,
            form=Form(http, checked.form) if checked.form else None,
            form_head=head,
        )
        if self._logs_bodies and checked.raw_body:
            _log_body(request)

        async def answer(request: ApiRequest, send: Send) -> None:
            response = await self._resolver.handler(operation.operation_id)(request)
            await self._response_validator.validate(operation, response)(scope, receive, send)

        try:
            await self._admission(request, answer, send)
        finally:
            if head is not None:
                head.close()


async def _admit(request: ApiRequest, answer: SendResponse, send: Send) -> None:
    await answer(request, send)


def _log_body(request: ApiRequest) -> None:
    body = request.raw_body.decode(errors="replace")
    line = body.translate({10: " ", 13: " "})  # line breaks, which JSON has between tokens only
    fields = {"request_id": request.request_id, "operation": request.operation.operation_id}
    _log.info("request_body", extra={**fields, "body": line})
