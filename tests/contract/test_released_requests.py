"""An idle connection holds nothing of the request that it brought last."""

from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.types import Scope

from llm_backend.errors import NotFound

CHAT = "/v1/chat/completions"
GOOD = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


async def refuse(_services: Any, request: Any) -> None:
    raise NotFound(f"There is no {request.body['model']}.")


@pytest.mark.parametrize("handler", [None, refuse])
def test_the_scope_of_an_answered_request_holds_no_body(client_for, handler):
    scopes: list[Scope] = []
    with client_for(**({} if handler is None else {"handler": handler})) as client:
        inner = client.app

        async def app(scope: Scope, receive: Any, send: Any) -> None:
            scope.setdefault("state", {})
            scopes.append(scope)
            await inner(scope, receive, send)

        TestClient(app, raise_server_exceptions=False).post(CHAT, json=GOOD)

    state = scopes[-1]["state"]
    assert state["checked"].raw_body == b""
    assert state["checked"].body is None
    assert "error" not in state or state["error"].__traceback__ is None


def test_a_name_that_no_model_has_is_refused(client: TestClient):
    response = client.post(CHAT, json={**GOOD, "model": "m" * 513})

    assert response.status_code == 400
    assert response.json()["error"]["param"] == "model"
