"""Commands of `llm-backend chat` that need no server."""

import io

import pytest

from llm_backend.cli.api import Api
from llm_backend.cli.chat import ChatSession, run_chat
from llm_backend.cli.terminal import prepare_input, read_messages


def printed(capsys: pytest.CaptureFixture[str], *lines: str) -> str:
    conversation = ChatSession(Api("http://127.0.0.1:9/v1", None), "m")
    run_chat(conversation, iter(lines), is_terminal=True)
    return capsys.readouterr().out


@pytest.mark.parametrize(("typed", "meant"), [("/hepl", "/help"), ("/quti", "/quit")])
def test_misspelled_command_is_answered_with_the_one_that_was_meant(capsys, typed, meant):
    assert f"Did you mean {meant}?" in printed(capsys, typed)


def test_help_lists_the_commands(capsys):
    lines = printed(capsys, "/help").splitlines()

    assert "/help          list the commands" in lines
    assert "/quit          quit (or Ctrl-D)" in lines


def test_unknown_home_in_a_path_ends_no_conversation(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = printed(capsys, "/save ~draft.md", "/file ~unknown-user/a.md", "/help")

    assert (tmp_path / "~draft.md").exists()
    assert "/help          list the commands" in lines


def test_bytes_of_no_text_are_replaced_in_typed_messages(monkeypatch):
    typed = io.TextIOWrapper(io.BytesIO(b"gr\xfc\xdfe\nhallo\n"), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", typed)

    is_terminal = prepare_input()

    assert not is_terminal
    assert list(read_messages(is_terminal=is_terminal)) == ["gr\ufffd\ufffde", "hallo"]
