"""Responses with tools of a real MCP server: listed, called, approved of."""

from collections.abc import Iterator

import openai
import pytest

from tests.mcp_server import TOKEN, mcp_server
from tests.response_events import check_events
from tests.serving import serve
from tests.strict_sdk import StrictOpenAI

QUESTION = "What is the weather in Paris?"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with mcp_server(wants_token=True) as one:
        yield one


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, url: str) -> Iterator[openai.OpenAI]:
    settings = {"LLM_BACKEND_MCP_SERVERS": f"{url},http://127.0.0.1:9/mcp"}
    with (
        serve(tmp_path_factory.mktemp("mcp"), environment=settings) as served,
        StrictOpenAI(base_url=served.base_url, api_key="none", max_retries=0) as one,
    ):
        yield one


@pytest.fixture
def ask(client, url):
    """Asks for the weather, with the server's weather tool alone."""

    def asked(input=QUESTION, *, stream=False, choice="required", **fields):
        tool = {
            "type": "mcp", "server_label": "towns", "server_url": url, "authorization": TOKEN,
            "allowed_tools": ["get_weather"], "require_approval": "never",
        }  # fmt: skip
        more = {name: fields.pop(name) for name in list(fields) if name in PASSED}
        return client.responses.create(
            model="builtin", input=input, tools=[{**tool, **fields}], tool_choice=choice,
            temperature=0, max_output_tokens=200, stream=stream, **more,
        )  # fmt: skip

    return asked


PASSED = {"previous_response_id", "store"}


def of_type(response, kind: str) -> list:
    return [item for item in response.output if item.type == kind]


def test_a_tool_is_listed_called_and_its_answer_used(ask):
    response = ask()

    (listed,), (call,) = of_type(response, "mcp_list_tools"), of_type(response, "mcp_call")
    assert response.status == "completed"
    assert (listed.server_label, call.server_label) == ("towns", "towns")
    assert "get_weather" in [tool.name for tool in listed.tools]
    assert (call.name, call.status, call.error) == ("get_weather", "completed", None)
    assert call.output == "It is raining in Paris."
    assert response.output[-1].type == "message"


def test_secrets_of_a_tool_are_not_echoed(ask, client):
    response = ask(headers={"X-Key": "hidden"})
    stored = client.responses.retrieve(response.id)

    for one in (response, stored):
        assert TOKEN not in one.to_json()
        assert "hidden" not in one.to_json()
        assert one.tools[0].headers == {"X-Key": "<redacted>"}


def test_a_streamed_mcp_call_has_all_events(ask):
    with ask(stream=True) as stream:
        events = list(stream)

    kinds = [event.type for event in events]
    told = [kind.removeprefix("response.") for kind in kinds if "mcp" in kind]
    assert told == [
        "mcp_list_tools.in_progress", "mcp_list_tools.completed", "mcp_call.in_progress",
        "mcp_call_arguments.delta", "mcp_call_arguments.done", "mcp_call.completed",
    ]  # fmt: skip
    check_events([event.to_dict(warnings=False) for event in events])
    arguments = next(e.arguments for e in events if e.type == "response.mcp_call_arguments.done")
    assert arguments == of_type(events[-1].response, "mcp_call")[0].arguments


def test_the_next_response_has_tools_and_context(ask):
    first = ask()
    second = ask("And in London?", previous_response_id=first.id)

    assert of_type(second, "mcp_list_tools") == []
    assert of_type(second, "mcp_call")[0].output == "It is raining in London."


def test_a_call_waits_for_approval_and_is_made_once_it_is_there(ask, client):
    asked = ask(require_approval="always")
    (request,) = of_type(asked, "mcp_approval_request")
    answer = {"type": "mcp_approval_response", "approval_request_id": request.id, "approve": True}
    done = ask([answer], previous_response_id=asked.id, require_approval="always", choice="auto")
    items = client.responses.input_items.list(done.id).data

    assert of_type(asked, "mcp_call") == []
    assert (request.name, request.server_label) == ("get_weather", "towns")
    (call,) = of_type(done, "mcp_call")
    assert (call.approval_request_id, call.output) == (request.id, "It is raining in Paris.")
    assert done.output[-1].type == "message"
    assert [item.type for item in items][:1] == ["mcp_approval_response"]


def test_a_call_that_is_not_allowed_is_not_made(ask):
    asked = ask(require_approval="always")
    (request,) = of_type(asked, "mcp_approval_request")
    answer = {"type": "mcp_approval_response", "approval_request_id": request.id, "approve": False}
    done = ask([answer], previous_response_id=asked.id, require_approval="always", choice="none")

    assert of_type(done, "mcp_call") == []
    assert done.output[-1].type == "message"


def test_tools_that_only_read_can_be_let_through(ask):
    response = ask(require_approval={"never": {"read_only": True}})

    assert of_type(response, "mcp_call")[0].status == "completed"


def test_an_unreachable_mcp_server_is_reported_and_the_model_answers(ask):
    with ask(server_url="http://127.0.0.1:9/mcp", choice="auto", stream=True) as stream:
        events = list(stream)

    (listed,) = of_type(events[-1].response, "mcp_list_tools")
    assert "response.mcp_list_tools.failed" in [event.type for event in events]
    assert listed.error
    assert events[-1].response.output[-1].type == "message"


def test_a_wrong_token_is_reported_by_its_status(ask):
    response = ask(authorization="wrong", choice="auto")

    assert "401" in of_type(response, "mcp_list_tools")[0].error


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"server_url": "http://127.0.0.1:1/mcp"}, "tools[0].server_url"),
        ({"server_url": "http://169.254.169.254/latest"}, "tools[0].server_url"),
        ({"connector_id": "connector_gmail"}, "tools[0].connector_id"),
        ({"defer_loading": True}, "tools[0].defer_loading"),
        ({"headers": {"Host": "elsewhere"}}, "tools[0].headers"),
        ({"headers": {"X-A": "a\r\nX-B: b"}}, "tools[0].headers"),
        ({"headers": {"Authorization": "a"}}, "tools[0].authorization"),
    ],
)
def test_an_unsupported_field_of_an_mcp_tool_is_refused_by_name(ask, fields, param):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(**fields)

    assert caught.value.param == param


def test_mcp_servers_that_are_not_allowed_name_the_setting(ask):
    with pytest.raises(openai.BadRequestError, match="mcp_servers"):
        ask(server_url="https://example.com/mcp")
