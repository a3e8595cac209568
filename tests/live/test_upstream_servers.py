"""Servers for GPUs as upstreams: each example of docs/upstreams, in front of a server that answers
as upstream_servers.yaml says, and of llama-server itself where `make peers` has built it."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import yaml

from benchmarks.peers.build import LLAMA_SERVER
from llm_backend.app.upstreams import model_routes, upstream_configs
from llm_backend.backends.upstream.config import WireProtocol
from llm_backend.builtin import BUILTIN_PATH
from llm_backend.settings import load_settings
from tests.gateway import gateway
from tests.ports import free_port
from tests.upstream import Connection, FakeUpstream, Message

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "docs" / "upstreams").glob("*.yaml"))
IMAGE_SERVERS = {"stable-diffusion"}  # played by tests/image_server.py
SERVERS: dict[str, Any] = yaml.safe_load(
    (Path(__file__).parent / "upstream_servers.yaml").read_text(encoding="utf-8")
)
SAID = [{"role": "user", "content": "Hi"}]
USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}


class Stood(FakeUpstream):
    """A server that answers by its entry of the data: `Hello` after the reasoning `Hm`."""

    def __init__(self, known: Mapping[str, Any], model: str) -> None:
        super().__init__(answer=self._answer)
        self._known = known
        self._model = model

    async def _answer(self, request: Message, connection: Connection) -> None:
        path = request.first_line.split()[1]
        body = json.loads(request.body or b"{}")
        if path == b"/v1/models":
            await send(connection, 200, {"object": "list", "data": [{"id": self._model}]})
        elif path != b"/v1/chat/completions":
            await send(connection, 404, self._known["unknown_path"])
        elif body["messages"][-1]["content"] == "too long":
            await send(connection, 400, self._known["invalid"])
        elif body.get("stream"):
            await self._stream(connection)
        else:
            message = {"role": "assistant", "content": "Hello", **self._known["message"]}
            message[self._known["reasoning"]] = "Hm"
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            await send(connection, 200, self._completion([choice | self._known["choice"]], USAGE))

    async def _stream(self, connection: Connection) -> None:
        deltas = [{"role": "assistant", "content": ""}, {self._known["reasoning"]: "Hm"},
                  {"content": "Hello"}]  # fmt: skip
        choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
        choices.append({"index": 0, "delta": {}, "finish_reason": "stop"})
        chunks = [self._completion([one | self._known["choice"]], None) for one in choices]
        chunks.append(self._completion([], USAGE))
        events = [json.dumps(one | {"object": "chat.completion.chunk"}) for one in chunks]
        text = "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"])
        head = f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {len(text)}"
        await connection.send(f"{head}\r\n\r\n{text}".encode())

    def _completion(self, choices: list[Any], usage: Any) -> dict[str, Any]:
        return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "usage": usage,
                "model": self._model, "choices": choices, **self._known["answer"]}  # fmt: skip


async def send(connection: Connection, status: int, answer: Any) -> None:
    body = json.dumps(answer).encode()
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    await connection.send(head.encode() + b"\r\n\r\n" + body)


def backend(name: str, base_url: str) -> dict[str, Any]:
    """The first backend of an example, at another address and with its name as the model."""
    config = yaml.safe_load((ROOT / "docs/upstreams" / f"{name}.yaml").read_text(encoding="utf-8"))
    first = {key: value for key, value in config["backends"][0].items() if key != "api_key_env"}
    return first | {"base_url": base_url, "models": [name]}


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official client of one gateway in front of all servers; a server's name is its model."""
    async with AsyncExitStack() as stack:
        stood = {
            name: await stack.enter_async_context(Stood(known, name))
            for name, known in SERVERS.items()
        }
        behind = [backend(name, server.base_url) for name, server in stood.items()]
        served = await stack.enter_async_context(
            gateway(tmp_path, backends=behind, store_chats="always")
        )
        yield await stack.enter_async_context(client_of(served.port))


def client_of(port: int) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{port}/v1", api_key="x", max_retries=0,
        default_headers={"host": "relay"},
    )  # fmt: skip


def test_every_server_has_an_example():
    assert {path.stem for path in EXAMPLES} == SERVERS.keys() | IMAGE_SERVERS


