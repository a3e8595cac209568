"""Ollama's own client over local models, and over an upstream that answers chats."""

import contextlib
import json
import os
import random
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import ollama
import pytest

from tests.models_convert.hub_stand_in import REPOSITORY, Hub, hub_with
from tests.serving import Served, serve
from tests.strict_sdk import StrictOpenAI

KEY = "sk-client"
BEARER = {"authorization": f"Bearer {KEY}"}
HELLO = [{"role": "user", "content": "Hello, who are you?"}]
SURE = {"temperature": 0}
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"],
        },
    },
}  # fmt: skip
MODEL_FILE = b"GGUF" + struct.pack("<IQQ", 3, 0, 0) + random.Random(1).randbytes(200_000)
WITHOUT_END = {"LLM_BACKEND_CONTEXT_SHIFT_TOKENS": "10000000"}
FAR_AND_NEAR = pytest.mark.parametrize("model", ["near", "gpt-3.5-turbo"])


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with hub_with({"tiny-Q8_0.gguf": MODEL_FILE, "tiny-Q4_0.gguf": b"GGUF4"}) as one:
        yield one


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gateway")


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    flags = ("--alias", "gpt-3.5-turbo")
    with serve(tmp_path_factory.mktemp("far"), *flags, environment=WITHOUT_END) as served:
        yield served


@pytest.fixture(scope="module")
def gateway(far: Served, minilm_file: Path, hub: Hub, folder: Path) -> Iterator[Served]:
    """A server with two models of its own, and another server's as `gpt-3.5-turbo`."""
    environment = {
        **WITHOUT_END,
        "LLM_BACKEND_API_KEYS": KEY, "OPENAI_BASE_URL": far.base_url, "OPENAI_API_KEY": "none",
        "LLM_BACKEND_MODELS_DIR": str(folder / "models"),
        "HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "home"),
    }  # fmt: skip
    flags = ("--model", "builtin", "--model", str(minilm_file), "--alias", "near=builtin")
    with serve(folder, *flags, environment=environment) as served:
        yield served


@pytest.fixture
def client(gateway: Served) -> Iterator[ollama.Client]:
    with ollama.Client(gateway.address, headers={"authorization": f"Bearer {KEY}"}) as one:
        yield one


@FAR_AND_NEAR
def test_chat_is_the_same_whole_and_streamed_and_is_stored_with_its_usage(
    gateway: Served, client: ollama.Client, model: str
) -> None:
    whole = client.chat(model, HELLO, options=SURE)
    parts = list(client.chat(model, HELLO, options=SURE, stream=True))

    assert whole.message.content is not None
    assert "built-in model" in whole.message.content
    assert "".join(part.message.content or "" for part in parts) == whole.message.content
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]
    assert len(parts) > 1
    assert whole.done_reason == parts[-1].done_reason == "stop"
    assert whole.prompt_eval_count == parts[-1].prompt_eval_count
    assert whole.eval_count == parts[-1].eval_count
    assert min(whole.prompt_eval_count or 0, whole.eval_count or 0, whole.eval_duration or 0) > 0
    with StrictOpenAI(base_url=gateway.base_url, api_key=KEY) as other:
        chats = other.chat.completions.list(model=model, limit=1, order="desc").data
    assert chats[0].choices[0].message.content == whole.message.content
    assert chats[0].usage is not None
    assert chats[0].usage.completion_tokens == whole.eval_count


@FAR_AND_NEAR
def test_tool_is_called_and_its_result_is_read(client: ollama.Client, model: str) -> None:
    asked: list[Any] = [{"role": "user", "content": "Weather in Rome?"}]
    parts = list(client.chat(model, asked, tools=[WEATHER], options=SURE, stream=True))

    calls = [call for part in parts for call in part.message.tool_calls or ()]
    assert [call.function.name for call in calls] == ["get_weather"]
    assert set(calls[0].function.arguments) == {"city"}
    asked += [
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "tool_name": "get_weather", "content": "sunny"},
    ]
    answered = client.chat(model, asked, tools=[WEATHER], options=SURE)
    assert "sunny" in (answered.message.content or "")


