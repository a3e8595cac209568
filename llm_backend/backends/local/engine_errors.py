"""Engine errors -> API errors for the client."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from llm_backend import errors
from llm_backend.backends.local.grammar_field import GrammarField
from llm_backend.engine import CommandFailed, EngineDown, EngineStartError
from llm_backend.engine.messages import Failure
from llm_backend.errors import INVALID_JSON_SCHEMA

log = logging.getLogger(__name__)

_REFUSALS: dict[Failure, type[errors.ApiError]] = {
    Failure.CONTEXT_LENGTH: errors.ContextLengthExceeded,
    Failure.QUEUE_FULL: errors.ServiceUnavailable,
    Failure.QUEUE_DEADLINE: errors.ServiceUnavailable,
    Failure.INVALID: errors.InvalidRequest,
    Failure.UNSUPPORTED: errors.InvalidRequest,
    Failure.CRASHED: errors.InvalidRequest,
    Failure.INTERNAL: errors.Internal,
}


@contextmanager
def translate_engine_errors(**names: str | GrammarField) -> Iterator[None]:
    """Translates the engine's errors to API errors; `names` maps the engine's field names to the
    client's.
    """
    try:
        yield
    except CommandFailed as refused:
        kind = _REFUSALS[refused.failure]
        if kind is errors.Internal:
            log.error("engine_failed_request", extra={"reason": str(refused)})
            raise errors.Internal("The engine failed this request; its log says why.") from refused
        retry_after_s = errors.RETRY_AFTER_S if kind is errors.ServiceUnavailable else None
        field = refused.field
        if field is None and refused.failure is Failure.UNSUPPORTED:
            field = "model"
        name = names.get(field, field) if field else None
        is_grammar = isinstance(name, GrammarField)
        param = name.param_at(refused.location) if isinstance(name, GrammarField) else name
        code = INVALID_JSON_SCHEMA if is_grammar and kind is errors.InvalidRequest else None
        raise kind(str(refused), param=param, code=code, retry_after_s=retry_after_s) from refused
    # The reason is only logged, because it may name files.
    except EngineStartError as failed:
        raise errors.EngineUnavailable(
            "The model could not be loaded; the server's log says why.",
            retry_after_s=failed.retry_after_s,
        ) from failed
    except EngineDown as down:
        raise errors.EngineUnavailable(str(down), retry_after_s=down.retry_after_s) from down
