"""What is told of answers: metrics, spans, and what the meters count."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from llm_backend import __version__
from llm_backend.access import metered
from llm_backend.backends.base import Usage
from llm_backend.backends.local import Observe
from llm_backend.settings import Settings, SettingsError
from llm_backend.telemetry import Metrics

if TYPE_CHECKING:  # OpenTelemetry is imported only where an endpoint is set
    from llm_backend.tracing import Tracing

__all__ = ["observing", "opened_tracing"]


@asynccontextmanager
async def opened_tracing(settings: Settings) -> AsyncIterator["Tracing | None"]:
    """Spans on their way to the collector; None where there is no collector."""
    if settings.otlp_endpoint is None:
        yield None
        return
    try:
        from llm_backend.tracing import Tracing
    except ModuleNotFoundError as error:
        raise SettingsError(
            "The setting `otlp_endpoint` needs OpenTelemetry: pip install 'llm-backend[tracing]'."
        ) from error
    async with Tracing(settings.otlp_endpoint, __version__) as tracing:
        yield tracing


def observing(metrics: Metrics, tracing: "Tracing | None") -> Observe:
    """What a local model tells the usage of each answer to."""

    def observe(model: str, usage: Usage) -> None:
        if tracing is not None:
            tracing.answered(model, usage)
        metered(
            input_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            output_tokens=usage.completion_tokens,
        )
        metrics.answered(
            model,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
            queue_s=usage.queue_s,
            first_token_s=usage.queue_s + usage.prompt_s if usage.prompt_s else 0.0,
            tokens_per_second=usage.tokens_per_second,
        )

    return observe
