"""Wires up access control: keys, usage, limits and admission control of one server."""

import shlex
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from llm_backend.access.authentication.keyring import Keyring
from llm_backend.access.authentication.principal import Caller
from llm_backend.access.idempotency.shared_answers import SharedAnswers
from llm_backend.access.limits.admission_control import AdmissionControl
from llm_backend.access.limits.concurrency import SharedConcurrencyLimits
from llm_backend.access.limits.rate_limits import RateLimits
from llm_backend.access.limits.request_policy import DefaultLimits, RequestPolicies, TargetsOf
from llm_backend.access.usage.deferred_usage import DeferredUsage
from llm_backend.access.usage.ledger import Ledger
from llm_backend.access.usage.spending import Spending
from llm_backend.background_tasks import background_task
from llm_backend.contract.body import json_limits
from llm_backend.contract.operations import Operation
from llm_backend.durations import DAY_S
from llm_backend.fair_queue import FairSemaphore
from llm_backend.home_folder import expand_home
from llm_backend.installation import command
from llm_backend.settings import Settings, SettingsError
from llm_backend.store import Database
from llm_backend.store.administration import (
    Administration,
    ClientSecrets,
    ConcurrencyLeases,
    DeferredUsageStore,
    Grants,
    StoredAnswers,
    StoredUsage,
)


@dataclass(frozen=True, kw_only=True)
class Access:
    """Keys, usage, limits and administration of one server."""

    administration: Administration
    keyring: Keyring
    client_secrets: ClientSecrets
    usage: StoredUsage
    ledger: Ledger
    deferred_usage: DeferredUsage
    spending: Spending
    policies: RequestPolicies
    admission: AdmissionControl
    usage_days: int
    audit_days: int | None  # None: for ever
    shared_answers: SharedAnswers | None  # None: one process on SQLite
    shared_concurrency: SharedConcurrencyLimits | None

    async def expire(self) -> None:
        """Deletes expired rows: usage, client secrets, the audit log, shared answers, permits."""
        await self.usage.expire(int(time.time() - self.usage_days * DAY_S))
        await self.deferred_usage.expire()
        await self.client_secrets.expire()
        if self.audit_days is not None:
            before = int(time.time() - self.audit_days * DAY_S)
            await self.administration.delete_audit_entries(before)
        if self.shared_answers is not None:
            await self.shared_answers.expire()
        if self.shared_concurrency is not None:
            await self.shared_concurrency.expire()

    async def authenticate(self, headers: Mapping[str, str], operation: Operation) -> Caller:
        """Authenticates the caller of an operation. Raises `Unauthorized`, `Forbidden` or
        `ServiceUnavailable`."""
        authenticate = self.keyring.authenticate
        return await self.keyring.find_caller(
            partial(authenticate, headers, administers=operation.administers)
        )


@asynccontextmanager
async def open_access(
    settings: Settings,
    database: Database,
    targets_of: TargetsOf,
    *,
    config_file: Path | None = None,
) -> AsyncIterator[Access]:
    """Opens access control. The database is polled while it is open, and usage is written at its
    end. `config_file`, from which the settings come, is named in hints.

    Raises `SettingsError` if any client could use the server and the settings do not allow that.
    """
    async with AsyncExitStack() as stack:
        administration, usage = Administration(database), StoredUsage(database)
        keyring = await _open_keyring(settings, config_file, administration, stack)
        ledger = Ledger(usage)
        stack.push_async_callback(ledger.write_or_log)
        await stack.enter_async_context(background_task(ledger.write_forever()))
        grants = Grants(database)
        spending = Spending(usage, keyring, settings.prices, grants)
        # Before the first request, so that a project beyond its limit is refused immediately.
        await spending.refresh_or_log()
        await stack.enter_async_context(background_task(spending.refresh_forever()))
        # One process on SQLite shares no limits.
        is_shared = settings.has_database_server or settings.processes > 1
        limits = RateLimits(grants if is_shared else None)
        stack.push_async_callback(limits.wait_idle)
        shared_concurrency = await _open_concurrency_leases(database, stack) if is_shared else None
        policies = RequestPolicies(
            keyring, limits, _default_limits(settings), targets_of, shared_concurrency
        )
        answers = await _open_shared_answers(database, stack) if is_shared else None
        yield Access(
            administration=administration,
            keyring=keyring,
            client_secrets=ClientSecrets(database),
            usage=usage,
            ledger=ledger,
            deferred_usage=DeferredUsage(DeferredUsageStore(database)),
            spending=spending,
            policies=policies,
            usage_days=settings.usage_days,
            audit_days=settings.audit_days,
            shared_answers=answers,
            shared_concurrency=shared_concurrency,
            admission=AdmissionControl(
                ledger=ledger,
                spending=spending,
                policies=policies,
                limits=limits,
                permits=_request_permits(settings),
                run_deadline_s=settings.run_deadline_s,
                keys_refresh_s=settings.keys_refresh_s,
                body_limits=json_limits(settings),
            ),
        )


