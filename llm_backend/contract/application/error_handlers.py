"""Errors of requests: every exception is rendered as an error body."""

import logging
import re
from collections.abc import Awaitable

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llm_backend.contract.operations import Operations
from llm_backend.error_bodies import error_body_for
from llm_backend.errors import (
    FULL_DISK_RETRY_AFTER_S,
    ApiError,
    ClientGone,
    Internal,
    MethodNotAllowed,
    NotServing,
    ServiceUnavailable,
    Unsupported,
    from_status,
)
from llm_backend.temporary_files import FULL_DISK

_log = logging.getLogger(__name__)


class ErrorRenderer:
    """ASGI middleware: renders any exception as an error body, unless the answer has begun.

    It replaces Connexion's middleware, which creates a request object for every request, even
    without an error.
    """

    def __init__(self, app: ASGIApp, *, operations: Operations) -> None:
        self._app = app
        self._operations = operations

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes the request on, and answers it after an exception."""
        has_begun = False

        def watch(message: Message) -> Awaitable[None]:
            nonlocal has_begun
            has_begun = True
            return send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception as error:  # the error renderer: a bug must not look like silence
            if has_begun or scope["type"] != "http":
                raise
            await self._response(scope, error)(scope, receive, send)

    def _response(self, scope: Scope, error: Exception) -> Response:
        state = scope["state"]
        state["error"] = api_error = to_api_error(error)  # read by outer middleware
        response = _render(scope, error, api_error)
        if response.status_code == 405:
            methods = _allowed_methods(self._operations, scope["path"])
            response.headers["Allow"] = methods or getattr(error, "headers", {}).get("Allow", "")
        _drop_tracebacks(error)
        _drop_tracebacks(api_error)
        return response


def to_api_error(error: Exception) -> ApiError:
    """Converts an exception into the error sent to the client. An unexpected one becomes
    `Internal`, which hides its cause."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException) and error.status_code == 405:
        return MethodNotAllowed("This path does not support this method.")
    if isinstance(error, ClientDisconnect):
        return ClientGone()
    if isinstance(error, HTTPException):
        return from_status(error.status_code, str(error.detail or "The request is not understood."))
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        return ServiceUnavailable(
            "The server's disk has no room for the files of this request; try again later.",
            retry_after_s=FULL_DISK_RETRY_AFTER_S,
        )
    return Internal("The server had an internal error; its log has it under the request id.")


def _drop_tracebacks(error: BaseException | None) -> None:
    """Clears the tracebacks of an error and its causes.

    An error in the scope of its request would keep that scope and the request's body alive, through
    the frames of its traceback. Only a full garbage collection frees such a reference cycle.
    """
    seen: set[int] = set()  # causes form a cycle if an error was raised again
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _render(scope: Scope, error: Exception, api_error: ApiError) -> Response:
    fields = {
        "request_id": scope["state"]["request_id"],
        "status": api_error.status,
        "code": api_error.code,
    }
    if isinstance(api_error, Internal):
        _log.error("request_failed", exc_info=error, extra=fields)
    elif api_error.status >= 500 and not isinstance(api_error, Unsupported | NotServing):
        _log.error("request_failed", extra=fields)
    else:
        _log.info("request_refused", extra=fields)
    return Response(
        orjson.dumps(error_body_for(scope["path"], api_error)),
        status_code=api_error.status,
        headers=api_error.headers,
        media_type="application/json",
    )


def _allowed_methods(operations: Operations, path: str) -> str:
    """Returns the value of the `Allow` header; Starlette's names the methods of one route only."""
    methods = {
        operation.method
        for operation in operations.values()
        if re.fullmatch(re.sub(r"\{[^}]*\}", "[^/]+", operation.path), path)
    }
    return ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))
