"""Responses in the background: queued, answered, followed, cancelled, and never lost."""

import asyncio
import itertools
import types
from contextlib import asynccontextmanager

import orjson
import pytest

from llm_backend.access import Caller, Tokens
from llm_backend.access.authentication.policy import Project
from llm_backend.backends.base import ChatDelta
from llm_backend.controllers.rendering.obfuscation import Obfuscation
from llm_backend.controllers.responses.background import background_worker
from llm_backend.controllers.responses.background.background_worker import ResponseWorker
from llm_backend.controllers.responses.background.queueing import queue_response
from llm_backend.controllers.services.background_responses import BackgroundResponses
from llm_backend.controllers.services.server_tools import ServerTools
from llm_backend.controllers.services.stored_responses import StoredResponses
from llm_backend.errors import (
    InvalidRequest,
    ModelNotFound,
    NotFound,
    ServiceUnavailable,
    Unauthorized,
    UnsupportedField,
)
from llm_backend.store import (
    BackgroundStore,
    ConversationStore,
    Database,
    DeliveryLimit,
    JobKind,
    Jobs,
    ResponseStore,
    StoredConversation,
    migrate,
)
from llm_backend.store.jobs import run_jobs
from tests.controllers.responses.scripted import (
    LISTED_ITEMS,
    Answer,
    Model,
    NoFiles,
    forever,
    saying,
    settings,
)
from tests.patience import settle
from tests.response_events import check_events

BODY = {"model": "m", "input": "Hello", "background": True}
SETTINGS = settings()
CALLER = Caller()


class Server:
    """One process on the database: what it answers with, and what it has stored."""

    def __init__(self, database, *answers) -> None:
        self.jobs = Jobs(database)
        self.is_revoked = False
        self.key_outages = []
        self.counted = []
        self.model = Model(*answers)
        self.services = types.SimpleNamespace(
            settings=SETTINGS,
            chat_recorder=types.SimpleNamespace(may_store=True),
            responses=StoredResponses(ResponseStore(database), ConversationStore(database)),
            background=BackgroundResponses(
                BackgroundStore(database, self.jobs, limit=2, deliveries=DeliveryLimit(waiting=1))
            ),
            jobs=self.jobs,
            listed_items=LISTED_ITEMS,
            server_tools=ServerTools(),
            file_texts=NoFiles(),
            input_images=NoFiles(),
            access=types.SimpleNamespace(
                ledger=self,
                keyring=self,
                admission=types.SimpleNamespace(check=lambda caller, model: None),
            ),
            registry=types.SimpleNamespace(local_target=lambda name: self.model),
        )

    @asynccontextmanager
    async def running(self):
        worker = ResponseWorker(self.services)
        kind = JobKind(
            name="response", worker=worker, max_concurrency=2, affinities=self.served_models
        )
        async with run_jobs(self.jobs, [kind]):
            yield self

    async def served_models(self):
        return ["m"]

    def lose_model(self):
        """Returns an event that is set when models have been looked for more often than a job is
        attempted."""
        looks, is_often = itertools.count(1), asyncio.Event()

        def local_target(_name):
            if next(looks) > 8:
                is_often.set()
            raise ModelNotFound("There is no such model.")

        self.services.registry.local_target = local_target
        return is_often

    def minute_at(self):
        return 0

    def add(self, key, **counts):
        self.counted.append((key.model, counts["tokens"].input_tokens))

    async def find_caller_of(self, key_id):
        if self.key_outages:
            raise self.key_outages.pop()
        if self.is_revoked:
            raise Unauthorized("The API key of this request has been revoked.")
        return Caller(key_id=key_id)

    async def ask(self, caller=CALLER, **fields):
        return await queue_response(self.services, self.model, {**BODY, **fields}, caller)

    async def response(self, id):
        return await self.services.responses.responses.get(id)

    async def ended(self, id):
        return await self._until(id, lambda one: one["status"] not in ("queued", "in_progress"))

    async def with_output(self, id):
        return await self._until(id, lambda one: one["output"])

    async def _until(self, id, holds):
        async with asyncio.timeout(30):
            while True:
                response = await self.response(id)
                if holds(response):
                    return response
                await asyncio.sleep(0.01)

    async def told(self, id, after=-1, obfuscation=None, include=()):
        follower = self.services.background.follow(id, after, obfuscation, include)
        async with asyncio.timeout(30):
            return [of(event) async for event in follower.events()]


