"""Exception handlers for Connexion: render every exception as OpenAI's error body."""

import logging
import re
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from llm_backend.contract.operations import Operations
from llm_backend.errors import (
    ApiError,
    ClientGone,
    Internal,
    MethodNotAllowed,
    Unsupported,
    error_body_for,
    from_status,
)

_log = logging.getLogger(__name__)


def add_error_handlers(app: Any, operations: Operations) -> None:
    """Registers one renderer for `ApiError`, Connexion's and Starlette's errors, and bugs."""
    from connexion.exceptions import ProblemException

    async def render(request: Any, error: Exception) -> Any:
        state = request.scope["state"]
        state["error"] = api_error = to_api_error(error)  # read by outer middleware
        response = _render(request.scope, error, api_error)
        if response.status_code == 405:
            methods = _allowed_methods(operations, request.scope["path"])
            response.headers["Allow"] = methods or getattr(error, "headers", {}).get("Allow", "")
        _drop_tracebacks(error)
        _drop_tracebacks(api_error)
        return response

    for kind in (ApiError, ProblemException, HTTPException, Exception):
        app.add_error_handler(kind, render)


def to_api_error(error: Exception) -> ApiError:
    """Converts an exception into the error sent to the client; hides the cause of unexpected
    ones."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException) and error.status_code == 405:
        return MethodNotAllowed("This path does not take this method.")
    if isinstance(error, ClientDisconnect):
        return ClientGone()
    if isinstance(error, HTTPException):
        return from_status(error.status_code, str(error.detail or "The request is not understood."))
    return Internal("The server met an error of its own; its log has it under the request id.")


def _drop_tracebacks(error: BaseException | None) -> None:
    """Clears the tracebacks of an error and its causes.

    An error in the scope of its request would keep that scope and the request's body alive through
    its traceback's frames: a reference cycle, freed only by a full garbage collection.
    """
    seen: set[int] = set()  # the causes of an error that was raised again can form a circle
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _render(scope: Scope, error: Exception, api_error: ApiError) -> Any:
    from connexion.lifecycle import ConnexionResponse

    fields = {
        "request_id": scope["state"]["request_id"],
        "status": api_error.status,
        "code": api_error.code,
    }
    if isinstance(api_error, Internal):
        _log.error("request_failed", exc_info=error, extra=fields)
    elif api_error.status >= 500 and not isinstance(api_error, Unsupported):
        _log.error("request_failed", extra=fields)
    else:
        _log.info("request_refused", extra=fields)
    return ConnexionResponse(
        status_code=api_error.status,
        mimetype="application/json",
        body=orjson.dumps(error_body_for(scope["path"], api_error)),
        headers=api_error.headers,
    )


def _allowed_methods(operations: Operations, path: str) -> str:
    """Returns the `Allow` header: Starlette names the methods of its first route only."""
    methods = {
        operation.method
        for operation in operations.values()
        if re.fullmatch(re.sub(r"\{[^}]*\}", "[^/]+", operation.path), path)
    }
    return ", ".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))
