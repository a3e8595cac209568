"""Store of usage, summed by the minute."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, func, select

from llm_backend.durations import DAY_S
from llm_backend.store.database.database import Database
from llm_backend.store.database.ownership import as_owner
from llm_backend.store.database.upsert import add_up
from llm_backend.store.tables.administration import usage
from llm_backend.store.tables.vector_stores import (
    NOT_DELETED,
    vector_store_files,
    vector_stores,
)

_EXPIRED_PERIOD_S = DAY_S  # of the usage that one transaction deletes


class UsageKey(NamedTuple):
    """The dimensions of usage; one that does not apply is an empty text.

    A named tuple, because one is made and hashed for every request.
    """

    minute_at: int  # unix seconds
    kind: str
    project_id: str
    api_key_id: str
    user_id: str
    model: str
    service_tier: str
    is_batch: bool
    detail: str


class Tokens(NamedTuple):
    """Used tokens. Cached tokens are part of the input tokens. Image and audio tokens are part of
    the input, cached or output tokens, as their names say.

    A named tuple, because one is made and added up for every request.
    """

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    input_image_tokens: int = 0
    input_audio_tokens: int = 0
    cached_image_tokens: int = 0
    cached_audio_tokens: int = 0
    output_image_tokens: int = 0
    output_audio_tokens: int = 0

    def normalize(self) -> "Tokens":
        """Returns tokens whose parts do not exceed their sums, whatever an upstream reported.
        Cached tokens of unreported kinds count as text as far as possible, then as images, then as
        audio."""
        cached = min(self.cached_tokens, self.input_tokens)
        if not any(self[3:]):  # most requests have text only
            return self if cached == self.cached_tokens else self._replace(cached_tokens=cached)
        images = min(self.input_image_tokens, self.input_tokens)
        audio = min(self.input_audio_tokens, self.input_tokens - images)
        beyond_text = max(0, cached - (self.input_tokens - images - audio))
        cached_audio = min(self.cached_audio_tokens, audio, cached)
        cached_images = min(
            max(self.cached_image_tokens, beyond_text - cached_audio),
            images,
            cached - cached_audio,
        )
        output_images = min(self.output_image_tokens, self.output_tokens)
        return Tokens(
            input_tokens=self.input_tokens,
            cached_tokens=cached,
            output_tokens=self.output_tokens,
            input_image_tokens=images,
            input_audio_tokens=audio,
            cached_image_tokens=cached_images,
            cached_audio_tokens=max(cached_audio, beyond_text - cached_images),
            output_image_tokens=output_images,
            output_audio_tokens=min(self.output_audio_tokens, self.output_tokens - output_images),
        )


AMOUNTS = ("requests", *Tokens._fields, "units")


@dataclass(frozen=True, kw_only=True)
class UsageFilter:
    """Filter of usage, from `start_at` until before `end_at`. `allowed_values` has those of a
    column by its name."""

    start_at: int
    end_at: int
    kinds: Sequence[str]
    allowed_values: Mapping[str, Sequence[str | bool]]


@dataclass(frozen=True, kw_only=True)
class UsageSum:
    """Usage of one group in one bucket."""

    bucket_at: int
    group: Mapping[str, Any]  # a column's value, by its name
    requests: int
    units: int  # counts other than tokens
    tokens: Tokens


class StoredUsage:
    """The usage of all servers on one database, by the minute."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, amounts: Mapping[UsageKey, Sequence[int]]) -> None:
        """Adds amounts, in the order of `AMOUNTS`; durable on return."""
        await self._database.write(add_usage, amounts=dict(amounts))

    async def sums(
        self, criteria: UsageFilter, *, width_s: int, group_by: Sequence[str] = ()
    ) -> Sequence[UsageSum]:
        """Returns the sums by buckets of `width_s` and by the columns of `group_by`, in the order
        of time."""
        return await self._database.read(
            _sums, criteria=criteria, width_s=width_s, group_by=group_by
        )

    async def last_uses(self) -> Mapping[str, int]:
        """Returns the last minute of use, in unix seconds, by the name of the model."""
        return await self._database.read(_last_uses)

    async def expire(self, before: int) -> None:
        """Deletes the usage from before this time, in unix seconds."""
        while await self._database.write(_delete_expired, before=before):
            pass

    async def vector_store_bytes(self) -> Mapping[str | None, int]:
        """Returns the present bytes of each project's vector stores; None is the default
        project."""
        with as_owner(None):
            return await self._database.read(_vector_store_bytes)


def add_usage(connection: Connection, amounts: Mapping[UsageKey, Sequence[int]]) -> None:
    """Adds amounts, in the order of `AMOUNTS`, to those in the database."""
    rows = [
        {**key._asdict(), **dict(zip(AMOUNTS, added, strict=True))}
        for key, added in sorted(amounts.items())
    ]
    add_up(connection, usage, rows)


def _last_uses(connection: Connection) -> Mapping[str, int]:
    last = select(usage.c.model, func.max(usage.c.minute_at)).group_by(usage.c.model)
    return {model: int(minute_at) for model, minute_at in connection.execute(last)}


def _delete_expired(connection: Connection, before: int) -> bool:
    oldest: int | None = connection.scalar(select(func.min(usage.c.minute_at)))
    if oldest is None or oldest >= before:
        return False
    until = min(before, oldest + _EXPIRED_PERIOD_S)
    connection.execute(delete(usage).where(usage.c.minute_at < until))
    return True


def _vector_store_bytes(connection: Connection) -> Mapping[str | None, int]:
    files = vector_store_files.c
    query = (
        select(vector_stores.c.owner, func.sum(files.usage_bytes))
        .join(vector_store_files, files.store_seq == vector_stores.c.seq)
        .where(NOT_DELETED)
        .group_by(vector_stores.c.owner)
    )
    return {owner: int(size_bytes) for owner, size_bytes in connection.execute(query)}


def _sums(
    connection: Connection, criteria: UsageFilter, *, width_s: int, group_by: Sequence[str]
) -> Sequence[UsageSum]:
    bucket = (usage.c.minute_at - usage.c.minute_at % width_s).label("bucket_at")
    groups = [usage.c[name] for name in group_by]
    sums = [func.sum(usage.c[name]).label(name) for name in AMOUNTS]
    statement = (
        select(bucket, *groups, *sums)
        .where(
            usage.c.minute_at >= criteria.start_at,
            usage.c.minute_at < criteria.end_at,
            usage.c.kind.in_(criteria.kinds),
            *(usage.c[name].in_(values) for name, values in criteria.allowed_values.items()),
        )
        .group_by(bucket, *groups)
        .order_by(bucket, *groups)
    )
    return [
        UsageSum(
            bucket_at=row["bucket_at"],
            group={name: row[name] for name in group_by},
            requests=int(row["requests"]),
            units=int(row["units"]),
            tokens=Tokens(*(int(row[name]) for name in Tokens._fields)),
        )
        for row in connection.execute(statement).mappings()
    ]