@FAR_AND_NEAR
def test_answer_has_the_requested_format(client: ollama.Client, model: str) -> None:
    schema = {
        "type": "object", "properties": {"word": {"enum": ["yes", "no"]}}, "required": ["word"],
        "additionalProperties": False,
    }  # fmt: skip
    for answer in (
        client.chat(model, HELLO, format=schema, options=SURE).message.content,
        client.generate(model, "Hello", format=schema, options=SURE).response,
    ):
        assert answer is not None
        assert answer.replace(" ", "").strip() in ('{"word":"yes"}', '{"word":"no"}')


@FAR_AND_NEAR
def test_generation_takes_a_system_prompt_limits_and_stop_strings(
    client: ollama.Client, model: str
) -> None:
    whole = client.generate(model, HELLO[0]["content"], system="Be brief.", options=SURE)
    short = client.generate(model, HELLO[0]["content"], options={**SURE, "num_predict": 2})
    parts = list(
        client.generate(
            model, HELLO[0]["content"], options={**SURE, "stop": ["built-in"]}, stream=True
        )
    )

    assert "built-in model" in (whole.response or "")
    assert (short.done_reason, short.eval_count) == ("length", 2)
    stopped = "".join(part.response or "" for part in parts)
    assert stopped
    assert "built-in" not in stopped


def test_raw_prompts_and_log_probabilities_are_of_local_models_alone(
    gateway: Served, client: ollama.Client
) -> None:
    prompt, options = "Hello! I am the built-in", {**SURE, "num_predict": 4}
    raw = client.generate("near", prompt, raw=True, options=options)
    told = client.chat("near", HELLO, logprobs=True, top_logprobs=2, options=SURE)
    with StrictOpenAI(base_url=gateway.base_url, api_key=KEY) as other:
        expected = other.completions.create(
            model="near", prompt=prompt, max_tokens=4, temperature=0
        )

    assert (raw.response, raw.done_reason) == (
        expected.choices[0].text, expected.choices[0].finish_reason,
    )  # fmt: skip
    assert told.logprobs is not None
    assert told.logprobs[0].logprob <= 0
    assert len(told.logprobs[0].top_logprobs or ()) == 2
    with pytest.raises(ollama.ResponseError, match="leave `raw` out"):
        client.generate("gpt-3.5-turbo", "Once", raw=True)
    with pytest.raises(ollama.ResponseError, match="leave `logprobs` out"):
        client.chat("gpt-3.5-turbo", HELLO, logprobs=True)


def test_texts_are_embedded_as_openais_client_gets_them(
    gateway: Served, client: ollama.Client
) -> None:
    model = "all-MiniLM-L6-v2"
    embedded = client.embed(model, ["red", "blue"])
    older = client.embeddings(model, "blue")
    with StrictOpenAI(base_url=gateway.base_url, api_key=KEY) as other:
        expected = other.embeddings.create(model=model, input=["red", "blue"]).data

    assert [len(row) for row in embedded.embeddings] == [384, 384]
    assert embedded.embeddings[1] == pytest.approx(expected[1].embedding, abs=1e-6)
    assert older.embedding == pytest.approx(expected[1].embedding, abs=1e-4)  # computed alone
    assert (embedded.prompt_eval_count or 0) > 0
    assert len(client.embed(model, "red", dimensions=64).embeddings[0]) == 64


def test_models_are_listed_described_loaded_and_unloaded(client: ollama.Client) -> None:
    listed = {one.model: one for one in client.list().models}
    shown = client.show("builtin:latest")
    unloaded = client.generate("builtin", keep_alive=0)
    without = [one.model for one in client.ps().models]
    loaded = client.chat("builtin", [])
    running = {one.model: one for one in client.ps().models}

    assert {"builtin", "near", "all-MiniLM-L6-v2", "gpt-3.5-turbo"} <= set(listed)
    assert listed["builtin"].details is not None
    assert listed["builtin"].details.format == "gguf"
    assert (listed["builtin"].size or 0) > 1_000_000
    assert shown.modelinfo is not None
    assert shown.modelinfo["general.architecture"] == "llama"
    assert shown.capabilities is not None
    assert "completion" in shown.capabilities
    assert client.show("all-MiniLM-L6-v2").capabilities == ["embedding"]
    assert client.show("gpt-3.5-turbo").capabilities == ["completion"]
    assert (unloaded.done_reason, loaded.done_reason) == ("unload", "load")
    assert "builtin" not in without
    assert (running["builtin"].context_length or 0) > 0
    assert running["builtin"].size_vram == 0  # on the CPU
    assert (running["builtin"].size or 0) > 1_000_000
    assert running["builtin"].expires_at is not None
    assert running["builtin"].expires_at.year == 2242  # without `idle_unload_s`


