"""Answers are held against the document: off, logged, or enforced."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response, StreamingResponse

from llm_backend.contract.request import ApiRequest
from llm_backend.contract.response_validation import LOGGED_BYTES, ResponseCheckMode
from llm_backend.contract.validation import ContractViolation, Validators
from llm_backend.controllers.rendering.event_stream import event_stream
from llm_backend.sse import SimilarEvent
from tests.logged import logged

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "stream": True}
CHUNK = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": None}],
}
MODELS = {"object": "list", "data": []}


def answering(response: Response) -> Any:
    async def handler(_services: Any, _request: ApiRequest) -> Response:
        return response

    return handler


def streaming(*events: Any) -> Any:
    async def chunks() -> AsyncIterator[bytes]:
        for event in events:
            if isinstance(event, SimilarEvent):
                yield event
                continue
            text = event if isinstance(event, str) else json.dumps(event)
            yield f"data: {text}\n\n".encode()

    async def handler(_services: Any, _request: ApiRequest) -> Response:
        return StreamingResponse(chunks(), media_type="text/event-stream")

    return handler


@pytest.mark.parametrize(
    "response",
    [
        JSONResponse({"object": "list"}),
        JSONResponse({"object": "list", "data": [{"id": "m"}]}),
        JSONResponse(MODELS, status_code=202),
        JSONResponse({"detail": "Not Found"}, status_code=404),
        Response(b"<html>", media_type="application/json"),
        Response(b"<html>", media_type="text/html"),
    ],
)
def test_an_answer_that_breaks_the_document_is_a_500_when_enforced(client_for, response: Response):
    with client_for(answering(response), response_checks=ResponseCheckMode.ENFORCE) as client:
        assert client.get("/v1/models").status_code == 500


@pytest.mark.parametrize(
    ("answers", "status"), [(ResponseCheckMode.LOG, 200), (ResponseCheckMode.ENFORCE, 500)]
)
def test_the_body_of_a_very_long_answer_is_checked_only_where_checks_are_enforced(
    client_for, caplog, answers, status
):
    handler = answering(JSONResponse({"object": "list", "more": "x" * LOGGED_BYTES}))
    with client_for(handler, response_checks=answers) as client:
        assert client.get("/v1/models").status_code == status

    assert ("answer_breaks_contract" in logged(caplog)) is (status == 500)


def test_an_answer_that_breaks_the_document_is_logged(client_for, caplog):
    handler = answering(JSONResponse({"object": "list"}))
    with client_for(handler, response_checks=ResponseCheckMode.LOG) as client:
        assert client.get("/v1/models").json() == {"object": "list"}

    assert "listModels: Missing required parameter: 'data'" in logged(caplog)


@pytest.mark.parametrize("setting", list(ResponseCheckMode))
def test_a_valid_response_passes(client_for, caplog, setting: ResponseCheckMode):
    with client_for(answering(JSONResponse(MODELS)), response_checks=setting) as client:
        assert client.get("/v1/models").json() == MODELS

    assert "breaks" not in logged(caplog)


def test_answers_of_the_upstream_are_its_own(client_for):
    handler = answering(JSONResponse({"anything": 1}))
    with client_for(handler, response_checks=ResponseCheckMode.ENFORCE) as client:
        assert client.get("/v1/evals").json() == {"anything": 1}


def test_a_valid_stream_passes(client_for):
    handler = streaming(CHUNK, {"error": {"message": "late"}}, "[DONE]")
    with client_for(handler, response_checks=ResponseCheckMode.ENFORCE) as client:
        text = client.post("/v1/chat/completions", json=CHAT).text

    assert text.count("data: ") == 3
    assert text.endswith("data: [DONE]\n\n")


def test_a_stream_of_a_controller_is_cut_at_the_event_that_breaks_the_document(client_for):
    async def chunks() -> AsyncGenerator[dict[str, Any], None]:
        yield CHUNK
        yield {"id": "1"}

    async def handler(_services: Any, _request: ApiRequest) -> Response:
        return await event_stream(chunks())

    with client_for(handler, response_checks=ResponseCheckMode.ENFORCE) as client:
        events = client.post("/v1/chat/completions", json=CHAT).text.split("\n\n")

    assert json.loads(events[0].removeprefix("data: ")) == CHUNK
    assert json.loads(events[1].removeprefix("data: "))["error"]["code"] == "internal_error"


@pytest.mark.parametrize("broken", [{**CHUNK, "id": None}, {"id": "1"}, "not JSON"])
def test_a_stream_is_cut_at_the_event_that_breaks_the_document(client_for, broken: Any):
    with client_for(
        streaming(CHUNK, broken, CHUNK), response_checks=ResponseCheckMode.ENFORCE
    ) as client:
        events = client.post("/v1/chat/completions", json=CHAT).text.split("\n\n")

    assert json.loads(events[0].removeprefix("data: ")) == CHUNK
    assert json.loads(events[1].removeprefix("data: "))["error"]["code"] == "internal_error"
    assert events[2:] == [""]


def test_an_event_like_an_earlier_one_passes_as_that_did(client_for):
    alike = SimilarEvent(b'data: {"not": "looked into"}\n\n')
    handler = streaming(CHUNK, alike, CHUNK)
    with client_for(handler, response_checks=ResponseCheckMode.ENFORCE) as client:
        response = client.post("/v1/chat/completions", json=CHAT)

    assert response.text.count("data: ") == 3
    assert "looked into" in response.text


@pytest.mark.parametrize(
    ("setting", "is_cut"), [(ResponseCheckMode.LOG, False), (ResponseCheckMode.ENFORCE, True)]
)
def test_a_very_long_event_is_checked_only_where_checks_are_enforced(
    client_for, caplog, setting, is_cut
):
    broken = {**CHUNK, "id": None, "more": "x" * LOGGED_BYTES}
    with client_for(streaming(broken, CHUNK), response_checks=setting) as client:
        events = client.post("/v1/chat/completions", json=CHAT).text.split("\n\n")

    assert ("event_breaks_contract" in logged(caplog)) is is_cut
    assert (json.loads(events[0].removeprefix("data: ")) != broken) is is_cut


def test_a_broken_event_is_logged_and_passes(client_for, caplog):
    with client_for(
        streaming({"id": 1}, "[DONE]"), response_checks=ResponseCheckMode.LOG
    ) as client:
        text = client.post("/v1/chat/completions", json=CHAT).text

    assert text.endswith("[DONE]\n\n")
    assert "event_breaks_contract" in caplog.text


def test_events_are_validated_one_by_one(validators: Validators):
    validate = validators.event_validator("createChatCompletion")

    validate(CHUNK)
    validate(json.dumps(CHUNK).encode())
    validate(b"[DONE]")
    with pytest.raises(ContractViolation, match="choices"):
        validate({key: value for key, value in CHUNK.items() if key != "choices"})


def test_plain_text_is_an_answer_where_it_is_described(client_for):
    handler = answering(Response(b"requests 1\n", media_type="text/plain; version=1.0.0"))
    with client_for(handler, response_checks=ResponseCheckMode.ENFORCE) as client:
        assert client.get("/metrics").text == "requests 1\n"


def test_warming_compiles_ahead(document):
    validators = Validators(document)

    validators.warm(["createChatCompletion"])

    assert len(validators._checks) == 3
