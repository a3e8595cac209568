"""Store of usage, added up by the minute."""

from collections.abc import Mapping, Sequence

from llm_backend.store.administration import usage_rows
from llm_backend.store.administration.usage_rows import UsageFilter, UsageKey, UsageSum
from llm_backend.store.database.database import Database
from llm_backend.store.ownership import as_owner


class StoredUsage:
    """The usage of all servers on one database, by the minute."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, amounts: Mapping[UsageKey, Sequence[int]]) -> None:
        """Add amounts, in the order of `AMOUNTS`; durable on return."""
        await self._database.write(usage_rows.add, amounts=dict(amounts))

    async def sums(
        self, criteria: UsageFilter, *, width_s: int, group_by: Sequence[str] = ()
    ) -> Sequence[UsageSum]:
        """Sums by buckets of `width_s` and by the columns of `group_by`, in the order of time."""
        return await self._database.read(
            usage_rows.sums, criteria=criteria, width_s=width_s, group_by=group_by
        )

    async def last_uses(self) -> Mapping[str, int]:
        """Return the last minute of use, in unix seconds, by the name of the model."""
        return await self._database.read(usage_rows.last_uses)

    async def forget(self, before: int) -> None:
        """Delete the usage from before this time, in unix seconds."""
        while await self._database.write(usage_rows.forget, before=before):
            pass

    async def vector_store_bytes(self) -> Mapping[str | None, int]:
        """Bytes of the vector stores of every project now; None is the default project."""
        with as_owner(None):
            return await self._database.read(usage_rows.vector_store_bytes)