def test_forbidden_models_are_not_shown_with_a_tag_either(gateway: Served) -> None:
    with StrictOpenAI(base_url=gateway.base_url, api_key=KEY, admin_api_key=KEY) as client:
        projects = client.admin.organization.projects
        project = projects.create(name="without builtin")
        projects.model_permissions.update(project.id, mode="deny_list", model_ids=["builtin"])
        key = projects.service_accounts.create(project.id, name="app").api_key.value
    with ollama.Client(gateway.address, headers={"authorization": f"Bearer {key}"}) as other:
        for name in ("builtin", "builtin:latest"):
            with pytest.raises(ollama.ResponseError, match="does not exist") as refused:
                other.show(name)
            assert refused.value.status_code == 404


def test_lists_have_capabilities_and_lengths(gateway: Served) -> None:
    with httpx.Client(base_url=gateway.address, headers=BEARER) as client:
        assert (
            client.head("/api/version").status_code == client.head("/api/tags").status_code == 200
        )
        listed = {one["name"]: one for one in client.get("/api/tags").json()["models"]}

    assert listed["builtin"]["capabilities"] == ["completion", "tools"]
    assert listed["all-MiniLM-L6-v2"]["capabilities"] == ["embedding"]
    assert listed["all-MiniLM-L6-v2"]["details"]["embedding_length"] == 384
    assert listed["builtin"]["details"]["context_length"] > 0


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain", ""])
def test_bodies_are_json_whatever_curl_calls_them(gateway: Served, content_type: str) -> None:
    body = json.dumps({"model": "builtin", "prompt": HELLO[0]["content"], "stream": False})
    headers = {**BEARER, "content-type": content_type}
    foreign = {**headers, "sec-fetch-site": "cross-site", "origin": "http://evil.example"}
    url = f"{gateway.address}/api/generate"
    answer = httpx.post(url, content=body, headers=headers, timeout=60)
    page = httpx.post(url, content=body, headers=foreign)
    form = httpx.post(url, content="a=b", headers=headers)

    assert "built-in model" in answer.json()["response"]
    assert page.status_code == 403
    assert (form.status_code, set(form.json())) == (400, {"error"})


def test_model_is_pulled_with_progress_by_administrators_alone(
    gateway: Served, client: ollama.Client, folder: Path
) -> None:
    told = list(client.pull(f"hf.co/{REPOSITORY}:Q8_0", stream=True))
    again = client.pull(f"{REPOSITORY}:Q8_0")

    assert (told[0].status, told[-1].status) == ("pulling manifest", "success")
    assert told[-2].completed == told[-2].total == len(MODEL_FILE)
    assert (folder / "models" / REPOSITORY / "tiny-Q8_0.gguf").read_bytes() == MODEL_FILE
    assert again.status == "success"
    with pytest.raises(ollama.ResponseError, match="tiny-Q4_0"):
        list(client.pull(f"{REPOSITORY}:Q4_0", stream=True))
    with pytest.raises(ollama.ResponseError, match="no model `absent/nothing`"):
        client.pull("absent/nothing")
    with pytest.raises(ollama.ResponseError, match="OWNER/NAME"):
        client.pull("llama3")
    with StrictOpenAI(base_url=gateway.base_url, api_key=KEY, admin_api_key=KEY) as admin:
        accounts = admin.admin.organization.projects.service_accounts
        key = accounts.create("proj_default", name="app").api_key.value
    with ollama.Client(gateway.address, headers={"authorization": f"Bearer {key}"}) as app:
        assert app.list().models
        for refused in (
            lambda: app.pull(f"{REPOSITORY}:Q8_0"),
            lambda: app.generate("builtin", keep_alive=0),
        ):
            with pytest.raises(ollama.ResponseError, match="admin key") as error:
                refused()
            assert error.value.status_code == 403


