"""Responses over a WebSocket, with the official client and with one that has no manners."""

import contextlib
import json
import time

import jsonschema_rs
import openai
import pytest
from openai.types.responses.response_steer_failed_event import ResponseSteerFailedEvent
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from llm_backend.contract import load_document
from tests.response_events import check_events
from tests.serving import Served, serve
from tests.strict_sdk import differences

HELLO = {"type": "response.create", "model": "builtin", "input": "Hello!", "temperature": 0}
LONG = {
    "type": "json_schema", "name": "long",
    "schema": {"type": "array", "items": {"enum": [3, 5, 7]}, "minItems": 300, "maxItems": 300},
}  # fmt: skip
ENDS = ("response.completed", "response.incomplete", "response.failed", "error")


@pytest.fixture(scope="module")
def validate():
    document = json.loads(load_document().text())
    schema = {"$ref": "#/components/schemas/ResponsesServerEvent"}
    return jsonschema_rs.validator_for({**schema, "components": document["components"]}).validate


def url(server: Served) -> str:
    return server.base_url.replace("http", "ws") + "/responses"


def told(socket, *sent):
    """The events until as many requests have ended as were sent."""
    for one in sent:
        socket.send(json.dumps(one) if isinstance(one, dict) else one)
    events, ends = [], 0
    while ends < len(sent):
        events.append(json.loads(socket.recv(timeout=30)))
        ends += events[-1]["type"] in ENDS
    return events


def test_unstored_responses_are_continued_on_their_connection_only(server):
    turns, previous = [], None
    with connect(url(server)) as socket:
        for text in ("Hello!", "Who are you?"):
            turn = {**HELLO, "store": False, "input": text, "previous_response_id": previous}
            turns.append(told(socket, turn)[-1]["response"])
            previous = turns[-1]["id"]
    client = openai.OpenAI(base_url=server.base_url, api_key="unused")
    echoed = client.responses.create(
        model="builtin", temperature=0, store=False,
        input=[{"role": "user", "content": "Hello!"}, *turns[0]["output"],
               {"role": "user", "content": "Who are you?"}],
    )  # fmt: skip
    with connect(url(server)) as socket:
        (elsewhere,) = told(socket, {**HELLO, "previous_response_id": turns[0]["id"]})

    assert turns[1]["output"][0]["content"][0]["text"] == echoed.output_text
    assert turns[1]["usage"]["input_tokens"] == echoed.usage.input_tokens
    assert elsewhere["error"]["code"] == "previous_response_not_found"


def test_steering_is_refused_by_name_and_its_input_handed_back(server):
    steer = {"type": "response.steer", "previous_response_id": "resp_1", "input": "Shorter!"}
    with connect(url(server)) as socket:
        told(socket, HELLO)
        answers = []
        for one in (steer, {**steer, "input": []}, {**steer, "model": "builtin"}):
            socket.send(json.dumps(one))
            answers.append(json.loads(socket.recv(timeout=30)))

    refused, empty, unknown = answers
    assert list(differences(ResponseSteerFailedEvent, refused, "")) == []
    assert refused["error"]["code"] == "steering_not_supported"
    assert refused["steer"] == {"previous_response_id": "resp_1", "input": "Shorter!"}
    assert (empty["type"], empty["error"]["param"]) == ("error", "input")
    assert (unknown["type"], unknown["error"]["param"]) == ("error", "model")


@pytest.mark.filterwarnings("ignore:connect.* must be used:DeprecationWarning")  # its own
def test_the_official_client_talks_over_one_socket(client):
    with client.responses.connect() as connection:
        connection.response.create(model="builtin", input="Hello!")
        first = _until(connection)
        connection.response.create(
            model="builtin", input="And?", previous_response_id=first[-1].response.id
        )
        second = _until(connection)

    assert first[-1].response.output_text
    assert second[-1].response.previous_response_id == first[-1].response.id
    assert client.responses.retrieve(first[-1].response.id).output_text


