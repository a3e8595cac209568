"""Entries and items of `mcp` tools: what is allowed, what needs approval, what the model reads."""

import pytest

from llm_backend.controllers.response_items import items
from llm_backend.controllers.responses.loop.mcp_entry import (
    allows,
    check_entry,
    headers_of,
    needs_approval,
)
from llm_backend.controllers.responses.loop.mcp_items import (
    find_approved_calls,
    find_tool_list,
    messages_from,
    model_tool_name,
)
from llm_backend.controllers.responses.loop.mcp_tools import McpTools
from llm_backend.controllers.services.server_tools import ToolContext
from llm_backend.errors import InvalidRequest

READS = {"name": "read", "annotations": {"readOnlyHint": True}}
WRITES = {"name": "write", "annotations": None}
REQUEST = {
    "type": "mcp_approval_request", "id": "mcpr_1", "server_label": "a", "name": "write",
    "arguments": '{"x":1}',
}  # fmt: skip


def asked(*items, **tool) -> ToolContext:
    entry = {"type": "mcp", "server_label": "a", "server_url": "http://a/mcp", **tool}
    return ToolContext(
        tool=entry, where="tools[0]", body={"tools": [entry]}, items=items, meter=None
    )


def answer(approve: bool, request_id: str = "mcpr_1", **fields) -> dict:
    return {
        "type": "mcp_approval_response", "approval_request_id": request_id, "approve": approve,
        **fields,
    }  # fmt: skip


def test_tools_of_one_server_with_one_name_for_the_model_are_refused():
    listing = {"tools": [{"name": name, "input_schema": {}} for name in ("get user", "get_user")]}

    with pytest.raises(InvalidRequest) as refused:
        McpTools(asked(), None, listing, is_new=False)
    assert refused.value.param == "tools[0].allowed_tools"
    assert McpTools(asked(allowed_tools=["get_user"]), None, listing, is_new=False).functions


@pytest.mark.parametrize(
    ("policy", "reads", "writes"),
    [
        (None, True, True),
        ("always", True, True),
        ("never", False, False),
        ({"never": {"tool_names": ["read"]}}, False, True),
        ({"never": {"read_only": True}}, False, True),
        ({"never": {"read_only": True, "tool_names": ["write"]}}, True, True),
        ({"never": {}}, True, True),
        ({"always": {"tool_names": ["write"]}, "never": {"read_only": True}}, False, True),
        ({"always": {"read_only": True}, "never": {"tool_names": ["read", "write"]}}, True, False),
    ],
)
def test_a_tool_needs_approval_unless_the_policy_lets_it_through(policy, reads, writes):
    assert (needs_approval(policy, READS), needs_approval(policy, WRITES)) == (reads, writes)


@pytest.mark.parametrize(
    ("allowed", "reads", "writes"),
    [
        (None, True, True),
        ([], False, False),
        (["write"], False, True),
        ({"read_only": True}, True, False),
        ({"tool_names": ["read", "write"], "read_only": False}, False, True),
    ],
)
def test_mcp_tools_are_allowed_by_name_or_by_annotation(allowed, reads, writes):
    assert (allows(allowed, READS), allows(allowed, WRITES)) == (reads, writes)


def test_an_approved_call_is_due_until_it_was_made():
    made = {"type": "mcp_call", "approval_request_id": "mcpr_1"}
    (due,) = find_approved_calls(asked(REQUEST, answer(True), answer(True)), "a")

    assert (due.name, due.arguments, due.request_id) == ("a__write", '{"x":1}', "mcpr_1")
    assert find_approved_calls(asked(REQUEST, answer(True), made), "a") == []
    assert find_approved_calls(asked(REQUEST, answer(False)), "a") == []
    assert find_approved_calls(asked(REQUEST, answer(True)), "another") == []


def test_the_latest_list_of_a_server_counts_unless_it_failed():
    old = {"type": "mcp_list_tools", "server_label": "a", "tools": []}
    new, others = {**old, "tools": [READS]}, {**old, "server_label": "b"}

    assert find_tool_list(asked(old, new, others)) == new
    assert find_tool_list(asked(old, {**old, "error": "gone"})) is None
    assert find_tool_list(asked(others)) is None