def test_documentation_lists_the_known_servers():
    text = (ROOT / "docs/routing.md").read_text(encoding="utf-8")
    rows = text.partition("<!-- servers -->")[2].partition("<!-- end -->")[0].splitlines()[3:]

    assert rows == [
        f"| [{name}](upstreams/{name}.yaml) | {known['version']} | {known['seen']} "
        f"| {', '.join(known['operations'])} | `{known['reasoning']}` "
        f"| `{'error.message' if 'error' in known['invalid'] else 'message'}` |"
        for name, known in SERVERS.items()
    ]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_a_valid_config(path, tmp_path, monkeypatch):
    for name in ("VLLM_API_KEY", "SGLANG_API_KEY", "LLAMA_API_KEY"):
        monkeypatch.setenv(name, "sk-x")

    settings = load_settings({"data_dir": tmp_path}, path)
    configs = upstream_configs(settings)
    assert model_routes(settings, {}, configs).keys() >= settings.routes.keys()
    assert configs[0].wire == WireProtocol.CHAT or configs[0].is_image_server
    assert all(one.models for one in settings.backends)


async def test_chat_and_its_stream_are_relayed(client):
    assert {one.id async for one in client.models.list()} >= SERVERS.keys()
    for name in SERVERS:
        chat = await client.chat.completions.create(model=name, messages=SAID)
        stream = await client.chat.completions.create(
            model=name, messages=SAID, stream=True, stream_options={"include_usage": True}
        )
        *chunks, last = [chunk async for chunk in stream]

        assert (chat.choices[0].message.content, chat.usage.total_tokens) == ("Hello", 11), name
        assert "".join(one.choices[0].delta.content or "" for one in chunks) == "Hello", name
        assert last.usage.total_tokens == 11, name


async def test_responses_have_state_here_and_show_the_reasoning(client):
    for name in SERVERS:
        first = await client.responses.create(model=name, input="Hi")
        second = await client.responses.create(
            model=name, input="Hi", previous_response_id=first.id
        )
        stored = await client.responses.retrieve(second.id)

        reasoning, message = stored.output
        assert message.content[0].text == "Hello", name
        assert reasoning.content[0].text == "Hm", name


async def test_errors_are_those_of_the_document(client):
    too_long = [{"role": "user", "content": "too long"}]
    for name in SERVERS:
        for ask, said in (
            (client.chat.completions.create(model=name, messages=too_long), "too long"),
            (client.responses.create(model=name, input="too long"), "too long"),
            (client.embeddings.create(model=name, input="Hi"), "Not Found"),
        ):
            with pytest.raises(openai.APIStatusError) as raised:
                await ask

            assert said in raised.value.response.json()["error"]["message"], name


async def test_llama_server_itself_answers_behind_its_example(tmp_path):
    if not LLAMA_SERVER.exists():
        pytest.skip("`make peers` builds llama-server.")
    port = free_port()
    given = backend("llama-server", f"http://127.0.0.1:{port}/v1")
    process = await asyncio.create_subprocess_exec(
        LLAMA_SERVER, "-m", str(BUILTIN_PATH), "--port", str(port), "--threads", "1",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        env={"LD_LIBRARY_PATH": str(LLAMA_SERVER.parent)},
    )  # fmt: skip
    try:
        while not await is_healthy(port):
            assert process.returncode is None
        async with serving(tmp_path, given) as client:
            asked = {"model": "llama-server", "max_output_tokens": 16}
            first = await client.responses.create(**asked, input="Hi")
            second = await client.responses.create(
                **asked, input="Who?", previous_response_id=first.id
            )
    finally:
        process.terminate()
        await process.wait()

    assert second.output_text
    assert second.usage.input_tokens > first.usage.input_tokens


@asynccontextmanager
async def serving(folder: Path, behind: dict[str, Any]) -> AsyncIterator[openai.AsyncOpenAI]:
    async with (
        gateway(folder, backends=[behind], store_chats="always") as served,
        client_of(served.port) as client,
    ):
        yield client


async def is_healthy(port: int) -> bool:
    await asyncio.sleep(0.05)
    async with httpx.AsyncClient() as client:
        try:
            return (await client.get(f"http://127.0.0.1:{port}/health")).status_code == 200
        except httpx.TransportError:
            return False
