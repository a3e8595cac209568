"""Stored responses: the context of a request is loaded, and its response is stored."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llm_backend import errors
from llm_backend.background_tasks import BackgroundTasks
from llm_backend.controllers.rendering.store_errors import translate_store_errors
from llm_backend.controllers.response_items.items import conversation_of, is_reference, stored_form
from llm_backend.controllers.write_behind.lost_writes import LostWrites
from llm_backend.json_types import JsonMapping, JsonObject
from llm_backend.offload import offload
from llm_backend.store import (
    ConversationStore,
    Duplicate,
    ResponseStore,
    StoredItem,
    StoredResponse,
    StoreError,
)

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


def to_stored_items(items: Sequence[JsonMapping]) -> list[StoredItem]:
    """Returns items as rows of the store."""
    return [StoredItem(id=item["id"], item=item) for item in items]


def to_stored_response(
    body: "api.CreateResponse",
    response: "api.Response",
    items: Sequence[JsonObject],
    output: Sequence[JsonMapping] = (),
) -> StoredResponse:
    """Returns a response as a row of the store; `items` are its input."""
    return StoredResponse(
        id=response["id"],
        created_at=int(response["created_at"]),
        model=response["model"],
        status=response["status"],
        body=response,
        input=to_stored_items(items),
        output=to_stored_items(output),
        previous_id=body.get("previous_response_id"),
        conversation_id=conversation_of(body),
    )


class StoredResponses:
    """Stored responses and conversations. A response is durable before its client gets the last
    event. If its client has disconnected, it is stored in the background."""

    def __init__(
        self,
        responses: ResponseStore,
        conversations: ConversationStore,
        losses: LostWrites | None = None,
    ) -> None:
        self.responses = responses
        self._losses = losses or LostWrites("response_not_stored", "response_id")
        self.conversations = conversations
        self._background_tasks = BackgroundTasks()

    async def load_context(self, body: "api.CreateResponse") -> list[JsonObject]:
        """Loads the items that this request continues from. Raises `InvalidRequest` for an unknown
        id."""
        previous_id, conversation_id = body.get("previous_response_id"), conversation_of(body)
        if previous_id is not None and conversation_id is not None:
            raise errors.InvalidRequest(
                "A response must continue `previous_response_id` or `conversation`, not both.",
                param="conversation",
            )
        try:
            with translate_store_errors():
                items = await self.responses.load_context(
                    previous_id=previous_id, conversation_id=conversation_id
                )
        except errors.Conflict as error:
            raise errors.InvalidRequest(error.message, param="previous_response_id") from error
        except errors.NotFound as error:
            is_conversation = previous_id is None
            kind = "conversation" if is_conversation else "previous_response"
            raise errors.InvalidRequest(
                f"No {kind.replace('_', ' ')} is stored under this id: {error.message}",
                param="conversation" if is_conversation else "previous_response_id",
                code=f"{kind}_not_found",
            ) from error
        return [dict(stored.item) for stored in items]

    async def resolve_items(
        self, value: str | Sequence[JsonMapping] | None, where: str = "input"
    ) -> list[JsonObject]:
        """Returns the items of a request, references resolved; `where` is their path in it."""
        if value is None or isinstance(value, str):
            messages = [] if value is None else [{"role": "user", "content": value}]
            return [stored_form(message) for message in messages]
        items, reference_indices = await offload(_to_stored_forms, value)
        for index in reference_indices:
            items[index] = await self._item(value[index]["id"], f"{where}[{index}]")
        return items

    async def store(
        self, body: "api.CreateResponse", response: "api.Response", items: Sequence[JsonObject]
    ) -> None:
        """Stores a response; `items` are its input. It is durable on return.

        Raises `ApiError` if that fails.
        """
        stored = to_stored_response(body, response, items, response["output"])
        with translate_store_errors("conversation", event="response_not_stored"):
            await self.responses.add(stored)

    async def append(
        self, body: "api.CreateResponse", response: "api.Response", items: Sequence[JsonObject]
    ) -> None:
        """Appends the input and output of a response to its conversation, if it has one. The
        response itself is not stored."""
        conversation_id = conversation_of(body)
        if conversation_id is None:
            return
        rows = to_stored_items([*items, *response["output"]])
        with translate_store_errors("conversation", event="response_not_stored"):
            await self.conversations.add_items(conversation_id, rows)

    async def try_store(
        self, body: "api.CreateResponse", response: "api.Response", items: Sequence[JsonObject]
    ) -> bool:
        """Stores a response like `store`; returns False if that fails, which is logged."""
        try:
            await self.store(body, response, items)
        except Duplicate:
            return True  # a cancelled write was committed
        except (errors.ApiError, StoreError) as error:
            self._losses.add(response["id"], error)
            return False
        return True

    def store_in_background(
        self, body: "api.CreateResponse", response: "api.Response", items: Sequence[JsonObject]
    ) -> None:
        """Stores a response in the background after a disconnect; a failure is logged."""
        self._background_tasks.start(self.try_store(body, response, items))

    async def wait_idle(self) -> None:
        """Waits for all responses in the background, and reports those that are lost."""
        await self._background_tasks.wait_idle()
        self._losses.report()

    async def _item(self, id: str, where: str) -> JsonObject:
        try:
            with translate_store_errors():
                return dict((await self.responses.item(id)).item)
        except errors.NotFound as error:
            raise errors.InvalidRequest(
                f"No item is stored under the id `{id}`.", param=f"{where}.id"
            ) from error


def _to_stored_forms(items: Sequence[JsonMapping]) -> tuple[list[JsonObject], list[int]]:
    """Returns the items in stored form, and the indices of item references."""
    reference_indices = [index for index, item in enumerate(items) if is_reference(item)]
    references = set(reference_indices)
    return [
        {} if index in references else stored_form(item) for index, item in enumerate(items)
    ], reference_indices
