"""API keys in memory: a key is checked without a query to the database.

The keys in memory outlive an outage of the database. Changes of this process are visible
immediately; changes of other processes are visible after the next poll. The version counter is
polled every `keys_refresh_s`, and whenever a request has an unknown key. Open WebSockets check
their keys again as often: `MeteredSession` if relayed, else `_serve_while_valid` of
`controllers/websockets/endpoints.py`."""

import asyncio
import hmac
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from llm_backend.access.authentication import resource_kinds
from llm_backend.access.authentication.api_keys import (
    DEFAULT_NAME,
    hash_key,
    make_default_project,
)
from llm_backend.access.authentication.policy import DEFAULT_PROJECT, Policy, Project, policy_of
from llm_backend.access.authentication.principal import Caller
from llm_backend.errors import OUTAGE_RETRY_AFTER_S, Forbidden, ServiceUnavailable, Unauthorized
from llm_backend.store import StoreError
from llm_backend.store.administration import AccessSnapshot, Administration

log = logging.getLogger(__name__)

POLL_TIMEOUT_S = 2.0  # of one poll; a request with an unknown key waits for one or two
KEYS_REQUIRED = (
    "This was the first key: until now requests needed none; from now on the server refuses "
    "requests without a key."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Entry:
    hash: bytes
    caller: Caller
    expires_at: int | None


class UnknownKey(Unauthorized):
    """A key that the last poll did not find; another process may have created it since."""


class Keyring:
    """Authenticates the caller of a request by its API key.

    `static_keys` come from the settings, and nothing revokes them: each may administer, and call
    models within the default project. If there is no key at all and the server `may_be_open`,
    requests without a key may do both.
    """

    def __init__(
        self,
        administration: Administration,
        static_keys: Sequence[str] = (),
        *,
        may_be_open: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._administration = administration
        self._static_keys = static_keys
        self._may_be_open = may_be_open
        self._clock = clock
        self._version: int | None = None  # of the records in memory; None before the first load
        self._is_fresh = False
        self._refresh_lock = asyncio.Lock()
        self._scheduled_poll: asyncio.Task[None] | None = None  # scheduled, and not yet running
        self._poll_lock = asyncio.Lock()
        self._last_used: dict[str, int] = {}
        self._stores_use = True  # False after a failure, which is logged once
        self._replace(AccessSnapshot(version=0, records=(), keys=()))

    @property
    def has_keys(self) -> bool:
        """True if there is any key."""
        return bool(self._entries)

    @property
    def is_open_to_all(self) -> bool:
        """True if requests need no key: the keys of the database have been read, there is no key
        there or in the settings, and the server `may_be_open`."""
        return self.is_known and not self._entries and self._may_be_open

    @property
    def is_known(self) -> bool:
        """True if the keys of the database have been read."""
        return self._version is not None

    def authenticate(self, headers: Mapping[str, str], *, administers: bool = False) -> Caller:
        """Returns the caller of a request with these headers (names in lower case). `administers`
        is True for operations of the organization.

        Raises `Unauthorized` for no key, or one that is unknown or no longer valid, `Forbidden` for
        the wrong kind of key, and `ServiceUnavailable` if the database is needed and cannot be
        used.
        """
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if not scheme and "x-api-key" in headers:  # of Anthropic's clients
            scheme, token = "bearer", headers["x-api-key"]
        if not self._entries and self._allows_anonymous():
            return self._anonymous
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Unauthorized(
                "This server needs an API key: send it as `Authorization: Bearer KEY`."
            )
        digest = hash_key(token)
        entry = self._entries.get(digest)
        # The time of the look-up depends on the hash, and reveals nothing about the key itself.
        if entry is None or not hmac.compare_digest(entry.hash, digest):
            raise self._unknown_key_error("The API key is not known to this server.")
        caller, now = entry.caller, self._clock()
        if entry.expires_at is not None and entry.expires_at <= now:
            raise Unauthorized("The API key has expired: make a new one.")
        _check_kind(caller, administers=administers)
        if caller.key_id is not None:
            self._last_used[caller.key_id] = int(now)
        return caller

    def caller_of(self, key_id: str | None) -> Caller:
        """Returns the caller of an earlier request with this key, for its background work.

        Raises `Unauthorized` if the key has been revoked or has expired, or if its project is
        archived, and `ServiceUnavailable` if the database is needed and cannot be used.
        """
        if key_id is None:
            return self._anonymous
        entry = self._by_id.get(key_id)
        if entry is None:
            raise self._unknown_key_error("The API key of this request has been revoked.")
        if entry.expires_at is not None and entry.expires_at <= self._clock():
            raise Unauthorized("The API key of this request has expired.")
        _check_kind(entry.caller, administers=False)
        return entry.caller

    async def open(self) -> None:
        """Loads the keys and creates the default project. If the database cannot be used,
        `refresh` tries again later."""
        await self.refresh()
        if self.is_known and DEFAULT_PROJECT not in self.policy.projects:
            with suppress(StoreError):  # another process was first, or the database is down again
                await make_default_project(self._administration, int(self._clock()))
            await self.refresh()

    async def load(self) -> None:
        """Reads all keys and policies. Raises `StoreError`."""
        snapshot = await self._administration.load_snapshot(resource_kinds.DECIDING)
        was_open = self.is_open_to_all
        self._replace(snapshot)
        self._version, self._is_fresh = snapshot.version, True
        if was_open and not self.is_open_to_all:
            log.warning("keys_required", extra={"reason": KEYS_REQUIRED})

    async def refresh(self) -> None:
        """Reloads if the version counter has changed, and stores the last uses of keys. If the
        database cannot be used, logs that and keeps the keys in memory."""
        await self._reload_changes()
        if self._is_fresh:
            await self._record_use()

    async def _reload_changes(self) -> None:
        try:
            # One poll at a time: an older result must not overwrite a newer one.
            async with self._refresh_lock:
                if await self._administration.version() != self._version:
                    await self.load()
            self._is_fresh = True
        except StoreError as error:
            if self._is_fresh:
                log.warning("keys_not_refreshed", extra={"reason": str(error)})
            self._is_fresh = False

    async def find_caller(self, authenticate: Callable[[], Caller]) -> Caller:
        """Returns the caller that `authenticate` finds by this keyring; for an unknown key it is
        called again after a poll, because another process may have created the key since the last
        one. Raises as `authenticate` does."""
        try:
            return authenticate()
        except UnknownKey:
            await self.poll_for_unknown_key()
            return authenticate()

    async def find_caller_of(self, key_id: str | None) -> Caller:
        """Returns `caller_of` this key, after a poll if it is unknown. Raises as `caller_of`."""
        return await self.find_caller(partial(self.caller_of, key_id))

    async def poll_for_unknown_key(self) -> None:
        """Polls the database, in which another process may have created the key. If a poll is
        running, the next one is awaited: the running one may have read the database too early.
        Concurrent calls share one poll. After a timeout the keys count as stale.
        """
        if self._scheduled_poll is None:
            self._scheduled_poll = asyncio.create_task(self._poll_next())
        await asyncio.shield(self._scheduled_poll)

    async def _poll_next(self) -> None:
        async with self._poll_lock:
            self._scheduled_poll = None
            try:
                async with asyncio.timeout(POLL_TIMEOUT_S):
                    await self._reload_changes()
            except TimeoutError:
                self._is_fresh = False

    async def refresh_forever(self, every_s: float) -> NoReturn:
        """Polls for changes of other processes every `every_s` seconds."""
        while True:
            await asyncio.sleep(every_s)
            await self.refresh()

    async def _record_use(self) -> None:
        used, self._last_used = self._last_used, {}
        stored = {id: at for id, at in used.items() if id in self._stored_ids}
        if not stored:
            return
        try:
            await self._administration.record_key_use(stored)
            self._stores_use = True
        except StoreError as error:  # the keys have been read, and stay fresh
            if self._stores_use:
                log.warning("key_use_not_stored", extra={"reason": str(error)})
            self._stores_use = False
            self._last_used = {**stored, **self._last_used}

    def _replace(self, snapshot: AccessSnapshot) -> None:
        self.policy: Policy = policy_of(snapshot.records)
        project = self.policy.projects.get(DEFAULT_PROJECT) or Project(
            id=DEFAULT_PROJECT, name=DEFAULT_NAME
        )
        self._anonymous = Caller(project=project, may_administer=True)
        self._stored_ids = frozenset(key.id for key in snapshot.keys)
        entries = [*_static_entries(self._static_keys, project), *_entries(snapshot, self.policy)]
        self._entries = {entry.hash: entry for entry in entries}
        self._by_id = {entry.caller.key_id: entry for entry in entries}

    def _allows_anonymous(self) -> bool:
        """True if requests need no key while no key exists. Raises `ServiceUnavailable` if the
        keys have not been read."""
        if not self.is_known and not self._static_keys:
            raise _outage_error()
        return self._may_be_open

    def _unknown_key_error(self, message: str) -> Exception:
        if not self._is_fresh:
            return _outage_error()
        return UnknownKey(message)


def _check_kind(caller: Caller, *, administers: bool) -> None:
    if administers and not caller.may_administer:
        raise Forbidden("This operation needs an admin key; this key belongs to a project.")
    if not administers and caller.project is None:
        raise Forbidden("An admin key cannot be used here; send a project's key.")
    if caller.project is not None and caller.project.is_archived:
        raise Unauthorized(f"The project `{caller.project.id}` of this API key is archived.")


def _outage_error() -> ServiceUnavailable:
    return ServiceUnavailable(
        "The database cannot be used now, so API keys cannot be checked; try again later.",
        retry_after_s=OUTAGE_RETRY_AFTER_S,
    )


def _static_entries(keys: Sequence[str], project: Project) -> Iterable[_Entry]:
    for key in keys:
        digest = hash_key(key)
        caller = Caller(key_id=digest.hex()[:12], project=project, may_administer=True)
        yield _Entry(hash=digest, caller=caller, expires_at=None)


def _entries(snapshot: AccessSnapshot, policy: Policy) -> Iterable[_Entry]:
    for key in snapshot.keys:
        project = None if key.project_id is None else policy.projects.get(key.project_id)
        if project is None and key.project_id is not None:
            continue  # a key of an unknown project permits nothing
        caller = Caller(
            key_id=key.id,
            project=project,
            user_id=key.user_id,
            service_account_id=key.service_account_id,
            email=policy.emails.get(key.user_id or ""),
            may_administer=project is None,
        )
        yield _Entry(hash=bytes.fromhex(key.hash), caller=caller, expires_at=key.expires_at)
