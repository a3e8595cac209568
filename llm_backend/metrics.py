"""Prometheus metrics."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from llm_backend import __version__
from llm_backend.unused_imports import block_imports

# The library's HTTP servers and its client of a push gateway are not used.
with block_imports(
    http__server=("BaseHTTPRequestHandler",),
    urllib__request=(
        "BaseHandler", "HTTPHandler", "HTTPRedirectHandler", "HTTPSHandler", "Request",
        "build_opener",
    ),
    wsgiref__simple_server=("WSGIRequestHandler", "WSGIServer", "make_server"),
):  # fmt: skip
    from prometheus_client import (
        CONTENT_TYPE_LATEST,
        CollectorRegistry,
        Counter,
        Gauge,
        Histogram,
        disable_created_metrics,
    )
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.exposition import generate_latest
    from prometheus_client.metrics_core import Metric
    from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
    from prometheus_client.registry import Collector

    from llm_backend.engine_metrics import EngineMetrics

METRICS_FOLDER_NAME = "PROMETHEUS_MULTIPROC_DIR"

_PROVIDER = "llm_backend"  # OpenTelemetry's `gen_ai.provider.name`

# Bounds of buckets: OpenTelemetry's for generative models, and shorter ones for small models.
_FIRST_TOKEN_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60,
)  # fmt: skip
_OUTPUT_TOKEN_S = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5,
)  # fmt: skip
_REQUEST_S = tuple(0.01 * 2**step for step in range(14))  # up to 82 s


class Metrics:
    """The server's Prometheus metrics, in registries of its own.

    With several processes, each keeps its values in files in the folder `shared`, and any of them
    renders the sums. For that, the environment variable that `METRICS_FOLDER_NAME` names must be
    set when the library is imported.
    """

    media_type = CONTENT_TYPE_LATEST

    def __init__(self, shared: Path | None = None) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # series of its library's own kind
        self._registry = CollectorRegistry()
        self._rendered_registry = self._registry
        if shared is not None:
            self._rendered_registry = CollectorRegistry()
            MultiProcessCollector(self._rendered_registry, str(shared))  # type: ignore[no-untyped-call] # its library's
        self.requests = Counter(
            "llm_backend_requests",
            "Answered requests.",
            ["operation", "status"],
            registry=self._registry,
        )
        self.seconds = Histogram(
            "llm_backend_request_seconds",
            "Time from a request's arrival to the end of its answer.",
            ["operation"],
            registry=self._registry,
        )
        # Each series is looked up once, because that takes longer than to count.
        self._requests_of = lru_cache(maxsize=None)(self.requests.labels)
        self._seconds_of = lru_cache(maxsize=None)(self.seconds.labels)
        self.unknown_fields = Counter(
            "llm_backend_unknown_fields",
            "Unknown fields of relayed requests.",
            ["operation"],
            registry=self._registry,
        )
        self.in_flight = Gauge(
            "llm_backend_requests_in_flight",
            "Requests being answered.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )

        self.prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts.")
        self.cached_tokens = self._counter("cached_tokens", "Prompt tokens found in the KV cache.")
        self.completion_tokens = self._counter("completion_tokens", "Tokens generated.")
        self.queue_seconds = self._histogram(
            "queue_seconds", "Time until an interactive request gets its slot."
        )
        self.generation_seconds = self._generation_histogram(
            "request_duration_seconds",
            "Time from a local model's request to the last token of its answer.",
            _REQUEST_S,
        )
        self.first_token_seconds = self._generation_histogram(
            "time_to_first_token_seconds",
            "Time until the first token of an answer.",
            _FIRST_TOKEN_S,
        )
        self.output_token_seconds = self._generation_histogram(
            "time_per_output_token_seconds",
            "Time between two tokens of an answer, on average: its inter-token latency.",
            _OUTPUT_TOKEN_S,
        )
        self.speech_seconds = self._counter("speech_seconds", "Seconds of audio spoken.")
        self.drawn_images = self._counter("drawn_images", "Images drawn by local models.")
        self.drawing_seconds = self._counter("drawing_seconds", "Seconds of drawing images.")
        self.transcription_seconds = self._counter(
            "transcription_seconds", "Seconds of audio transcribed."
        )
        self.transcription_elapsed_seconds = self._counter(
            "transcription_elapsed_seconds", "Seconds in which audio was transcribed, with waits."
        )
        self.write_seconds = Histogram(
            "llm_backend_store_write_seconds",
            "Time until a write to the database is durable.",
            registry=self._registry,
        )
        self.writes_waiting = Gauge(
            "llm_backend_store_writes_waiting",
            "Writes to the database that are not durable yet.",
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self.write_failures = Counter(
            "llm_backend_store_write_failures",
            "Writes that the database refused.",
            registry=self._registry,
        )
        self.not_stored = Counter(
            "llm_backend_not_stored",
            "Chats and responses that were answered but not stored.",
            ["what"],
            registry=self._registry,
        )
        self.temporary_file_failures = Counter(
            "llm_backend_temporary_file_failures",
            "Temporary files that found no room on their disk: form, recording, document.",
            ["what"],
            registry=self._registry,
        )
        for kind in ("form", "recording", "document"):
            self.temporary_file_failures.labels(kind)  # at 0, so that an alert sees the first one
        self.webhook_deliveries = Counter(
            "llm_backend_webhook_deliveries",
            "Attempts to deliver an event to a webhook endpoint, by outcome: delivered, retried, "
            "given_up; and events that were dropped because too many waited for their endpoint.",
            ["outcome"],
            registry=self._registry,
        )
        self.upstream_outstanding = Gauge(
            "llm_backend_upstream_outstanding",
            "Requests that an upstream is answering.",
            ["upstream"],
            registry=self._registry,
            multiprocess_mode="livesum",
        )
        self.upstream_up = Gauge(
            "llm_backend_upstream_up",
            "1 while an upstream gets requests, 0 while it is ejected in some process.",
            ["upstream"],
            registry=self._registry,
            multiprocess_mode="livemin",
        )
        self.upstream_failures = Counter(
            "llm_backend_upstream_failures",
            "Requests that an upstream did not answer, or answered with a server error.",
            ["upstream"],
            registry=self._registry,
        )
        self._rendered_registry.register(_BuildInfo())
        self.engines = EngineMetrics()
        self.jobs = JobMetrics()
        self._rendered_registry.register(self.engines)
        self._rendered_registry.register(self.jobs)

    def record_request(self, operation: str, status: int, seconds: float) -> None:
        """Counts an answered request, with any status."""
        self._requests_of(operation, str(status)).inc()
        self._seconds_of(operation).observe(seconds)

    def record_answer(
        self,
        model: str,
        operation: str,
        *,
        prompt_tokens: int,
        cached_tokens: int,
        completion_tokens: int,
        queue_s: float | None,
        first_token_s: float,
        request_s: float,
        tokens_per_second: float,
    ) -> None:
        """Counts an answer of a local model, also one whose client disconnected. `operation` is
        the name of the operation in OpenTelemetry's conventions; `queue_s` is None for requests of
        low priority, which wait by design."""
        self.prompt_tokens.labels(model).inc(prompt_tokens)
        self.cached_tokens.labels(model).inc(cached_tokens)
        self.completion_tokens.labels(model).inc(completion_tokens)
        queue_seconds = self.queue_seconds.labels(model)
        if queue_s is not None:
            queue_seconds.observe(queue_s)
        labels = (operation, _PROVIDER, model)
        self.generation_seconds.labels(*labels).observe(request_s)
        if first_token_s:
            self.first_token_seconds.labels(*labels).observe(first_token_s)
        if tokens_per_second:
            self.output_token_seconds.labels(*labels).observe(1 / tokens_per_second)

    def record_speech(self, model: str, *, queue_s: float, audio_s: float) -> None:
        """Counts a text that a local voice read aloud, also one whose client disconnected."""
        self.queue_seconds.labels(model).observe(queue_s)
        self.speech_seconds.labels(model).inc(audio_s)

    def record_drawing(self, model: str, *, queue_s: float, images: int, elapsed_s: float) -> None:
        """Counts images that a local model drew, also those of a client that disconnected."""
        self.queue_seconds.labels(model).observe(queue_s)
        self.drawn_images.labels(model).inc(images)
        self.drawing_seconds.labels(model).inc(elapsed_s)

    def record_transcription(
        self, model: str, *, queue_s: float, audio_s: float, elapsed_s: float
    ) -> None:
        """Counts a recording that a local model transcribed, also one whose client
        disconnected."""
        self.queue_seconds.labels(model).observe(queue_s)
        self.transcription_seconds.labels(model).inc(audio_s)
        self.transcription_elapsed_seconds.labels(model).inc(elapsed_s)

    def _counter(self, name: str, meaning: str) -> Counter:
        return Counter(f"llm_backend_{name}", meaning, ["model"], registry=self._registry)

    def _histogram(self, name: str, meaning: str) -> Histogram:
        return Histogram(f"llm_backend_{name}", meaning, ["model"], registry=self._registry)

    def _generation_histogram(self, name: str, meaning: str, buckets: Sequence[float]) -> Histogram:
        """Creates a histogram with a name and labels of OpenTelemetry's conventions for models."""
        return Histogram(
            f"gen_ai_server_{name}",
            meaning,
            ["gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model"],
            registry=self._registry,
            buckets=buckets,
        )

    def render(self) -> bytes:
        """Renders the text format of Prometheus."""
        return generate_latest(self._rendered_registry)


