"""Which chats are remembered, and how what was said becomes what is stored."""

import logging
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Literal

from llm_backend import errors
from llm_backend.controllers.rendering.store_errors import store_errors_translated
from llm_backend.controllers.write_behind.background_tasks import BackgroundTasks
from llm_backend.controllers.write_behind.group_commit import GroupCommit
from llm_backend.controllers.write_behind.lost_writes import Losses
from llm_backend.controllers.write_behind.write_behind_buffer import WriteBehindBuffer
from llm_backend.store import (
    ChatStatus,
    ChatStore,
    NewChat,
    StoredChat,
    StoreError,
    StoreUnavailable,
    present_owner,
)

__all__ = ["ChatMemory", "Policy"]

Policy = Literal["always", "on-request", "never"]
Body = Mapping[str, Any]

log = logging.getLogger(__name__)


class ChatMemory:
    """The stored chats, and the policy that says which ones are stored.

    A chat of a local model, and any that says `store: true`, is durable before its client sees the
    end of the answer. Relayed ones that are stored because the server stores all are stored a
    moment behind their answers, many at once; one whose client left half-way too, marked
    incomplete. `caught_up` and `settle` wait for those.
    """

    def __init__(self, chats: ChatStore, policy: Policy, losses: Losses | None = None) -> None:
        self.chats = chats
        self._losses = losses or Losses("chat_not_stored", "chat_id")
        self._policy = policy
        self._background_tasks = BackgroundTasks()
        self._backlog: WriteBehindBuffer[NewChat] = WriteBehindBuffer(self._store_behind)
        self._together: GroupCommit[NewChat] = GroupCommit(self._store_all)

    def wants(self, body: Body) -> bool:
        """Whether this request's chat is to be stored; raises where it asks for what cannot be."""
        asked = body.get("store")
        if self._policy == "never" and asked:
            raise errors.UnsupportedField(
                "This server stores no chats (`store_chats` is `never`); leave `store` out.",
                param="store",
            )
        if self._policy == "never":
            return False
        return self._policy == "always" if asked is None else bool(asked)

    def wants_relayed(self, body: Body) -> bool:
        """The same for a chat that an upstream answers: `store` then is the upstream's to honour,
        so nothing is refused.
        """
        return self._policy != "never" and self.wants(body)

    async def remember(self, body: Body, completion: Body, *, complete: bool = True) -> None:
        """Stores one chat, durably on return.

        While the database cannot, raises `Overloaded` for a chat that asked to be stored; one that
        is stored only because the server stores all is answered all the same, counted and logged.

        `completion` has `id`, `created` and `model`; what else the document wants is filled in.
        """
        await self._remember(body, _new(body, completion, complete=complete))

    async def _remember(self, body: Body, new: NewChat) -> None:
        with store_errors_translated(event="chat_not_stored", chat_id=new.chat.id):
            try:
                await self._together.written(new)
            except StoreUnavailable as error:
                if body.get("store"):
                    raise
                self._losses.add(new.chat.id, error)

    def remember_relayed(
        self, body: Body, completion: Body, *, complete: bool, size_bytes: int
    ) -> Awaitable[None] | None:
        """Stores one chat that an upstream answered, of about this size: behind its answer, unless
        it says `store: true` or too much is on its way already; then what `remember` does is to be
        awaited.
        """
        new = _new(body, completion, complete=complete)
        if not body.get("store") and self._backlog.takes(new, size_bytes):
            return None
        return self._remember(body, new)

    def remember_behind(self, body: Body, completion: Body) -> None:
        """Stores a chat whose client has left; a failure is logged, nobody is there to be told."""
        self._background_tasks.start(self._remember_quietly(body, completion))

    async def caught_up(self) -> None:
        """Waits until the chats whose answers have ended are stored: what was answered is found."""
        await self._backlog.caught_up()

    async def settle(self) -> None:
        """Waits until all that is being stored behind is stored."""
        await self._background_tasks.settle()
        await self._together.settle()
        await self._backlog.caught_up()
        self._losses.tell()

    async def _store_behind(self, added: Sequence[NewChat]) -> None:
        for one, failure in zip(added, await self._store_all(added), strict=True):
            if failure is not None:
                self._losses.add(one.chat.id, failure)

    async def _store_all(self, added: Sequence[NewChat]) -> Sequence[StoreError | None]:
        """What each of them failed by. One that is bad takes no other along."""
        try:
            _log_accepted(await self.chats.add_free(added))
        except StoreUnavailable as error:
            return [error] * len(added)
        except StoreError as error:
            if len(added) == 1:
                return [error]
            return [failure for one in added for failure in await self._store_all([one])]
        return [None] * len(added)

    async def _remember_quietly(self, body: Body, completion: Body) -> None:
        try:
            await self.remember(body, completion, complete=False)
        except (errors.ApiError, StoreError) as error:
            self._losses.add(completion["id"], error)


def _log_accepted(ids: Sequence[str]) -> None:
    """One line however many there are: an upstream that counts badly makes one of every chat."""
    if ids:
        log.warning("chat_id_taken", extra={"chat_id": ids[0], "chats": len(ids)})


def _new(body: Body, completion: Body, *, complete: bool) -> NewChat:
    """The chat of a request and its answer, the present owner's."""
    chat = _stored_chat(body, completion, complete=complete)
    return NewChat(chat=chat, messages=body["messages"])


def _stored_chat(body: Body, completion: Body, *, complete: bool) -> StoredChat:
    owner = present_owner()
    return StoredChat(
        id=completion["id"],
        created_at=completion["created"],
        model=completion["model"],
        request={name: value for name, value in body.items() if name != "messages"},
        response=_conforming(completion, complete=complete),
        metadata=body.get("metadata") or {},
        status=ChatStatus.COMPLETED if complete else ChatStatus.INCOMPLETE,
        owner=None if owner is None else owner.id,
    )


def _conforming(completion: Body, *, complete: bool) -> dict[str, Any]:
    """The completion with every key that the document requires: upstreams leave out nullable ones,
    and a choice that was cut off has no reason of its own to have ended.
    """
    choices = completion.get("choices") or []
    return {
        **completion,
        "object": "chat.completion",
        "choices": [_conforming_choice(choice, complete=complete) for choice in choices],
    }


def _conforming_choice(choice: Body, *, complete: bool) -> dict[str, Any]:
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
