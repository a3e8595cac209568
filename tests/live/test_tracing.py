"""Spans of requests at a collector of traces."""

import httpx
import pytest

from tests.collector import attributes, collecting
from tests.serving import serve

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The spans of a streamed chat under a trace of its client, and of a mistake."""
    with collecting() as collector:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        with serve(tmp_path_factory.mktemp("traced"), environment=environment) as server:
            chat = {"model": "builtin", "max_tokens": 5, "stream": True}
            chat |= {"messages": [{"role": "user", "content": "The secret is swordfish."}]}
            traceparent = f"00-{TRACE}-{PARENT}-01"
            httpx.post(
                f"{server.base_url}/chat/completions", json=chat, timeout=30,
                headers={"traceparent": traceparent},
            ).raise_for_status()  # fmt: skip
            httpx.get(f"{server.base_url}/models/none")
        yield collector


def test_a_request_is_a_span_below_its_senders(told):
    span = told.one("createChatCompletion")

    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert attributes(span)["http.response.status_code"] == 200
    assert str(attributes(span)["llm_backend.request_id"]).startswith("req_")


def test_an_answer_of_a_model_is_a_span_below_its_request(told):
    request, answer = told.one("createChatCompletion"), told.one("chat builtin")

    assert answer.parent_span_id == request.span_id
    assert attributes(answer)["gen_ai.usage.output_tokens"] == 5
    assert attributes(answer)["gen_ai.operation.name"] == "chat"
    assert attributes(answer)["gen_ai.provider.name"] == "llm_backend"
    slot, first_token = answer.events
    assert (slot.name, first_token.name) == ("slot", "first token")
    moments = [
        request.start_time_unix_nano, answer.start_time_unix_nano, slot.time_unix_nano,
        first_token.time_unix_nano, answer.end_time_unix_nano, request.end_time_unix_nano,
    ]  # fmt: skip
    assert moments == sorted(moments)


def test_a_clients_mistake_is_no_error_of_the_server(told):
    span = told.one("retrieveModel")

    assert attributes(span)["http.response.status_code"] == 404
    assert span.status.code == 0


def test_prompts_are_in_no_span(told):
    assert "swordfish" not in str(told.spans)
