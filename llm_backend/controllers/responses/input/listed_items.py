"""Validation of items that a client puts into a conversation, by the form in which they are listed.

The document requires more of a listed item than of a sent one: a reasoning item without `summary`
may be sent back, and a `compaction_trigger` is never listed.
"""

from collections.abc import Sequence

from llm_backend.contract.validation import Validators
from llm_backend.controllers.responses.input.items import item_list
from llm_backend.errors import InvalidRequest
from llm_backend.json_types import JsonObject
from llm_backend.offload import offload
from llm_backend.store import Page, StoredItem

_LIST = ("createConversationItems", 200, "application/json")


class ListedItems:
    """Refuses items that the document's list of items cannot hold."""

    def __init__(self, validators: Validators) -> None:
        self._validators = validators

    async def check(self, items: Sequence[JsonObject]) -> None:
        """Raises `InvalidRequest` that names the field of the first such item."""
        await offload(self._check, items)

    def _check(self, items: Sequence[JsonObject]) -> None:
        check = self._validators.response(*_LIST)
        assert check is not None  # the document describes it
        rows = [StoredItem(id=item["id"], item=item) for item in items]
        try:
            check.check_request(item_list(Page(items=rows, has_more=False)))
        except InvalidRequest as refusal:
            raise InvalidRequest(
                refusal.message.replace("'data[", "'items[", 1),
                param=(refusal.param or "").replace("data[", "items[", 1) or None,
                code=refusal.code,
            ) from refusal
