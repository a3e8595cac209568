"""Models that a project may not use reach no upstream, by any operation."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import openai
import orjson
import pytest
import pytest_asyncio

from llm_backend.access.limits.permission import check_tools
from llm_backend.errors import Forbidden
from tests.controllers.administration.conftest import ROOT_KEY, Client, served
from tests.gateway import backend
from tests.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
SDP = {"sdp": ("", "v=0", "application/sdp")}


@dataclass(kw_only=True)
class Far:
    """A server in front of an upstream that answers everything, and a client for each project."""

    client: Client
    upstream: FakeUpstream
    keys: dict[str, str]

    async def post(self, path: str, *, key: str = "some", **more: Any) -> Any:
        """Answer to a project's key; `some` may not use the model `bad`, `few` only `good`."""
        self.upstream.requests.clear()
        client = self.client(self.keys[key])
        more["headers"] = {"authorization": f"Bearer {client.api_key}", **more.get("headers", {})}
        return await client._client.post(f"http://server/v1{path}", **more)

    @property
    def got(self) -> list[Any]:
        """The JSON bodies that the upstream was sent."""
        return [orjson.loads(request.body) for request in self.upstream.requests]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def far(tmp_path_factory) -> AsyncIterator[Far]:
    async with FakeUpstream(answer=OK) as upstream:
        settings: dict[str, Any] = {
            "backends": [backend(upstream, "far")],
            "response_validation": "off",
            "store_chats": "never",
        }
        async with served(tmp_path_factory.mktemp("data"), **settings) as client:
            projects, keys = client().admin.organization.projects, {"root": ROOT_KEY}
            for name in ("some", "few", "tools", "silent", "capped"):
                project = await projects.create(name=name)
                account = await projects.service_accounts.create(project.id, name="app")
                keys[name] = account.api_key.value
                await _bound(projects, name, project.id)
            yield Far(client=client, upstream=upstream, keys=keys)


async def _bound(projects: Any, name: str, id: str) -> None:
    if name == "some":
        await projects.model_permissions.update(id, mode="deny_list", model_ids=["bad"])
        await projects.hosted_tool_permissions.update(id, mcp={"enabled": False})
        await projects.hosted_tool_permissions.update(id, web_search={"enabled": False})
    elif name == "tools":
        await projects.hosted_tool_permissions.update(id, mcp={"enabled": False})
    elif name == "few":
        await projects.model_permissions.update(id, mode="allow_list", model_ids=["good"])
    elif name == "silent":
        await projects.data_retention.update(id, retention_type="zero_data_retention")
    else:
        await projects.spend_limit.update(
            id, threshold_amount=100, currency="USD", interval="month"
        )


SESSION = {"type": "realtime", "model": "bad"}
GRADER = {"type": "score_model", "name": "g", "input": [], "model": "bad"}
NAMING = [
    ("/threads/runs", {"assistant_id": "a", "model": "bad"}),
    ("/threads/t/runs", {"assistant_id": "a", "model": "bad"}),
    ("/assistants", {"model": "bad"}),
    ("/assistants/a", {"model": "bad"}),
    ("/fine_tuning/jobs", {"model": "bad", "training_file": "f"}),
    ("/fine_tuning/alpha/graders/run", {"grader": GRADER, "model_sample": "x"}),
    ("/responses/input_tokens", {"model": "bad", "input": "hi"}),
    ("/realtime/client_secrets", {"session": SESSION}),
    ("/realtime/sessions", {"model": "bad", "client_secret": {"value": "v", "expires_at": 1}}),
    ("/realtime/sessions", {"model": "bad", "input_audio_format": "of another server"}),
    ("/realtime/transcription_sessions", {"input_audio_transcription": {"model": "bad"}}),
    ("/realtime/calls/c/accept", SESSION),
    ("/videos", {"model": "bad", "prompt": "a cat"}),
    ("/responses", {"model": "good", "input": "hi",
                    "tools": [{"type": "image_generation", "model": "bad"}]}),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body"), NAMING)
async def test_a_model_that_a_project_may_not_use_is_refused_wherever_it_is_named(far, path, body):
    answer = await far.post(path, json=body)

    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "model_not_found")
    assert far.upstream.requests == []


@pytest.mark.parametrize(("path", "body"), NAMING)
async def test_a_project_that_may_use_all_models_is_let_through(far, path, body):
    answer = await far.post(path, json=body, key="root")

    assert answer.status_code == 200
    assert far.got == [body]


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/audio/transcriptions", {"data": {"model": "bad"}, "files": {"file": b"audio"}}),
        ("/images/edits", {"data": {"model": "bad", "prompt": "x"}, "files": {"image": b"i"}}),
        ("/videos", {"files": {"input_reference": b"image" * 20_000, "model": (None, "good")}}),
        ("/audio/transcriptions", {"files": {"file": b"audio"}}),
        ("/realtime/calls", {"files": {**SDP, "session": ("", orjson.dumps(SESSION))}}),
        ("/realtime/calls", {"files": SDP}),
    ],
)
async def test_a_forms_model_is_checked_and_comes_before_the_file(far, path, form):
    answer = await far.post(path, **form)

    assert (answer.status_code, answer.json()["error"]["param"]) == (403, "model")
    assert far.upstream.requests == []


