"""Recovery after processes are killed."""

import json
import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from tests.patience import wait_until
from tests.serving import ENDLESS, WITHOUT_END, Served, command_line, serve

CHAT = {"model": "builtin", "messages": [{"role": "user", "content": "Hello!"}]}
LONG = {**CHAT, **WITHOUT_END, "stream": True}


def answer_when_back(served: Served) -> httpx.Response:
    deadline = time.monotonic() + 60
    while True:
        response = httpx.post(f"{served.base_url}/chat/completions", json=CHAT, timeout=60)
        if response.status_code != 503:
            return response
        assert response.headers["retry-after"]
        assert response.json()["error"]["message"]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_stream_whose_engine_dies_ends_with_an_error_event_and_the_next_is_answered(tmp_path):
    with serve(tmp_path, environment=ENDLESS) as served:
        with httpx.stream(
            "POST", f"{served.base_url}/chat/completions", json=LONG, timeout=60
        ) as stream:
            lines = (line for line in stream.iter_lines() if line)
            next(lines)
            (worker,) = served.workers()
            os.kill(worker, signal.SIGKILL)
            *_, last = lines
        others = httpx.get(f"{served.base_url}/models")
        response = answer_when_back(served)
        metrics = httpx.get(f"{served.address}/metrics").text

    assert 'llm_backend_engine_deaths_total{model="builtin"} 1.0' in metrics
    error = json.loads(last.removeprefix("data: "))["error"]
    assert error["code"] == "engine_unavailable"
    assert others.status_code == 200
    assert response.status_code == 200


@pytest.mark.parametrize("processes", [1, 2])
def test_an_engine_that_is_killed_often_pauses_and_comes_back(tmp_path, processes):
    settings = {
        "LLM_BACKEND_PROCESSES": str(processes),
        "LLM_BACKEND_RESTART_LIMIT": "1",
        "LLM_BACKEND_RESTART_PAUSE_S": "10",
        "LLM_BACKEND_RESTART_RESET_S": "600",
    }
    with serve(tmp_path, environment=settings) as served:
        for _ in range(2):
            served.wait_ready()
            (worker,) = served.workers()
            os.kill(worker, signal.SIGKILL)
            wait_until(lambda dead=worker: not Path(f"/proc/{dead}").exists())
        wait_until(lambda: "engine_failed" in served.log.read_text())
        unready = httpx.get(f"{served.address}/readyz")
        failed = httpx.get(f"{served.address}/metrics").text
        alive = httpx.get(f"{served.address}/healthz")
        refused = httpx.post(f"{served.base_url}/chat/completions", json=CHAT, timeout=60)
        back = answer_when_back(served)
        ready = httpx.get(f"{served.address}/readyz")
        metrics = httpx.get(f"{served.address}/metrics").text

    assert 'llm_backend_engine_up{model="builtin"} 0.0' in failed
    assert 'llm_backend_engine_up{model="builtin"} 1.0' in metrics
    assert (unready.status_code, alive.status_code, refused.status_code) == (503, 200, 503)
    assert "failed" in unready.json()["error"]["message"] or "restarting" in unready.text
    assert int(refused.headers["retry-after"]) >= 1
    assert (back.status_code, ready.status_code) == (200, 200)


def test_a_server_that_is_killed_loses_no_chat_that_was_acknowledged(tmp_path):
    with serve(tmp_path) as served:
        body = {**CHAT, "max_tokens": 1}
        acknowledged = [
            httpx.post(f"{served.base_url}/chat/completions", json=body).json()["id"]
            for _ in range(10)
        ]
        with httpx.stream(
            "POST", f"{served.base_url}/chat/completions", json={**body, "stream": True}
        ) as stream:
            events = [line for line in stream.iter_lines() if line]
        acknowledged.append(json.loads(events[0][6:])["id"])
        served.process.kill()
        served.process.wait()

    with serve(tmp_path, "--model", "none") as served:
        found = [
            httpx.get(f"{served.base_url}/chat/completions/{chat_id}").status_code
            for chat_id in acknowledged
        ]

    assert found == [200] * 11


def test_no_engine_outlives_its_server(tmp_path):
    with serve(tmp_path) as served:
        (worker,) = served.workers()
        served.process.kill()
        served.process.wait()
        wait_until(lambda: b"llm_backend" not in command_line(worker))
