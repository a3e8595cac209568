"""The guard against requests that pages of other sites make a browser send."""

import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocket

from llm_backend.cross_site_guard import CrossSiteGuard

OURS = "http://localhost:8000"
FOREIGN = "http://evil.test"
LINK = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}


async def let_in(scope, receive, send):
    if scope["type"] == "websocket":
        socket = WebSocket(scope, receive, send)
        await socket.accept()
        await socket.close()
        return
    await PlainTextResponse("in")(scope, receive, send)


def behind(*origins: str) -> TestClient:
    guard = CrossSiteGuard(let_in, origins, ("/", "/docs"))
    return TestClient(guard, base_url=OURS)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),  # a program
        ({"origin": OURS}, 200),
        ({"origin": "https://localhost:8000"}, 200),  # TLS ends at a proxy
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"sec-fetch-site": "same-origin", "origin": "https://llm.example.com"}, 200),  # a proxy's
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "cross-site", "origin": FOREIGN}, 403),
        ({"sec-fetch-site": "cross-site", "origin": OURS}, 403),  # of http on a site that has https
        ({"sec-fetch-site": "same-site", "origin": "http://localhost:5173"}, 403),
        ({"sec-fetch-site": "something-new"}, 403),
        ({"origin": FOREIGN}, 403),
        ({"origin": "http://localhost"}, 403),  # another port
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
        ({"origin": "http://["}, 403),
        ({"origin": FOREIGN, "authorization": "Bearer sk-mine"}, 403),
    ],
)
def test_guard_allows_only_programs_and_own_pages(method, headers, status):
    answer = behind().request(method, "/v1/models", headers=headers)

    assert answer.status_code == status
    if status == 403 and method != "HEAD":
        assert answer.json()["error"]["code"] == "origin_not_allowed"
        assert "`cors_origins`" in answer.json()["error"]["message"]
    if status == 403:
        assert answer.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("origins", [(FOREIGN,), ("http://other.test", FOREIGN), ("*",)])
def test_guard_allows_pages_of_named_origins(origins):
    headers = {"sec-fetch-site": "cross-site", "origin": FOREIGN}

    assert behind(*origins).post("/v1/models", headers=headers).status_code == 200


def test_guard_refuses_browser_requests_without_an_origin():
    headers = {"sec-fetch-site": "cross-site"}

    assert behind(FOREIGN).get("/v1/models", headers=headers).status_code == 403
    assert behind("*").get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("HEAD", "/docs", 200),
        ("GET", "/chat/ask?question=x", 403),
        ("GET", "/unloadModel", 403),
        ("POST", "/", 403),  # a form
    ],
)
def test_guard_allows_links_only_to_pages(method, path, status):
    assert behind().request(method, path, headers=LINK).status_code == status


def test_guard_refuses_web_sockets_of_other_pages():
    with (
        pytest.raises(WebSocketDenialResponse) as refused,
        behind().websocket_connect("/v1/realtime", headers={"origin": FOREIGN}),
    ):
        pass

    assert refused.value.status_code == 403
    assert refused.value.json()["error"]["code"] == "origin_not_allowed"
    assert refused.value.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("headers", [{}, {"origin": OURS}])
def test_guard_allows_web_sockets_of_programs_and_own_pages(headers):
    url = "ws://localhost:8000/v1/realtime"
    with behind().websocket_connect(url, headers=headers) as socket:
        assert socket.receive()["type"] == "websocket.close"
