"""`llm-backend check` finds what would keep a server from starting."""

import os
import socket
import sqlite3
import sys
from contextlib import closing

import pytest
from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from typer.testing import CliRunner

from llm_backend.builtin import BUILTIN_PATH
from llm_backend.cli import app
from llm_backend.cli.check import Finding, describe_build, findings
from llm_backend.engine import EngineClient, EngineConfig
from llm_backend.engine.messages import MissingKernels
from llm_backend.engine.sampling.native_nucleus import NativeNucleus
from tests.engine.gguf_models import write_llama
from tests.engine.projectors import write_ears
from tests.engine.qwen_voice import write_qwen_voice
from tests.media_files import wav
from tests.tone_speakers import write_speakers
from tests.tone_voice import write_voice
from tests.upstream import served_in_thread
from tests.whisper_models import require_transcription, write_whisper

AZURE = "kind: azure, api_version: '2024-10-21', models: [gpt]"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "DATABASE_URL", "LLAMA_MODEL_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LLM_BACKEND_DATA_DIR", str(tmp_path / "data"))


def test_check_prints_one_line_for_each_check(monkeypatch):
    monkeypatch.setenv("LLM_BACKEND_PORT", "0")
    result = CliRunner().invoke(app, ["check"])

    assert result.exit_code == 0, result.output
    names = [line.split()[1] for line in result.stdout.splitlines()]
    assert names == [
        "processor", "contract", "build", "settings", "models", "voice", "images", "folder",
        "database", "keys", "upstream", "routes", "port",
    ]  # fmt: skip


def test_check_fails_for_a_server_that_others_reach_without_a_key(tmp_path):
    invoke = CliRunner().invoke
    reached = ["check", "--host", "0.0.0.0", "--port", "0", "--model", "none"]

    without = invoke(app, reached)
    created = invoke(app, ["keys", "create"])
    with_key = invoke(app, reached)

    assert (without.exit_code, created.exit_code, with_key.exit_code) == (1, 0, 0)
    assert "BAD  keys       Every client that reaches 0.0.0.0 could use" in without.stdout
    assert "ok   keys       The database has keys." in with_key.stdout
    on_loopback = invoke(app, ["check", "--port", "0", "--model", "none"])
    assert "ok   keys       The database has keys." in on_loopback.stdout
    assert not invoke(app, [*reached, "--allow-open"]).exit_code


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("routes: {smart: 'nope, builtin'}", "The route `smart` leads to `nope`, which is not"),
        (
            "routes: {smart: gpt-4o@azzure}\n"
            "backends: [{name: azure, base_url: 'http://127.0.0.1:9/v1'}]",
            "leads to `gpt-4o@azzure`, but there is no upstream `azzure`. Did you mean azure?",
        ),
        ("operations: {Images: nope}", "gives `Images` to `nope`, which is not an upstream"),
    ],
)
def test_check_fails_for_a_route_to_nowhere(tmp_path, line: str, message: str):
    config = tmp_path / "config.yaml"
    config.write_text(f"{line}\nport: 0\n")

    result = CliRunner().invoke(app, ["check", "--config", str(config)])

    assert result.exit_code == 1
    assert message in result.stdout.split("BAD  routes")[1]


def test_check_names_what_the_voice_lacks_and_refuses_bad_names_of_voices(monkeypatch):
    monkeypatch.setenv("LLM_BACKEND_VOICE_PROGRAM", "no-such-program")
    lacking = {one.name: one for one in findings(None)}["voice"]
    monkeypatch.setenv("LLM_BACKEND_VOICES", "alloy")
    wrong = {one.name: one for one in findings(None)}["voice"]

    assert (lacking.is_ok, "apt-get install espeak-ng" in lacking.sentence) == (True, True)
    assert (wrong.is_ok, wrong.sentence) == (False, "The voice `alloy` has to be `NAME=VOICE`.")


