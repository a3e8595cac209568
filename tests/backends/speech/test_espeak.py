"""The program `espeak-ng`: what it says, and how it fails."""

import gc
import os
import signal
from pathlib import Path

import pytest

from llm_backend.backends.speech import Espeak
from llm_backend.errors import DeadlineExceeded, EngineUnavailable, Internal, Unsupported
from tests.patience import comes_true
from tests.voice import PROGRAM, require_voice, speaking


def program(folder: Path, script: str, timeout_s: float = 60) -> Espeak:
    """A program that is no `espeak-ng`."""
    path = folder / "speaks"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return Espeak(str(path), timeout_s=timeout_s, others={})


async def spoken(espeak: Espeak, text: str, rate: int = 175) -> bytes:
    async with espeak.speak(text, "gmw/en-US", rate) as samples:
        return b"".join([chunk async for chunk in samples.chunks])


@pytest.fixture
def espeak() -> Espeak:
    require_voice()
    return Espeak(PROGRAM, timeout_s=30, others={})


async def test_rate_decides_how_long_a_text_takes(espeak):
    text = "The quick brown fox jumps over the lazy dog."
    slow, fast = len(await spoken(espeak, text, 100)), len(await spoken(espeak, text, 400))

    assert 3 < slow / fast < 5


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("a\0b hello", "a b hello"),
        ("\x01 50S hello", "  50S hello"),
        ("[[h@l@U]]", "[ [h@l@U]]"),
        ("[[[h@l@U]]", "[ [ [h@l@U]]"),
    ],
)
async def test_commands_of_the_program_within_a_text_are_text(espeak, text, plain):
    assert await spoken(espeak, text) == await spoken(espeak, plain)


async def test_phonemes_keep_the_signs_between_clauses(espeak):
    found = await espeak.phonemes("Hello, world: 3.5!", "en-us")

    assert found.split()[0].endswith(",")
    assert found.count("!") == found.count(":") == 1
    assert found.startswith("h")
    assert "\u02c8" in found  # the stress


async def test_options_in_a_text_are_text(espeak):
    assert len(await spoken(espeak, "--version")) > 10_000


async def test_the_process_has_nothing_of_the_servers_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    espeak = program(tmp_path, f'env > "{tmp_path}/env"; head -c 44 /dev/zero')
    async with espeak.speak("Hello.", "en-us", 175):
        pass

    assert "sk-secret" not in (tmp_path / "env").read_text()


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("kill -9 $$", EngineUnavailable),
        ("head -c 4000 /dev/zero; kill -9 $$", EngineUnavailable),
        ("echo no data >&2; exit 3", Internal),
        ("exit 0", Internal),
    ],
)
async def test_a_process_that_fails_is_an_error_and_is_gone(tmp_path, script, error):
    with pytest.raises(error):
        await spoken(program(tmp_path, f'echo $$ > "{tmp_path}/pid"; {script}'), "Hello.")

    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


async def test_a_process_that_computes_nothing_in_time_is_killed(tmp_path):
    before = children()

    with pytest.raises(DeadlineExceeded):
        await spoken(program(tmp_path, "exec sleep 60", timeout_s=0.05), "Hello.")

    assert children() == before


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def is_running(pid: int) -> bool:
    """True unless the process has ended; one that its new parent has not reaped has ended, too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("then", ["wait", "kill -9 $$", "exit 0"])
async def test_the_child_of_a_wrapper_script_ends_when_the_caller_leaves(tmp_path, then):
    files = os.listdir("/proc/self/fd")
    child = f'sleep 60 & echo $! > "{tmp_path}/pid"'
    espeak = program(tmp_path, f"{child}; head -c 44 /dev/zero; {then}", timeout_s=30)
    for _ in range(20):
        async with espeak.speak("Hello.", "en-us", 175):
            pid = int((tmp_path / "pid").read_text())

        assert await comes_true(lambda pid=pid: not is_running(pid), within_s=10)
    assert await comes_true(lambda: os.listdir("/proc/self/fd") == files, within_s=10)
    gc.collect()  # an open pipe would be a ResourceWarning


async def test_a_child_in_a_session_of_its_own_holds_up_no_request(tmp_path):
    files = os.listdir("/proc/self/fd")
    child = f'echo $$ > "{tmp_path}/pid"; head -c 44 /dev/zero; exec sleep 60'
    espeak = program(tmp_path, f"setsid -w sh -c '{child}'", timeout_s=30)
    async with espeak.speak("Hello. " * 40_000, "en-us", 175):
        pid = int((tmp_path / "pid").read_text())

    os.kill(pid, signal.SIGKILL)
    assert await comes_true(lambda: os.listdir("/proc/self/fd") == files, within_s=10)


async def test_a_process_whose_caller_leaves_is_killed_and_its_pipes_are_closed(espeak):
    files = os.listdir("/proc/self/fd")
    async with espeak.speak("Hello there. " * 300, "en-us", 80) as samples:
        await anext(samples.chunks)
        assert samples.rate_hz == 22_050
        assert len(speaking(os.getpid())) == 1

    assert speaking(os.getpid()) == []
    assert os.listdir("/proc/self/fd") == files


async def test_a_missing_program_is_a_501_that_names_the_package():
    with pytest.raises(Unsupported, match="apt-get install espeak-ng"):
        await Espeak("no-such-program", timeout_s=1, others={}).voice_names()
