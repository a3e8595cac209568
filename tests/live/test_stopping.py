"""Graceful shutdown: readiness fails at once, and running requests are answered."""

import signal
import time
from collections.abc import Iterator

import httpx
import pytest

from llm_backend.server.api_server import SAME_SIGNAL_S
from tests.serving import ENDLESS, WITHOUT_END, Served, serve

DELAY_S = 12  # a machine may be busy with other tests
CHAT = {"model": "builtin", "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 1}
STREAM = {**CHAT, "stream": True, "ignore_eos": True, "max_tokens": 400}


@pytest.fixture(params=[1, 2], ids=["one process", "two processes"])
def served(request, tmp_path) -> Iterator[Served]:
    environment = {
        "LLM_BACKEND_SHUTDOWN_DELAY_S": str(DELAY_S),
        "LLM_BACKEND_SHUTDOWN_GRACE_S": "60",
        "LLM_BACKEND_THREADS": "1",
    }
    with serve(tmp_path, "--processes", str(request.param), environment=environment) as one:
        yield one


def statuses(served: Served, path: str) -> set[int]:
    """Statuses of several connections, which any process may accept."""
    return {httpx.get(f"{served.address}{path}").status_code for _ in range(4)}


def test_it_is_not_ready_at_once_answers_for_a_while_and_finishes_its_streams(served):
    url = f"{served.base_url}/chat/completions"
    with httpx.stream("POST", url, json=STREAM, timeout=60) as stream:
        lines = (line for line in stream.iter_lines() if line)
        next(lines)
        told_at = time.monotonic()
        served.process.send_signal(signal.SIGTERM)
        while statuses(served, "/readyz") != {503}:
            assert time.monotonic() - told_at < DELAY_S
        ready = httpx.get(f"{served.address}/readyz")
        alive, asked = statuses(served, "/healthz"), httpx.post(url, json=CHAT, timeout=60)
        *_, last = lines
    served.process.wait(30)

    assert "being stopped" in ready.json()["error"]["message"]
    assert ready.headers["retry-after"]
    assert (alive, asked.status_code) == ({200}, 200)
    assert last == "data: [DONE]"
    assert served.process.returncode == 0
    assert time.monotonic() - told_at >= DELAY_S


@pytest.mark.parametrize("processes", [1, 2])
def test_ctrl_c_skips_the_shutdown_delay(tmp_path, processes):
    environment = {"LLM_BACKEND_SHUTDOWN_DELAY_S": "300"}
    with serve(tmp_path, "--processes", str(processes), environment=environment) as served:
        served.process.send_signal(signal.SIGINT)

        assert served.process.wait(60) == 0


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("processes", [1, 2])
def test_stop_is_logged_while_requests_finish_and_a_second_signal_ends_them(
    tmp_path, processes, first, second
):
    environment = {**ENDLESS, "LLM_BACKEND_SHUTDOWN_GRACE_S": "300"}
    stream = {**CHAT, **WITHOUT_END, "stream": True}
    with serve(tmp_path, "--processes", str(processes), environment=environment) as served:
        url = f"{served.base_url}/chat/completions"
        with httpx.stream("POST", url, json=stream, timeout=60) as answer:
            lines = (line for line in answer.iter_lines() if line)
            next(lines)
            served.process.send_signal(first)
            deadline = time.monotonic() + 60
            while "finishing_requests requests=1 grace_s=300" not in served.log.read_text():
                assert time.monotonic() < deadline, served.log.read_text()
                time.sleep(0.05)
            time.sleep(SAME_SIGNAL_S)  # signals within that time count as one
            served.process.send_signal(second)
            *_, last = lines
        served.process.wait(60)

    assert "The server is stopping" in last
    assert served.process.returncode == 0
