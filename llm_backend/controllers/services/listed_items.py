"""Validation of items that a client has stored, by the forms in which they are listed.

The document requires more of a listed item than of a sent one. `stored_form` adds what it can; the
rest is refused: a field of another type, or a `compaction_trigger`, which is never listed.
"""

import re
from collections.abc import Sequence

from llm_backend.contract.validation import Validators
from llm_backend.controllers.response_items.items import item_list
from llm_backend.errors import InvalidRequest
from llm_backend.json_types import JsonObject
from llm_backend.offload import offload
from llm_backend.store import Page, StoredItem

OF_CONVERSATIONS = "createConversationItems"
OF_RESPONSES = "listInputItems"

_ITEMS_AT_ONCE = 1024  # checked in some milliseconds, without a pause for other threads
_INDEX = re.compile(r"\bdata\[(\d+)\]")


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
        for start in range(0, len(items), _ITEMS_AT_ONCE):
            rows = [
                StoredItem(id=item["id"], item=item)
                for item in items[start : start + _ITEMS_AT_ONCE]
            ]
            try:
                check.check_request(item_list(Page(items=rows, has_more=False)))
            except InvalidRequest as error:

                def place(index: re.Match[str], start: int = start) -> str:
                    return f"{where}[{start + int(index[1])}]"

                raise InvalidRequest(
                    _INDEX.sub(place, error.message, count=1),
                    param=_INDEX.sub(place, error.param or "", count=1) or None,
                    code=error.code,
                ) from error