async def _open_keyring(
    settings: Settings,
    config_file: Path | None,
    administration: Administration,
    stack: AsyncExitStack,
) -> Keyring:
    """Opens the keyring. Raises `SettingsError` if there is no key and the server listens beyond
    loopback, unless `allow_open` is set."""
    may_be_open = settings.is_loopback or settings.allow_open
    keyring = Keyring(
        administration,
        [key.get_secret_value() for key in settings.api_keys],
        may_be_open=may_be_open,
    )
    await keyring.open()
    if keyring.is_known and not keyring.has_keys and not may_be_open:
        raise SettingsError(keyless_message(settings, config_file))
    refreshing = keyring.refresh_forever(settings.keys_refresh_s)
    await stack.enter_async_context(background_task(refreshing))
    return keyring


def keyless_message(settings: Settings, config_file: Path | None) -> str:
    """Returns the reason why a server beyond loopback does not start without a key."""
    return (
        f"Every client that reaches {settings.host} could use this server without a key: "
        f"set LLM_BACKEND_API_KEYS, make one with `{_keys_command(settings, config_file)}`, "
        "or permit it with --allow-open."
    )


def _keys_command(settings: Settings, config_file: Path | None) -> str:
    """Returns the command that makes a key in the database of this server."""
    default = expand_home(Settings.model_fields["data_dir"].default).absolute()
    words = ["keys", "create"]
    if config_file is not None:
        words += ["--config", str(config_file)]
    if settings.database_url is None and settings.data_dir != default:
        words += ["--data-dir", str(settings.data_dir)]
    return command(shlex.join(words))


async def _open_shared_answers(database: Database, stack: AsyncExitStack) -> SharedAnswers:
    answers = SharedAnswers(StoredAnswers(database))
    stack.push_async_callback(answers.wait_idle)
    await stack.enter_async_context(background_task(answers.renew_forever()))
    return answers


async def _open_concurrency_leases(
    database: Database, stack: AsyncExitStack
) -> SharedConcurrencyLimits:
    shared = SharedConcurrencyLimits(ConcurrencyLeases(database))
    stack.push_async_callback(shared.release_all)
    await stack.enter_async_context(background_task(shared.renew_forever()))
    return shared


def _default_limits(settings: Settings) -> DefaultLimits:
    return DefaultLimits(
        requests_per_minute=settings.requests_per_minute,
        tokens_per_minute=settings.tokens_per_minute,
        key_requests_per_minute=settings.key_requests_per_minute,
        key_tokens_per_minute=settings.key_tokens_per_minute,
        key_concurrent_requests=settings.key_concurrent_requests,
        project_concurrent_requests=settings.project_concurrent_requests,
    )


def _request_permits(settings: Settings) -> FairSemaphore | None:
    if settings.concurrent_requests is None:
        return None
    return FairSemaphore(
        settings.concurrent_requests,
        depth=settings.waiting_requests,
        timeout_s=settings.waiting_deadline_s,
    )
