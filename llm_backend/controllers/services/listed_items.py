"""Validation of items that a client has stored, by the forms in which they are listed.

The document requires more of a listed item than of a sent one. `stored_form` adds what it can; the
rest is refused: a field of another type, or a `compaction_trigger`, which is never listed.
"""

from collections.abc import Sequence

from llm_backend.contract.validation import Validators
from llm_backend.controllers.response_items.items import item_list
from llm_backend.errors import InvalidRequest
from llm_backend.json_types import JsonObject
from llm_backend.offload import offload
from llm_backend.store import Page, StoredItem

OF_CONVERSATIONS = "createConversationItems"
OF_RESPONSES = "listInputItems"


class ListedItems:
    """Refuses items that the document's lists of items cannot hold."""

    def __init__(self, validators: Validators) -> None:
        self._validators = validators

    async def check(self, items: Sequence[JsonObject], where: str = "items", *lists: str) -> None:
        """Raises `InvalidRequest` that names the field of the first such item; `where` is the path
        of the items, `lists` are the operations that answer with them."""
        for operation_id in lists or (OF_CONVERSATIONS,):
            await offload(self._check, items, where, operation_id)

    def _check(self, items: Sequence[JsonObject], where: str, operation_id: str) -> None:
        check = self._validators.response(operation_id, 200, "application/json")
        assert check is not None  # the document describes it
        rows = [StoredItem(id=item["id"], item=item) for item in items]
        try:
            check.check_request(item_list(Page(items=rows, has_more=False)))
        except InvalidRequest as refusal:
            raise InvalidRequest(
                refusal.message.replace("'data[", f"'{where}[", 1),
                param=(refusal.param or "").replace("data[", f"{where}[", 1) or None,
                code=refusal.code,
            ) from refusal