def test_downloads_leave_the_threads_of_the_event_loop_to_other_requests(
    gateway: Served, client: ollama.Client, hub: Hub
) -> None:
    hub.answers.clear()
    hub.arrivals = threading.Semaphore(0)
    threads = min(32, (os.cpu_count() or 1) + 4)
    with contextlib.ExitStack() as stack:
        stack.callback(hub.answers.set)
        pulls = [client.pull(f"{REPOSITORY}:Q8_0", stream=True) for _ in range(threads)]
        assert {next(one).status for one in pulls} == {"pulling manifest"}
        assert all(hub.arrivals.acquire(timeout=60) for _ in range(4))
        key = {"authorization": f"Bearer {KEY}"}
        other = stack.enter_context(ollama.Client(gateway.address, headers=key, timeout=30))

        assert other.show("builtin").modelinfo


def test_errors_have_ollamas_shape(gateway: Served, client: ollama.Client) -> None:
    for model, status, told in (
        ("all-MiniLM-L6-v2", 400, "cannot chat"),
        ("near", 400, "options.temperature"),
        ("near", 400, "`mystery`"),
    ):
        options = {"all-MiniLM-L6-v2": SURE, "near": {"temperature": 7}}[model]
        options = {"mystery": 1} if "mystery" in told else options
        with pytest.raises(ollama.ResponseError, match=told) as refused:
            client.chat(model, HELLO, options=options)
        assert refused.value.status_code == status
    with pytest.raises(ollama.ResponseError, match=r"options\.temperature"):
        list(client.chat("near", HELLO, options={"temperature": 7}, stream=True))
    with (
        ollama.Client(gateway.address, headers={"authorization": "Bearer sk-no"}) as stranger,
        pytest.raises(ollama.ResponseError, match="not known") as refused,
    ):
        stranger.chat("near", HELLO)
    assert refused.value.status_code == 401


@FAR_AND_NEAR
def test_client_that_leaves_ends_its_generation(
    gateway: Served, client: ollama.Client, model: str
) -> None:
    numbers = {"type": "array", "items": {"enum": [1, 2]}, "minItems": 10_000_000}
    question = [{"role": "user", "content": "Count."}]
    options = {"num_predict": 10_000_000}
    stream = client.chat(model, question, format=numbers, options=options, stream=True)
    next(iter(stream))
    stream.close()  # type: ignore[attr-defined] # a generator

    with StrictOpenAI(base_url=gateway.base_url, api_key=KEY) as other:

        def cut() -> bool:
            chats = other.chat.completions.list(model=model, limit=1, order="desc").data
            content = chats[0].choices[0].message.content or "" if chats else ""
            return content.startswith("[")

        deadline = time.monotonic() + 120
        while not cut():
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_unknown_models_are_a_404(server: Served) -> None:
    with ollama.Client(server.address) as client:
        for call in (client.chat, client.generate, client.show):
            with pytest.raises(ollama.ResponseError, match="does not exist") as unknown:
                call("nothing")
            assert unknown.value.status_code == 404


def test_api_can_be_switched_off(tmp_path: Path) -> None:
    environment = {"LLM_BACKEND_OLLAMA_API": "false"}
    with (
        serve(tmp_path, environment=environment, ready=False) as served,
        ollama.Client(served.address) as client,
        pytest.raises(ollama.ResponseError, match="ollama_api") as refused,
    ):
        client.list()
    assert refused.value.status_code == 501


def test_refused_schema_is_named_by_its_place(client: ollama.Client) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string", "format": "regex"}}}

    with pytest.raises(ollama.ResponseError) as refused:
        client.chat("builtin", [{"role": "user", "content": "Hi"}], format=schema)

    assert refused.value.error.endswith("(`format.properties.a.format`)")
