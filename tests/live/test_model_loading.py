"""Models are loaded, unloaded and changed while the server runs."""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from llm_backend.contract import load_document
from tests.patience import wait_until
from tests.serving import Served, serve
from tests.strict_sdk import StrictAsyncOpenAI

HI = [{"role": "user", "content": "Hi"}]


def entry(name: str, **more: object) -> dict[str, object]:
    return {"path": "builtin", "id": name, "slots": 1, "context_tokens": 256, **more}


def write(path: Path, *models: object, **more: object) -> None:
    path.write_text(yaml.safe_dump({"memory_budget": "250 MB", "models": list(models), **more}))


FIRST = entry("first", memory="200 MB", personalities={"pirate": "Speak like a pirate."})
SECOND = entry("second", memory="200 MB")
HUGE = entry("huge", memory="9 GB", load="demand")


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two processes"])
def processes(request) -> int:
    return request.param


@pytest.fixture(scope="module")
def config(tmp_path_factory, processes) -> Path:
    path = tmp_path_factory.mktemp("loading") / "config.yaml"
    write(path, FIRST, SECOND, HUGE)
    return path


@pytest.fixture(scope="module")
def server(config, processes) -> Iterator[Served]:
    flags = ("--config", str(config), "--processes", str(processes))
    with serve(config.parent / "data", *flags) as served:
        yield served


@pytest.fixture
def http(server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.address, timeout=30) as one:
        yield one


@pytest.fixture
def lists(server, processes) -> Callable[[], list[list[dict[str, Any]]]]:
    def told() -> list[list[dict[str, Any]]]:
        """By every process: a connection of its own goes to any."""
        return [
            httpx.get(f"{server.base_url}/models", timeout=30).json()["data"]
            for _ in range(4 * processes - 3)
        ]

    return told


@pytest.fixture
def states(lists) -> Callable[[], dict[str, str]]:
    def told() -> dict[str, str]:
        """By every process."""
        models, *others = lists()
        assert others == [models] * len(others)
        return states_of(models)

    return told


@pytest.fixture
def names(lists) -> Callable[[], set[str]]:
    def told() -> set[str]:
        """By every process, and whichever of the models is being loaded meanwhile."""
        models, *others = ([{**one, "status": ""} for one in listed] for listed in lists())
        assert others == [models] * len(others)
        return set(states_of(models))

    return told


def states_of(models: list[dict[str, Any]]) -> dict[str, str]:
    return {model["id"]: model["status"] for model in models if ":" not in model["id"]}


def test_a_request_for_a_model_that_is_not_loaded_loads_it_in_the_place_of_another(
    http, lists, states
):
    http.post("/v1/models/first/load")  # which waits
    assert states() == {"first": "loaded", "second": "unloaded", "huge": "unloaded"}

    answer = http.post("/v1/chat/completions", json={"model": "second", "messages": HI})

    assert answer.status_code == 200, answer.text
    second = {"first": "unloaded", "second": "loaded", "huge": "unloaded"}
    wait_until(lambda: all(states_of(models) == second for models in lists()))


async def test_models_that_do_not_fit_together_take_turns_and_every_request_is_answered(server):
    async with StrictAsyncOpenAI(base_url=server.base_url, api_key="none", max_retries=0) as client:

        async def ask(number: int) -> str | None:
            done = await client.chat.completions.create(
                model=("first", "second")[number % 2], messages=HI, max_tokens=20
            )
            return done.choices[0].finish_reason

        reasons = await asyncio.gather(*(ask(number) for number in range(6)))

    assert set(reasons) <= {"stop", "length"}


def test_loading_and_unloading_by_hand(http, states):
    loaded = http.post("/v1/models/first/load")
    assert (loaded.status_code, loaded.json()["status"]) == (200, "loaded")
    assert states()["second"] == "unloaded"

    unloaded = http.post("/models/first:pirate/unload")
    assert (unloaded.status_code, unloaded.json()["status"]) == (200, "unloaded")
    assert http.get("/readyz").status_code == 200

    chosen = http.post("/loadModel", json={"model": "second"})
    assert chosen.json()["status"] == "loaded"
    assert [one["id"] for one in http.get("/unloadModel").json()["data"]] == ["second"]
    assert http.post("/unloadModel", json={"model": "first"}).json()["data"][0]["id"] == "first"
    assert http.post("/unloadModel").json() == {"object": "list", "data": []}
    assert set(states().values()) == {"unloaded"}


def test_operations_on_loaded_models_are_for_administrators():
    operations = load_document().operations

    assert all(operations[name].administers for name in ("loadModel", "unloadModelByName"))
    assert not operations["createChatCompletion"].administers


def test_a_personality_may_be_chosen_when_a_model_is_loaded(http, server, processes):
    def tokens() -> int:
        """By every process."""
        body = {"model": "first", "input": "Hi"}
        asked = [
            httpx.post(f"{server.base_url}/responses/input_tokens", json=body, timeout=30).json()
            for _ in range(4 * processes - 3)
        ]
        assert asked == [asked[0]] * len(asked)
        return int(asked[0]["input_tokens"])

    plain = tokens()
    loaded = http.post("/v1/models/first/load", json={"personality": "pirate"})
    assert loaded.status_code == 200, loaded.text

    assert tokens() > plain
    refused = http.post("/loadModel", json={"model": "first", "personality": "poet"})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "personality"


def test_a_model_that_cannot_fit_is_refused_with_numbers(http):
    for answer in (
        http.post("/v1/models/huge/load"),
        http.post("/v1/chat/completions", json={"model": "huge", "messages": HI}),
    ):
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "model_too_large")
        assert "9.0 GB" in error["message"]
        assert "250 MB" in error["message"]


def test_a_name_that_unknown_has_is_not_found(http):
    for answer in (http.post("/v1/models/unknown/load"), http.post("/v1/models/unknown/unload")):
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "model_not_found"


def test_the_config_file_is_applied_while_the_server_runs(http, config, server, lists, names):
    def wait_for(told: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not told():
            assert time.monotonic() < deadline, server.log.read_text()
            time.sleep(0.05)

    http.post("/loadModel", json={"model": "second"})
    third = entry("third", memory="20 MB", aliases=["gpt-4"])
    write(config, {**SECOND, "aliases": ["other"]}, third, log_format="json")
    wait_for(lambda: "config_file_applied" in server.log.read_text())

    assert names() == {"second", "third", "other", "gpt-4"}
    assert {states_of(models)["second"] for models in lists()} == {"loaded"}  # left as it was
    answer = http.post("/v1/chat/completions", json={"model": "gpt-4", "messages": HI})
    assert answer.status_code == 200, answer.text
    gone = http.post("/v1/chat/completions", json={"model": "first", "messages": HI})
    assert gone.status_code == 404
    assert "settings=log_format" in server.log.read_text()

    for pid in server.api_processes():
        os.kill(pid, signal.SIGKILL)  # those that come in their place know it, too
    assert names() == {"second", "third", "other", "gpt-4"}

    config.write_text("models: [{path: builtin, slots: none}]")
    wait_for(lambda: "config_file_refused" in server.log.read_text())
    assert "`models[0].slots`" in server.log.read_text()
    assert names() == {"second", "third", "other", "gpt-4"}
