"""Errors in OpenAI's body, request ids, keys, and what handlers are given."""

import re
import subprocess
import sys
from typing import Any

import orjson
import pytest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.testclient import TestClient

from llm_backend.contract import Document, load_document
from llm_backend.contract.request import ApiRequest
from llm_backend.errors import EngineUnavailable, InvalidRequest, Unauthorized
from tests.contract.conftest import url_of
from tests.logged import logged


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/", "/v2/models", "/v1/v1/models", "/v1//models"])
def test_unknown_paths_get_an_error_in_openais_shape(client: TestClient, path: str):
    response = client.get(path)

    assert response.status_code == 404
    assert response.json()["error"]["code"] == "unknown_url"
    assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("tail", ["%00", "%0A", "a%0A", "%0Aa", "a%0D%0Ab", "%7F"])
@pytest.mark.parametrize("path", ["/v1/models/", "/v1/chat/completions/", "/v1/files/", "/v1/no/"])
def test_control_characters_in_paths_are_refused(client: TestClient, path: str, tail: str):
    assert client.get(path + tail).status_code == 400


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "TRACE", "BREW", "DELETE"])
def test_other_methods_are_405_with_those_allowed(client: TestClient, method: str):
    response = client.request(method, "/v1/chat/completions")

    assert response.status_code == 405
    assert response.headers["allow"] == "GET, HEAD, POST"
    assert response.json()["error"]["code"] == "method_not_allowed"


def test_head_is_answered_like_get(client: TestClient):
    assert client.head("/v1/models").status_code == 200


def test_every_answer_has_a_request_id_of_its_own(client: TestClient):
    ids = [client.get(path).headers["x-request-id"] for path in ("/v1/models", "/no", "/healthz")]

    assert len(set(ids)) == 3
    assert all(re.fullmatch(r"req_[0-9a-f]{32}", one) for one in ids)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/no", "/v1/chat/completions"])
def test_answers_of_the_api_have_headers_with_their_time_and_its_version(
    client: TestClient, path: str
):
    answer = client.get(path)

    assert int(answer.headers["openai-processing-ms"]) >= 0
    assert answer.headers["openai-version"] == "2020-10-01"


def test_answers_outside_of_the_api_and_of_others_keep_their_own_headers(client_for):
    theirs = {"openai-processing-ms": "7", "openai-version": "2030-01-01"}

    async def answering(*_: Any) -> Response:
        return Response(headers=theirs)

    relayed, service = client_for(answering).get("/v1/models"), client_for().get("/healthz")

    assert {name: relayed.headers[name] for name in theirs} == theirs
    assert not theirs.keys() & service.headers.keys()


async def failing(_services: Any, request: ApiRequest) -> Response:
    raise {
        "listModels": EngineUnavailable("The engine starts again.", retry_after_s=1.6),
        "retrieveModel": InvalidRequest("Not so.", param="model", code="wrong"),
        "deleteModel": RuntimeError("a secret"),
    }[request.operation.operation_id]


def test_errors_of_handlers_are_rendered(client_for):
    with client_for(failing) as client:
        response = client.get("/v1/models/m")

    assert response.status_code == 400
    assert response.json() == {
        "error": {
            "message": "Not so.",
            "type": "invalid_request_error",
            "param": "model",
            "code": "wrong",
        }
    }


def test_transient_errors_have_a_retry_after_header(client_for):
    with client_for(failing) as client:
        response = client.get("/v1/models")

    assert response.status_code == 503
    assert response.headers["retry-after"] == "2"


def test_bugs_are_logged_and_show_only_the_request_id(client_for, caplog):
    with client_for(failing) as client:
        response = client.delete("/v1/models/m")

    assert response.status_code == 500
    assert response.json()["error"]["code"] == "internal_error"
    assert "secret" not in response.text
    assert response.headers["x-request-id"] in logged(caplog)
    assert "a secret" in caplog.text


@pytest.mark.parametrize("logs_bodies", [True, False])
def test_bodies_are_logged_only_with_the_setting(client_for, caplog, logs_bodies: bool):
    body = b'{"model": "m",\n "input": "a secret plan"}'
    with caplog.at_level("INFO"), client_for(logs_bodies=logs_bodies) as client:
        client.post(
            "/v1/embeddings",
            content=body,
            headers={"content-type": "application/json", "authorization": "Bearer sk-sesame"},
        )

    told = [record.body for record in caplog.records if record.getMessage() == "request_body"]
    assert told == ([body.decode().replace("\n", " ")] if logs_bodies else [])
    assert "sk-sesame" not in logged(caplog)


def test_callers_are_authenticated_before_the_body_is_read(client_for, document: Document):
    async def refuse(_headers: Any, _operation: Any) -> None:
        raise Unauthorized("Who are you?")

    with client_for(authenticate=refuse) as client:
        for operation in document.operations.values():
            response = client.request(operation.method, url_of(operation), content=b"{")

            assert (response.status_code == 401) != operation.is_public, operation.operation_id
        assert client.get("/v1/nothing").status_code == 404


def test_the_caller_reaches_the_handler(client_for):
    async def authenticate(headers: Any, _operation: Any) -> str:
        return headers["authorization"]

    async def tell(_services: Any, request: ApiRequest) -> Response:
        return JSONResponse({"caller": request.caller, "id": request.request_id})

    with client_for(tell, authenticate=authenticate) as client:
        response = client.get("/v1/models", headers={"Authorization": "Bearer k"})

    assert response.json() == {"caller": "Bearer k", "id": response.headers["x-request-id"]}


def test_a_request_id_of_the_upstream_is_kept(client_for):
    async def relay(_services: Any, _request: ApiRequest) -> Response:
        return Response(headers={"x-request-id": "req_theirs"})

    with client_for(relay) as client:
        assert client.get("/v1/models").headers["x-request-id"] == "req_theirs"


def test_streams_pass_as_they_are(client_for):
    async def stream(_services: Any, _request: ApiRequest) -> Response:
        return StreamingResponse(iter([b"data: 1\n\n", b"data: 2\n\n"]))

    with client_for(stream) as client:
        assert client.get("/v1/models").content == b"data: 1\n\ndata: 2\n\n"


def test_websockets_are_closed(client: TestClient):
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/v1/realtime"):
        pass


def test_a_missing_handler_stops_the_start(client_for):
    def nowhere(operation: Any) -> Any:
        raise AttributeError(f"no handler for {operation.operation_id}")

    with pytest.raises(AttributeError, match="no handler for"):
        client_for(handler_of=nowhere)


def test_connexion_finds_the_compiled_view_valid():
    # in a process of its own, as the application replaces what Connexion validates documents with
    code = (
        "import orjson, sys; from connexion.spec import Specification; "
        "Specification.load(orjson.loads(sys.stdin.read()))"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(
        command, input=orjson.dumps(load_document().view), capture_output=True, check=False
    )

    assert done.returncode == 0, done.stderr.decode()


def test_application_imports_no_library_that_it_does_not_use():
    code = "import sys, llm_backend.contract.application.connexion_app; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    unused = {"flask", "httpx", "jsonschema", "referencing", "requests", "werkzeug"}
    assert not unused & set(done.stdout.split())