@pytest.mark.parametrize(
    ("session", "status", "param"),
    [
        (b'{"type":"realtime","model":"good","tools":[{"type":"mcp"}]}', 403, "session.tools[0]"),
        (b'{"type":"realtime","model":"bad","model":"good"}', 400, None),
    ],
)
@pytest.mark.parametrize("key", ["some", "tools"])
async def test_the_session_of_a_form_is_checked_as_a_body_is(far, key, session, status, param):
    answer = await far.post("/realtime/calls", key=key, files={**SDP, "session": ("", session)})

    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
    assert far.upstream.requests == []


PART = b'--B\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'


@pytest.mark.parametrize(
    "parts",
    [
        [(b"model", b"", b"good"), (b"model", b"", b"bad")],
        [(b"prompt", b'; x; name="model"', b"good"), (b"model", b"", b"bad")],
        [(b"model", b"", b"good"), (b"file", b"", b"x" * 200_000), (b"MODEL", b"", b"bad")],
        [(b"model", b"", b"good"), (b"session", b"", orjson.dumps(SESSION))],
    ],
)  # fmt: skip
async def test_a_form_cannot_name_another_model_behind_the_one_that_is_allowed(far, parts):
    body = b"".join(PART % part for part in parts) + b"--B--\r\n"
    answer = await far.post(
        "/audio/transcriptions", content=body,
        headers={"content-type": "multipart/form-data; boundary=B"},
    )  # fmt: skip

    assert (answer.status_code, answer.json()["error"]["param"]) == (403, "model")
    assert all(b"bad" not in request.body for request in far.upstream.requests)


@pytest.mark.parametrize("key", ["some", "few"])
async def test_a_form_of_a_model_that_is_allowed_passes(far, key: str):
    form = {"data": {"model": "good"}, "files": {"file": b"audio"}}
    answer = await far.post("/audio/transcriptions", key=key, **form)

    assert answer.status_code == 200
    assert b"audio" in far.upstream.requests[0].body


@pytest.mark.parametrize("key", ["some", "few"])
async def test_projects_with_model_permissions_must_name_the_model(far, key: str):
    body = {"assistant_id": "a"}
    unnamed = await far.post("/threads/t/runs", json=body, key=key)
    sdp = await far.post(
        "/realtime/calls?model=good", content=b"v=0", key=key,
        headers={"content-type": "application/sdp"},
    )  # fmt: skip
    nameless = await far.post("/containers", json={"name": "c"}, key=key)

    assert (unnamed.status_code, sdp.status_code) == (403, 403)
    assert nameless.status_code == 200


async def test_a_tool_that_is_forbidden_is_so_in_sessions_too(far):
    session = {"type": "realtime", "model": "good", "tools": [{"type": "mcp", "server_label": "s"}]}
    answer = await far.post("/realtime/client_secrets", json={"session": session})

    assert answer.status_code == 403
    assert answer.json()["error"]["param"] == "session.tools[0]"


async def test_a_search_that_is_forbidden_is_so_as_an_option_of_a_chat_too(far):
    body = orjson.loads(CHAT % b',"web_search_options":{}')
    answer = await far.post("/chat/completions", json=body)

    assert answer.status_code == 403
    assert answer.json()["error"]["param"] == "web_search_options"


@pytest.mark.parametrize(
    ("fields", "status", "named"),
    [
        ({"mcp_servers": [{"type": "url", "url": "https://x", "name": "x"}]}, 403, "tool `mcp`"),
        ({"tools": [{"type": "web_fetch_20250910", "name": "f"}]}, 403, "tool `web_search`"),
        ({"MCP_servers": [{"type": "url"}]}, 400, "`MCP_servers` must be written"),
    ],
)
async def test_tools_of_messages_that_are_forbidden_are_named(far, fields, status, named: str):
    body = {"model": "good", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    answer = await far.post("/messages", json={**body, **fields})

    assert answer.status_code == status
    assert named in answer.text
    assert not far.upstream.requests


async def test_code_execution_needs_the_permission_of_the_code_interpreter():
    body = {"tools": [{"type": "code_execution_20250825", "name": "code_execution"}]}

    with pytest.raises(Forbidden) as refused:
        check_tools(body, frozenset({"code_interpreter"}))
    assert refused.value.param == "tools[0]"


TWICE = [
    b'"model":"bad","model":"good"',
    b'"mod\\u0065l":"bad","model":"good"',
    b'"model":"good","x":[{"model":"bad","model":"good"}]',
    b'"model":"good","web_search_options":{},"web_search_options":{}',
]


@pytest.mark.parametrize("names", TWICE)
async def test_projects_with_permissions_may_not_repeat_a_field(far, names: bytes):
    body = b'{%b,"messages":[{"role":"user","content":"hi"}]}' % names
    headers = {"content-type": "application/json"}
    refused = await far.post("/chat/completions", content=body, headers=headers)
    was_sent = bool(far.upstream.requests)
    free = await far.post("/chat/completions", content=body, headers=headers, key="root")

    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_json")
    assert not was_sent
    assert free.status_code == 200


@pytest.mark.parametrize("query", ["model=bad", "mod%65l=bad&model=good", "Model=bad"])
async def test_a_query_names_no_other_model(far, query: str):
    body = {"type": "realtime", "model": "good"}
    refused = await far.post(f"/realtime/calls/c/accept?{query}", json=body)
    was_sent = bool(far.upstream.requests)
    good = await far.post("/realtime/calls/c/accept?model=good", json=body)

    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_not_found")
    assert not was_sent
    assert good.status_code == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("client_secrets", {"session": {"type": "realtime", "model": "good"}}),
        ("sessions", {"model": "good"}),
        ("transcription_sessions", {}),
    ],
)
async def test_projects_with_a_spend_limit_may_not_use_unmetered_operations(far, path, body):
    refused = await far.post(f"/realtime/{path}", json=body, key="capped")

    assert refused.status_code == 403
    assert "spend limit" in refused.json()["error"]["message"]
    assert far.upstream.requests == []


