"""Spending of the current month, refreshed every few seconds and compared with spend limits."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from llm_backend.access.authentication.keyring import Keyring
from llm_backend.access.authentication.policy import Project
from llm_backend.access.usage.prices import cost_cents
from llm_backend.errors import QuotaExceeded
from llm_backend.settings.access import Price
from llm_backend.store import StoreError
from llm_backend.store.administration import Grants, Record, StoredUsage, UsageFilter

log = logging.getLogger(__name__)

EVERY_S = 5.0  # between two queries of the usage of all servers
# Pause in multiples of the last query's duration: sums over a month of many keys are slow.
PAUSE_FACTOR = 20
PRICED = (
    "completions",
    "embeddings",
    "moderations",
    "decisions",
    "rerank",
    "image.generation",
    "image.edit",
    "image.variation",
    "audio_transcriptions",
    "audio_speeches",
    "other",
)
"""Kinds of usage that can have a price."""

_ALL_TIME_S = 1 << 40  # a bucket for all time


class Spending:
    """Adds up the spending of all servers on the database since the month began (UTC), if there are
    prices and a spend limit or an alert. One server, of those that share `grants`, logs an alert
    that is due."""

    def __init__(
        self,
        stored: StoredUsage,
        keyring: Keyring,
        prices: Mapping[str, Price],
        grants: Grants,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._stored = stored
        self._keyring = keyring
        self._prices = prices
        self._grants = grants
        self._clock = clock
        self._cents: dict[str, float] = {}  # by project
        # Ids of the alerts that a server has claimed, each with the end of the month.
        self._claimed_alerts: set[tuple[str, int]] = set()

    def cents(self, project_id: str | None = None) -> float:
        """Returns the spending of a project in cents; without an id, of all projects."""
        if project_id is None:
            return sum(self._cents.values())
        return self._cents.get(project_id, 0.0)

    def check(self, project: Project) -> None:
        """Raises `QuotaExceeded` (429) if the project or the organization has reached its spend
        limit."""
        limit = project.spend_limit_cents
        if limit is not None and self.cents(project.id) >= limit:
            raise _quota_error(f"project `{project.id}`", limit)
        limit = self._keyring.policy.spend_limit_cents
        if limit is not None and self.cents() >= limit:
            raise _quota_error("organization", limit)

    def is_limited(self, project: Project) -> bool:
        """True if a spend limit applies to the project."""
        limits = (project.spend_limit_cents, self._keyring.policy.spend_limit_cents)
        return any(limit is not None for limit in limits)

    async def refresh(self) -> None:
        """Queries the usage, and logs the alerts that are due."""
        policy = self._keyring.policy
        limits = [
            policy.spend_limit_cents,
            *(p.spend_limit_cents for p in policy.projects.values()),
        ]
        is_needed = policy.spend_alerts or any(limit is not None for limit in limits)
        if not self._prices or not is_needed:
            return
        month_at, month_ends_at = _month(self._clock())
        this_month = UsageFilter(
            start_at=month_at, end_at=_ALL_TIME_S, kinds=PRICED, allowed_values={}
        )
        used = await self._stored.sums(
            this_month, width_s=_ALL_TIME_S, group_by=("project_id", "model")
        )
        spent: dict[str, float] = {}
        for one in used:
            project_id = one.group["project_id"]
            cents = cost_cents(one, one.group["model"], self._prices)
            spent[project_id] = spent.get(project_id, 0.0) + cents
        self._cents = spent
        for alert in policy.spend_alerts:
            await self._log_alert(alert, month_ends_at)

    async def refresh_or_log(self) -> bool:
        """Refreshes; logs a failure and returns False."""
        try:
            await self.refresh()
        except StoreError as error:
            log.warning("spending_not_known", extra={"reason": str(error)})
            return False
        return True

    async def refresh_forever(self, every_s: float = EVERY_S) -> NoReturn:
        """Refreshes periodically; after a failure the last sums remain in use."""
        took_s = 0.0
        while True:
            await asyncio.sleep(max(every_s, PAUSE_FACTOR * took_s))
            began_s = time.perf_counter()
            if await self.refresh_or_log():
                took_s = time.perf_counter() - began_s

    async def _log_alert(self, alert: Record, month_ends_at: int) -> None:
        threshold, spent = alert.body["threshold_amount"], self.cents(alert.project_id)
        if spent < threshold or (alert.id, month_ends_at) in self._claimed_alerts:
            return
        is_first = await self._grants.claim(f"spend alert {alert.id}", month_ends_at)
        self._claimed_alerts.add((alert.id, month_ends_at))
        if not is_first:
            return
        fields = {
            "alert_id": alert.id,
            "project_id": alert.project_id,
            "threshold_cents": threshold,
            "spent_cents": round(spent),
            "recipients": alert.body["notification_channel"]["recipients"],
        }
        log.warning("spend_alert", extra=fields)


def _quota_error(scope: str, cents: int) -> QuotaExceeded:
    return QuotaExceeded(
        f"The {scope} has reached its spend limit of {cents / 100:.2f} USD a month: an "
        "administrator can raise it."
    )


def _month(now: float) -> tuple[int, int]:
    """Returns the begin and the end of the month."""
    begin = datetime.fromtimestamp(now, UTC).replace(
        day=1, hour=0, minute=0, second=0, microsecond=0
    )
    end = (begin + timedelta(days=31)).replace(day=1)
    return int(begin.timestamp()), int(end.timestamp())
