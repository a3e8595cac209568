"""Realtime sessions with the built-in model, by the official client and by a bare one."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import httpx
import pytest
from websockets.asyncio.client import connect as async_connect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from llm_backend.app import App
from llm_backend.contract import load_document
from llm_backend.controllers.realtime.client_events import SCHEMAS
from llm_backend.settings import load_settings
from tests.engine.gguf_models import write_bert
from tests.gateway import backend, gateway
from tests.patience import wait_until
from tests.realtime_client import LONG_CALL, message, opened, parts, socket_url
from tests.serving import Served, serve
from tests.strict_sdk import StrictOpenAI
from tests.upstream import FakeUpstream, serving

TEXT = [
    "response.created", "response.output_item.added", "conversation.item.added",
    "response.content_part.added", "response.output_text.delta", "response.output_text.done",
    "response.content_part.done", "conversation.item.done", "response.output_item.done",
    "response.done",
]  # fmt: skip
WEATHER = {
    "type": "function", "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"enum": ["Oslo"]}},
                   "required": ["city"], "additionalProperties": False},
}  # fmt: skip


def test_the_events_taken_are_those_of_the_document():
    schemas = json.loads(load_document().text())["components"]["schemas"]
    names = {one["$ref"].rsplit("/", 1)[1] for one in schemas["RealtimeClientEvent"]["anyOf"]}
    only_of_webrtc = {"RealtimeClientEventOutputAudioBufferClear"}

    assert set(SCHEMAS.values()) == names - only_of_webrtc
    assert only_of_webrtc < names


@pytest.mark.filterwarnings("ignore:connect.* must be used:DeprecationWarning")  # its own
def test_the_official_client_converses(client):
    with client.realtime.connect(model="builtin") as connection:
        connection.session.update(
            session={"type": "realtime", "output_modalities": ["text"], "instructions": "Be brief."}
        )
        content = [{"type": "input_text", "text": "Hello!"}]
        connection.conversation.item.create(
            item={"type": "message", "role": "user", "content": content}
        )
        connection.response.create()
        text, last = "", None
        for event in connection:
            if event.type == "response.output_text.delta":
                text += event.delta
            elif event.type == "response.done":
                last = event.response
                break

    assert last.status == "completed"
    assert last.output[0].content[0].text == text != ""
    assert last.usage.output_tokens > 0


def test_a_response_of_text_sends_its_events_in_order(server):
    with opened(server) as session:
        session.send(message("Hello!"))
        added = session.until("conversation.item.done")
        events = session.answer(metadata={"turn": "1"})

    kinds = [event["type"] for event in events]
    assert list(dict.fromkeys(kinds)) == TEXT
    assert [one["type"] for one in added] == ["conversation.item.added", "conversation.item.done"]
    done = events[-1]["response"]
    (item,) = done["output"]
    assert item["content"] == [
        {"type": "output_text", "text": parts(events, "response.output_text.delta")}
    ]
    assert done["metadata"] == {"turn": "1"}
    assert done["usage"]["total_tokens"] == (
        done["usage"]["input_tokens"] + done["usage"]["output_tokens"]
    )


def test_a_session_remembers_and_forgets_its_items(server):
    with opened(server) as session:
        session.answer(message("Hello!", id="one"))
        session.send(
            message("Second", id="two", status="completed") | {"previous_item_id": "root"},
            {"type": "conversation.item.retrieve", "item_id": "two"},
            {"type": "conversation.item.delete", "item_id": "two"},
            {"type": "conversation.item.retrieve", "item_id": "two", "event_id": "mine"},
        )
        added, _, retrieved, deleted, missing = (session.receive() for _ in range(5))
        first = session.answer()[-1]["response"]["usage"]["input_tokens"]
        apart = session.answer(conversation="none", input=[message("Hi")["item"]])
        second = session.answer()[-1]["response"]["usage"]["input_tokens"]

    assert added["previous_item_id"] is None
    assert retrieved["item"]["content"] == message("Second")["item"]["content"]
    assert deleted["item_id"] == "two"
    assert missing["error"]["code"] == "item_not_found"
    assert missing["error"]["event_id"] == "mine"
    assert "conversation.item.added" not in [event["type"] for event in apart]
    assert apart[-1]["response"]["usage"]["input_tokens"] < first < second


def test_a_function_is_called_and_its_output_is_answered(server):
    with opened(server) as session:
        session.send({
            "type": "session.update",
            "session": {"type": "realtime", "tools": [WEATHER], "tool_choice": "required"},
        })  # fmt: skip
        updated = session.receive()["session"]
        events = session.answer(message("What is the weather in Oslo?"))
        (call,) = events[-1]["response"]["output"]
        meanwhile = session.answer(message("Are you there?"), tool_choice="none")
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "Rain."}
        session.send({"type": "conversation.item.create", "item": {**output, "call_id": "other"}})
        refused = session.receive()
        said = session.answer(
            {"type": "conversation.item.create", "item": output}, tool_choice="none"
        )

    assert updated["tools"] == [WEATHER]
    assert call["type"] == "function_call"
    arguments = parts(events, "response.function_call_arguments.delta")
    assert call["arguments"] == arguments
    assert json.loads(arguments) == {"city": "Oslo"}
    assert meanwhile[-1]["response"]["status"] == "completed"
    assert refused["error"]["param"] == "item.call_id"
    assert said[-1]["response"]["output"][0]["type"] == "message"


def test_a_cancelled_response_ends_and_the_next_one_is_answered(server):
    with opened(server) as session:
        session.send(message("Count!"), {"type": "response.create", "response": LONG_CALL})
        begun = session.until("response.created")
        session.until("response.function_call_arguments.delta")
        session.send({"type": "response.create", "event_id": "second"})
        refused = session.until("error")[-1]["error"]
        session.send({"type": "response.cancel"})
        ended = session.until("response.done")
        session.send({"type": "response.cancel"})
        late = session.receive()
        after = session.answer(message("Hello!"))

    assert refused["code"] == "conversation_already_has_active_response"
    assert refused["event_id"] == "second"
    done = ended[-1]["response"]
    assert begun[-1]["response"]["id"] == done["id"]
    assert (done["status"], done["status_details"]) == (
        "cancelled", {"type": "cancelled", "reason": "client_cancelled"},
    )  # fmt: skip
    assert done["output"][0]["status"] == "incomplete"
    assert late["error"]["code"] == "response_cancel_not_active"
    assert after[-1]["response"]["status"] == "completed"


@pytest.mark.parametrize(
    ("event", "param"),
    [
        ({}, "type"),
        ({"type": "nothing"}, "type"),
        ({"type": "output_audio_buffer.clear"}, "type"),
        ({"type": "session.update", "session": {"type": "realtime", "model": "x"}},
         "session.model"),
        ({"type": "session.update", "session": {"type": "realtime", "speed": 1}}, "session.speed"),
        ({"type": "session.update", "session": {"type": "realtime", "tools": [{"type": "mcp",
          "server_label": "a", "server_url": "http://x"}]}}, "session.tools[0].type"),
        ({"type": "session.update", "session": {"type": "realtime",
          "output_modalities": ["words"]}}, "session.output_modalities[0]"),
        ({"type": "session.update", "session": {"type": "realtime", "temperature": 9}},
         "session.temperature"),
        ({"type": "response.create", "response": {"temperature": 9}}, "response.temperature"),
        ({"type": "response.create", "response": {"max_output_tokens": 3}},
         "response.max_output_tokens"),
        ({"type": "response.create", "response": {"conversation": "conv_1"}},
         "response.conversation"),
        ({"type": "response.create", "response": {"voice": "alloy"}}, "response.voice"),
        (message("x", content=[{"type": "input_text"}]), "item.content[0].text"),
        (message("x", content=[{"type": "input_image", "image_url": "", "file_id": "file-1"}]),
         "item.content[0].image_url"),
        (message("x", content=[{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]),
         "item.content[0].image_url"),
        (message("x") | {"previous_item_id": "none"}, "previous_item_id"),
        ({"type": "conversation.item.create", "item": {"type": "mcp_approval_response", "id": "a",
          "approval_request_id": "b", "approve": True}}, "item.type"),
    ],
)  # fmt: skip
def test_a_mistake_is_an_error_event_that_names_the_field(server, event, param):
    with opened(server) as session:
        session.send({**event, "event_id": "e"})
        error = session.receive()["error"]
        session.send(message("Hello!"))
        after = session.receive()

    assert (error["param"], error["event_id"]) == (param, "e")
    assert after["type"] == "conversation.item.added"


def test_a_response_that_the_model_refuses_fails_with_its_error(server):
    with opened(server) as session:
        events = session.answer(message("x"), prompt={"id": "none"})
        after = session.answer(message("Hello!"))

    (error,) = [one["error"] for one in events if one["type"] == "error"]
    assert error["param"] == "prompt.id"
    done = events[-1]["response"]
    assert done["status_details"]["error"]["type"] == "invalid_request_error"
    assert done["status"] == "failed"
    assert after[-1]["response"]["status"] == "completed"


@pytest.mark.parametrize(
    ("query", "headers", "status", "code"),
    [
        ("model=none", {}, 404, "model_not_found"),
        ("intent=x", {}, 400, "missing_required_parameter"),
        ("model=builtin", {"OpenAI-Beta": "realtime=v1"}, 400, "beta_api_shape_disabled"),
        ("model=builtin", {"Origin": "https://evil.test"}, 403, "origin_not_allowed"),
    ],
)
def test_a_session_is_refused_before_the_handshake(server, query, headers, status, code):
    with pytest.raises(InvalidStatus) as refused:
        connect(socket_url(server, query), additional_headers=headers)

    assert refused.value.response.status_code == status
    assert json.loads(refused.value.response.body)["error"]["code"] == code


async def test_a_session_with_an_embedding_model_is_refused_before_the_handshake(tmp_path):
    model = write_bert(tmp_path / "embedder.gguf")
    given = {"data_dir": tmp_path, "models": (str(model),), "allowed_hosts": ("127.0.0.1",)}
    app = App(load_settings(given))
    async with app.open(), serving(app, ws="auto") as port:
        with pytest.raises(InvalidStatus) as refused:
            await async_connect(f"ws://127.0.0.1:{port}/v1/realtime?model=embedder")

    error = json.loads(refused.value.response.body)["error"]
    assert (refused.value.response.status_code, error["param"]) == (400, "model")
    assert error["message"] == "`embedder` embeds texts; it does not answer."


def test_keys_and_limits_hold_and_usage_is_counted(tmp_path):
    environment = {
        "LLM_BACKEND_API_KEYS": "sk-secret",
        "LLM_BACKEND_REALTIME_SESSIONS_LIMIT": "1",
        "LLM_BACKEND_REALTIME_CLIENT_SECRETS_LIMIT": "1",
        "LLM_BACKEND_KEY_CONCURRENT_REQUESTS": "1",
        "LLM_BACKEND_REQUESTS_PER_MINUTE": "3",
    }
    headers = _bearer("sk-secret")
    with serve(tmp_path, environment=environment) as server:
        with pytest.raises(InvalidStatus) as without_key:
            connect(socket_url(server))
        secret = _secret(server, "sk-secret")
        asked = {"session": {"type": "realtime", "model": "builtin"}}
        second = httpx.post(
            f"{server.base_url}/realtime/client_secrets", json=asked, headers=headers
        )
        with opened(server, "", additional_headers=_bearer(secret)) as session:
            with pytest.raises(InvalidStatus) as full:
                connect(socket_url(server), additional_headers=headers)
            first = session.answer(message("Hello!"))
            answers = [first[-1]["response"]]
            while answers[-1]["status"] == "completed":  # a minute may begin
                answers.append(session.answer()[-1]["response"])
        of_models = httpx.get(f"{server.base_url}/models", headers=_bearer(secret))
        since = int(time.time()) - 120
        usage = httpx.get(
            f"{server.base_url}/organization/usage/completions?start_time={since}", headers=headers
        ).json()

    assert of_models.status_code == 401
    assert (second.status_code, bool(second.headers["retry-after"])) == (429, True)
    assert without_key.value.response.status_code == 401
    assert full.value.response.status_code == 503
    assert full.value.response.headers["retry-after"]
    (told,) = [one for one in first if one["type"] == "rate_limits.updated"]
    assert told["rate_limits"][0]["limit"] == 3
    *good, limited = answers
    assert limited["status_details"]["error"]["code"] == "rate_limit_exceeded"
    results = [one for bucket in usage["data"] for one in bucket["results"]]
    assert sum(one["num_model_requests"] for one in results) == len(good)
    assert sum(one["input_tokens"] for one in results) == sum(
        one["usage"]["input_tokens"] for one in good
    )


def test_socket_takes_a_key_that_another_process_has_just_created(tmp_path):
    environment = {"LLM_BACKEND_API_KEYS": "sk-root", "LLM_BACKEND_KEYS_REFRESH_S": "60"}
    with serve(tmp_path, environment=environment) as server:
        created = subprocess.run(
            [sys.executable, "-m", "llm_backend", "keys", "create", "--config", "/dev/null"],
            env={**os.environ, "LLM_BACKEND_DATA_DIR": str(tmp_path)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        headers = _bearer(created.stdout.strip())
        with connect(socket_url(server), additional_headers=headers) as socket:
            first = json.loads(socket.recv(timeout=30))

    assert first["type"] == "session.created"


def _bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def _secret(server: Served, key: str) -> str:
    """Returns a client secret, which the official client makes."""
    session = {"type": "realtime", "model": "builtin", "instructions": "Be brief."}
    with StrictOpenAI(base_url=server.base_url, api_key=key, max_retries=0) as client:
        made = client.realtime.client_secrets.create(
            session=session, expires_after={"anchor": "created_at", "seconds": 60}
        )
    assert 0 < made.expires_at - time.time() <= 60
    assert made.session.instructions == "Be brief."
    return made.value


def test_a_client_secret_opens_the_session_that_it_is_bound_to(server):
    headers = _bearer(_secret(server, "none"))
    with connect(socket_url(server, ""), additional_headers=headers) as socket:
        created = json.loads(socket.recv(timeout=30))
    refusals = []
    for query, key in (("model=none", None), ("", "ek_unknown")):
        with pytest.raises(InvalidStatus) as refused:
            connect(socket_url(server, query), additional_headers=(key and _bearer(key)) or headers)
        refusals.append(refused.value.response.status_code)

    assert created["session"]["instructions"] == "Be brief."
    assert refusals == [400, 401]


def test_client_secrets_keep_the_bounds_of_keys_and_projects(tmp_path):
    with serve(tmp_path) as server:
        of_no_key = _secret(server, "none")
        organization = f"{server.base_url}/organization"
        made = httpx.post(f"{organization}/admin_api_keys", json={"name": "first"})
        with httpx.Client(headers=_bearer(made.json()["value"]), timeout=30) as admin:
            project = admin.post(f"{organization}/projects", json={"name": "p"}).json()["id"]
            limited = f"{organization}/projects/{project}"
            limit = {"threshold_amount": 100, "currency": "USD", "interval": "month"}
            admin.post(f"{limited}/spend_limit", json=limit).raise_for_status()
            account = admin.post(f"{limited}/service_accounts", json={"name": "app"}).json()
        with pytest.raises(InvalidStatus) as refused:
            connect(socket_url(server, ""), additional_headers=_bearer(of_no_key))
        of_project = _secret(server, account["api_key"]["value"])
        with opened(server, "", additional_headers=_bearer(of_project)) as session:
            events = session.answer(message("Hello!"))

    assert refused.value.response.status_code == 401
    assert events[-1]["response"]["status"] == "completed"


def test_a_session_in_the_form_of_the_beta_is_opened_by_its_secret(server):
    tool = {"type": "function", "name": "count", "parameters": {"type": "object"}}
    with StrictOpenAI(base_url=server.base_url, api_key="none", max_retries=0) as client:
        made = client.beta.realtime.sessions.create(
            model="builtin", modalities=["text"], instructions="Be brief.", voice="nova", speed=1.5,
            tools=[tool], tool_choice="none", max_response_output_tokens=16, temperature=0.6,
            turn_detection=None, client_secret={"expires_after": {"anchor": "created_at",
                                                                  "seconds": 60}},
        )  # fmt: skip
    headers = _bearer(made.client_secret.value)
    with connect(socket_url(server, ""), additional_headers=headers) as socket:
        session = json.loads(socket.recv(timeout=30))["session"]

    assert 0 < made.client_secret.expires_at - time.time() <= 60
    assert (made.modalities, made.instructions, made.voice, made.tools[0].name) == (
        ["text"], "Be brief.", "nova", "count",
    )  # fmt: skip
    assert session["output_modalities"] == ["text"] == made.to_dict()["output_modalities"]
    assert session["audio"]["output"] == {
        "format": {"type": "audio/pcm", "rate": 24_000}, "voice": "nova", "speed": 1.5,
    }  # fmt: skip
    assert session["audio"]["input"]["turn_detection"] is None
    assert [session[name] for name in ("tools", "tool_choice", "max_output_tokens")] == [
        [tool], "none", 16,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("sessions", {}, "model"),
        ("sessions", {"model": "builtin", "modalities": []}, "modalities"),
        ("sessions", {"model": "builtin", "modalities": 5}, "modalities"),
        ("sessions", {"model": "builtin", "audio": 3, "voice": "nova"}, "audio"),
        ("sessions", {"model": "builtin", "model.x": 1}, "model.x"),
        ("sessions", {"model": "builtin", "output_modalities": ["text"]}, "output_modalities"),
        ("sessions", {"model": "builtin", "input_audio_format": "mp3"}, "input_audio_format"),
        ("sessions", {"model": "builtin", "voice": 3}, "voice"),
        ("sessions", {"model": "builtin", "temperature": 9}, "temperature"),
        ("sessions", {"model": "builtin", "turn_detection": {"eagerness": "low"}},
         "turn_detection.eagerness"),
        ("sessions", {"model": "builtin", "max_response_output_tokens": 1},
         "max_response_output_tokens"),
        ("sessions", {"model": "builtin", "input_audio_noise_reduction": {"type": "near_field"}},
         "input_audio_noise_reduction"),
        ("sessions", {"model": "builtin", "client_secret": {"value": "mine"}},
         "client_secret.value"),
        ("transcription_sessions", {}, "input_audio_transcription.model"),
        ("transcription_sessions", {"include": ["all"]}, "include[0]"),
    ],
)  # fmt: skip
def test_a_field_of_the_beta_is_refused_by_its_own_name(server, path, body, param):
    answer = httpx.post(f"{server.base_url}/realtime/{path}", json=body)

    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert "audio." not in error["message"]  # names that the beta has not


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "session.model"),
        ({"session": {"type": "realtime", "model": "none"}}, 404, "model"),
        ({"session": {"type": "realtime", "model": "builtin", "speed": 1}}, 400, "session.speed"),
        ({"expires_after": {"seconds": 9}}, 400, "expires_after.seconds"),
    ],
)
def test_a_client_secret_for_no_session_is_refused(server, body, status, param):
    answer = httpx.post(f"{server.base_url}/realtime/client_secrets", json=body)

    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


async def test_a_client_secret_whose_model_an_upstream_answers_now_is_refused(tmp_path):
    headers = _bearer("sk-secret")
    settings = {"api_keys": ("sk-secret",), "allowed_hosts": ("127.0.0.1",)}
    async with gateway(tmp_path, models=("builtin",), **settings) as served:
        url = f"http://127.0.0.1:{served.port}/v1/realtime/client_secrets"
        body = {"session": {"type": "realtime", "model": "builtin"}}
        async with httpx.AsyncClient(headers=headers, timeout=30) as client:
            made = (await client.post(url, json=body)).json()
    async with FakeUpstream() as far:
        moved = [backend(far, "far", "builtin")]
        given = {"data_dir": tmp_path, "models": (), "backends": moved, **settings}
        app = App(load_settings(given))
        async with app.open(), serving(app, ws="auto") as port:
            url = f"ws://127.0.0.1:{port}/v1/realtime"
            with pytest.raises(InvalidStatus) as refused:
                await async_connect(url, additional_headers=_bearer(made["value"]))

    assert refused.value.response.status_code == 400
    assert "client secret" in json.loads(refused.value.response.body)["error"]["message"]


def test_a_killed_engine_fails_the_response_and_the_session_goes_on(tmp_path):
    with serve(tmp_path) as server, opened(server) as session:
        session.send(message("Count!"), {"type": "response.create", "response": LONG_CALL})
        session.until("response.function_call_arguments.delta")
        (worker,) = server.workers()
        os.kill(worker, signal.SIGKILL)
        failed = session.until("response.done")
        server.wait_ready()
        after = session.answer(message("Hello!"))

    assert [one["type"] for one in failed if one["type"] == "error"] == ["error"]
    assert failed[-1]["response"]["status"] == "failed"
    assert after[-1]["response"]["status"] == "completed"


def test_a_disconnect_cancels_the_response(server):
    def running() -> float:
        found = re.search(r'engine_running{model="builtin"} (.+)', _metrics(server))
        return float(found[1])

    with opened(server) as session:
        session.send(message("Count!"), {"type": "response.create", "response": LONG_CALL})
        session.until("response.function_call_arguments.delta")
        during = running()
    wait_until(lambda: running() == 0)

    assert during == 1


def _metrics(server: Served) -> str:
    return httpx.get(f"{server.address}/metrics").text
