"""OpenTelemetry traces, if an endpoint is set: a span for each request, with a child span for each
answer of a local model, which has the times of its slot and of its first token.

Spans hold no content. The SDK's own variables set sampling, headers and resource attributes
(`OTEL_TRACES_SAMPLER`, `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_RESOURCE_ATTRIBUTES`, ...). Spans are
sent in the background, and dropped while the collector is down; no request waits for them.
"""

import asyncio
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_NS_PER_S = 1_000_000_000


class TracedAnswer(Protocol):
    """Durations (seconds) and token counts of a local model's answer."""

    @property
    def prompt_tokens(self) -> int: ...
    @property
    def cached_tokens(self) -> int: ...
    @property
    def completion_tokens(self) -> int: ...
    @property
    def queue_s(self) -> float: ...
    @property
    def prompt_s(self) -> float: ...
    @property
    def generation_s(self) -> float: ...


class Tracing(AbstractAsyncContextManager["Tracing"]):
    """Exports spans to `endpoint`, the base URL of a collector that speaks OTLP over HTTP; sends
    the last ones when it is closed."""

    def __init__(self, endpoint: str, version: str) -> None:
        resource = Resource.create({"service.name": "llm-backend", "service.version": version})
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self.tracer = self._provider.get_tracer("llm_backend", version)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._provider.shutdown)  # it waits for the collector

    def record_answer(self, model: str, operation: str, usage: TracedAnswer) -> None:
        """Records the span of a local model's finished answer, a child of its request's span."""
        end_time = time.time_ns()
        first_token = end_time - int(usage.generation_s * _NS_PER_S)
        slot = first_token - int(usage.prompt_s * _NS_PER_S)
        span = self.tracer.start_span(
            f"{operation} {model}",
            start_time=slot - int(usage.queue_s * _NS_PER_S),
            attributes={
                "gen_ai.operation.name": operation,
                "gen_ai.provider.name": "llm_backend",
                "gen_ai.request.model": model,
                "gen_ai.usage.input_tokens": usage.prompt_tokens,
                "gen_ai.usage.output_tokens": usage.completion_tokens,
                "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
            },
        )
        span.add_event("slot", timestamp=slot)
        if usage.completion_tokens:
            span.add_event("first token", timestamp=first_token)
        span.end(end_time=end_time)


class TracedRequests:
    """Wraps each request in a span, as a child of the client's span if `traceparent` names one."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._tracer = tracing.tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self._tracer.start_as_current_span(
            scope["method"],
            context=extract(_headers(scope)),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": scope["method"], "url.path": scope["path"]},
            record_exception=False,  # its text may hold content
        ) as span:
            try:
                await self._app(scope, receive, watch)
            finally:
                _describe_span(span, scope.get("state", {}), status)


def _describe_span(span: Span, state: Mapping[str, object], status: int) -> None:
    if operation := state.get("operation_id"):
        span.update_name(str(operation))
    span.set_attribute("http.response.status_code", status)
    span.set_attribute("llm_backend.request_id", str(state.get("request_id", "")))
    if status >= 500 or not status:
        span.set_status(StatusCode.ERROR)


def _headers(scope: Scope) -> dict[str, str]:
    return {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in scope["headers"]
        if name in (b"traceparent", b"tracestate")
    }
