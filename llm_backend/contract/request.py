"""The request that handlers receive: validated against the contract and parsed."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from llm_backend.contract.forms.form import Form
from llm_backend.contract.forms.form_model import FormHead
from llm_backend.contract.operations import Operation
from llm_backend.json_types import JsonValue


@dataclass(kw_only=True, slots=True, eq=False)
class ApiRequest:
    """One validated request.

    `body` is the parsed JSON body, None if there is none or it is not JSON; `raw_body` holds its
    bytes as sent. Other bodies (uploads) are unread: a local operation with a form reads them from
    `form`, others from `http.stream()`. `form_head` is the beginning of a form that names a model
    or is relayed to an upstream. `query` is a dict of typed values, only for the parameters that
    the client sent; `path` is decoded. Handlers give `body` and `query` the types of
    `contract/api_types.pyi`. `caller` is the result of `authenticate`, None for operations that
    need no key. `meter` counts the usage of the request. Admission control sets it for metered
    operations; no other field changes. For a project without retention, handlers get a copy in
    which `store` of `body` and `raw_body` is false.
    """

    operation: Operation
    http: HttpRequest
    request_id: str
    caller: Any
    path: Mapping[str, str]
    query: JsonValue
    body: JsonValue
    raw_body: bytes
    form: Form | None = None
    form_head: FormHead | None = None
    meter: Any = None  # Any: a `RequestMeter` of access control, which is above this package


Handler: TypeAlias = Callable[[Any, ApiRequest], Awaitable[Response]]
"""`async def create_chat_completion(services, request) -> Response`."""