def forget_process(shared: Path, pid: int) -> None:
    """Removes the live gauges of an ended process; its counters stay."""
    mark_process_dead(pid, str(shared))  # type: ignore[no-untyped-call] # its library's


class _BuildInfo(Collector):
    """Collector of the gauge `llm_backend_build_info`: always 1, with the version as its label."""

    def collect(self) -> Iterator[Metric]:
        """Yields the metric family of the gauge."""
        labels = ["version", "python_version"]
        info = GaugeMetricFamily("llm_backend_build_info", "Always 1.", labels=labels)
        info.add_metric([__version__, platform.python_version()], 1)
        yield info


class JobMetrics(Collector):
    """Metrics of the jobs of all servers that share the database, as of the last `set`."""

    def __init__(self) -> None:
        self._numbers: Mapping[str, Mapping[str, int]] = {}
        self._lags_s: Mapping[str, float] = {}

    def set(self, numbers: Mapping[str, Mapping[str, int]], lags_s: Mapping[str, float]) -> None:
        """Sets the number of jobs by kind and state, and the age of the oldest waiting one."""
        self._numbers, self._lags_s = numbers, lags_s

    def collect(self) -> Iterator[Metric]:
        """Yields the families of both numbers."""
        jobs = GaugeMetricFamily("llm_backend_jobs", "Jobs.", labels=["kind", "state"])
        for kind, states in self._numbers.items():
            for state, number in states.items():
                jobs.add_metric([kind, state], number)
        lag = GaugeMetricFamily(
            "llm_backend_jobs_lag_seconds",
            "For how long the first job that can be claimed has been due.",
            labels=["kind"],
        )
        for kind, lag_s in self._lags_s.items():
            lag.add_metric([kind], lag_s)
        yield from (jobs, lag)