def _until(connection):
    events = []
    while not events or events[-1].type not in ENDS:
        events.append(connection.recv())
    return events


def test_every_event_is_one_of_the_document_and_in_legal_order(server, validate):
    with connect(url(server)) as socket:
        events = told(socket, {**HELLO, "stream_id": "lane.1"})

    for event in events:
        validate(event)
    check_events(events)
    assert {event["stream_id"] for event in events} == {"lane.1"}


def test_events_have_no_stream_id_without_one_in_the_request(server):
    with connect(url(server)) as socket:
        events = told(socket, HELLO)

    assert not any("stream_id" in event for event in events)


def test_lanes_do_not_wait_for_each_other(server):
    running, *others = ({**HELLO, "stream_id": name} for name in "aabc")
    with connect(url(server)) as socket:
        events = told(socket, {**running, "text": {"format": LONG}}, *others)

    ended = [event["stream_id"] for event in events if event["type"] == "response.completed"]
    begun = [event["stream_id"] for event in events if event["type"] == "response.created"]
    assert sorted(ended) == ["a", "a", "b", "c"]
    assert sorted(begun[:3]) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("sent", "param"),
    [
        ("{", None),
        ("[]", None),
        ({}, "type"),
        ({"type": "response.cancel"}, "type"),
        ({**HELLO, "stream_id": "a b"}, "stream_id"),
        ({**HELLO, "background": True}, "background"),
        ({**HELLO, "stream": False}, "stream"),
        ({**HELLO, "temperature": 9}, "temperature"),
        ({**HELLO, "model": "none"}, "model"),
        ({**HELLO, "tools": [{"type": "web_search"}], "stream_id": "x"}, "tools[0].type"),
    ],
)
def test_a_mistake_is_an_event_and_the_connection_goes_on(server, validate, sent, param):
    with connect(url(server)) as socket:
        mistake, *rest = told(socket, sent, {**HELLO, "stream_id": "next"})

    validate(mistake)
    assert mistake["type"] == "error"
    assert mistake["status"] in (400, 404)
    assert mistake["error"]["param"] == param
    assert rest[-1]["type"] == "response.completed"


def test_keys_are_checked_and_too_much_is_refused(tmp_path):
    environment = {
        "LLM_BACKEND_BODY_LIMIT_BYTES": "4096",
        "LLM_BACKEND_SOCKET_STREAMS_LIMIT": "1",
        "LLM_BACKEND_SOCKET_IDLE_TIMEOUT_S": "5",
        "LLM_BACKEND_API_KEYS": "sk-secret",
    }
    with serve(tmp_path, environment=environment) as server:
        with pytest.raises(InvalidStatus) as refused:
            connect(url(server))
        headers = {"authorization": "Bearer sk-secret"}
        with connect(url(server), additional_headers=headers) as socket:
            running = {**HELLO, "stream_id": "a", "text": {"format": LONG}}
            events = told(socket, running, {**HELLO, "stream_id": "b"})
            with pytest.raises(ConnectionClosed) as idle:
                socket.recv(timeout=60)
        with connect(url(server), additional_headers=headers) as socket:
            socket.send("x" * 5000)
            with pytest.raises(ConnectionClosed) as large:
                socket.recv(timeout=60)

    assert refused.value.response.status_code == 401
    (full,) = [event for event in events if event["type"] == "error"]
    assert full["error"]["code"] == "websocket_stream_limit_reached"
    assert idle.value.rcvd.code == 1001
    assert large.value.rcvd.code == 1009


def test_a_disconnect_cancels_running_requests(server, client):
    with connect(url(server)) as socket:
        socket.send(json.dumps({**HELLO, "text": {"format": LONG}}))
        id = json.loads(socket.recv(timeout=30))["response"]["id"]
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(openai.NotFoundError):  # until it is stored behind
            status = client.responses.retrieve(id).status
            break
        assert time.monotonic() < deadline
        time.sleep(0.05)

    assert status == "cancelled"
