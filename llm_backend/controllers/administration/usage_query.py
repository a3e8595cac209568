"""Parses usage queries: time buckets, filters, pagination (pure)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_backend.durations import DAY_S
from llm_backend.errors import InvalidRequest
from llm_backend.store.administration import UsageFilter

WIDTHS_S = {"1m": 60, "1h": 3600, "1d": DAY_S}
# Buckets of a page: default and maximum, OpenAI's.
LIMITS = {"1m": (60, 1440), "1h": (24, 168), "1d": (7, 31)}
COSTS_LIMITS = (7, 180)
_MINUTE_S = 60
LATEST_S = 1 << 40  # in Unix seconds; a later time is invalid
_PAGE = re.compile(r"page_([0-9]{1,12})")

# OpenAI's filter names -> columns of the usage table.
FILTERS = {
    "project_ids": "project_id",
    "user_ids": "user_id",
    "api_key_ids": "api_key_id",
    "models": "model",
    "sizes": "detail",
    "vector_store_ids": "detail",
}


@dataclass(frozen=True, kw_only=True)
class Buckets:
    """Buckets of one page: each begins at a multiple of its width; the first and the last may be
    shorter. Times in Unix seconds."""

    start_at: int
    end_at: int
    width_s: int
    limit: int

    def starts(self) -> Sequence[int]:
        """Returns the start times of the page's buckets."""
        first = self.start_at - self.start_at % self.width_s
        return range(first, self.end_at, self.width_s)[: self.limit]

    @property
    def page_end_at(self) -> int:
        """End time of the page."""
        starts = self.starts()
        return min(self.end_at, starts[-1] + self.width_s) if starts else self.start_at

    @property
    def next_page(self) -> str | None:
        """Cursor of the next page; None on the last."""
        return f"page_{self.page_end_at}" if self.page_end_at < self.end_at else None


def buckets_of(
    query: Mapping[str, Any], now: int, *, limits: tuple[int, int] | None = None
) -> Buckets:
    """Returns the buckets of a query's page. Its times are rounded down to minutes, by which usage
    is counted, so that consecutive queries omit nothing. Raises `InvalidRequest`."""
    width = query.get("bucket_width", "1d")
    default, maximum = limits or LIMITS[width]
    limit = query.get("limit", default)
    if not 1 <= limit <= maximum:
        message = f"`limit` is {limit}; with buckets of {width} it must be 1 to {maximum}."
        raise InvalidRequest(message, param="limit")
    start, end = query["start_time"], query.get("end_time", now)
    for name, value in (("start_time", start), ("end_time", end)):
        if not 0 <= value <= LATEST_S:
            raise InvalidRequest(f"`{name}` is {value}; it must be in Unix seconds.", param=name)
    if "end_time" in query and end <= start:
        raise InvalidRequest("`end_time` must be later than `start_time`.", param="end_time")
    start -= start % _MINUTE_S
    if "end_time" in query:
        end = max(start + _MINUTE_S, end - end % _MINUTE_S)
    return Buckets(
        start_at=_page_start(query, start),
        end_at=max(start, end),
        width_s=WIDTHS_S[width],
        limit=limit,
    )


def filter_of(query: Mapping[str, Any], buckets: Buckets, kinds: Sequence[str]) -> UsageFilter:
    """Returns the filter for the usage of one page: of these kinds, and by the query's filters."""
    among = {column: query[name] for name, column in FILTERS.items() if query.get(name)}
    if "batch" in query:
        among["is_batch"] = [query["batch"]]
    return UsageFilter(
        start_at=buckets.start_at,
        end_at=buckets.page_end_at,
        kinds=[kind for kind in kinds if kind in query.get("sources", kinds)],
        allowed_values=among,
    )


def _page_start(query: Mapping[str, Any], start: int) -> int:
    page = query.get("page")
    if page is None:
        return start
    found = _PAGE.fullmatch(page)
    if found is None:
        message = f"`page` is {page[:64]!r}; it must be the `next_page` of an answer."
        raise InvalidRequest(message, param="page")
    return max(start, int(found[1]))
