"""Storage of chats: the policy, and the translation of requests and completions to stored chats."""

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from llm_backend import errors
from llm_backend.background_tasks import BackgroundTasks
from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.controllers.write_behind.group_commit import GroupCommit
from llm_backend.controllers.write_behind.lost_writes import LostWrites
from llm_backend.controllers.write_behind.write_behind_buffer import WriteBehindBuffer
from llm_backend.json_types import JsonMapping, JsonObject
from llm_backend.store import (
    ChatStatus,
    ChatStore,
    NewChat,
    Owner,
    StoredChat,
    StoreError,
    StoreUnavailable,
    current_owner,
)

Policy = Literal["always", "on-request", "never"]

_PARSED_AT_ONCE = 16  # answers parsed before other requests get their turn

log = logging.getLogger(__name__)


class RelayedAnswer(Protocol):
    """Answer of an upstream, kept as received until it is stored."""

    @property
    def is_complete(self) -> bool: ...

    def completion(self) -> JsonMapping | None:
        """Returns the completion, or the part received, with `id`, `created` and `model`; None if
        nothing can be stored."""


@dataclass(frozen=True, kw_only=True)
class ParsedAnswer:
    """Relayed answer whose completion is known already."""

    parsed: JsonMapping
    is_complete: bool

    def completion(self) -> JsonMapping:
        """Returns the completion."""
        return self.parsed


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class _RelayedChat:
    """Relayed chat that waits for its write. The answer is parsed only then: parsed objects that
    wait in memory cost as much as parsing."""

    body: JsonMapping
    answer: RelayedAnswer
    owner: Owner | None

    def parse(self) -> NewChat | None:
        """Returns the new chat; None if the answer is not a completion."""
        completion = self.answer.completion()
        if completion is None:
            return None
        return _new_chat(self.body, completion, complete=self.answer.is_complete, owner=self.owner)


