"""Observability of local answers: metrics, spans and log lines."""

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from llm_backend import __version__
from llm_backend.backends.base import Usage
from llm_backend.backends.local.local_model import Observe
from llm_backend.engine.messages import Priority
from llm_backend.extras import install_command
from llm_backend.logs import REQUEST_ID
from llm_backend.metrics import Metrics
from llm_backend.settings import Settings, SettingsError

if TYPE_CHECKING:  # OpenTelemetry is imported only with an endpoint
    from llm_backend.tracing import Tracing

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_tracing(settings: Settings) -> AsyncIterator["Tracing | None"]:
    """Opens the export of spans to the collector; None if no collector is set."""
    if settings.otlp_endpoint is None:
        yield None
        return
    try:
        from llm_backend.tracing import Tracing
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"The setting `otlp_endpoint` needs OpenTelemetry: {install_command('tracing')}."
        ) from error
    async with Tracing(settings.otlp_endpoint, __version__) as tracing:
        yield tracing


def usage_observer(metrics: Metrics, tracing: "Tracing | None", *, logs: bool) -> Observe:
    """Returns the observer of each answer's usage; `logs`: it also writes a log line."""

    def observe(model: str, operation: str, priority: Priority, usage: Usage) -> None:
        if tracing is not None:
            tracing.record_answer(model, operation, usage)
        if logs:
            _log(model, usage)
        metrics.record_answer(
            model,
            operation,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
            queue_s=None if priority is Priority.BATCH else usage.queue_s,
            first_token_s=usage.queue_s + usage.prompt_s if usage.prompt_s else 0.0,
            request_s=usage.queue_s + usage.prompt_s + usage.generation_s,
            tokens_per_second=usage.tokens_per_second,
        )

    return observe


def _log(model: str, usage: Usage) -> None:
    """Logs counts and times of an answer, and nothing of its content."""
    fields = {
        "model": model,
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "completion_tokens": usage.completion_tokens,
        "accepted_tokens": usage.accepted_tokens,
        "queue_ms": round(usage.queue_s * 1e3, 1),
        "prompt_ms": round(usage.prompt_s * 1e3, 1),
        "generation_ms": round(usage.generation_s * 1e3, 1),
        "tokens_per_second": round(usage.tokens_per_second, 1),
    }
    log.info("generated", extra={**_request_fields(), **fields})


def _request_fields() -> Mapping[str, str]:
    """Returns the id of the current request; nothing outside of requests."""
    request_id = REQUEST_ID.get()
    return {} if request_id is None else {"request_id": request_id}