async def test_an_upstreams_model_is_deleted_by_administrators_only(far):
    far.upstream.requests.clear()
    with pytest.raises(openai.PermissionDeniedError):
        await far.client(far.keys["capped"]).models.delete("good")
    await far.client().delete("/models/good", cast_to=object)

    assert [one.first_line.split()[0] for one in far.upstream.requests] == [b"DELETE"]


CHAT = b'{ "model":"good",\n"messages":[{"role":"user","content":"hi"}]%b}'


@pytest.mark.parametrize(
    ("sent", "got"),
    [
        (CHAT % b', "store" : true ', CHAT % b', "store" : false '),
        (CHAT % b"", b'{"store":false,' + (CHAT % b"")[1:]),
        (CHAT % b',"store":null,"store":true', CHAT % b',"store":false,"store":false'),
    ],
)
async def test_upstreams_store_nothing_of_projects_with_zero_data_retention(far, sent, got):
    headers = {"content-type": "application/json"}
    answer = await far.post("/chat/completions", content=sent, headers=headers, key="silent")
    await far.post("/responses", json={"model": "good", "input": "hi", "store": True}, key="silent")
    (response,) = far.got
    await far.post("/chat/completions", content=sent, headers=headers, key="root")

    assert answer.status_code == 200
    assert response["store"] is False
    assert far.upstream.requests[0].body == sent


MCP = {"type": "mcp", "server_label": "l", "server_url": "https://far.test"}
OTHER_CASE = [
    ("tools", "/responses", {"Tools": [MCP]}, "Tools"),
    ("tools", "/responses", {"tools": [{"type": "custom", "name": "c", "Type": "mcp"}]}, "Type"),
    ("some", "/chat/completions", {"Web_Search_Options": {}}, "Web_Search_Options"),
    ("tools", "/realtime/client_secrets", {"Session": {"tools": [MCP]}}, "Session"),
    (
        "tools",
        "/realtime/client_secrets",
        {"session": {"type": "realtime", "TOOLS": [MCP]}},
        "TOOLS",
    ),
    ("tools", "/responses", {"tool\u017f": [MCP]}, "tool\u017f"),  # a long s, which Go takes for s
    ("silent", "/chat/completions", {"Store": True}, "Store"),
    ("silent", "/responses", {"store": False, "STORE": True}, "STORE"),
]


@pytest.mark.parametrize(("key", "path", "fields", "param"), OTHER_CASE)
async def test_limits_hold_for_upstreams_that_ignore_the_case_of_names(
    far, key, path, fields, param
):
    chat = {"messages": [{"role": "user", "content": "hi"}]} if "chat" in path else {"input": "hi"}
    body = {"model": "good", **chat, **fields}
    answer = await far.post(path, json=body, key=key)

    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"].endswith(param)
    assert far.upstream.requests == []
    assert (await far.post(path, json=body, key="root")).status_code == 200


async def test_idempotency_stores_nothing_for_projects_with_zero_data_retention(far):
    headers = {"content-type": "application/json", "idempotency-key": "k"}
    asked = []
    for key in ("silent", "silent", "root", "root"):
        await far.post("/chat/completions", content=CHAT % b"", headers=headers, key=key)
        asked.append(len(far.upstream.requests))

    assert asked == [1, 1, 1, 0]


@pytest.mark.parametrize("key", ["some", "few", "silent", "capped"])
async def test_unknown_operations_are_not_relayed_for_projects_with_bounds(far: Far, key: str):
    refused = await far.post("/unheard_of", key=key, json={"model": "good"})

    assert refused.status_code == 403
    assert "POST /v1/unheard_of" in refused.json()["error"]["message"]
    assert far.got == []
