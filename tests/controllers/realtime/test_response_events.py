"""Events of realtime responses, from the events of `/responses`."""

import pytest

from llm_backend.controllers.realtime.conversation import Conversation
from llm_backend.controllers.realtime.response_events import ResponseEvents
from llm_backend.controllers.realtime.session_config import Capabilities, SessionConfig
from llm_backend.errors import TooLarge

MESSAGE = {"type": "message"}
CALL = {"type": "function_call", "name": "f", "call_id": "call_1"}


@pytest.mark.parametrize("item", [MESSAGE, CALL])
def test_an_item_over_the_limit_of_the_conversation_has_no_events(item):
    conversation = Conversation(limit_bytes=50, nodes_limit=1000)
    config = SessionConfig.default("builtin", Capabilities())
    events = ResponseEvents("resp_1", config, conversation)

    with pytest.raises(TooLarge):
        events.add({"type": "response.output_item.added", "item": item})

    assert list(events.fail({"type": "invalid_request_error"})) == []
    assert events.end()["response"]["output"] == list(conversation) == []
