"""Number of users by number of servers, and the part that is full first (pure)."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.scale.figures import Chat, Measured

__all__ = ["POSTGRESQL_CONNECTIONS", "Limit", "limits", "speed"]

POSTGRESQL_CONNECTIONS = 500  # more make one server slower, not faster, without a pooler before it
SECONDS_A_DAY = 86_400


@dataclass(frozen=True, kw_only=True)
class Limit:
    """Capacity of one part in chats per second, as if that of the others had no limit."""

    part: str
    chats_s: float


def speed(measured: Measured, streams: float) -> float:
    """Tokens a second of one engine with `streams`, interpolated between measured points."""
    points = [(0, 0.0), *measured.tokens_s]
    for (low, slow), (high, fast) in itertools.pairwise(points):
        if streams <= high:
            return slow + (fast - slow) * (streams - low) / (high - low)
    return points[-1][1]


def limits(measured: Measured, chat: Chat, servers: int) -> Iterator[Limit]:
    """Capacity of each part if `servers` machines of two cores share one database."""
    engine_s = speed(measured, measured.slots) / chat.answer_tokens
    events_s = 1 / (chat.answer_tokens * measured.event_s)
    yield Limit(part="engines", chats_s=servers * engine_s)
    yield Limit(part="events of streams", chats_s=servers * events_s)
    yield Limit(part="writes of one database", chats_s=measured.writes_s)
    held = POSTGRESQL_CONNECTIONS // measured.connections
    if servers > held:
        yield Limit(part="connections of one PostgreSQL", chats_s=held * engine_s)


def gigabytes_a_day(chat: Chat, chats_s: float) -> float:
    """Gigabytes stored in a day of that many chats a second."""
    return chats_s * chat.stored_bytes * SECONDS_A_DAY / 1e9
