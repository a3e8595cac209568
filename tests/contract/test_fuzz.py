"""Whatever is sent, the answer is OpenAI's error body or the handler's: never a 5xx."""

import json

from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from tests.examples import examples

PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/files"]
BOUNDED = settings(
    max_examples=examples(150), suppress_health_check=[HealthCheck.function_scoped_fixture]
)
WORDS = st.sampled_from(["model", "messages", "role", "user", "content", "type", "text", "input"])
TEXTS = WORDS | st.text(max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=20,
)


def check(response) -> None:
    assert response.status_code in (200, 400, 404, 405, 413, 415), response.text
    if response.status_code != 200 and response.request.method != "HEAD":
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}


@BOUNDED
@given(path=st.sampled_from(PATHS), body=st.binary(max_size=200))
def test_any_bytes_as_a_body(client: TestClient, path: str, body: bytes):
    check(client.post(path, content=body, headers={"content-type": "application/json"}))


@BOUNDED
@given(path=st.sampled_from(PATHS), body=JSON)
def test_any_json_as_a_body(client: TestClient, path: str, body: object):
    text = json.dumps(body)

    check(client.post(path, content=text, headers={"content-type": "application/json"}))


@BOUNDED
@given(fields=st.dictionaries(TEXTS | st.sampled_from(["n", "stop", "tools"]), JSON, max_size=5))
def test_any_fields_in_a_chat(client: TestClient, fields: dict[str, object]):
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], **fields}

    check(
        client.post(
            "/v1/chat/completions",
            content=json.dumps(body),
            headers={"content-type": "application/json"},
        )
    )


@BOUNDED
@given(content_type=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40))
def test_any_content_type(client: TestClient, content_type: str):
    check(client.post("/v1/embeddings", content=b"{}", headers={"content-type": content_type}))


@BOUNDED
@given(query=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60))
def test_any_query(client: TestClient, query: str):
    check(client.get(f"/v1/chat/completions?{query.replace('#', '')}"))


@BOUNDED
@given(
    path=st.text(st.sampled_from("/a%0A2F5B\n\r\t{}."), max_size=12)
    | st.text(st.characters(codec="utf-8", exclude_characters="?#"), max_size=40)
)
def test_any_path(client: TestClient, path: str):
    try:
        request = client.build_request("GET", "/v1/" + path)
    except Exception:  # the client itself refuses some URLs
        reject()
    check(client.send(request))
