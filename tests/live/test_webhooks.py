"""Webhooks of a served process: made by the official client, received and checked by it."""

import threading
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from openai.types.webhooks import WebhookEndpoint, WebhookEndpointWithSecret

from tests.live.test_files import NO_MODEL, client_of
from tests.serving import serve
from tests.webhook_receiver import Receiver, receiving

EVENTS = {
    f"{kind}.{end}"
    for kind in ("batch", "response")
    for end in ("completed", "failed", "cancelled", "expired" if kind == "batch" else "incomplete")
}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def client(receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    environment = {
        "LLM_BACKEND_WEBHOOK_HOSTS": receiver.host,
        "LLM_BACKEND_WEBHOOK_ENDPOINTS_LIMIT": "2",
    }
    folder = tmp_path_factory.mktemp("webhooks")
    with serve(folder, environment=environment) as served, client_of(served) as client:
        yield client


@pytest.fixture
def endpoint(client: openai.OpenAI, receiver: Receiver) -> Iterator[WebhookEndpointWithSecret]:
    made = client.webhooks.create(
        name="all", url=receiver.url, event_types=["response.completed", "batch.failed"]
    )
    yield made
    client.webhooks.delete(made.id)


def test_endpoint_is_created_listed_changed_and_deleted(client, receiver):
    made = client.webhooks.create(
        name="a", url=receiver.url, event_types=["batch.failed", "batch.failed"]
    )
    read = client.webhooks.retrieve(made.id)
    changed = client.webhooks.update(made.id, name="b", event_types=["batch.expired"])

    assert made.signing_secret.startswith("whsec_")
    assert made.signing_secret[-4:] in (made.signing_secret_hint or "")
    assert read == WebhookEndpoint(**made.model_dump(exclude={"signing_secret"}))
    assert read.event_types == ["batch.failed"]
    assert (changed.name, changed.url, changed.event_types) == (
        "b", receiver.url, ["batch.expired"],
    )  # fmt: skip
    assert client.webhooks.list().data == [changed]
    assert client.webhooks.list().data[0].model_extra == {}
    assert client.webhooks.update(made.id) == changed
    assert client.webhooks.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.webhooks.retrieve(made.id)


def test_event_types_are_those_that_happen_here(client):
    assert set(client.webhooks.event_types.list().data) == EVENTS


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"event_types": ["batch.failed", "video.failed"]}, "event_types[1]"),
        ({"event_types": ["nothing.happened"]}, "event_types[0]"),
        ({"event_types": []}, "event_types"),
        ({"url": "http://example.org/"}, "url"),
        ({"url": "https://10.0.0.1/"}, "url"),
        ({"url": "https://user:password@example.org/"}, "url"),
        ({"url": "https://example.org/" + "x" * 2048}, "url"),
        ({"name": "x" * 257}, "name"),
    ],
    ids=str,
)
def test_invalid_endpoint_is_refused_by_field(client, fields, param):
    body = {"name": "a", "url": "https://example.org/", "event_types": ["batch.failed"], **fields}

    with pytest.raises(openai.BadRequestError) as refused:
        client.post("/webhook_endpoints", body=body, cast_to=object)
    assert refused.value.param == param


def test_endpoints_beyond_the_limit_are_refused(client, receiver, endpoint):
    fields = {"name": "b", "url": receiver.url, "event_types": ["batch.failed"]}
    second = client.webhooks.create(**fields)
    with pytest.raises(openai.BadRequestError, match="webhook_endpoints_limit"):
        client.webhooks.create(**fields)
    client.webhooks.delete(second.id)


def test_test_sends_a_sample_and_returns_the_status(client, receiver, endpoint):
    receiver.statuses.append(202)
    result = client.webhooks.test(endpoint.id, event_type="response.failed")
    event = receiver.next().unwrap(endpoint.signing_secret)

    assert (result.status_code, result.event_type, result.webhook_endpoint_id) == (
        202, "response.failed", endpoint.id,
    )  # fmt: skip
    assert (event.type, event.data.id) == ("response.failed", "resp_sample")


def test_test_of_an_endpoint_that_answers_with_another_status_is_an_error(
    client, receiver, endpoint
):
    receiver.statuses.append(418)
    with pytest.raises(openai.BadRequestError, match="answered with 418") as refused:
        client.webhooks.test(endpoint.id, event_type="response.failed")
    receiver.next()

    assert refused.value.code == "webhook_endpoint_failed"


def test_test_of_an_endpoint_at_an_internal_address_is_an_error(client):
    made = client.webhooks.create(
        name="silent", url="https://localhost/", event_types=["batch.failed"]
    )
    with pytest.raises(openai.BadRequestError, match="public address") as refused:
        client.webhooks.test(made.id, event_type="batch.failed")
    client.webhooks.delete(made.id)

    assert refused.value.code == "webhook_endpoint_unreachable"


def test_background_response_is_reported_when_it_has_ended(client, receiver, endpoint):
    queued = client.responses.create(
        model="builtin", input="Hello!", background=True, max_output_tokens=256
    )
    event = receiver.next().unwrap(endpoint.signing_secret)

    assert (event.type, event.data.id) == ("response.completed", queued.id)
    assert client.responses.retrieve(queued.id).status == "completed"


def test_failures_are_listed(client, endpoint):
    failures = client.get(f"/webhook_endpoints/{endpoint.id}/failures", cast_to=object)

    assert failures == {"object": "list", "data": [], "disabled_at": None}


def test_rotated_secret_signs_the_next_events(client, receiver, endpoint):
    rotated = client.webhooks.rotate_secret(endpoint.id)
    client.webhooks.test(endpoint.id, event_type="batch.failed")
    received = receiver.next()

    assert rotated.signing_secret != endpoint.signing_secret
    received.unwrap(rotated.signing_secret)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        received.unwrap(endpoint.signing_secret)


def test_event_survives_a_server_that_is_killed_while_it_sends_it(tmp_path: Path) -> None:
    gate = threading.Event()
    with receiving(gate=gate) as receiver:
        environment = {"LLM_BACKEND_WEBHOOK_HOSTS": receiver.host}
        with (
            serve(tmp_path, *NO_MODEL, environment=environment) as served,
            client_of(served) as client,
        ):
            made = client.webhooks.create(name="a", url=receiver.url, event_types=["batch.failed"])
            file = client.files.create(file=("in.jsonl", b"no JSON"), purpose="batch")
            batch = client.batches.create(
                input_file_id=file.id, endpoint="/v1/responses", completion_window="24h"
            )
            first = receiver.next()  # which gets no answer
            served.process.kill()
            served.process.wait()
        gate.set()
        with serve(tmp_path, *NO_MODEL, environment=environment):
            second = receiver.next()

    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert second.unwrap(made.signing_secret).data.id == batch.id
