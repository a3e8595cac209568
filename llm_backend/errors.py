"""Every error that a client can get. Those of one module are defined there: `UnknownKey` in
`keyring.py`, `SchemaUnsupported` in `backends/schemas/keywords.py`. `error_bodies.py` has their
bodies.

    ApiError                     status  type                    code
    |- InvalidRequest               400  invalid_request_error   invalid_value, or as given
    |  |- UnsupportedField          400  invalid_request_error   unsupported_parameter
    |  |- SchemaUnsupported         400  invalid_request_error   invalid_json_schema
    |  |- ContextLengthExceeded     400  invalid_request_error   context_length_exceeded
    |  |- Unauthorized              401  invalid_request_error   invalid_api_key
    |  |  `- UnknownKey             401  invalid_request_error   invalid_api_key
    |  |- Forbidden                 403  invalid_request_error   insufficient_permissions
    |  |- NotFound                  404  invalid_request_error   not_found
    |  |  `- ModelNotFound          404  invalid_request_error   model_not_found
    |  |- MethodNotAllowed          405  invalid_request_error   method_not_allowed
    |  |- Conflict                  409  invalid_request_error   conflict
    |  |- TooLarge                  413  invalid_request_error   request_too_large
    |  |- UnsupportedMediaType      415  invalid_request_error   unsupported_media_type
    |  `- RangeNotSatisfiable       416  invalid_request_error   range_not_satisfiable
    |- RateLimited                  429  rate_limit_error        rate_limit_exceeded
    |  `- LimitReached              429  rate_limit_error        rate_limit_exceeded
    |     |- RequestsLimited        429  requests                rate_limit_exceeded
    |     `- TokensLimited          429  tokens                  rate_limit_exceeded
    |- QuotaExceeded                429  insufficient_quota      insufficient_quota
    |- ClientGone                   499  server_error            client_gone (for the log)
    |- Internal                     500  server_error            internal_error
    |- UnusableAnswer               500  server_error            unusable_answer, or as given
    |- ContentMissing               500  server_error            content_missing
    |- Unsupported                  501  server_error            unsupported_operation
    |- ServiceUnavailable          503  server_error            overloaded
    |  |- NotServing                503  server_error            overloaded
    |  `- EngineUnavailable         503  server_error            engine_unavailable
    |- DeadlineExceeded             504  server_error            deadline_exceeded
    `- UpstreamError                502  server_error            upstream_failed
       |- UpstreamFailed            502  server_error            upstream_failed
       `- UpstreamTimeout           504  server_error            upstream_timeout

A message is for the person who must act: what happened, the value, what to do.
"""

import math
from collections.abc import Mapping
from typing import ClassVar

from llm_backend.close_names import did_you_mean

RETRY_AFTER_S = 1.0
"""`Retry-After` of overload and of a restart of one of the server's processes: both end soon."""

OUTAGE_RETRY_AFTER_S = 5.0
"""`Retry-After` while a server that this one needs is down: a database or an object store."""

RESTART_RETRY_AFTER_S = 5.0
"""`Retry-After` of a server that stops: its successor needs seconds to load models and listen."""

FULL_DISK_RETRY_AFTER_S = 30.0
"""`Retry-After` while the disk of request files is full, which takes longer than overload."""

INVALID_JSON_SCHEMA = "invalid_json_schema"
"""Code of every refusal of a JSON schema that answers or calls have to follow."""

# A message may quote what the client sent, and the latest errors are kept in memory.
_MESSAGE_CHARACTERS = 4096
_PARAM_CHARACTERS = 512


class ApiError(Exception):
    """An error with an HTTP status and OpenAI's `type`, `param` and `code`."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str] = "internal_error"
    # if False, a header tells SDKs not to retry; otherwise they decide by the status
    may_succeed_later: ClassVar[bool] = True

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        message = _shorten(message, _MESSAGE_CHARACTERS)
        super().__init__(message)
        self.message = message
        self.param = param and _shorten(param, _PARAM_CHARACTERS)
        self.code = code or self.default_code
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the error response."""
        if not self.may_succeed_later:
            return {"x-should-retry": "false"}
        if self.retry_after_s is None:
            return {}
        return {"Retry-After": str(max(1, round(self.retry_after_s)))}


class InvalidRequest(ApiError):
    """The request violates the OpenAPI document or a rule in its prose."""

    status = 400
    type = "invalid_request_error"
    default_code = "invalid_value"


class UnsupportedField(InvalidRequest):
    """The document has the field, but this server does not support it on this model."""

    default_code = "unsupported_parameter"


class ContextLengthExceeded(InvalidRequest):
    """The prompt, or the prompt and the requested tokens, can never fit the context."""

    default_code = "context_length_exceeded"


class Unauthorized(InvalidRequest):
    """No API key, or one that is unknown, expired, revoked or of an archived project."""

    status = 401
    default_code = "invalid_api_key"


class Forbidden(InvalidRequest):
    """The key is known and lacks a permission."""

    status = 403
    default_code = "insufficient_permissions"


class NotFound(InvalidRequest):
    """The named resource does not exist; the message holds its id."""

    status = 404
    default_code = "not_found"


class ModelNotFound(NotFound):
    """No local model, alias or upstream has this name; `hint` says what would serve it."""

    default_code = "model_not_found"

    def __init__(self, model: str, similar_name: str | None = None, hint: str = "") -> None:
        meant = did_you_mean(similar_name)
        super().__init__(
            f"The model `{model}` does not exist.{meant} See GET /v1/models.{hint}", param="model"
        )
        self.model = model
        self.similar_name = similar_name  # an existing name that was perhaps meant


