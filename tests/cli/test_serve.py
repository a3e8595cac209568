"""The flags of `llm-backend serve` are the settings."""

import itertools
import subprocess
import sys

import httpx
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from llm_backend import __version__
from llm_backend.cli import app, main
from llm_backend.cli.serve import Serve, _announce
from llm_backend.cli.setting_flags import SETTING_FLAGS, settings_from_flags
from llm_backend.installation import port_command
from llm_backend.settings import Settings, load_settings
from tests.patience import wait_until
from tests.ports import free_port


def test_serve_has_a_flag_for_each_flat_setting_except_secrets():
    without = Settings.model_fields.keys() - SETTING_FLAGS.keys()
    secrets = {name for name in without if "Secret" in str(Settings.model_fields[name].annotation)}

    assert secrets >= {"api_keys", "database_url", "openai_api_key", "tls_password"}
    assert without - secrets == {
        "backends", "image_models", "operations", "prices", "prompts", "routes",
    }  # fmt: skip
    assert not any(SecretStr.__name__ in str(one) for one in SETTING_FLAGS.values())


def test_serve_flags_are_parsed_like_settings():
    flags = {"port": "1", "memory_budget": "2 GB", "mmap": False, "models": ["none"],
             "aliases": ["a", "b=c"], "web": None, "log_level": "ERROR"}  # fmt: skip
    settings = load_settings(settings_from_flags(flags))

    assert (settings.port, settings.memory_budget, settings.mmap) == (1, 2_000_000_000, False)
    assert (settings.models, settings.aliases) == ((), ("a", "b=c"))
    assert (settings.web, settings.log_level) == (True, "error")


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_serve_answers_while_its_standard_streams_are_closed(tmp_path, closed):
    port = str(free_port())
    flags = ("--model", "none", "--voice-program", "none", "--port", port)
    program = (sys.executable, "-m", "llm_backend", "serve", *flags, "--data-dir", str(tmp_path))

    def has_answered() -> bool:
        assert server.poll() is None
        try:
            return httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
        except httpx.ConnectError:
            return False

    with subprocess.Popen(["sh", "-c", f'exec "$@" {closed}', "sh", *program]) as server:
        try:
            wait_until(has_answered)
        finally:
            server.terminate()

    assert server.returncode == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--slots", "none"], "llm-backend: The setting `slots` cannot be used"),
        (
            ["--web-ui", "/dev"],
            "The setting `web_ui` cannot be used: /dev has no index",
        ),
        (["--model", "none.gguf"], "llm-backend: Cannot read the model none.gguf"),
        (["--model", __file__], "test_serve.py is not a GGUF file: convert it, or name another."),
        (["--no-web", "--tls-key", "x"], "llm-backend: The setting `tls_certificate` is missing"),
    ],
)
def test_serve_reports_an_invalid_flag_in_one_sentence(
    words, sentence, tmp_path, capfd, monkeypatch
):
    command = ["llm-backend", "serve", "--port", "0", "--data-dir", str(tmp_path), *words]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 1
    assert sentence in capfd.readouterr().err


def test_serve_ends_without_a_traceback_when_it_is_interrupted_at_the_start(monkeypatch, capfd):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["llm-backend", "serve", "--port", "0"])
    monkeypatch.setattr(Serve, "run", interrupt)
    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 130
    assert capfd.readouterr().err == ""


FLAGS = [
    flag
    for parameter in SETTING_FLAGS.values()
    if "/--no-" not in (flag := parameter.annotation.__metadata__[0].default)
]


@pytest.mark.parametrize("flag", FLAGS)
def test_serve_refuses_an_empty_flag_with_status_2(flag, tmp_path):
    words = ["serve", "--port", "0", "--data-dir", str(tmp_path), flag, ""]
    result = CliRunner().invoke(app, words)

    assert result.exit_code == 2
    assert (
        result.stderr
        == f"llm-backend: The flag {flag} is empty: give it a value or leave it out.\n"
    )


def test_serve_help_shows_defaults_by_group():
    help_text = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "160"}).output

    assert (
        help_text.index("Listening") < help_text.index("--port") < help_text.index("Local models")
    )
    assert "[default: (8000)]" in help_text
    assert (
        help_text.index("Local models")
        < help_text.index("--draft-model")
        < help_text.index("Upstreams")
    )


@pytest.mark.parametrize(
    ("host", "shown"), [("0.0.0.0", "http://127.0.0.1:8000"), ("::", "http://[::1]:8000")]
)
def test_serve_names_an_address_that_clients_can_reach(host, shown, capsys):
    settings = Settings(host=host, api_keys=("sk-a",))
    address = f"http://[{host}]:8000" if ":" in host else f"http://{host}:8000"
    _announce(settings, address, requires_key=True)

    printed = capsys.readouterr().out
    assert f"base URL for clients: {shown}/v1" in printed
    assert f"curl {shown}/v1/chat/completions" in printed
    assert "-H 'authorization: Bearer YOUR_KEY'" in printed
    assert "Listening on all addresses" in printed
    assert f"Another port: {port_command()}" in printed
    assert host not in printed.replace(shown, "")


@pytest.mark.parametrize("processes", ["1", "2"])
def test_serve_hint_has_a_key_where_the_database_has_one(processes, tmp_path):
    folder = ["--data-dir", str(tmp_path)]
    CliRunner().invoke(app, ["keys", "create", "phone", *folder])
    words = ["serve", "--port", "0", "--model", "builtin", "--processes", processes, *folder]
    with subprocess.Popen(
        [sys.executable, "-m", "llm_backend", *words],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        printed = list(itertools.takewhile(lambda line: "content-type" not in line, process.stdout))
        process.terminate()

    assert "       -H 'authorization: Bearer YOUR_KEY' \\\n" in printed


@pytest.mark.parametrize(
    ("words", "close"),
    [(["--prot", "1"], "--port"), (["--model", "bultin"], "Did you mean builtin?")],
)
def test_serve_suggests_what_was_meant(words, close, tmp_path, capfd, monkeypatch):
    command = ["llm-backend", "serve", "--data-dir", str(tmp_path), *words]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code != 0
    assert close in capfd.readouterr().err


def test_program_prints_its_version():
    assert CliRunner().invoke(app, ["--version"]).stdout.strip() == __version__
