"""Examples of docs/clients.md, run unchanged with the clients themselves.

`make test-clients` installs them, each kind in an environment of its own; without it they are
skipped here.
"""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.serving import serve
from tests.voice import PROGRAM, require_voice
from tests.whisper_models import require_transcription, write_whisper

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/clients.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8000"
PATIENCE_S = 60
SAID = "Hello"  # what the built-in model answers a greeting with, whatever comes then

CLIENTS = ROOT / ".venv-clients/bin"
CLIENTS2 = ROOT / ".venv-clients2/bin"  # with version 2 of the openai package
OPENAIS_ENCODING = "lib/*/site-packages/llama_index/core/_static/tiktoken_cache"  # its file
NODE = Path(__file__).parent / "node"


def shown(client: str, language: str, number: int = 0) -> str:
    """The code under a heading of the page."""
    section = PAGE.partition(f"\n## {client}\n")[2].partition("\n## ")[0]
    codes: list[str] = re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
    assert codes, client
    return codes[number]


def run(*command: object, more: Mapping[str, str] | None = None) -> str:
    """Output of a program, without proxies, keys or folders of this machine's user."""
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", **(more or {})}
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True, text=True, timeout=PATIENCE_S, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def installed(path: Path, request: pytest.FixtureRequest) -> Path:
    """The path, which `make test-clients` makes."""
    if not path.exists():
        missing = f"{path.relative_to(ROOT)} is missing: run `make test-clients`"
        if request.config.getoption("--clients"):
            pytest.fail(missing)
        pytest.skip(missing)
    return path


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment whose home is empty."""
    return {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}


def test_curl(server):
    command = shown("curl", "sh").replace(ADDRESS, server.address)

    assert '"role":"assistant"' in run("sh", "-c", command)


@pytest.mark.parametrize("client", ["openai for Python", "Anthropic", "Ollama"])
def test_official_clients_for_python(server, home, client):
    code = shown(client, "python").replace(ADDRESS, server.address)

    assert SAID in run(sys.executable, "-c", code, more=home)


@pytest.mark.parametrize("client", ["openai for Node", "Vercel AI SDK"])
def test_javascript_clients(server, home, request, tmp_path, client):
    modules = installed(NODE / "node_modules", request)
    (tmp_path / "node_modules").symlink_to(modules)
    program = tmp_path / "program.mjs"
    program.write_text(shown(client, "js").replace(ADDRESS, server.address))

    assert SAID in run(shutil.which("node"), program, more=home)


@pytest.mark.parametrize(("client", "folder"), [("LangChain", CLIENTS), ("LlamaIndex", CLIENTS2)])
def test_python_clients(server, home, request, client, folder):
    python = installed(folder / "python", request)
    code = shown(client, "python").replace(ADDRESS, server.address)

    assert SAID in run(python, "-c", code, more=home)


def test_an_agent_calls_its_tool_and_answers_with_the_result(server, home, request):
    python = installed(CLIENTS / "python", request)
    code = shown("OpenAI Agents SDK", "python").replace(ADDRESS, server.address)
    program = Path(home["HOME"]) / "program.py"  # its tools are read from their source
    program.write_text(code)

    assert "21" in run(python, program, more=home)


def test_a_realtime_agent_writes(server, home, request):
    python = installed(CLIENTS / "python", request)
    code = shown("OpenAI Agents SDK", "python", 1)
    for address in (ADDRESS, ADDRESS.replace("http", "ws")):
        code = code.replace(address, address.replace(ADDRESS[7:], server.address[7:]))

    assert SAID in run(python, "-c", code, more=home)


def test_a_realtime_agent_hears_speaks_calls_a_tool_and_is_interrupted(tmp_path, home, request):
    python = installed(CLIENTS / "python", request)
    require_transcription()
    require_voice()
    model = write_whisper(tmp_path / "hello.bin", [(0.0, "What is the weather in Paris?", 2.0)])
    environment = {"LLM_BACKEND_VOICE_PROGRAM": PROGRAM}
    config = tmp_path / "config.yaml"  # the agent sets no temperature
    config.write_text(f"models: [{{path: builtin, defaults: {{temperature: 0}}}}, {model}]")
    program = Path(__file__).parent / "agents_realtime.py"
    with serve(tmp_path / "data", "--config", str(config), environment=environment) as served:
        told = run(python, program, served.base_url, more=home)

    assert len(told.splitlines()) == 5, told
    heard, called, spoken, interrupted, after = map(json.loads, told.splitlines())
    assert heard == "What is the weather in Paris?"
    assert called == "get_weather Paris"
    assert "21" in spoken["transcript"]
    assert spoken["seconds"] > 0.5
    assert len(interrupted["kept"]) < len(interrupted["written"])
    assert SAID in after


def test_llm(server, home, request):
    program = installed(CLIENTS / "llm", request)
    folder = Path(home["HOME"])
    models = shown("llm", "yaml").replace(ADDRESS, server.address)
    (folder / "extra-openai-models.yaml").write_text(models)
    command = shown("llm", "sh").replace("llm ", f"{program} ", 1)

    assert SAID in run("sh", "-c", command, more={**home, "LLM_USER_PATH": str(folder)})


def test_shell_gpt(server, home, request):
    program = installed(CLIENTS2 / "sgpt", request)
    command = shown("shell-gpt", "sh").replace(ADDRESS, server.address)

    assert SAID in run("sh", "-c", command.replace("sgpt", str(program)), more=home)


def test_langchain_calls_tools_and_keeps_to_a_schema(server, home, request):
    python = installed(CLIENTS / "python", request)

    told = run(python, Path(__file__).parent / "langchain_tools.py", server.base_url, more=home)

    assert told.splitlines() == ["get_weather {'city': 'Paris'}", "bool"]


def test_ids_that_langchain_sends_are_embedded_as_their_texts(tmp_path, minilm_file, home, request):
    python = installed(CLIENTS / "python", request)
    installed(CLIENTS2 / "python", request)
    (cache,) = CLIENTS2.parent.glob(OPENAIS_ENCODING)
    program = Path(__file__).parent / "langchain_embeddings.py"
    flags = ("--model", str(minilm_file), "--alias", "text-embedding-3-small")

    def told(name: str, *more: str) -> str:
        with serve(tmp_path / name, *flags, *more) as served:
            folder = {**home, "TIKTOKEN_CACHE_DIR": str(cache)}
            return run(python, program, served.base_url, more=folder)

    by_text, by_ids = json.loads(told("with", "--tiktoken-dir", str(cache)))
    refused = told("without")

    assert [len(vector) for vector in by_text] == [384] * 3
    assert by_ids == [pytest.approx(vector, abs=1e-5) for vector in by_text]
    assert refused.startswith("BadRequestError: Error code: 400")
    assert "check_embedding_ctx_length=False" in refused


def test_the_page_names_every_client_that_is_driven():
    for client in ("curl", "openai for Python", "openai for Node", "Vercel AI SDK", "LangChain",
                   "LlamaIndex", "OpenAI Agents SDK", "llm", "shell-gpt"):  # fmt: skip
        assert f"\n## {client}\n" in PAGE
