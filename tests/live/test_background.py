"""Responses in the background, driven by the official client; servers that are killed meanwhile."""

import contextlib
import os
import signal
import time

import httpx
import openai
import pytest

from tests.postgresql import PostgresqlServer
from tests.serving import Served, serve
from tests.strict_sdk import StrictOpenAI

ENDED = ("completed", "failed", "incomplete", "cancelled")


LONGER_THAN_ANY_TEST = 5000


def long(items: int = 300) -> dict[str, object]:
    """A request whose answer is a list of `items` numbers."""
    schema = {
        "type": "array", "items": {"enum": [3, 5, 7]}, "minItems": items, "maxItems": items,
    }  # fmt: skip
    form = {"type": "json_schema", "name": "long", "schema": schema}
    return {"model": "builtin", "input": "Hello!", "background": True, "text": {"format": form}}


def ended(client, id):
    deadline = time.monotonic() + 60
    while (response := client.responses.retrieve(id)).status not in ENDED:
        assert time.monotonic() < deadline, response.status
        time.sleep(0.05)
    return response


def connected(served: Served) -> openai.OpenAI:
    return StrictOpenAI(base_url=served.base_url, api_key="none", max_retries=0)


def kill(served: Served) -> None:
    workers = served.workers()
    served.process.kill()
    served.process.wait()
    for pid in workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_response_is_answered_after_its_client_left(client):
    queued = client.responses.create(model="builtin", input="Hello!", background=True)
    response = ended(client, queued.id)

    assert queued.status == "queued"
    assert response.status == "completed"
    assert response.output_text


def test_its_stream_can_be_left_and_taken_up(client):
    asked = {"model": "builtin", "input": "Hello!", "background": True}
    with client.responses.create(**asked, stream=True) as stream:
        first = [event for event, _ in zip(stream, range(3), strict=False)]
    id = first[0].response.id
    rest = list(client.responses.retrieve(id, stream=True, starting_after=2))
    whole = list(client.responses.retrieve(id, stream=True))

    assert [event.type for event in first] == [
        "response.created", "response.queued", "response.in_progress",
    ]  # fmt: skip
    assert [event.sequence_number for event in [*first, *rest]] == list(range(len(whole)))
    assert rest[-1].type == "response.completed"
    assert rest[-1].response.output_text == client.responses.retrieve(id).output_text


def test_the_clients_own_stream_helper_reads_it(client):
    with client.responses.stream(model="builtin", input="Hello!", background=True) as stream:
        id = next(iter(stream)).response.id
    with client.responses.stream(response_id=id, starting_after=1) as stream:
        final = stream.get_final_response()

    assert final.output_text


def test_one_that_is_cancelled_ends_at_once(client):
    asked = client.responses.create(**long(LONGER_THAN_ANY_TEST))
    cancelled = client.responses.cancel(asked.id)

    assert cancelled.status == "cancelled"
    assert client.responses.retrieve(asked.id).status == "cancelled"


def test_an_answer_that_waits_for_events_begins_at_once(client, server):
    with client.responses.create(**long(LONGER_THAN_ANY_TEST), stream=True) as stream:
        id = next(iter(stream)).response.id
    address = f"{server.base_url}/responses/{id}?stream=true&starting_after=1000000"
    with httpx.stream("GET", address, timeout=60) as waiting:
        client.responses.cancel(id)
        rest = waiting.read()

    assert waiting.status_code == 200
    assert rest == b""


def test_a_foreground_response_is_neither_cancelled_nor_streamed_again(client):
    said = client.responses.create(model="builtin", input="Hello!")

    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(said.id)
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.retrieve(said.id, stream=True)
    assert refused.value.param == "stream"
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.retrieve(said.id, starting_after=1)
    assert refused.value.param == "starting_after"


def test_a_killed_servers_responses_are_taken_up_or_failed(tmp_path):
    with serve(tmp_path) as served, connected(served) as client:
        with client.responses.create(**long(LONGER_THAN_ANY_TEST), stream=True) as stream:
            seen = [event for event, _ in zip(stream, range(8), strict=False)]
        whole = client.responses.create(**long(20))
        kill(served)
    with serve(tmp_path) as served, connected(served) as client:
        taken_up = ended(client, whole.id)
        rest = list(
            client.responses.retrieve(
                seen[0].response.id, stream=True, starting_after=seen[-1].sequence_number
            )
        )

    assert seen[-1].type == "response.output_text.delta"
    assert taken_up.status in ("completed", "incomplete")
    assert rest[-1].type == "response.failed"
    numbers = [event.sequence_number for event in [*seen, *rest]]
    assert numbers == list(range(len(numbers)))


def test_two_processes_on_one_database_answer_for_each_other(
    postgresql_server: PostgresqlServer, tmp_path
):
    environment = {"DATABASE_URL": postgresql_server.new_database()}
    with (
        serve(tmp_path / "one", environment=environment) as one,
        serve(tmp_path / "two", "--model", "none", environment=environment, ready=False) as two,
        connected(one) as here,
        connected(two) as there,
    ):
        response = here.responses.create(
            model="builtin", input="Hello!", background=True, stream=True
        )
        id = next(iter(response)).response.id
        followed = list(there.responses.retrieve(id, stream=True))
        asked = here.responses.create(**long(600))
        cancelled = there.responses.cancel(asked.id)

        assert followed[-1].type == "response.completed"
        assert there.responses.retrieve(id).output_text
        assert cancelled.status == here.responses.retrieve(asked.id).status == "cancelled"
