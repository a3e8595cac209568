"""Names and labels of the metrics that a server exports, and selectors of PromQL expressions."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from llm_backend.metrics import Metrics

SCRAPED = frozenset({"instance", "job", "namespace", "pod"})
"""Labels that Prometheus adds to what it reads."""

_SELECTOR = re.compile(r"\b((?:llm_backend|gen_ai|vllm:)\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"[^"]*"')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")
_LEGEND = re.compile(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}")


class _EveryNumber(dict[str, float]):
    def __missing__(self, _name: str) -> float:
        return 1.0


def exported_labels() -> Mapping[str, frozenset[str]]:
    """The labels of each series of a server, by the series' names."""
    metrics = Metrics()
    metrics.record_request("createChatCompletion", 200, 0.1)
    answer: dict[str, Any] = {"prompt_tokens": 1, "cached_tokens": 1, "completion_tokens": 1}
    times = {"queue_s": 1, "first_token_s": 1, "request_s": 1, "tokens_per_second": 1}
    metrics.record_answer("m", "chat", **answer, **times)
    metrics.engines.set({"m": _EveryNumber()}, are_ready={"m": True})
    metrics.jobs.set({"batch": {"waiting": 1}}, {"batch": 1.0})
    for labelled in vars(metrics).values():
        names = getattr(labelled, "_labelnames", ())  # the library has no public name for it
        if names and not labelled.collect()[0].samples:
            labelled.labels(*names)
    labels: dict[str, frozenset[str]] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            labels[sample.name] = frozenset(sample.labels)
    return labels


@dataclass(frozen=True)
class Query:
    """A PromQL expression."""

    text: str

    def selectors(self) -> Iterator[tuple[str, frozenset[str]]]:
        """The names of series, each with the labels that it is selected by."""
        for name, matchers in _SELECTOR.findall(_GROUPING.sub("", self.text)):
            yield name, frozenset(_MATCHER.findall(matchers or ""))

    @property
    def grouping(self) -> frozenset[str]:
        """The labels that results are grouped by."""
        found = ",".join(_GROUPING.findall(self.text)).split(",")
        return frozenset(one.strip() for one in found) - {""}

    def unexported(self, exported: Mapping[str, frozenset[str]], *shown: str) -> set[str]:
        """Returns what no server exports: series, and labels of the query and the texts `shown`."""
        selectors = list(self.selectors())
        missing = {name for name, _ in selectors if name not in exported}
        known = SCRAPED.union(*(exported.get(name, frozenset()) for name, _ in selectors))
        for name, labels in selectors:
            missing |= {f"{name}{{{one}}}" for one in labels - exported.get(name, known) - SCRAPED}
        wanted = self.grouping.union(*(_LEGEND.findall(text) for text in shown))
        remaining = self.grouping if self.grouping else known
        missing |= {f"label {one}" for one in wanted - known}
        return missing | {f"grouped label {one}" for one in wanted - remaining}
