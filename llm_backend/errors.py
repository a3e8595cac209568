"""Every error a client can see, and the one way it becomes OpenAI's error body.

    ApiError                     status  type                    code
    |- InvalidRequest               400  invalid_request_error   invalid_value, or as given
    |  |- UnsupportedField          400  invalid_request_error   unsupported_parameter
    |  `- ContextLengthExceeded     400  invalid_request_error   context_length_exceeded
    |- Unauthorized                 401  invalid_request_error   invalid_api_key
    |- Forbidden                    403  invalid_request_error   insufficient_permissions
    |- NotFound                     404  invalid_request_error   not_found
    |  `- ModelNotFound             404  invalid_request_error   model_not_found
    |- MethodNotAllowed             405  invalid_request_error   method_not_allowed
    |- Conflict                     409  invalid_request_error   conflict
    |- TooLarge                     413  invalid_request_error   request_too_large
    |- UnsupportedMediaType         415  invalid_request_error   unsupported_media_type
    |- RangeNotSatisfiable          416  invalid_request_error   range_not_satisfiable
    |- RateLimited                  429  rate_limit_error        rate_limit_exceeded
    |  `- LimitReached              429  rate_limit_error        rate_limit_exceeded
    |     |- RequestsLimited        429  requests                rate_limit_exceeded
    |     `- TokensLimited          429  tokens                  rate_limit_exceeded
    |- QuotaExceeded                429  insufficient_quota      insufficient_quota
    |- ClientGone                   499  server_error            client_gone (nobody reads it)
    |- Internal                     500  server_error            internal_error
    |- Unsupported                  501  server_error            unsupported_operation
    |- Overloaded                   503  server_error            overloaded
    |  `- EngineUnavailable         503  server_error            engine_unavailable
    |- DeadlineExceeded             504  server_error            deadline_exceeded
    `- UpstreamError                502  server_error            upstream_failed
       |- UpstreamFailed            502  server_error            upstream_failed
       `- UpstreamTimeout           504  server_error            upstream_timeout

A message is for the person who must act: what happened, the value, what to do.
"""

import math
from collections.abc import Mapping
from typing import ClassVar, TypedDict

__all__ = [
    "ApiError",
    "ClientGone",
    "Conflict",
    "ContextLengthExceeded",
    "DeadlineExceeded",
    "EngineUnavailable",
    "ErrorBody",
    "Forbidden",
    "Internal",
    "InvalidRequest",
    "LimitReached",
    "MethodNotAllowed",
    "ModelNotFound",
    "NotFound",
    "Overloaded",
    "QuotaExceeded",
    "RangeNotSatisfiable",
    "RateLimited",
    "RequestsLimited",
    "TokensLimited",
    "TooLarge",
    "Unauthorized",
    "Unsupported",
    "UnsupportedField",
    "UnsupportedMediaType",
    "UpstreamError",
    "UpstreamFailed",
    "UpstreamTimeout",
    "error_body",
    "from_status",
]


class ErrorDetail(TypedDict):
    """What stands under `error`; all four keys are always present."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(TypedDict):
    """OpenAI's error body."""

    error: ErrorDetail


class ApiError(Exception):
    """An error with an HTTP status and OpenAI's `type`, `param` and `code`."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str] = "internal_error"
    may_succeed_later: ClassVar[bool] = True  # SDKs retry by the status unless they are told

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.default_code
        self.retry_after_s = retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """Headers that belong to the answer."""
        if not self.may_succeed_later:
            return {"x-should-retry": "false"}
        if self.retry_after_s is None:
            return {}
        return {"Retry-After": str(max(1, round(self.retry_after_s)))}


class InvalidRequest(ApiError):
    """The request breaks the document or a rule that the document only describes."""

    status = 400
    type = "invalid_request_error"
    default_code = "invalid_value"


class UnsupportedField(InvalidRequest):
    """The field is in the document but this server does not honour it on this model."""

    default_code = "unsupported_parameter"


class ContextLengthExceeded(InvalidRequest):
    """The prompt, or the prompt and the tokens asked for, can never fit the context."""

    default_code = "context_length_exceeded"


class Unauthorized(InvalidRequest):
    """No key, or one that is not known."""

    status = 401
    default_code = "invalid_api_key"


class Forbidden(InvalidRequest):
    """The key is known and may not do this."""

    status = 403
    default_code = "insufficient_permissions"


class NotFound(InvalidRequest):
    """The named thing does not exist; the message holds its id."""

    status = 404
    default_code = "not_found"


class ModelNotFound(NotFound):
    """No local model, alias or upstream answers to this name."""

    default_code = "model_not_found"

    def __init__(self, model: str) -> None:
        super().__init__(f"The model `{model}` does not exist. See GET /v1/models.", param="model")


class MethodNotAllowed(InvalidRequest):
    """The path exists, the method on it does not."""

    status = 405
    default_code = "method_not_allowed"


class Conflict(InvalidRequest):
    """The thing is in a state that forbids this."""

    status = 409
    default_code = "conflict"
    may_succeed_later = False


class TooLarge(InvalidRequest):
    """The body is over the limit."""

    status = 413
    default_code = "request_too_large"


class UnsupportedMediaType(InvalidRequest):
    """The body's content type is not one the operation takes."""

    status = 415
    default_code = "unsupported_media_type"