@pytest.fixture
async def database(tmp_path):
    async with Database.open(f"sqlite:///{tmp_path / 'state.db'}") as database:
        await migrate(database)
        yield database


def of(event):
    return orjson.loads(event.partition(b"data: ")[2])


def kinds(events):
    return [event["type"].removeprefix("response.") for event in events]


async def test_a_response_is_queued_answered_and_kept(database):
    async with Server(database, saying("Hi.")).running() as server:
        queued = await server.ask()
        ended = await server.ended(queued["id"])

    assert (queued["status"], queued["background"], queued["output"]) == ("queued", True, [])
    assert ended["status"] == "completed"
    assert ended["output"][0]["content"][0]["text"] == "Hi."
    assert ended["created_at"] == queued["created_at"]
    assert not await database.read(lambda c: c.exec_driver_sql("SELECT * FROM jobs").all())


async def test_background_events_are_streamed_and_replayed_from_any_number(database):
    async with Server(database, saying("Hi.")).running() as server:
        id = (await server.ask(stream=True))["id"]
        live = await server.told(id)
        again = await server.told(id)
        rest = await server.told(id, after=4)
        none = await server.told(id, after=live[-1]["sequence_number"])

    check_events(live)
    assert kinds(live)[:3] == ["created", "queued", "in_progress"]
    assert kinds(live)[-1] == "completed"
    assert again == live
    assert rest == live[5:]
    assert none == []


async def test_each_follower_chooses_its_obfuscation(database):
    async with Server(database, saying("Hi.")).running() as server:
        id = (await server.ask(stream=True))["id"]
        plain = await server.told(id)
        hidden = await server.told(id, obfuscation=Obfuscation())

    assert not any("obfuscation" in event for event in plain)
    assert ["obfuscation" in event for event in hidden] == ["delta" in event for event in plain]


async def test_each_follower_chooses_its_include(database):
    thought = ChatDelta(choice=0, reasoning="Hm.")
    answers = [
        Answer(thought, ChatDelta(choice=0, finish_reason="stop")) for _ in range(2)
    ]  # fmt: skip
    include = ["reasoning.encrypted_content"]
    async with Server(database, *answers).running() as server:
        id = (await server.ask(stream=True))["id"]
        plain, more = await server.told(id), await server.told(id, include=include)
        id = (await server.ask(stream=True, include=include))["id"]
        asked = await server.told(id)

    check_events(more)
    for events, has_more in ((plain, False), (more, True), (asked, True)):
        done = next(event for event in events if event["type"].endswith("output_item.done"))
        for item in (done["item"], *events[-1]["response"]["output"]):
            assert ("encrypted_content" in item) is has_more


async def test_a_background_response_without_stream_has_no_events(database):
    async with Server(database, saying()).running() as server:
        id = (await server.ask())["id"]
        await server.ended(id)

        assert not await server.services.background.has_events(id)


async def test_a_follower_in_another_process_hears_all(database):
    async with Server(database, saying()).running() as one:
        other = Server(database)
        id = (await one.ask(stream=True))["id"]

        assert await other.told(id) == await one.told(id)


async def test_a_cancelled_background_response_keeps_its_output(database):
    said = ChatDelta(choice=0, content="So")
    answer = Answer(said, ChatDelta(choice=0), before_the_last=forever)
    async with Server(database, answer).running() as server:
        id = (await server.ask(stream=True))["id"]
        follower = asyncio.create_task(server.told(id))
        await answer.wait_begun()
        cancelled = await server.services.background.cancel(id)
        again = await server.services.background.cancel(id)
        events = await follower
        kept = await server.with_output(id)

    assert cancelled["status"] == again["status"] == kept["status"] == "cancelled"
    check_events(events[:-1], is_whole=False)
    assert kinds(events)[:3] == ["created", "queued", "in_progress"]
    assert (events[-1]["type"], events[-1]["code"]) == ("error", "cancelled")
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert kept["output"][0]["content"][0]["text"] == "So"


async def test_one_that_is_cancelled_in_the_queue_is_never_begun(database):
    server = Server(database, saying())
    id = (await server.ask(stream=True))["id"]
    await server.services.background.cancel(id)
    async with server.running():
        events = await server.told(id)

    assert kinds(events) == ["created", "queued", "error"]
    assert server.model.asked == []


async def test_a_background_response_of_a_stopped_server_is_answered_by_the_next(database):
    answer = Answer(ChatDelta(choice=0), before_the_last=forever)
    async with Server(database, answer).running() as first:
        id = (await first.ask())["id"]
        await answer.wait_begun()
    async with Server(database, saying("Hi.")).running() as second:
        ended = await second.ended(id)

    assert ended["status"] == "completed"
    assert ended["output"][0]["content"][0]["text"] == "Hi."