def test_check_names_what_an_onnx_voice_lacks(monkeypatch, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(f"models: [{write_voice(tmp_path / 'tones').parent}]\n")
    monkeypatch.setenv("LLM_BACKEND_VOICE_PROGRAM", "none")
    monkeypatch.setitem(sys.modules, "sherpa_onnx", None)
    lacking = {one.name: one for one in findings(config)}["voice"]

    assert (lacking.is_ok, "llm-backend[voices]" in lacking.sentence) == (True, True)


def test_check_names_what_a_model_of_speakers_lacks(monkeypatch, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(f"models: [{write_speakers(tmp_path / 'speakers').parent}]\n")
    monkeypatch.setenv("LLM_BACKEND_VOICE_PROGRAM", "none")
    monkeypatch.setitem(sys.modules, "sherpa_onnx", None)
    lacking = {one.name: one for one in findings(config)}["voice"]

    assert lacking.is_ok
    assert lacking.sentence.startswith("`speakers` needs an extra")


def test_check_names_what_models_that_hear_and_realtime_sessions_lack(monkeypatch, tmp_path):
    config = tmp_path / "config.yaml"
    model, ears = write_llama(tmp_path / "hears.gguf"), write_ears(tmp_path / "ears.gguf")
    config.write_text(f"models: [{{path: {model}, mmproj: {ears}}}]\n")
    monkeypatch.setenv("LLM_BACKEND_VOICE_PROGRAM", "none")
    for module in ("av", "webrtcvad"):
        monkeypatch.setitem(sys.modules, module, None)
    lacking = {one.name: one for one in findings(config)}["voice"]

    assert lacking.is_ok
    assert lacking.sentence.startswith("`hears` understands audio in chats; transcription needs")
    assert "llm-backend[audio]" in lacking.sentence
    assert "llm-backend[realtime]" in lacking.sentence


def test_check_names_a_whisper_model_and_what_it_lacks(monkeypatch, tmp_path):
    require_transcription()
    config = tmp_path / "config.yaml"
    config.write_text(f"models: [{write_whisper(tmp_path / 'hello.bin')}]\n")
    monkeypatch.setenv("LLM_BACKEND_VOICE_PROGRAM", "none")
    whole = {one.name: one for one in findings(config)}
    monkeypatch.setitem(sys.modules, "_pywhispercpp", None)
    lacking = {one.name: one for one in findings(config)}["models"]

    assert whole["models"].is_ok
    assert whole["voice"].sentence.startswith("`hello` transcribes by whisper.cpp.")
    assert (lacking.is_ok, "llm-backend[transcription]" in lacking.sentence) == (False, True)


def test_check_names_samples_whose_names_end_with_no_language(monkeypatch, tmp_path):
    model, projector = write_qwen_voice(tmp_path / "qwen")
    (model.parent / "voices").mkdir()
    for name in ("anna", "anna.de", "bert.xx"):
        (model.parent / "voices" / f"{name}.wav").write_bytes(wav(1))
    config = tmp_path / "config.yaml"
    config.write_text(f"models: [{{path: {model}, mmproj: {projector}, id: qwen}}]\n")
    monkeypatch.setenv("LLM_BACKEND_VOICE_PROGRAM", "none")
    warning = {one.name: one for one in findings(config)}["voice"]

    assert warning.is_ok
    assert "Its sample `bert.xx` speaks English: `xx` is not a language" in warning.sentence
    assert "anna" not in warning.sentence


def test_check_reports_a_base_url_without_a_key_as_no_upstream(monkeypatch):
    unset = {one.name: one for one in findings(None)}["upstream"]
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    keyless = {one.name: one for one in findings(None)}["upstream"]

    assert (unset.is_ok, unset.sentence) == (True, "None is configured.")
    assert keyless.is_ok
    assert "OPENAI_BASE_URL needs an OPENAI_API_KEY" in keyless.sentence


@pytest.mark.parametrize(
    ("entry", "header", "target", "sentence"),
    [
        ("kind: anthropic", "x-api-key", "/v1/models?limit=1000", "serves 2 models."),
        (AZURE, "api-key", "/v1/openai/models?api-version=2024-10-21", "answers."),
        ("kind: openai", "authorization", "/v1/models", "serves 2 models."),
    ],
)
def test_check_of_an_upstream_sends_the_key_as_the_relay_does(
    tmp_path, entry: str, header: str, target: str, sentence: str
):
    key = "Bearer sk-secret" if header == "authorization" else "sk-secret"
    with served_in_thread(model_list(target, {header: key})) as port:
        found = upstream_finding(tmp_path, port, f"{entry}, api_key: sk-secret")
        refused = upstream_finding(tmp_path, port, f"{entry}, api_key: sk-other")

    assert (found.is_ok, found.sentence) == (True, f"http://127.0.0.1:{port}/v1 {sentence}")
    assert (refused.is_ok, refused.sentence) == (False, "The key is wrong. (401)")


def test_check_of_an_upstream_sends_its_configured_headers(tmp_path):
    headers = {"x-key": "sk-secret", "anthropic-version": "2023-06-01"}
    with served_in_thread(model_list("/v1/models?limit=1000", headers)) as port:
        found = upstream_finding(tmp_path, port, "kind: anthropic, headers: {X-Key: sk-secret}")

    assert (found.is_ok, found.sentence) == (True, f"http://127.0.0.1:{port}/v1 serves 2 models.")


def test_check_passes_an_azure_upstream_without_a_list_of_models(tmp_path):
    with served_in_thread(model_list("/nowhere", {"api-key": "sk-secret"})) as port:
        found = upstream_finding(tmp_path, port, f"{AZURE}, api_key: sk-secret")
        other = upstream_finding(tmp_path, port, "headers: {api-key: sk-secret}")

    assert (found.is_ok, found.sentence) == (True, f"http://127.0.0.1:{port}/v1 answers.")
    assert (other.is_ok, other.sentence) == (False, "There is no such path. (404)")


@pytest.mark.parametrize(
    ("port", "entry"), [("80000", "api_key: k"), ("8o", "api_key: k"), ("9", 'api_key: "sk-\\n1"')]
)
def test_check_of_an_unusable_upstream_fails_and_shows_no_key(tmp_path, port, entry):
    found = upstream_finding(tmp_path, port, entry)

    assert not found.is_ok
    assert "sk-" not in found.sentence


def upstream_finding(tmp_path, port: int | str, entry: str) -> Finding:
    config = tmp_path / "config.yaml"
    url = f"http://127.0.0.1:{port}/v1"
    config.write_text(f"models: none\nbackends: [{{name: far, base_url: '{url}', {entry}}}]\n")
    found = findings(config)
    return next(one for one in found if one.name.startswith("upstream") or not one.is_ok)


def model_list(target: str, headers: dict[str, str]) -> ASGIApp:
    """Returns an upstream with two models, listed at this target for requests with these
    headers."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response = JSONResponse({"data": [{"id": "a"}, {"id": "b"}]})
        if any(request.headers.get(name) != value for name, value in headers.items()):
            response = JSONResponse({"error": {"message": "The key is wrong."}}, 401)
        elif str(request.url).partition(request.url.netloc)[2] != target:
            response = JSONResponse({"error": {"message": "There is no such path."}}, 404)
        await response(scope, receive, send)

    return answer


def test_check_continues_after_a_failed_check(monkeypatch, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("models: [{path: builtin, memory: 9 TB}]\n")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        monkeypatch.setenv("LLM_BACKEND_PORT", str(listener.getsockname()[1]))
        found = {one.name: one for one in findings(config)}

    bad = {name for name, one in found.items() if not one.is_ok}
    assert bad == {"models", "upstream openai", "port"}
    assert "9000.0 GB" in found["models"].sentence
    assert "cannot be reached" in found["upstream openai"].sentence
    assert "is in use: stop what listens there, or choose another with" in found["port"].sentence


def test_check_fails_for_a_truncated_model(tmp_path, monkeypatch):
    path = write_llama(tmp_path / "tiny.gguf")
    path.write_bytes(path.read_bytes()[:-1])
    monkeypatch.setenv("LLM_BACKEND_MODELS", str(path))

    found = {one.name: one for one in findings(None)}

    assert not found["models"].is_ok
    assert "tiny.gguf is cut short: its tensors would end at byte" in found["models"].sentence


def test_check_takes_the_flags_of_serve():
    result = CliRunner().invoke(app, ["check", "--port", "0", "--model", "none.gguf"])

    assert result.exit_code == 1
    assert "BAD  models     Cannot read the model none.gguf" in result.stdout


def test_check_ends_with_invalid_settings(monkeypatch):
    monkeypatch.setenv("LLM_BACKEND_SLOTS", "none")

    *_, last = findings(None)

    assert (last.name, last.is_ok) == ("settings", False)
    assert "`slots`" in last.sentence


@pytest.mark.parametrize(
    ("folder", "sentence"), [("", "will be created"), ("typo/", "typo does not exist")]
)
def test_check_creates_no_database_at_its_url(monkeypatch, tmp_path, folder, sentence):
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/{folder}x.db")

    found = {finding.name: finding for finding in findings(None, {"port": "0"})}

    assert sentence in found["database"].sentence
    assert found["database"].is_ok == (not folder)
    assert found["keys"].is_ok
    assert not (tmp_path / "x.db").exists()


def test_check_fails_for_a_database_of_a_newer_version(tmp_path):
    CliRunner().invoke(app, ["db", "migrate"])
    with closing(sqlite3.connect(tmp_path / "data" / "llm-backend.sqlite3")) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.commit()

    found = {finding.name: finding for finding in findings(None, {"port": "0"})}

    assert not found["database"].is_ok
    assert "a newer llm-backend" in found["database"].sentence


def test_db_current_prints_the_revision(tmp_path):
    def run(*words: str):
        return CliRunner().invoke(app, ["db", *words])

    assert run("current").exit_code == 1
    assert run("migrate").exit_code == 0
    current = run("current")
    assert "The tables are at revision 00" in current.stdout


@pytest.mark.skipif("CI" not in os.environ, reason="a source tree may be used without an install")
@pytest.mark.asyncio
async def test_check_gives_the_reason_and_the_remedy_for_prompts_read_without_kernels():
    config = EngineConfig(model_path=BUILTIN_PATH, slots=1, context_tokens=64)
    async with EngineClient(config) as engine:
        info = replace(await engine.ready(), missing_kernels=None)
    without = replace(info, missing_kernels=MissingKernels.NOT_COMPILED)
    unsupported = replace(info, missing_kernels=MissingKernels.NO_INSTRUCTIONS)
    foreign = replace(info, missing_kernels=MissingKernels.OTHER_SYSTEM)

    assert "kernels" not in describe_build(info)
    assert describe_build(without).endswith(
        "; it computes prompts without the prefill kernels, because they are not compiled: "
        "install a C compiler (`cc`), then `make clean run`."
    )
    assert describe_build(unsupported).endswith(", because this processor lacks AVX2, FMA or F16C.")
    assert describe_build(foreign).endswith(", because they are for Linux on x86.")


def test_installation_has_the_compiled_sampler():
    assert NativeNucleus.is_available()