class ChatRecorder:
    """Stores the chats that the policy selects.

    A chat of a local model, and any with `store: true`, is durable before its client gets the end
    of the answer. A relayed chat without `store: true`, which only the policy `always` stores, is
    written after its answer, in batches, unless the buffer is full: `flush` waits for these. A chat
    whose client disconnected is written in the background and marked incomplete; `wait_idle` waits
    for all writes. While the database is unavailable, a chat without `store: true` is lost, and
    logged.
    """

    def __init__(self, chats: ChatStore, policy: Policy, losses: LostWrites | None = None) -> None:
        self.chats = chats
        self._losses = losses or LostWrites("chat_not_stored", "chat_id")
        self._policy = policy
        self._background_tasks = BackgroundTasks()
        self._write_behind: WriteBehindBuffer[_RelayedChat] = WriteBehindBuffer(self._store_batch)
        self._group_commit: GroupCommit[NewChat] = GroupCommit(self._store_all)

    @property
    def may_store(self) -> bool:
        """False if the policy is `never`: then no chat is stored, whatever its request says."""
        return self._policy != "never"

    def should_store(self, body: JsonMapping) -> bool:
        """True if this request's chat must be stored. Raises `UnsupportedField` if the request has
        `store: true` and the policy is `never`."""
        requested = body.get("store")
        if requested and not self.may_store:
            raise errors.UnsupportedField(
                "This server stores no chats (`store_chats` is `never`); leave `store` out.",
                param="store",
            )
        if not self.may_store:
            return False
        return self._policy == "always" if requested is None else bool(requested)

    def should_store_relayed(self, body: JsonMapping) -> bool:
        """True if this server stores a chat that an upstream answers. Never refuses `store: true`:
        if this server stores nothing, the upstream honours it."""
        return self.may_store and self.should_store(body)

    async def store(
        self, body: JsonMapping, completion: JsonMapping, *, complete: bool = True
    ) -> None:
        """Stores one chat, durably on return. `completion` has `id`, `created` and `model`; other
        required fields are filled in.

        While the database is unavailable, raises `ServiceUnavailable` for a chat with
        `store: true`. Any other chat is counted and logged as lost.
        """
        new = _new_chat(body, completion, complete=complete, owner=current_owner())
        await self._store(body, new)

    async def _store(self, body: JsonMapping, new: NewChat) -> None:
        with translate_store_errors(event="chat_not_stored", chat_id=new.chat.id):
            try:
                await self._group_commit.write(new)
            except StoreUnavailable as error:
                if body.get("store"):
                    raise
                self._losses.add(new.chat.id, error)

    def store_relayed(
        self, body: JsonMapping, answer: RelayedAnswer, *, size_bytes: int
    ) -> Awaitable[None] | None:
        """Stores one relayed chat of about this size. Returns None if it will be parsed and written
        later. With `store: true`, or if the write-behind buffer is full, returns a write that the
        caller awaits. An answer that is not a completion is not stored.
        """
        chat = _RelayedChat(body=body, answer=answer, owner=current_owner())
        if not body.get("store") and self._write_behind.try_add(chat, size_bytes):
            return None
        new = chat.parse()
        return None if new is None else self._store(body, new)

    def store_in_background(self, body: JsonMapping, completion: JsonMapping) -> None:
        """Stores a chat in the background after a disconnect; a failure is logged."""
        self._background_tasks.start(self._store_and_count_loss(body, completion))

    async def flush(self) -> None:
        """Waits until the relayed chats that are written after their answers are stored, so that a
        query finds them."""
        await self._write_behind.flush()

    async def wait_stored(self) -> None:
        """Waits for the chats that are being stored in the background so far."""
        await self._background_tasks.wait_others()

    async def wait_idle(self) -> None:
        """Waits for all writes in the background."""
        await self._background_tasks.wait_idle()
        await self._group_commit.wait_idle()
        await self._write_behind.flush()
        self._losses.report()

    async def _store_batch(self, relayed: Sequence[_RelayedChat]) -> None:
        chats: list[NewChat] = []
        for start in range(0, len(relayed), _PARSED_AT_ONCE):
            parsed = [one.parse() for one in relayed[start : start + _PARSED_AT_ONCE]]
            chats += [one for one in parsed if one is not None]
            await asyncio.sleep(0)
        if not chats:
            return
        for one, failure in zip(chats, await self._store_all(chats), strict=True):
            if failure is not None:
                self._losses.add(one.chat.id, failure)

    async def _store_all(self, chats: Sequence[NewChat]) -> Sequence[StoreError | None]:
        """Returns the error of each chat, or None. If a batch fails, its chats are stored one by
        one, so that an invalid chat does not affect others; not while the database is unavailable,
        which fails all."""
        try:
            _log_taken_ids(await self.chats.add_unless_taken(chats))
        except StoreUnavailable as error:
            return [error] * len(chats)
        except StoreError as error:
            if len(chats) == 1:
                return [error]
            return [failure for one in chats for failure in await self._store_all([one])]
        return [None] * len(chats)

    async def _store_and_count_loss(self, body: JsonMapping, completion: JsonMapping) -> None:
        try:
            await self.store(body, completion, complete=False)
        except (errors.ApiError, StoreError) as error:
            self._losses.add(completion["id"], error)


def _log_taken_ids(ids: Sequence[str]) -> None:
    """Logs, in one line for a batch, chats that were not stored because their ids are taken: an
    upstream that repeats ids would otherwise cause a line for every chat."""
    if ids:
        log.warning("chat_id_taken", extra={"chat_id": ids[0], "chats": len(ids)})


def _new_chat(
    body: JsonMapping, completion: JsonMapping, *, complete: bool, owner: Owner | None
) -> NewChat:
    chat = StoredChat(
        id=completion["id"],
        created_at=completion["created"],
        model=completion["model"],
        request={name: value for name, value in body.items() if name != "messages"},
        response=_conforming(completion, complete=complete),
        metadata=body.get("metadata") or {},
        status=ChatStatus.COMPLETED if complete else ChatStatus.INCOMPLETE,
        owner=None if owner is None else owner.id,
    )
    return NewChat(chat=chat, messages=body["messages"])


def _conforming(completion: JsonMapping, *, complete: bool) -> JsonObject:
    """Returns the completion with all required keys: upstreams leave out nullable ones, and an
    interrupted choice has no finish reason."""
    choices = completion.get("choices") or []
    return {
        **completion,
        "object": "chat.completion",
        "choices": [_conforming_choice(choice, complete=complete) for choice in choices],
    }


def _conforming_choice(choice: JsonMapping, *, complete: bool) -> JsonObject:
    reason = choice.get("finish_reason")
    return {
        "index": 0,
        "logprobs": None,
        **choice,
        "message": {
            "role": "assistant",
            "content": None,
            "refusal": None,
            **(choice.get("message") or {}),
        },
        "finish_reason": reason or ("stop" if complete else "length"),
    }
