"""Item fields that events omit unless `include` selects them, stored beside the events: a client
that replays a stream may select more of them than the original request. Pure.
"""

from collections.abc import Mapping, Sequence

from llm_backend.controllers.response_items.items import public_form
from llm_backend.json_types import JsonMapping, JsonObject, without_nulls

Event = JsonMapping

_UNSHOWN = "unshown"  # key of stored events: omitted fields by item id
_FIELDS = ("results", "outputs")  # fields that cannot be derived from the rest of an item


def to_stored_event(event: Event, items: Sequence[Event]) -> Event:
    """Returns the event with the omitted fields of `items`, which are complete."""
    whole = {item["id"]: item for item in items}
    unshown: JsonObject = {}
    for item in _items_of(event):
        fields = {
            name: value
            for name in _FIELDS
            if (value := whole.get(item["id"], {}).get(name)) is not None and item.get(name) is None
        }
        if fields:
            unshown[item["id"]] = fields
    return {**event, _UNSHOWN: unshown} if unshown else event


def from_stored_event(stored: Event, include: Sequence[str]) -> JsonObject:
    """Returns the event in its original form, with the fields that `include` selects."""
    event = {name: value for name, value in stored.items() if name != _UNSHOWN}
    if not include:
        return event
    unshown = stored.get(_UNSHOWN) or {}
    if "item" in event:
        event["item"] = _with_more(event["item"], unshown, include)
    if "response" in event:
        output = [_with_more(item, unshown, include) for item in event["response"]["output"]]
        event["response"] = {**event["response"], "output": output}
    return event


def _with_more(
    item: Event, unshown: Mapping[str, JsonObject], include: Sequence[str]
) -> JsonObject:
    more = public_form({**item, **unshown.get(item["id"], {})}, include)
    return {**item, **without_nulls(more)}


def _items_of(event: Event) -> Sequence[Event]:
    if "item" in event:
        return [event["item"]]
    return event["response"]["output"] if "response" in event else ()