class RangeNotSatisfiable(InvalidRequest):
    """The range begins behind the last byte."""

    status = 416
    default_code = "range_not_satisfiable"

    def __init__(self, size_bytes: int) -> None:
        super().__init__(f"The range holds none of the {size_bytes} bytes.", param="Range")
        self.size_bytes = size_bytes

    @property
    def headers(self) -> dict[str, str]:
        """How many bytes there are."""
        return {"Content-Range": f"bytes */{self.size_bytes}"}


class RateLimited(ApiError):
    """This caller asks too much; `Retry-After` says when to come back."""

    status = 429
    type = "rate_limit_error"
    default_code = "rate_limit_exceeded"


class LimitReached(RateLimited):
    """One of a caller's limits; `more_headers` tell all of them."""

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
        """When to come back, to the millisecond too, and how the limits stand."""
        wait = self.retry_after_s
        if wait is None:  # however often it is asked
            return {"x-should-retry": "false", **self._more_headers}
        whole, exactly = math.ceil(wait), math.ceil(wait * 1000)  # not a moment too early
        times = {"Retry-After": str(max(1, whole)), "retry-after-ms": str(max(1, exactly))}
        return {**times, **self._more_headers}


class RequestsLimited(LimitReached):
    """Too many requests in a window of time, or at once."""

    type = "requests"


class TokensLimited(LimitReached):
    """Too many tokens in a window of time."""

    type = "tokens"


class QuotaExceeded(ApiError):
    """What may be spent is spent; asking again does not help before the limit is another."""

    status = 429
    type = "insufficient_quota"
    default_code = "insufficient_quota"
    may_succeed_later = False


class ClientGone(ApiError):
    """The client left before its answer; the status is what proxies log in this case."""

    status = 499
    default_code = "client_gone"

    def __init__(self) -> None:
        super().__init__("The client left.")


class Internal(ApiError):
    """A bug of ours; the request id finds it in the log."""


class Unsupported(ApiError):
    """The operation is in the document; nothing configured here answers it."""

    status = 501
    default_code = "unsupported_operation"
    may_succeed_later = False


class Overloaded(ApiError):
    """Everybody asks too much; `Retry-After` says when to come back."""

    status = 503
    default_code = "overloaded"


class EngineUnavailable(Overloaded):
    """The engine process is starting again."""

    default_code = "engine_unavailable"


class DeadlineExceeded(ApiError):
    """The answer took longer than this server lets one take."""

    status = 504
    default_code = "deadline_exceeded"


class UpstreamError(ApiError):
    """An upstream gave no answer; `was_sent` where it may have got the request, `is_lasting` where
    it is of no use to ask the same one again."""

    status = 502
    default_code = "upstream_failed"
    was_sent = True
    is_lasting = False


class UpstreamFailed(UpstreamError):
    """The upstream could not be reached, or what it said is not an answer."""


class UpstreamTimeout(UpstreamError):
    """The upstream did not answer within the deadline."""

    status = 504
    default_code = "upstream_timeout"


_BY_STATUS: dict[int, type[ApiError]] = {
    error.status: error
    for error in (
        InvalidRequest, Unauthorized, Forbidden, NotFound, MethodNotAllowed, Conflict, TooLarge,
        UnsupportedMediaType, RateLimited, Unsupported, UpstreamFailed, Overloaded, UpstreamTimeout,
    )
}  # fmt: skip


def from_status(status: int, message: str) -> ApiError:
    """The error of this status: for failures that a library reports only as a number."""
    if status in _BY_STATUS:
        return _BY_STATUS[status](message)
    return InvalidRequest(message) if 400 <= status < 500 else Internal(message)


def error_body(error: ApiError) -> ErrorBody:
    """OpenAI's error body for this error."""
    return {
        "error": {
            "message": error.message,
            "type": error.type,
            "param": error.param,
            "code": error.code,
        }
    }