class MethodNotAllowed(InvalidRequest):
    """The path exists, but not with this method."""

    status = 405
    default_code = "method_not_allowed"


class Conflict(InvalidRequest):
    """The state of the resource forbids the operation."""

    status = 409
    default_code = "conflict"
    may_succeed_later = False


class TooLarge(InvalidRequest):
    """The body exceeds a size limit."""

    status = 413
    default_code = "request_too_large"


class UnsupportedMediaType(InvalidRequest):
    """The operation does not accept the body's content type."""

    status = 415
    default_code = "unsupported_media_type"


class RangeNotSatisfiable(InvalidRequest):
    """The range begins after the last byte of the file."""

    status = 416
    default_code = "range_not_satisfiable"

    def __init__(self, size_bytes: int) -> None:
        super().__init__(f"The range holds none of the {size_bytes} bytes.", param="Range")
        self.size_bytes = size_bytes

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the error response: the file's size."""
        return {"Content-Range": f"bytes */{self.size_bytes}"}


class RateLimited(ApiError):
    """This caller sends too much in too short a time. `LimitReached` also says when to retry."""

    status = 429
    type = "rate_limit_error"
    default_code = "rate_limit_exceeded"


class LimitReached(RateLimited):
    """One of a caller's limits is reached; `more_headers` hold the state of all of them."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after_s: float | None = None,
        more_headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, param=param, retry_after_s=retry_after_s)
        self._more_headers = dict(more_headers or {})

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the error response: the time of a retry, and the state of the limits."""
        wait = self.retry_after_s
        if wait is None:  # no retry can succeed
            return {"x-should-retry": "false", **self._more_headers}
        seconds, milliseconds = math.ceil(wait), math.ceil(wait * 1000)  # never too early
        retry_headers = {
            "Retry-After": str(max(1, seconds)),
            "retry-after-ms": str(max(1, milliseconds)),
        }
        return {**retry_headers, **self._more_headers}


class RequestsLimited(LimitReached):
    """Too many requests in a window of time, or concurrently."""

    type = "requests"


class TokensLimited(LimitReached):
    """Too many tokens in a window of time."""

    type = "tokens"


class QuotaExceeded(ApiError):
    """A spend limit is reached; a retry fails until the limit is raised or the month ends."""

    status = 429
    type = "insufficient_quota"
    default_code = "insufficient_quota"
    may_succeed_later = False


class ClientGone(ApiError):
    """The client disconnected before its answer; 499 is the status that proxies log then."""

    status = 499
    default_code = "client_gone"

    def __init__(self) -> None:
        super().__init__("The client left.")


class Internal(ApiError):
    """A bug of this server; the request id finds it in the log."""


class UnusableAnswer(ApiError):
    """The model gave no usable answer, however often it was asked: no bug of this server."""

    default_code = "unusable_answer"


class ContentMissing(ApiError):
    """The object store lacks the bytes of a stored object: a person must restore them."""

    default_code = "content_missing"
    may_succeed_later = False


class Unsupported(ApiError):
    """The document has the operation, but nothing configured here answers it."""

    status = 501
    default_code = "unsupported_operation"
    may_succeed_later = False


class ServiceUnavailable(ApiError):
    """The server cannot answer now: its load is too high, or a part such as its database is
    unavailable; `Retry-After` says when to retry."""

    status = 503
    default_code = "overloaded"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = RETRY_AFTER_S,
    ) -> None:
        super().__init__(message, param=param, code=code, retry_after_s=retry_after_s)


class NotServing(ServiceUnavailable):
    """The server is starting, and no model can answer yet, or it is being stopped. Probes expect
    this answer, so the log has no error for it."""


class EngineUnavailable(ServiceUnavailable):
    """A process that computes has ended or is not ready; a retry may succeed."""

    default_code = "engine_unavailable"


class DeadlineExceeded(ApiError):
    """The answer took longer than this server's deadline."""

    status = 504
    default_code = "deadline_exceeded"


class UpstreamError(ApiError):
    """An upstream did not answer. `may_be_processed` is False if the request counts as not
    processed, so that another upstream may get it. `is_permanent` is True if a retry at the same
    upstream is futile."""

    status = 502
    default_code = "upstream_failed"
    may_be_processed = True
    is_permanent = False


class UpstreamFailed(UpstreamError):
    """The upstream could not be reached, or sent an invalid answer."""


class UpstreamTimeout(UpstreamError):
    """The upstream did not answer within the deadline."""

    status = 504
    default_code = "upstream_timeout"


_BY_STATUS: dict[int, type[ApiError]] = {
    error.status: error
    for error in (
        InvalidRequest, Unauthorized, Forbidden, NotFound, MethodNotAllowed, Conflict, TooLarge,
        UnsupportedMediaType, RateLimited, Unsupported, UpstreamFailed, ServiceUnavailable,
        UpstreamTimeout,
    )
}  # fmt: skip


def from_status(status: int, message: str) -> ApiError:
    """Returns the error of this status, for failures of a library or an upstream of which only the
    status is known. Other statuses become 400 or 500."""
    if status in _BY_STATUS:
        return _BY_STATUS[status](message)
    return InvalidRequest(message) if 400 <= status < 500 else Internal(message)


def _shorten(text: str, characters: int) -> str:
    return text if len(text) <= characters else f"{text[: characters - 1]}…"
