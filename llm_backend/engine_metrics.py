"""Prometheus metrics of the engines. Some have vLLM's names, under which the endpoint pickers of
Kubernetes' inference extension read them."""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

_ENGINE = "llm_backend_engine_"
_ENGINE_GAUGES = {
    "slots": "Slots: sequences that can be computed concurrently.",
    "running": "Sequences that have a slot.",
    "waiting": "Requests in the queue.",
    "cell_tokens": "Tokens in KV cells, of running and of finished sequences.",
    "running_tokens": "Tokens in KV cells, of running sequences.",
    "prefix_files": "Prefix files.",
    "prefix_bytes": "Bytes of the prefix files.",
    "prefix_ram_states": "Prefixes in host memory.",
    "prefix_ram_bytes": "Bytes of the prefixes in host memory.",
}
_ENGINE_COUNTERS = {
    "deaths": "Engine processes that died or could not start, and were followed by this one.",
    "passes": "Forward passes.",
    "sequences": "Sum of the sequences in each pass; divided by passes, the mean batch size.",
    "computed_tokens": "Tokens computed in forward passes.",
    "busy_s": "Seconds spent in steps of the engine, without idle time.",
    "prefix_reads": "Prefix files restored into KV cells.",
    "prefix_read_tokens": "Tokens restored from prefix files instead of being computed.",
    "prefix_writes": "Prefix files saved.",
    "prefix_ram_saves": "Prefixes saved in host memory because their slots were overwritten.",
    "prefix_ram_restores": "Prefixes restored from host memory into KV cells.",
    "prefix_ram_tokens": "Tokens restored from host memory instead of being computed.",
    "media_tokens": "Tokens of images and audio that were encoded.",
    "context_shifts": "Times that the older half of a full context was dropped.",
    "media_s": "Seconds spent encoding images and audio, included in busy_seconds_total.",
}


_VLLM = "vllm:"
_VLLM_GAUGES = {
    "num_requests_waiting": "Requests in the queue.",
    "num_requests_running": "Sequences that have a slot.",
    "kv_cache_usage_perc": "Share of the KV cells that running sequences hold, from 0 to 1.",
}
_PREFIX_BLOCK_TOKENS = 64  # by which a picker may compare prefixes; slots compare every token


@dataclass(frozen=True, kw_only=True)
class AdapterStates:
    """Models that consist of a base model and a LoRA adapter: the number of `configured` ones, and
    the names of those that are loaded or being loaded."""

    configured: int = 0
    loaded: Sequence[str] = ()
    loading: Sequence[str] = ()


class EngineMetrics(Collector):
    """Metrics of the engines, as of the last `set`. A restarted engine counts from zero, as
    Prometheus expects; only its deaths go on."""

    def __init__(self) -> None:
        self._states: Mapping[str, Mapping[str, float]] = {}
        self._adapters = AdapterStates()
        self._are_ready: Mapping[str, bool] = {}

    def set(
        self,
        states: Mapping[str, Mapping[str, float]],
        adapters: AdapterStates | None = None,
        *,
        are_ready: Mapping[str, bool] = MappingProxyType({}),
    ) -> None:
        """Sets the current numbers of engines that answer, by model and then by name, the states of
        adapters, and by model whether its engine is ready; unloaded models have none."""
        self._states = states
        self._adapters = adapters or AdapterStates()
        self._are_ready = are_ready

    def collect(self) -> Iterator[Metric]:
        """Yields a metric family for each number."""
        for name, meaning in _ENGINE_GAUGES.items():
            yield self._add_states(
                GaugeMetricFamily(f"{_ENGINE}{name}", meaning, labels=["model"]), name
            )
        for name, meaning in _ENGINE_COUNTERS.items():
            shown = re.sub("_s$", "_seconds", name)
            family = CounterMetricFamily(f"{_ENGINE}{shown}", meaning, labels=["model"])
            yield self._add_states(family, name)
        up = GaugeMetricFamily(
            f"{_ENGINE}up",
            "1 while the engine of a loaded model is ready, 0 while it starts or has failed.",
            labels=["model"],
        )
        for model, is_ready in self._are_ready.items():
            up.add_metric([model], is_ready)
        yield up
        yield from self._collect_for_pickers()

    def _collect_for_pickers(self) -> Iterator[Metric]:
        """Yields the metrics of the model server protocol of Kubernetes' inference extension, by
        vLLM's names."""
        families = {
            name: GaugeMetricFamily(f"{_VLLM}{name}", meaning, labels=["model_name"])
            for name, meaning in _VLLM_GAUGES.items()
        }
        config = GaugeMetricFamily(
            f"{_VLLM}cache_config_info",
            "Size of the prefix cache in blocks, as labels; always 1.",
            labels=["model_name", "block_size", "num_gpu_blocks"],
        )
        for model, state in self._states.items():
            families["num_requests_waiting"].add_metric([model], state["waiting"])
            families["num_requests_running"].add_metric([model], state["running"])
            cells = int(state["slots"] * state["context_tokens"])
            usage = state["running_tokens"] / cells if cells else 0.0
            families["kv_cache_usage_perc"].add_metric([model], usage)
            blocks = cells // _PREFIX_BLOCK_TOKENS
            config.add_metric([model, str(_PREFIX_BLOCK_TOKENS), str(blocks)], 1)
        yield from (*families.values(), config, self._collect_adapters())

    def _collect_adapters(self) -> Metric:
        """Returns the names of adapters as labels, which are empty if there are none: pickers would
        take a missing metric for a failing server."""
        family = GaugeMetricFamily(
            f"{_VLLM}lora_requests_info",
            "Names of loaded adapters and of those that are being loaded, as labels; the time, in "
            "seconds since 1970.",
            labels=["max_lora", "running_lora_adapters", "waiting_lora_adapters"],
        )
        states = self._adapters
        labels = [str(states.configured), ",".join(states.loaded), ",".join(states.loading)]
        family.add_metric(labels, time.time())
        return family

    def _add_states(
        self, family: GaugeMetricFamily | CounterMetricFamily, name: str
    ) -> GaugeMetricFamily | CounterMetricFamily:
        for model, state in self._states.items():
            family.add_metric([model], state[name])
        return family
