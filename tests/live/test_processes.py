"""Several API processes over the engines of one server."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.chaos.tree import Tree
from tests.live.test_start import refusal
from tests.patience import wait_until
from tests.serving import Served, serve

CHAT = {"model": "builtin", "messages": [{"role": "user", "content": "Hello!"}]}
ONE_THREAD = {"LLM_BACKEND_THREADS": "1"}  # the cores are busy with the processes


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    with serve(
        tmp_path_factory.mktemp("server"), "--processes", "2", environment=ONE_THREAD
    ) as one:
        yield one


def chat(served: Served, **fields: object) -> httpx.Response:
    """Over a connection of its own, so that any process may take it; returns when it is logged and
    counted, too, which happens after its last byte."""
    answer = httpx.post(f"{served.base_url}/chat/completions", json={**CHAT, **fields}, timeout=60)
    wait_until(lambda: f"request_id={answer.headers['x-request-id']}" in served.log.read_text())
    return answer


def answered_by(served: Served, status: int = 200) -> list[int]:
    """Processes that have answered a chat with `status` so far."""
    lines = re.findall(
        rf"\[(\d+)\] answered operation=createChatCompletion status={status}",
        served.log.read_text(),
    )
    return [int(pid) for pid in lines]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def answered_by_both(served: Served) -> None:
    """Asks until each of the processes has answered a chat."""
    before = len(answered_by(served))

    def asked() -> bool:
        assert chat(served, max_tokens=1).status_code == 200
        return set(answered_by(served)[before:]) >= set(served.api_processes())

    wait_until(asked)


def test_both_processes_answer_and_every_chat_is_stored(served):
    before, ids = len(answered_by(served)), []

    def both_have_answered() -> bool:
        with ThreadPoolExecutor(16) as threads:
            answers = threads.map(lambda _: chat(served, max_tokens=1, seed=1), range(40))
            ids.extend(answer.json()["id"] for answer in answers)
        return set(answered_by(served)[before:]) == set(served.api_processes())

    wait_until(both_have_answered)  # a busy machine may run one of them alone for a while
    found = [httpx.get(f"{served.base_url}/chat/completions/{one}").status_code for one in ids]

    assert len(set(ids)) == len(ids) >= 40
    assert set(found) == {200}
    assert "chat_not_stored" not in served.log.read_text()


def test_the_processes_share_one_cache(served):
    before = len(answered_by(served))
    question = {"role": "user", "content": "What has one process computed that another one knows?"}
    cached = []
    while len(set(answered_by(served)[before:])) < 2:
        answer = chat(served, messages=[question], max_tokens=1).json()
        cached.append(answer["usage"]["prompt_tokens_details"]["cached_tokens"])

    assert cached[0] < cached[-1]  # the last was the second process's first


def test_metrics_are_those_of_all_processes(served):
    answered_by_both(served)
    count = len(answered_by(served))
    samples = [metrics_of_a_quiet_server(served) for _ in range(6)]

    for text in samples:
        assert f'{{operation="createChatCompletion",status="200"}} {count}.0' in text
        assert 'llm_backend_engine_running{model="builtin"} 0.0' in text


def metrics_of_a_quiet_server(served: Served) -> str:
    """The metrics once the request for them is the only one in flight: another one is until after
    its last byte."""
    texts = []

    def is_alone() -> bool:
        texts.append(httpx.get(f"{served.address}/metrics").text)
        return "\nllm_backend_requests_in_flight 1.0\n" in texts[-1]

    wait_until(is_alone)
    return texts[-1]


def test_a_killed_process_is_replaced_while_the_others_go_on(served):
    (worker,), (killed, other) = served.workers(), served.api_processes()
    counted = len(answered_by(served))
    os.kill(killed, signal.SIGKILL)
    statuses = [chat(served, max_tokens=1).status_code for _ in range(5)]
    wait_until(lambda: len(served.api_processes()) == 2)
    answered_by_both(served)
    text = httpx.get(f"{served.address}/metrics").text

    assert statuses == [200] * 5
    assert other in served.api_processes()
    assert killed not in served.api_processes()
    assert served.workers() == [worker]
    assert re.search(rf"api_process_ended .*{killed} was ended by SIGKILL", served.log.read_text())
    assert f'status="200"}} {len(answered_by(served))}.0' in text  # what it counted is not lost
    assert len(answered_by(served)) > counted


def test_a_killed_engine_costs_what_it_was_answering_in_every_process(served):
    before, failed = len(answered_by(served, 503)), []

    def both_have_failed() -> bool:
        answers = answers_of_a_killed_engine(served)
        failed.extend(answer for answer in answers if answer.status_code != 200)
        answered_by_both(served)
        return set(answered_by(served, 503)[before:]) == set(served.api_processes())

    wait_until(both_have_failed)  # a busy machine may let one of them accept all connections

    assert {answer.status_code for answer in failed} == {503}  # others came to the next engine
    assert all(answer.headers["retry-after"] for answer in failed)


def answers_of_a_killed_engine(served: Served) -> list[httpx.Response]:
    (worker,) = served.workers()
    os.kill(worker, signal.SIGSTOP)
    with ThreadPoolExecutor(24) as threads:
        asked = [threads.submit(chat, served) for _ in range(24)]
        wait_until(lambda: in_flight(served) == 24)
        os.kill(worker, signal.SIGKILL)
        return [one.result() for one in asked]


def in_flight(served: Served) -> int:
    """Requests being answered, besides this one."""
    text = httpx.get(f"{served.address}/metrics").text
    return int(float(re.search(r"\nllm_backend_requests_in_flight (\S+)", text)[1])) - 1


def test_a_model_that_is_unloaded_meanwhile_is_loaded_again_and_no_answer_is_cut_off(served):
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(chat, served, max_tokens=20) for _ in range(24)]
        unloaded = [
            httpx.post(f"{served.base_url}/models/builtin/unload", timeout=60) for _ in range(3)
        ]
        answers = [one.result() for one in asked]
    answered_by_both(served)

    assert [answer.status_code for answer in (*unloaded, *answers)] == [200] * 27
    assert len(served.workers()) == 1


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder with a path that leaves room for a socket's."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)


def test_streams_are_finished_before_the_end_and_nothing_is_left(tmp_path, temporary):
    environment = {"TMPDIR": str(temporary), "LLM_BACKEND_SHUTDOWN_GRACE_S": "60", **ONE_THREAD}
    with serve(tmp_path, "--processes", "2", environment=environment) as served:
        everybody = [served.process.pid, *served.workers(), *served.api_processes()]
        (folder,) = temporary.iterdir()
        with contextlib.ExitStack() as stack:
            streams = [stack.enter_context(stream(served)) for _ in range(6)]
            begun = [next(lines) for lines in streams]
            served.process.send_signal(signal.SIGTERM)
            ends = [list(lines)[-1] for lines in streams]
        status = served.process.wait(30)

    assert all(begun)
    assert ends == ["data: [DONE]"] * 6
    assert status == 0
    assert not any(map(is_alive, everybody))
    assert not folder.exists()
    assert "error" not in served.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_streams_at_once(tmp_path, temporary, number):
    environment = {"TMPDIR": str(temporary), "LLM_BACKEND_SHUTDOWN_GRACE_S": "60", **ONE_THREAD}
    with (
        serve(tmp_path, "--processes", "2", environment=environment) as served,
        stream(served, max_tokens=2000) as lines,
    ):
        next(lines)
        (worker,) = served.workers()
        os.kill(worker, signal.SIGSTOP)  # its answer never ends
        served.process.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            served.process.wait(1)
        served.process.send_signal(number)
        served.process.wait(60)

    assert not is_alive(worker)


@contextlib.contextmanager
def stream(served: Served, max_tokens: int = 200) -> Iterator[Iterator[str]]:
    body = {**CHAT, "ignore_eos": True, "max_tokens": max_tokens, "stream": True}
    with httpx.stream(
        "POST", f"{served.base_url}/chat/completions", json=body, timeout=60
    ) as response:
        yield (line for line in response.iter_lines() if line)


def test_nothing_outlives_the_process_that_was_started(tmp_path, temporary):
    environment = {"TMPDIR": str(temporary)}  # what a killed process cannot remove lies in there
    with serve(tmp_path, "--processes", "2", environment=environment) as served:
        others = [*served.workers(), *served.api_processes()]
        served.process.kill()
        served.process.wait()

        wait_until(lambda: not any(map(is_alive, others)))
        wait_until(lambda: refuses_connections(served.address))
    assert len(others) == 3


def refuses_connections(address: str) -> bool:
    """True if nothing listens. A killed process that has ended may still be closing its sockets:
    then a connection is accepted and reset."""
    try:
        httpx.get(f"{address}/healthz")
    except httpx.ConnectError:
        return True
    except httpx.TransportError:
        return False
    return False


def test_a_process_that_hangs_is_replaced_and_holds_up_no_unloading(tmp_path, temporary):
    flags = ("--processes", "2", "--process-hang-timeout-s", "6")
    environment = {"TMPDIR": str(temporary), **ONE_THREAD}
    with serve(tmp_path, *flags, environment=environment) as served:
        answered_by_both(served)  # each has come in to the engine
        stopped, other = served.api_processes()
        os.kill(stopped, signal.SIGSTOP)
        unloaded = httpx.post(f"{served.base_url}/models/builtin/unload", timeout=60)
        wait_until(lambda: len(served.api_processes()) == 2)
        serving, log = served.api_processes(), served.log.read_text()

    assert unloaded.status_code == 200
    assert other in serving
    assert f"api_process_hung api_process={stopped}" in log
    assert f"{stopped} was ended by SIGKILL" in log


def test_a_process_that_is_killed_before_it_serves_is_replaced_once_another_serves(tmp_path):
    tree = Tree(folder=tmp_path, environment=ONE_THREAD, flags=["--model", "builtin"])
    tree.start(2)
    try:
        wait_until(lambda: len(api_processes(tree)) == 2)
        killed = api_processes(tree)[0]
        os.kill(killed, signal.SIGSTOP)
        wait_until(lambda: tree.log.read_text().count("api_process_serves") == 1)
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: tree.log.read_text().count("api_process_serves") == 2)
        log = tree.log.read_text()

        assert len(api_processes(tree)) == 2
        assert "An API process was ended by SIGKILL before it served" in log
    finally:
        tree.end()


def api_processes(tree: Tree) -> list[int]:
    return [one.pid for one in tree.processes() if one.kind == "api"]


def test_an_error_that_prevents_the_start_of_every_process_is_one_sentence(tmp_path):
    said = refusal("--processes", "2", "--alias", "x=unknown", "--data-dir", str(tmp_path))

    assert "`unknown`" in said


def test_a_signal_during_the_start_ends_the_server(tmp_path, temporary):
    command = [sys.executable, "-m", "llm_backend", "serve", "--port", "0", "--processes", "2",
               "--data-dir", str(tmp_path)]  # fmt: skip
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
    ) as process:
        served = Served(address="", process=process, log=tmp_path)
        wait_until(lambda: len(served.api_processes()) == 2)
        others = [*served.workers(), *served.api_processes()]
        process.send_signal(signal.SIGTERM)
        said, logged = process.communicate(timeout=30)

    assert (process.returncode, said) == (0, "")
    assert "error" not in logged
    assert not any(map(is_alive, others))
    assert not list(temporary.iterdir())
