"""The commands that ask a server, against one that runs."""

import contextlib
import json
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from llm_backend.cli import app
from llm_backend.cli.api import Api, ApiRequestError
from llm_backend.cli.chat import ChatSession, Piece, run_chat
from tests.broken_streams import scripted_upstream
from tests.media_files import image

PIPED = '"""\nCopy this: banana\n\n/again\n"""\n'


def chat(base_url: str, text: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llm_backend", "chat", "--base-url", base_url, *flags],
        input=text, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_a_conversation_from_a_pipe_goes_on_until_its_end(server):
    lines = (
        "Copy this: banana\n/again\n/new\n/again\n/system Be brief.\n/system\n/model builtin\n"
        "/model\n/nonsense\n/save\n/help\n/quit\nnever\n"
    )
    done = chat(server.base_url, lines, "--temperature", "0")

    assert done.returncode == 0, done.stderr
    first, again, *told = done.stdout.splitlines()
    assert first == again != ""
    assert told[:7] == [
        "A new conversation begins.",
        "There is no message to send again.",
        "The system message is set.",
        "The system message is removed.",
        "builtin answers from now on.",
        "builtin",
        "gpt-3.5-turbo",
    ]
    assert "Unknown command /nonsense" in done.stdout
    assert "/save needs the name of a file." in done.stdout
    assert "Ctrl-C" in done.stdout
    assert "never" not in done.stdout


def test_message_of_the_command_line_is_answered_with_the_piped_text_before_it(server):
    alone = chat(server.base_url, "", "--temperature", "0", "Copy this:", "banana")
    piped = chat(server.base_url, "Copy this: banana\n", "--temperature", "0", "/again")

    assert (alone.returncode, alone.stderr) == (0, "")
    assert alone.stdout == chat(server.base_url, "Copy this: banana\n", "--temperature", "0").stdout
    assert piped.stdout == chat(server.base_url, PIPED, "--temperature", "0").stdout


def test_empty_message_of_the_command_line_is_refused(server):
    done = chat(server.base_url, "", "")

    assert done.returncode == 2
    assert done.stderr == "llm-backend: MESSAGE is empty: give it a text or leave it out.\n"


def test_the_chat_command_continues_after_a_mistake_and_lists_attachments(server, tmp_path):
    (tmp_path / "cat.png").write_bytes(image())
    lines = f"/attach {tmp_path}/dog.png\n/attach {tmp_path}/cat.png\nWhat is it?\n/attach\n"

    told = in_a_terminal(server.base_url, lines + "/quit\n")

    assert "/help lists the commands" in told
    assert "dog.png cannot be read: No such file or directory." in told
    assert "1 attached; they go with the next message." in told
    assert "`builtin` sees no images" in told
    assert "All attachments are removed." in told


def test_chat_names_the_command_that_was_meant_and_sends_a_path_as_a_message(server):
    lines = "/modle\n/Save a.md\n/etc/hosts is a file.\n/again\n"
    done = chat(server.base_url, lines, "--temperature", "0")

    told = done.stdout.splitlines()
    assert told[0] == "Unknown command /modle; /help lists the commands. Did you mean /model?"
    assert told[1].endswith("Did you mean /save?")
    assert told[2] == told[3] != ""
    assert "/etc/hosts" not in done.stdout


def test_chat_takes_lines_together_reads_files_and_saves(server, tmp_path):
    (tmp_path / "note.txt").write_text("The lamp hums.")
    lines = (
        'Copy this: \\\nbanana\n"""\nCopy\n\n  this: apple\n"""\n'
        f"/file {tmp_path}/note.txt\nHello!\n/model bultin\n"
        f"/save {tmp_path}/chat.json\n/save {tmp_path}/chat.md\n/save {tmp_path}/no/chat.md\n"
    )
    done = chat(server.base_url, lines, "--temperature", "0")

    saved = json.loads((tmp_path / "chat.json").read_text())
    asked = [one["content"] for one in saved["messages"] if one["role"] == "user"]
    assert asked[:2] == ["Copy this: \nbanana", "Copy\n\n  this: apple"]
    assert asked[2][0]["text"] == "note.txt:\n\nThe lamp hums."
    assert "## You\n\nnote.txt:\n\nThe lamp hums.\n\nHello!" in (tmp_path / "chat.md").read_text()
    assert "bultin is not in the list of models. Did you mean builtin?" in done.stdout
    assert (done.returncode, "no/chat.md cannot be written" in done.stderr) == (1, True)


def test_lines_of_the_terminal_are_there_again_in_the_next_session(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    in_a_terminal(server.base_url, "Hello!\n/quit\n")
    file = tmp_path / ".local/state/llm-backend/chat-history"

    assert file.read_text().splitlines() == ["Hello!", "/quit"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_lines_pasted_in_a_terminal_are_one_message(server, tmp_path):
    file = tmp_path / "chat.json"
    pasted = "\033[200~Copy this:\r  /new\r\033[201~\r"
    in_a_terminal(
        server.base_url, f"{pasted}/save {file}\r/quit\r", HOME=str(tmp_path), TERM="xterm"
    )

    messages = json.loads(file.read_text())["messages"]
    assert [one["content"] for one in messages if one["role"] == "user"] == ["Copy this:\n  /new"]


def in_a_terminal(base_url: str, lines: str, **environment: str) -> str:
    """Output of a terminal in which these lines are typed."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "llm_backend", "chat", "--base-url", base_url]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, **environment}
    ) as process:
        os.close(theirs)
        os.write(ours, lines.encode())
        told = b""
        with contextlib.suppress(OSError):  # the terminal is closed
            while piece := os.read(ours, 4096):
                told += piece
        assert process.wait(30) == 0
    os.close(ours)
    return told.decode()


@contextlib.contextmanager
def speaking_server() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """The base URL of a server that reads texts aloud as `RIFF`, and the requests for it."""
    asked: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            if is_speech := self.path == "/v1/audio/speech":
                asked.append(body)
            event = b'data: {"choices": [{"delta": {"content": "Yes."}}]}\n\ndata: [DONE]\n\n'
            answer = b"RIFF" if is_speech else event
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Keeps the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", asked
        server.shutdown()


def test_chat_plays_its_last_answer_or_names_the_file_of_the_audio(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    flags = ("--model", "any", "--voice-model", "loud")
    with speaking_server() as (base_url, asked):
        silent = chat(base_url, "/say\nWell?\n/say\n", *flags)
        kept = [one.read_bytes() for one in tmp_path.glob("*.wav")]
        for name, code in (("paplay", "exit 1"), ("aplay", f'/bin/cp "$2" {tmp_path}/played')):
            (tmp_path / name).write_text(f"#!/bin/sh\n{code}\n")
            (tmp_path / name).chmod(0o755)
        played = chat(base_url, "Well?\n/say\n", *flags)

    assert silent.stdout.startswith("There is no answer to read aloud.\nYes.\nNo player (paplay, ")
    assert f"it is in {tmp_path}/" in silent.stdout
    assert kept == [b"RIFF"]
    assert (played.stdout, played.stderr) == ("Yes.\n", "")
    assert (tmp_path / "played").read_bytes() == b"RIFF"
    assert len(list(tmp_path.glob("*.wav"))) == 1  # the one of before
    spoken = {"model": "loud", "voice": "alloy", "input": "Yes.", "response_format": "wav"}
    assert asked == [spoken, spoken]


THOUGHT = [{"reasoning_content": "Is it one?"}, {"content": "Yes."}]
CALL = {"name": "get_weather", "arguments": '{"city": '}
CALLED = [
    {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": CALL}]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '"Bonn"}'}}]},
]


def test_chat_shows_reasoning_dimmed_unless_the_environment_disables_colour(tmp_path):
    with scripted_upstream({"": THOUGHT}) as port:
        base_url, home = f"http://127.0.0.1:{port}/v1", str(tmp_path)
        coloured = in_a_terminal(base_url, "Well?\n/quit\n", HOME=home)
        plain = in_a_terminal(base_url, "Well?\n/quit\n", HOME=home, NO_COLOR="1", TERM="dumb")

    assert "\033[2mIs it one?\033[0m\r\n\r\nYes." in coloured
    assert "Is it one?\r\n\r\nYes." in plain
    assert "\033[" not in plain


def test_chat_prints_the_answer_alone_to_a_pipe_and_calls_to_standard_error():
    with scripted_upstream({"Well": THOUGHT, "Weather": CALLED}) as port:
        done = chat(f"http://127.0.0.1:{port}/v1", "Well?\nWeather?\n")

    assert done.stdout == "Yes.\n\n"
    assert done.stderr == 'The model called get_weather({"city": "Bonn"}); no tool runs here.\n'


def test_a_server_that_refuses_ends_a_pipe_with_its_sentence(server):
    done = chat(server.base_url, "Hi\n", "--model", "bultin")

    assert done.returncode == 1
    assert done.stderr == (
        "llm-backend: The model `bultin` does not exist. Did you mean builtin? "
        "See GET /v1/models. (404)\n"
    )


def test_chat_interrupt_stops_the_answer_and_keeps_its_text(server):
    conversation = ChatSession(Api(server.base_url, None), "builtin", "You are brief.")
    shown: list[str] = []

    def show(piece: Piece) -> None:
        shown.append(piece.text)
        if len(shown) == 2:
            raise KeyboardInterrupt

    conversation.send("Who are you?", show)

    assert shown[2:] == [" [stopped]"]
    assert [one["role"] for one in conversation.messages] == ["user", "assistant"]
    assert conversation.messages[1]["content"] == shown[0]
    conversation.send("And what do you do?", lambda _: None)
    assert len(conversation.messages) == 4


def test_chat_drops_a_message_that_the_server_refused(server):
    conversation = ChatSession(Api(server.base_url, None), "unknown")

    with pytest.raises(ApiRequestError, match="does not exist"):
        conversation.send("Hi", lambda _: None)
    assert conversation.messages == []
    assert conversation.pop_last_turn() is None


def test_chat_keeps_attachments_and_the_last_turn_if_the_server_refuses(server, capsys):
    conversation = ChatSession(Api(server.base_url, None), "unknown")
    attachment = {"type": "text", "text": "A list of words."}
    turn = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    conversation.attachments, conversation.messages = [attachment], list(turn)

    run_chat(conversation, iter(["Read it.", "/again"]), is_terminal=True)

    assert "does not exist" in capsys.readouterr().err
    assert conversation.attachments == [attachment]
    assert conversation.messages == turn


def test_chat_keeps_attachments_that_wait_when_a_turn_with_its_own_is_repeated(server):
    conversation = ChatSession(Api(server.base_url, None), "builtin")
    attachment = {"type": "text", "text": "A list of words."}
    conversation.attachments = [attachment]

    conversation.send([{"type": "text", "text": "Hi"}], lambda _: None)

    assert conversation.attachments == [attachment]


def test_a_load_is_put_on_a_server_and_measured(server):
    words = ["bench", "--base-url", server.base_url, "--requests", "4", "--concurrency", "2",
             "--max-tokens", "5", "--json"]  # fmt: skip
    result = CliRunner().invoke(app, words)
    figures = json.loads(result.stdout)

    assert (figures["model"], figures["requests"]) == ("builtin", 4)
    assert figures["tokens per second"] == pytest.approx(20 / figures["seconds"], rel=0.2)
    assert figures["first token, median s"] <= figures["whole answer, median s"]


def test_bench_measures_servers_whose_chunks_lack_choices_or_counts(monkeypatch):
    chunks = [{"choices": [{"delta": {"content": "Hi"}}]}, {"usage": {}}]
    monkeypatch.setattr(Api, "events", lambda self, path, body: iter(chunks))
    words = ["bench", "--model", "any", "--requests", "1", "--json"]
    result = CliRunner().invoke(app, words)

    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["tokens per second"] == 0


def test_a_server_that_is_not_there_is_one_sentence():
    for command in ("bench", "chat"):
        result = CliRunner().invoke(app, [command, "--base-url", "http://127.0.0.1:9/v1"])
        assert result.exit_code == 1
        assert result.stderr.startswith("llm-backend: http://127.0.0.1:9/v1 cannot be reached")
    with pytest.raises(ApiRequestError, match="is not a base URL"):
        Api("localhost:8000", None)
