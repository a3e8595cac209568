"""Queue of background responses: stored with a job that any worker may claim."""

from typing import TYPE_CHECKING

from llm_backend import errors
from llm_backend.access import Caller
from llm_backend.controllers.moderations.moderated_answers import moderation_of
from llm_backend.controllers.responses.events.event_log import as_lines
from llm_backend.controllers.responses.events.response_state import ResponseState
from llm_backend.controllers.responses.input.resolved_request import ModelDefaults, open_request
from llm_backend.controllers.responses.loop.response_run import new_head
from llm_backend.controllers.services import Services
from llm_backend.controllers.services.stored_responses import to_stored_response
from llm_backend.store import Events

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api


FROM_THE_START = -1  # before the sequence number of the first event


async def queue_response(
    services: Services, model: ModelDefaults, body: "api.CreateResponse", caller: Caller
) -> "api.Response":
    """Validates, stores and queues a response, to be answered by this model for this caller, and
    returns it. Errors of the request are raised here and not in the background."""
    _check_is_stored(services, body, caller)
    async with open_request(services, model, body) as resolved:
        input_items = resolved.input_items
        # Raises if no moderation model is available.
        moderation_of(services, body, resolved.input_messages, model.meter)
    head = new_head(body, is_stored=True, passages_limit=services.settings.passages_limit)
    state = ResponseState(head, include=body.get("include") or ())
    events = state.queue()
    lines = as_lines(events) if body.get("stream") else Events()
    response = state.response
    # The input is stored with the response.
    stored_fields = {name: value for name, value in body.items() if name != "input"}
    details = {"body": stored_fields, "key_id": caller.key_id}
    await services.background.add(to_stored_response(body, response, input_items), details, lines)
    return response


def _check_is_stored(services: Services, body: "api.CreateResponse", caller: Caller) -> None:
    """Raises for a response that is not stored: a client could not retrieve it."""
    if not services.chat_recorder.may_store:
        raise errors.UnsupportedField(
            "This server stores no responses (`store_chats` is `never`), so a client could not "
            "retrieve this one: leave `background` out.",
            param="background",
        )
    if caller.has_zero_retention:
        raise errors.InvalidRequest(
            f"The data retention of project `{caller.project_id}` is zero, so its responses are "
            "not stored, and a client could not retrieve this one: leave `background` out.",
            param="background",
        )
    if body.get("store") is False:
        raise errors.InvalidRequest(
            "A background response must be stored, so that its client can retrieve it: `store` "
            "must not be false.",
            param="store",
        )
