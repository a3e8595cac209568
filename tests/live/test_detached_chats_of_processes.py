"""Detached chats of a server with two processes: each of them finds those of the other."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import httpx
import openai
import pytest
from playwright.sync_api import expect

from tests.browser import tab
from tests.live.test_detached_chats import (
    ENDLESS,
    WITHOUT_END,
    asked,
    running,
    wait_stored,
)
from tests.patience import wait_until
from tests.postgresql import PostgresqlServer
from tests.serving import Served, serve

PROBES = 200  # at most this many connections until another process accepts one


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    environment = {**WITHOUT_END, "LLM_BACKEND_THREADS": "1"}
    folder = tmp_path_factory.mktemp("server")
    with serve(folder, "--processes", "2", environment=environment) as one:
        yield one


def process_of(served: Served, answer: httpx.Response) -> int:
    """The process that has accepted the connection of an answer."""
    client = answer.extensions["network_stream"].get_extra_info("client_addr")[1]
    server = int(served.address.rsplit(":", 1)[1])
    ports = (f":{server:04X}", f":{client:04X}")
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    (inode,) = (row[9] for row in rows if (row[1][-5:], row[2][-5:]) == ports)
    for pid in served.api_processes():
        if f"socket:[{inode}]" in open_files(pid):
            return pid
    raise AssertionError("no process has the connection")


def open_files(pid: int) -> set[str]:
    """The targets of a process's descriptors, without those that it closes meanwhile."""
    targets = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            targets.add(str(descriptor.readlink()))
    return targets


@contextmanager
def answered_elsewhere(
    served: Served, pid: int, method: str, path: str
) -> Iterator[httpx.Response]:
    """The answer of another process than `pid`: connections are made until it has one."""
    with httpx.Client(timeout=60, base_url=served.base_url) as client:
        probes = [client]
        try:
            while True:
                assert len(probes) < PROBES, "the connections are accepted by one process"
                with probes[-1].stream("GET", "/info") as probe:
                    accepted = process_of(served, probe)
                    probe.read()
                if accepted != pid:
                    break
                probes.append(httpx.Client(timeout=60, base_url=served.base_url))
            with probes[-1].stream(method, path) as answer:
                assert process_of(served, answer) != pid
                yield answer
        finally:
            for one in probes[1:]:
                one.close()


def begin(served: Served, id: str, **metadata: str) -> tuple[int, str]:
    """Begins an endless chat and leaves it: its process, and the id of its completion."""
    headers = {"x-llm-backend-detached": id}
    body = {**ENDLESS, "metadata": {"title": "Hello!", **metadata}}
    url = f"{served.base_url}/chat/completions"
    with httpx.stream("POST", url, json=body, headers=headers, timeout=60) as answer:
        pid = process_of(served, answer)
        first = json.loads(next(answer.iter_lines()).removeprefix("data: "))
    return pid, first["id"]


def test_a_chat_is_followed_and_cancelled_at_another_process(served):
    id = uuid4().hex
    pid, completion = begin(served, id)
    with answered_elsewhere(served, pid, "GET", "/chat/detached") as listed:
        listed.read()
        assert [one["id"] for one in listed.json()["data"]] == [id]
    with answered_elsewhere(served, pid, "GET", f"/chat/detached/{id}") as followed:
        lines = (json.loads(one[6:]) for one in followed.iter_lines() if one)
        head, first = next(lines), next(lines)
    with answered_elsewhere(served, pid, "POST", f"/chat/detached/{id}/cancel") as cancelled:
        cancelled.read()

    assert (head["id"], head["messages"]) == (id, ENDLESS["messages"])
    assert first["id"] == completion
    assert cancelled.json()["id"] == id
    with openai.OpenAI(base_url=served.base_url, api_key="-") as client:
        assert wait_stored(client, completion).model_extra["status"] == "incomplete"
    wait_until(lambda: id not in running(served.address))
    with answered_elsewhere(served, pid, "GET", f"/chat/detached/{id}") as gone:
        assert gone.status_code == 404


def test_an_id_is_used_once_in_all_processes(served):
    id = uuid4().hex
    pid, _ = begin(served, id)
    headers = {"x-llm-backend-detached": id}
    url = f"{served.base_url}/chat/completions"

    def is_refused_elsewhere() -> bool:
        with httpx.stream("POST", url, json=ENDLESS, headers=headers, timeout=60) as refused:
            assert refused.status_code == 409
            return process_of(served, refused) != pid

    wait_until(is_refused_elsewhere)
    httpx.post(f"{served.base_url}/chat/detached/{id}/cancel")
    wait_until(lambda: id not in running(served.address))


def test_the_end_of_the_process_of_a_chat_ends_its_followers_with_an_error(served):
    id = uuid4().hex
    pid, _ = begin(served, id)
    with answered_elsewhere(served, pid, "GET", f"/chat/detached/{id}") as followed:
        lines = (json.loads(one[6:]) for one in followed.iter_lines() if one)
        next(lines), next(lines)
        os.kill(pid, signal.SIGKILL)
        *_, last = lines

    assert last["error"]["code"] == "engine_unavailable"
    assert "has ended" in last["error"]["message"]
    assert running(served.address) == []
    wait_until(lambda: len(served.api_processes()) == 2)


def test_the_page_keeps_the_text_so_far_when_the_process_of_a_chat_ends(served, browser):
    id, conversation = uuid4().hex, uuid4().hex
    pid, _ = begin(served, id, client="web", conversation=conversation)
    with tab(browser, served.address, "net::ERR_") as page:
        page.goto(f"/#/chat/{conversation}")
        prose = page.locator("article.answer .prose")
        expect(prose).not_to_be_empty()
        os.kill(pid, signal.SIGKILL)

        expect(page.get_by_role("alert")).to_be_visible()
        expect(prose).not_to_be_empty()
        expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    wait_until(lambda: len(served.api_processes()) == 2)


def test_the_page_stops_an_answer_of_any_process(served, browser):
    with tab(browser, served.address) as page:
        page.goto("/")
        expect(page.locator("#model")).to_have_value("builtin")
        for _ in range(2):
            id, conversation = uuid4().hex, uuid4().hex
            begin(served, id, client="web", conversation=conversation)
            page.goto(f"/#/chat/{conversation}")
            expect(page.locator("article.answer .prose")).not_to_be_empty()
            page.get_by_role("button", name="Stop").click()
            wait_until(lambda: running(served.address) == [])


def test_the_page_waits_for_an_answer_of_another_server_and_stops_it(
    postgresql_server: PostgresqlServer, tmp_path, browser
):
    environment = {**WITHOUT_END, "LLM_BACKEND_THREADS": "1"}
    environment["DATABASE_URL"] = postgresql_server.new_database()
    with (
        serve(tmp_path / "one", environment=environment) as one,
        serve(tmp_path / "two", environment=environment) as two,
        tab(browser, two.address) as page,
    ):
        id, conversation = uuid4().hex, uuid4().hex
        metadata = {"title": "Hello!", "client": "web", "conversation": conversation}
        with asked(one.address, id, {**ENDLESS, "metadata": metadata}) as lines:
            next(lines)
        page.goto(f"/#/chat/{conversation}")
        expect(page.get_by_text("Another server is writing this answer.")).to_be_visible()
        expect(page.locator(".question")).to_have_text("Hello!")
        page.get_by_role("button", name="Stop").click()

        expect(page.locator("article.answer .prose")).not_to_be_empty()
        expect(page.get_by_role("button", name="Stop")).to_be_hidden()
        assert running(one.address) == running(two.address) == []
