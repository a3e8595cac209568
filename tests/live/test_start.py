"""Start of the server, and errors of the command line."""

import contextlib
import json
import os
import platform
import re
import socket
import sqlite3
import subprocess
import sys

import httpx
import pytest

from tests.patience import wait_until
from tests.serving import serve


def refusal(*flags: str, **environment: str) -> str:
    """The sentence of a server that does not start."""
    import os

    inherited = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    done = subprocess.run(
        [sys.executable, "-m", "llm_backend", "serve", "--port", "0", *flags],
        capture_output=True, text=True, timeout=60, env={**inherited, **environment},
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("llm-backend: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_a_port_in_use_is_one_sentence(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refusal("--port", str(port), "--data-dir", str(tmp_path))

    assert f"127.0.0.1:{port} is in use" in said


def test_a_bad_setting_is_one_sentence(tmp_path):
    assert "`slots`" in refusal("--slots", "0", "--data-dir", str(tmp_path))
    assert "store_chats" in refusal("--data-dir", str(tmp_path), LLM_BACKEND_STORE_CHATS="maybe")


def test_files_that_cannot_be_kept_are_one_sentence(tmp_path):
    at = ("--data-dir", str(tmp_path))

    assert "file:///FOLDER" in refusal(*at, LLM_BACKEND_OBJECT_STORE_URL="ftp://files")
    assert "`files`" in refusal(*at, LLM_BACKEND_FILES="upstream")
    assert "`files`" in refusal(*at, LLM_BACKEND_FILES="nowhere")


def test_a_model_that_is_not_there_or_no_model_is_one_sentence(tmp_path):
    fake = tmp_path / "fake.gguf"
    fake.write_text("not a model")

    assert "missing.gguf" in refusal(
        "--model", str(tmp_path / "missing.gguf"), "--data-dir", str(tmp_path)
    )
    assert "fake.gguf" in refusal("--model", str(fake), "--data-dir", str(tmp_path))


def test_an_alias_of_nothing_is_one_sentence(tmp_path):
    assert "`unknown`" in refusal("--alias", "x=unknown", "--data-dir", str(tmp_path))


def test_an_unknown_tool_format_or_one_of_no_model_is_one_sentence(tmp_path):
    data = ("--data-dir", str(tmp_path))

    assert "hermes" in refusal("--tool-format", "klingon", *data)
    assert "unknown=hermes" in refusal("--tool-format", "unknown=hermes", *data)


def test_a_draft_model_of_nothing_or_that_is_none_is_one_sentence(tmp_path):
    data = ("--data-dir", str(tmp_path))
    fake = tmp_path / "fake.gguf"
    fake.write_bytes(b"nonsense")

    assert "unknown=x.gguf" in refusal("--draft-model", "unknown=x.gguf", *data)
    assert "x.gguf" in refusal("--draft-model", "x.gguf", *data)
    assert "fake.gguf" in refusal("--draft-model", str(fake), *data)


def test_a_data_folder_that_cannot_be_is_one_sentence(tmp_path):
    file = tmp_path / "file"
    file.write_text("")

    assert str(file) in refusal("--data-dir", str(file / "data"))


def test_listening_on_all_addresses_without_a_key_is_refused(tmp_path):
    assert "LLM_BACKEND_API_KEYS" in refusal("--host", "0.0.0.0", "--data-dir", str(tmp_path))


@pytest.mark.parametrize("processes", [1, 2])
def test_command_of_the_refusal_makes_a_key_in_the_database_of_the_config_file(tmp_path, processes):
    database = tmp_path / "keys.db"
    config = tmp_path / "the config.yaml"
    config.write_text(f"database_url: sqlite:///{database}\nprocesses: {processes}\nmodels: []\n")
    flags = ("--host", "0.0.0.0", "--config", str(config), "--data-dir", str(tmp_path / "data"))
    hint = re.search("`(.*)`", refusal(*flags)).group(1)

    subprocess.run(["sh", "-c", hint], check=True, capture_output=True)
    with contextlib.closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT count(*) FROM api_keys").fetchone() == (1,)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_second_server_on_a_sqlite_database_starts_with_a_warning_that_names_the_first(
    tmp_path, processes
):
    flags = ("--data-dir", str(tmp_path / "data"), "--processes", processes)
    environment = {"LLM_BACKEND_MODELS": "none"}
    with serve(tmp_path / "1", *flags, environment=environment) as first:
        with serve(tmp_path / "2", *flags, environment=environment) as second:
            warned = second.log.read_text()
        assert "database_has_another_server" not in first.log.read_text()

    assert f"database_has_another_server other_server={first.process.pid} " in warned
    assert "PostgreSQL" in warned


def test_a_key_once_configured_is_wanted_everywhere_but_for_health(tmp_path):
    environment = {"LLM_BACKEND_API_KEYS": "sk-one,sk-two"}
    with serve(tmp_path, environment=environment) as served:
        for path in ("/v1/models", "/v1/images/generations", "/v1/chat/completions"):
            assert httpx.get(f"{served.address}{path}").status_code in (401, 405)
        for key in ("sk-one", "sk-two"):
            headers = {"authorization": f"Bearer {key}"}
            assert httpx.get(f"{served.base_url}/models", headers=headers).status_code == 200
        wrong = httpx.get(f"{served.base_url}/models", headers={"authorization": "Bearer sk-on"})
        health = [
            httpx.get(f"{served.address}/{name}").status_code
            for name in ("healthz", "readyz", "metrics", "ping")
        ]

    assert wrong.status_code == 401
    assert wrong.json()["error"]["code"] == "invalid_api_key"
    assert health == [200] * 4
    assert "sk-one" not in served.log.read_text()


def test_it_is_ready_only_where_a_model_or_an_upstream_can_answer(tmp_path):
    upstream = {"OPENAI_API_KEY": "sk-far", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
    with (
        serve(tmp_path / "alone", "--model", "none") as alone,
        serve(tmp_path / "relay", "--model", "none", environment=upstream) as relay,
    ):
        told = [httpx.get(f"{served.address}/readyz") for served in (alone, relay)]

    assert [answer.status_code for answer in told] == [503, 200]
    assert told[0].json()["error"]["message"].startswith("There is neither a model nor an upstream")


# Python runs it first in each process: an engine's waits until there is the file `go` beside it.
WAITING_ENGINE = """
import sys, time
from pathlib import Path

if "llm_backend.engine.process.worker" in sys.orig_argv:
    while not Path(__file__).with_name("go").exists():
        time.sleep(0.05)
"""


def test_a_server_that_starts_is_no_error_in_its_log(tmp_path):
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "sitecustomize.py").write_text(WAITING_ENGINE)
    inherited = filter(None, [os.environ.get("PYTHONPATH")])
    environment = {"PYTHONPATH": os.pathsep.join([str(modules), *inherited])}
    with serve(tmp_path, environment=environment, ready=False) as served:
        starting = httpx.get(f"{served.address}/readyz")
        (modules / "go").touch()
        served.wait_ready()
        refused = {line for line in served.log.read_text().splitlines() if "request_" in line}

    assert starting.status_code == 503
    assert "builtin is starting" in starting.json()["error"]["message"]
    assert any("request_refused" in line for line in refused)
    assert not any("request_failed" in line for line in refused)


def test_it_is_not_ready_once_a_newer_version_has_changed_the_tables(tmp_path):
    with serve(tmp_path, "--model", "none") as served:
        (file,) = tmp_path.rglob("*.sqlite3")
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as database:
            database.execute("UPDATE alembic_version SET version_num = '9999'")
        answer = httpx.get(f"{served.address}/readyz")

    assert answer.status_code == 503
    assert "database" in answer.json()["error"]["message"]


def test_metrics_count_what_was_answered(tmp_path):
    with serve(tmp_path, "--model", "none") as served:
        httpx.get(f"{served.base_url}/models")
        counted = 'llm_backend_requests_total{operation="listModels",status="200"} 1.0'
        wait_until(lambda: counted in httpx.get(f"{served.address}/metrics").text)


def test_metrics_have_the_state_of_engines(tmp_path):
    with serve(tmp_path) as served:
        said = httpx.post(
            f"{served.base_url}/chat/completions",
            json={"model": "builtin", "messages": [{"role": "user", "content": "Hello!"}]},
            timeout=60,
        ).json()
        idle = 'llm_backend_engine_running{model="builtin"} 0.0'
        wait_until(lambda: idle in httpx.get(f"{served.address}/metrics").text)
        text = httpx.get(f"{served.address}/metrics").text
    values = dict(re.findall(r'^llm_backend_(\w+){model="builtin"} (\S+)$', text, re.M))

    assert float(values["completion_tokens_total"]) == said["usage"]["completion_tokens"]
    assert re.search(r"^gen_ai_server_time_to_first_token_seconds_count{.*} 1.0$", text, re.M)
    assert f'llm_backend_build_info{{python_version="{platform.python_version()}",version="' in text
    assert "_created" not in text
    assert re.findall(r"^# HELP .* \w+_s\b.*$", text, re.M) == []  # names of metrics, not of code
    assert float(values["engine_passes_total"]) > 0
    assert float(values["engine_busy_seconds_total"]) > 0
    assert float(values["engine_running"]) == 0


def test_context_beyond_the_trained_one_is_a_warning_in_the_log(tmp_path):
    with serve(tmp_path, "--model", "builtin", "--context-tokens", "100000") as served:
        log = served.log.read_text()

    (line,) = (line for line in log.splitlines() if "context_beyond_training" in line)
    assert "warning" in line
    assert "model=builtin context_tokens=100000 trained_tokens=" in line


def test_json_lines_of_engine_processes_name_process_and_model_file(tmp_path):
    flags = ("--model", "builtin", "--log-format", "json", "--log-level", "debug")
    with serve(tmp_path, *flags) as served:
        (worker,) = served.workers()
        httpx.post(
            f"{served.base_url}/chat/completions",
            json={"model": "builtin", "messages": [{"role": "user", "content": "Hello!"}]},
        ).raise_for_status()
        lines = [json.loads(line) for line in served.log.read_text().splitlines()]

    of_worker = [line for line in lines if line.get("engine_process")]
    assert {"llm_backend.engine.llama", "llm_backend.engine.process.model_loading"} <= {
        line["logger"] for line in of_worker
    }
    assert {(line["engine_process"], line["file"]) for line in of_worker} == {
        (worker, "builtin.gguf")
    }


def test_neither_prompts_nor_keys_are_logged(tmp_path):
    with serve(tmp_path, "--log-level", "debug") as served:
        httpx.post(
            f"{served.base_url}/chat/completions",
            json={"model": "builtin", "messages": [{"role": "user", "content": "my secret plan"}]},
            headers={"authorization": "Bearer sk-sesame"},
            timeout=60,
        )
    log = served.log.read_text()

    assert "secret plan" not in log
    assert "sk-sesame" not in log
    assert "createChatCompletion" in log