async def test_a_half_streamed_background_response_is_not_answered_again(database):
    said = ChatDelta(choice=0, content="So")
    answer = Answer(said, ChatDelta(choice=0), before_the_last=forever)
    async with Server(database, answer).running() as first:
        id = (await first.ask(stream=True))["id"]
        events = first.services.background.follow(id, 4).events()
        await anext(events)  # it is stored, and so may have been read
        await events.aclose()
    async with Server(database, saying("Hi.")).running() as second:
        ended = await second.ended(id)
        events = await second.told(id)

    assert (ended["status"], ended["error"]["code"]) == ("failed", "server_error")
    assert kinds(events)[-2:] == ["output_text.delta", "failed"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


async def test_a_model_that_is_overloaded_is_waited_for(database):
    busy = ServiceUnavailable("The queue is full.", retry_after_s=0.01)
    async with Server(database, busy, saying()).running() as server:
        ended = await server.ended((await server.ask(stream=True))["id"])

    assert ended["status"] == "completed"


@pytest.mark.parametrize("fields", [{}, {"stream": True}])
async def test_a_background_response_waits_for_storage_that_is_unavailable(
    database, monkeypatch, fields
):
    server = Server(database, saying("Hi."))
    id = (await server.ask(**fields))["id"]
    outages = [ServiceUnavailable("Not now.", retry_after_s=0.01)] * 9
    load_context = server.services.responses.load_context

    async def load_if_available(body):
        if outages:
            raise outages.pop()
        return await load_context(body)

    monkeypatch.setattr(server.services.responses, "load_context", load_if_available)
    async with server.running():
        response = await server.ended(id)

    assert response["status"] == "completed"
    assert response["output"][0]["content"][0]["text"] == "Hi."


async def test_a_streamed_background_response_that_the_model_refuses_has_failed(database):
    refused = InvalidRequest("The prompt is too long.")
    async with Server(database, refused).running() as server:
        id = (await server.ask(stream=True))["id"]
        events = await server.told(id)

    check_events(events)
    assert kinds(events) == ["created", "queued", "failed"]
    assert events[-1]["response"]["error"] == {
        "code": "invalid_prompt", "message": "The prompt is too long.",
    }  # fmt: skip


async def test_a_background_response_that_the_model_refuses_has_failed(database):
    async with Server(database, InvalidRequest("The prompt is too long.")).running() as server:
        response = await server.ended((await server.ask())["id"])

    assert response["status"] == "failed"


async def test_usage_of_a_background_response_is_charged_to_its_key(database):
    async def use(_seconds):
        server.model.meter.count_tokens(Tokens(input_tokens=3))

    answer = Answer(ChatDelta(choice=0, finish_reason="stop"), before_the_last=use)
    server = Server(database, answer)
    async with server.running():
        await server.ended((await server.ask())["id"])

    assert server.counted == [("m", 3)]


async def test_one_whose_key_is_revoked_meanwhile_fails(database):
    async with Server(database, saying()).running() as server:
        server.is_revoked = True
        response = await server.ended((await server.ask())["id"])

    assert response["status"] == "failed"
    assert "revoked" in response["error"]["message"]


async def test_a_background_response_waits_for_keys_that_are_not_loaded(database):
    server = Server(database, saying("Hi."))
    server.key_outages = [ServiceUnavailable("Not loaded.", retry_after_s=0.01)] * 9
    async with server.running():
        response = await server.ended((await server.ask())["id"])

    assert response["status"] == "completed"


async def test_a_background_response_with_too_many_attempts_fails(database):
    server = Server(database)
    id = (await server.ask(stream=True))["id"]
    (job,) = await server.jobs.claim("response", 1, "m")
    await ResponseWorker(server.services).give_up(job)

    assert (await server.response(id))["status"] == "failed"
    assert kinds(await server.told(id)) == ["created", "queued", "failed"]


async def test_a_background_response_is_left_to_servers_with_its_model(database):
    server = Server(database)
    id = (await server.ask())["id"]

    assert await server.jobs.claim("response", 1, "other") == []
    assert [job.subject for job in await server.jobs.claim("response", 1, "m")] == [id]


async def test_a_background_response_waits_for_a_server_that_has_its_model(database, monkeypatch):
    monkeypatch.setattr(background_worker, "OTHER_PROCESS_DELAY_S", 0.001)
    without, serving = Server(database), Server(database, saying("Hi."))
    is_left_often = without.lose_model()
    id = (await without.ask())["id"]
    async with without.running(), asyncio.timeout(30):
        await is_left_often.wait()
    waiting = await without.response(id)
    async with serving.running():
        ended = await serving.ended(id)

    assert waiting["status"] == "queued"
    assert ended["status"] == "completed"


async def test_a_background_response_fails_if_its_model_is_not_served_for_long(
    database, monkeypatch
):
    monkeypatch.setattr(background_worker, "UNSERVED_TIMEOUT_S", 0)
    server = Server(database)
    server.lose_model()
    async with server.running():
        id = (await server.ask(stream=True))["id"]
        response = await server.ended(id)

    assert response["status"] == "failed"
    assert "`m` is not served any more" in response["error"]["message"]
    assert kinds(await server.told(id)) == ["created", "queued", "failed"]


async def test_a_background_response_joins_its_conversation_at_its_end(database):
    async with Server(database, saying("Hi.")).running() as server:
        conversations = server.services.responses.conversations
        await conversations.add(StoredConversation(id="conv_1", created_at=1), [])
        id = (await server.ask(conversation="conv_1"))["id"]
        before = await conversations.items("conv_1")
        await server.ended(id)
        after = await conversations.items("conv_1", order="asc")

    assert before.items == []
    assert [item.item["content"][0]["text"] for item in after.items] == ["Hello", "Hi."]


async def test_one_whose_conversation_is_deleted_meanwhile_fails(database):
    server = Server(database, saying())
    conversations = server.services.responses.conversations
    await conversations.add(StoredConversation(id="conv_1", created_at=1), [])
    id = (await server.ask(conversation="conv_1", stream=True))["id"]
    await conversations.delete("conv_1")
    async with server.running():
        events = await server.told(id)

    check_events(events)
    assert kinds(events)[-1] == "failed"


async def test_a_response_in_progress_cannot_be_continued(database):
    server = Server(database)
    id = (await server.ask())["id"]
    with pytest.raises(InvalidRequest) as refused:
        await server.ask(previous_response_id=id)

    assert refused.value.param == "previous_response_id"


async def test_one_too_many_is_refused_until_another_has_ended(database):
    server = Server(database, saying())
    first = await server.ask()
    await server.ask()
    with pytest.raises(ServiceUnavailable):
        await server.ask()
    await server.services.background.cancel(first["id"])

    assert (await server.ask())["status"] == "queued"


async def test_a_deleted_background_response_loses_its_job(database):
    server = Server(database, saying())
    id = (await server.ask(stream=True))["id"]
    await server.services.background.delete(id)

    assert not await database.read(lambda c: c.exec_driver_sql("SELECT * FROM jobs").all())


@pytest.mark.parametrize(
    ("error", "number"), [(NotFound("Gone."), 2), (ServiceUnavailable("Down."), 1)]
)
async def test_a_break_is_numbered_so_that_its_follower_misses_nothing(database, error, number):
    server = Server(database)
    follower = server.services.background.follow((await server.ask(stream=True))["id"], -1)
    events = follower.events()
    assert kinds([of(await anext(events)), of(await anext(events))]) == ["created", "queued"]
    waiting = asyncio.create_task(anext(events))
    await settle()
    waiting.cancel()

    assert of(follower.failure(error))["sequence_number"] == number


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"store": False}, "store"), ({"tools": [{"type": "x"}]}, "tools[0].type")],
)
async def test_invalid_background_requests_fail_at_once(database, fields, param):
    with pytest.raises(InvalidRequest) as refused:
        await Server(database).ask(**fields)

    assert refused.value.param == param


@pytest.mark.parametrize("fields", [{}, {"store": True}, {"store": False}])
async def test_a_background_response_without_retention_is_refused_with_the_reason(database, fields):
    project = Project(id="proj_silent", name="silent", has_zero_retention=True)
    with pytest.raises(InvalidRequest) as refused:
        await Server(database).ask(Caller(project=project), **fields)

    assert refused.value.param == "background"
    assert "data retention of project `proj_silent`" in refused.value.message


async def test_a_background_response_of_a_server_that_stores_nothing_is_refused(database):
    server = Server(database)
    server.services.chat_recorder.may_store = False
    with pytest.raises(UnsupportedField) as refused:
        await server.ask()

    assert refused.value.param == "background"
    assert "store_chats" in refused.value.message