def test_an_mcp_call_is_translated_to_messages():
    call = {**REQUEST, "type": "mcp_call", "id": "mcp_1", "output": "done", "error": None}
    failed = {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": "no"}]}

    asking, said = messages_from(call)
    assert asking["tool_calls"][0]["function"] == {"name": "a__write", "arguments": '{"x":1}'}
    assert said == {"role": "tool", "tool_call_id": "mcp_1", "content": "done"}
    assert messages_from({**call, "output": None, "error": failed})[1]["content"] == "Error: no"
    gone = {"type": "http_error", "code": 502, "message": "gone"}
    assert messages_from({**call, "output": None, "error": gone})[1]["content"] == "Error: gone"


def test_an_mcp_call_that_broke_off_has_an_error_for_the_model():
    cut = {**REQUEST, "type": "mcp_call", "arguments": "", "status": "incomplete", "output": None,
           "error": None}  # fmt: skip

    assert messages_from(cut)[1]["content"].startswith("Error: The call was interrupted")


def test_an_approved_call_is_in_the_messages_once():
    call = {**REQUEST, "type": "mcp_call", "output": "done", "approval_request_id": "mcpr_1"}
    said = [*messages_from(REQUEST), *messages_from(answer(True)), *messages_from(call)]
    refused = [*messages_from(REQUEST), *messages_from(answer(False, reason="too dear"))]

    assert [message["role"] for message in said] == ["assistant", "tool"]
    assert said[1]["tool_call_id"] == said[0]["tool_calls"][0]["id"] == "mcpr_1"
    assert "too dear" in refused[1]["content"]


def test_call_without_its_approval_request_stands_alone_in_the_messages():
    call = {**REQUEST, "id": "mcp_1", "type": "mcp_call", "output": "done",
            "approval_request_id": "mcpr_1"}  # fmt: skip
    readers = dict.fromkeys(("mcp_call", "mcp_approval_request"), messages_from)
    alone = items.messages_from([], [call, REQUEST], readers)
    whole = items.messages_from([REQUEST], [call], readers)

    assert [message["role"] for message in alone] == ["assistant", "tool", "assistant"]
    assert alone[1]["tool_call_id"] == alone[0]["tool_calls"][0]["id"] == "mcp_1"
    assert [message["role"] for message in whole] == ["assistant", "tool"]
    assert whole[1]["tool_call_id"] == whole[0]["tool_calls"][0]["id"] == "mcpr_1"


def test_tools_of_two_servers_never_have_one_name():
    assert model_tool_name("a", "find") != model_tool_name("b", "find")
    assert model_tool_name("my server", "find/it") == "my_server__find_it"
    assert len(model_tool_name("a" * 300, "find")) == 256


@pytest.mark.parametrize(
    ("tool", "param"),
    [
        ({"tunnel_id": "tunnel_1"}, "tools[0].tunnel_id"),
        ({"allowed_callers": ["programmatic"]}, "tools[0].allowed_callers"),
    ],
)
def test_unsupported_fields_of_mcp_tools_are_refused_by_name(tool, param):
    with pytest.raises(InvalidRequest) as caught:
        check_entry(asked(**tool))

    assert caught.value.param == param


def test_labels_are_unique_and_the_number_of_servers_is_bounded():
    entry = {"type": "mcp", "server_label": "a"}
    twice = ToolContext(
        tool=entry, where="tools[1]", body={"tools": [entry, entry]}, items=(), meter=None
    )
    many = [{**entry, "server_label": str(number)} for number in range(9)]

    with pytest.raises(InvalidRequest, match="Two MCP servers have the label `a`"):
        check_entry(twice)
    with pytest.raises(InvalidRequest, match="more than 8"):
        check_entry(
            ToolContext(tool=many[0], where="tools[0]", body={"tools": many}, items=(), meter=None)
        )


def test_a_token_is_sent_as_a_header():
    headers = headers_of(asked(authorization="secret", headers={"X-Key": "a b"}))

    assert headers == {"X-Key": "a b", "Authorization": "Bearer secret"}
    for bad in ({"authorization": "a\nb"}, {"headers": {"X-\u00e4": "a"}}, {"headers": {"": "a"}}):
        with pytest.raises(InvalidRequest):
            headers_of(asked(**bad))
