"""What a handler is given: a request that keeps the contract, already parsed."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from llm_backend.contract.forms.form import Form
from llm_backend.contract.forms.form_model import FormHead
from llm_backend.contract.operations import Operation

__all__ = ["ApiRequest", "Handler"]

Json: TypeAlias = Any  # a parsed body: any JSON value


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiRequest:
    """One checked request.

    `body` is the parsed JSON body, None where there is none or it is not JSON; `raw_body` holds
    its bytes as they came. Other bodies (uploads) have not been read: take them from `form`, which
    operations answered here have where they take a form, or from `http.stream()`; `form_head` is
    the beginning of a form that is an upstream's, looked at. `query` holds typed values and only
    what the client sent; `path` is decoded. `caller` is what `authenticate` returned, None for
    operations that ask for no key.
    """

    operation: Operation
    http: HttpRequest
    request_id: str
    caller: Any
    path: Mapping[str, str]
    query: Mapping[str, Json]
    body: Json
    raw_body: bytes
    form: Form | None = None
    form_head: FormHead | None = None


Handler: TypeAlias = Callable[[Any, ApiRequest], Awaitable[Response]]
"""`async def create_chat_completion(services, request) -> Response`."""
