"""The engine process dies, hangs, or never comes to life."""

import asyncio
import logging
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from llm_backend.engine import (
    CommandFailed,
    EngineClient,
    EngineDown,
    EngineStartError,
    EngineState,
)
from llm_backend.engine.messages import Delta, Embed, Failure, Generate, Sampling
from llm_backend.engine.process.engine_connection import CrashCandidate
from llm_backend.engine.process.restart_policy import Restart, RestartPolicy
from tests.engine.conftest import answer, config, eventually
from tests.engine.gguf_models import write_llama
from tests.logged import logged


def crashing(model: Path, how: str, **fields: object) -> EngineClient:
    """An engine whose worker dies in a certain way."""
    command = (sys.executable, "-m", "tests.engine.crashing_worker", how)
    return EngineClient(config(model, command=command, **fields))


def request(prompt: str = "the cat", *, name: str = "r", **fields: object) -> Generate:
    defaults = {"max_tokens": 8, "sampling": Sampling(temperature=0), "ignore_eos": True}
    return Generate(id=name, prompt=prompt, **{**defaults, **fields})


def text(deltas: list[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


async def test_supervisor_restarts_a_crashed_worker_and_fails_its_requests(tiny_llama):
    async with EngineClient(config(tiny_llama)) as engine:
        await engine.ready()
        before = await answer(engine, request())
        generation = await engine.generate(request("endless", max_tokens=None))
        await anext(generation)
        os.kill(engine.pid, signal.SIGKILL)

        with pytest.raises(EngineDown, match="restarted") as caught:
            async for _ in generation:
                pass
        assert caught.value.retry_after_s >= 1
        with pytest.raises(EngineDown):
            await engine.generate(request())
        await engine.ready()
        assert text(await answer(engine, request())) == text(before)
        assert (await engine.status()).deaths == 1


async def test_engine_is_not_ready_from_the_moment_that_its_connection_ends(tiny_llama):
    async with EngineClient(config(tiny_llama)) as engine:
        await engine.ready()
        connection = engine._lifecycle.connection()
        os.kill(engine.pid, signal.SIGKILL)
        while connection.is_open:  # noqa: ASYNC110 # no turn of the loop is to be missed
            await asyncio.sleep(0)

        assert engine.state is EngineState.RESTARTING
        await engine.ready()  # so a request that goes on with its next part waits here
        assert await answer(engine, request())


async def test_poison_request_is_quarantined_after_two_crashes(tiny_llama):
    async with crashing(tiny_llama, "word") as engine:
        for name in ("first", "second"):
            await engine.ready()
            with pytest.raises(EngineDown):
                await engine.generate(request("a deadly prompt", name=name))
        await engine.ready()

        with pytest.raises(CommandFailed) as caught:
            await engine.generate(request("a deadly prompt", name="third"))
        assert caught.value.failure is Failure.CRASHED
        assert await answer(engine, request("a harmless prompt"))


async def test_refusal_does_not_clear_the_crashes_of_a_request(tiny_llama):
    crash = CrashCandidate(command=Embed(id="first", inputs=["deadly"]), weight=1)
    async with EngineClient(config(tiny_llama)) as engine:
        await engine.ready()
        failures = []
        for worker in (1, 2):
            engine._lifecycle.poison_requests.record_crash([crash], worker)
            with pytest.raises(CommandFailed) as caught:
                await engine.embed(["deadly"])
            failures.append(caught.value.failure)

    assert failures == [Failure.UNSUPPORTED, Failure.CRASHED]


async def test_request_of_a_worker_killed_from_outside_is_answered_later(tiny_llama):
    async with EngineClient(config(tiny_llama, quarantine_weight=1)) as engine:
        for _ in range(3):
            await engine.ready()
            generation = await engine.generate(request("unlucky", max_tokens=None))
            os.kill(engine.pid, signal.SIGKILL)
            with pytest.raises(EngineDown):
                async for _ in generation:
                    pass
        await engine.ready()

        assert await answer(engine, request("unlucky", max_tokens=None))


async def test_request_that_hangs_the_worker_counts_as_a_crash(tiny_llama):
    async with EngineClient(config(tiny_llama, hang_timeout_s=4, quarantine_weight=1)) as engine:
        await engine.ready()
        generation = await engine.generate(request("endless", max_tokens=None))
        os.kill(engine.pid, signal.SIGSTOP)
        with pytest.raises(EngineDown):
            async for _ in generation:
                pass
        await engine.ready()

        with pytest.raises(CommandFailed):
            await engine.generate(request("endless", max_tokens=None))


async def test_running_request_beside_a_poison_request_is_not_quarantined(tiny_llama):
    async with crashing(tiny_llama, "word") as engine:
        for name in ("first", "second"):
            await engine.ready()
            bystander = await engine.generate(request("bystander", max_tokens=None))
            await anext(bystander)
            with pytest.raises(EngineDown):
                await engine.generate(request("a deadly prompt", name=name))
            await bystander.aclose()
        await engine.ready()

        assert await answer(engine, request("bystander", max_tokens=None))


async def test_queued_request_beside_a_poison_request_is_not_quarantined(tiny_llama):
    async with crashing(tiny_llama, "computing", slots=1) as engine:
        for _ in range(2):
            await engine.ready()
            prompts = ("a deadly prompt", "the cat", "a house")
            asked = [engine.generate(request(prompt, name=prompt)) for prompt in prompts]
            lost = await asyncio.gather(*asked, return_exceptions=True)
            assert any(isinstance(error, EngineDown) for error in lost)
        await engine.ready()

        for prompt in prompts[1:]:
            assert await answer(engine, request(prompt))
        with pytest.raises(CommandFailed) as caught:
            await engine.generate(request("a deadly prompt"))
        assert caught.value.failure is Failure.CRASHED


async def test_supervisor_can_be_closed_while_it_loads(tiny_llama):
    engine = crashing(tiny_llama, "hangs", stop_timeout_s=120)
    engine.start()
    await eventually(lambda: engine.pid is not None)
    pid = engine.pid
    async with asyncio.timeout(60):  # before it would be killed
        await engine.close()

    assert not is_alive(pid)


async def test_supervisor_kills_a_worker_that_hangs_at_exit(tiny_llama):
    engine = crashing(tiny_llama, "stays", stop_timeout_s=0.3)
    engine.start()
    await engine.ready()
    pid = engine.pid
    await engine.close()

    assert not is_alive(pid)
    assert engine.pid is None


async def test_supervisor_kills_a_stopped_worker_at_close(tiny_llama):
    async with EngineClient(config(tiny_llama, stop_timeout_s=0.3)) as engine:
        await engine.ready()
        pid = engine.pid
        os.kill(pid, signal.SIGSTOP)
        async with asyncio.timeout(60):
            await engine.close()

    assert not is_alive(pid)


async def test_supervisor_restarts_without_extra_buffers_after_a_crash_at_the_first_pass(
    tiny_llama, caplog
):
    with caplog.at_level(logging.WARNING):
        async with crashing(tiny_llama, "extra-buffers") as engine:
            info = await engine.ready()
            assert not info.extra_buffers
            assert await answer(engine, request())

    assert "engine_variant_changed" in caplog.text
    assert "SIGSEGV" in logged(caplog)


async def test_supervisor_keeps_extra_buffers_where_prefill_kernels_crash(tiny_llama, caplog):
    with caplog.at_level(logging.WARNING):
        async with crashing(tiny_llama, "prefill-kernels") as engine:
            info = await engine.ready()
            assert info.extra_buffers
            assert "prefill" not in info.backend
            assert (await engine.status()).deaths == 0

    changes = [one for one in caplog.records if one.msg == "engine_variant_changed"]
    assert [(one.use_extra_buffers, one.prefill_kernels) for one in changes] == [
        (False, True),
        (True, False),
    ]


async def test_supervisor_keeps_native_code_of_a_worker_killed_while_it_loads(tiny_llama, caplog):
    async with crashing(tiny_llama, "killed", restart_limit=0, restart_pause_s=40) as engine:
        with pytest.raises(EngineStartError, match="SIGKILL"):
            await engine.ready()

    assert "engine_variant_changed" not in caplog.text


async def test_a_worker_that_ends_itself_before_it_is_ready_has_died(tiny_llama):
    async with crashing(tiny_llama, "ends-itself", restart_limit=0, restart_pause_s=40) as engine:
        with pytest.raises(EngineStartError, match="75"):
            await engine.ready()


async def test_engine_fails_with_the_reason_if_its_worker_always_crashes(
    tiny_llama,
):
    async with crashing(tiny_llama, "always", restart_limit=1, restart_pause_s=40) as engine:
        with pytest.raises(EngineStartError, match="SIGSEGV") as raised:
            await engine.ready()

        assert engine.state == "failed"
        with pytest.raises(EngineDown) as caught:
            await engine.generate(request())
        for error in (raised.value, caught.value):
            assert 20 < error.retry_after_s < 60
        assert not engine.is_unsupervised


async def test_supervisor_restarts_after_a_pause(tiny_llama, caplog):
    settings = {"restart_limit": 2, "restart_pause_s": 0.3, "restart_reset_s": 600}
    async with EngineClient(config(tiny_llama, **settings)) as engine:
        for _ in range(4):
            await eventually(lambda: engine.state == "ready")
            os.kill(engine.pid, signal.SIGKILL)
            await eventually(lambda: engine.state != "ready")

        await eventually(lambda: engine.state == "ready")
        assert await answer(engine, request())

    failed = [line for line in caplog.records if line.message == "engine_failed"]
    assert [line.next_start_s for line in failed] == [0.3, 0.6]


async def test_the_time_of_loading_does_not_count_as_ready(tiny_llama, monkeypatch):
    ready: list[float] = []
    decide = RestartPolicy.next_restart

    def record(
        self: RestartPolicy, *, ready_s: float, was_ready: bool, cannot_start: bool
    ) -> Restart:
        ready.append(ready_s)
        return decide(self, ready_s=ready_s, was_ready=was_ready, cannot_start=cannot_start)

    monkeypatch.setattr(RestartPolicy, "next_restart", record)
    began_at = time.monotonic()
    async with EngineClient(config(tiny_llama)) as engine:
        await engine.ready()
        loading_s = engine._lifecycle._start_s
        os.kill(engine.pid, signal.SIGKILL)
        await eventually(lambda: ready)
        whole_s = time.monotonic() - began_at

    assert ready[0] <= whole_s - loading_s


async def test_supervisor_loads_a_repaired_model_after_a_pause(tmp_path):
    path = write_llama(tmp_path / "tiny.gguf")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    async with EngineClient(config(path, restart_pause_s=0.2)) as engine:
        with pytest.raises(EngineStartError, match="cut short"):
            await engine.ready()
        path.write_bytes(whole)

        await eventually(lambda: engine.state == "ready")
        assert await answer(engine, request())


async def test_engine_reports_that_it_is_not_supervised(tiny_llama, caplog):
    async with EngineClient(config(tiny_llama, command=("no\0program",))) as engine:
        with pytest.raises(EngineStartError, match="restart the server") as caught:
            await engine.ready()

        assert engine.is_unsupervised
        assert caught.value.retry_after_s is None
    assert not engine.is_unsupervised
    assert "engine_abandoned" in caplog.text


async def test_supervisor_retries_a_process_that_cannot_be_started(tiny_llama):
    command = ("/no/such/program",)
    async with EngineClient(config(tiny_llama, command=command, restart_limit=1)) as engine:
        with pytest.raises(EngineStartError, match="cannot be started"):
            await asyncio.wait_for(engine.ready(), 20)


async def test_engine_fails_if_the_model_exceeds_the_start_timeout(tiny_llama):
    async with crashing(tiny_llama, "hangs", start_timeout_s=0.3, stop_timeout_s=0.1) as engine:
        with pytest.raises(EngineStartError, match=r"not ready within 0\.3 s"):
            await engine.ready()


async def test_engine_is_down_while_it_loads(tiny_llama):
    async with EngineClient(config(tiny_llama)) as engine:
        with pytest.raises(EngineDown, match="loading") as caught:
            await engine.generate(request())

        assert caught.value.retry_after_s is not None
        assert engine.state == "starting"
        assert await engine.ready()


async def test_start_error_names_a_missing_or_invalid_model_file(tmp_path):
    nonsense = tmp_path / "nonsense.gguf"
    nonsense.write_bytes(b"nonsense")
    truncated = tmp_path / "truncated.gguf"
    truncated.write_bytes(b"GGUF\x03\0\0\0")
    whole = write_llama(tmp_path / "whole.gguf").read_bytes()
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(whole[:-1])
    wrong = tmp_path / "wrong.gguf"
    wrong.write_bytes(whole.replace(b"blk.1.ffn_down", b"blk.1.ffn_left"))

    for path, reason in (
        (tmp_path / "missing.gguf", "No such file"),
        (nonsense, "not a GGUF file"),
        (truncated, "cut short: its header would end at byte 16, and it has 8"),
        (cut, "cut short: its tensors would end"),
        (wrong, "cannot be loaded: .*tensor 'blk.1.ffn_down.weight' not found"),
    ):
        async with EngineClient(config(path)) as engine:
            with pytest.raises(EngineStartError, match=reason) as caught:
                await engine.ready()
        assert path.name in str(caught.value)


async def test_worker_error_in_a_turn_fails_its_requests_only(tiny_llama):
    async with crashing(tiny_llama, "fails") as engine:
        await engine.ready()
        pid = engine.pid
        for prompt in ("broken", "poison"):
            with pytest.raises(CommandFailed) as caught:
                await answer(engine, request(prompt, max_tokens=None))
            assert caught.value.failure is Failure.INTERNAL

        assert await answer(engine, request())
        assert engine.pid == pid


async def test_worker_ignores_signals_to_the_process_group(tiny_llama):
    async with EngineClient(config(tiny_llama)) as engine:
        await engine.ready()
        generation = await engine.generate(request(max_tokens=100))
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(engine.pid, number)

        assert len([delta async for delta in generation]) > 0
        assert engine.state == "ready"


async def test_worker_ends_when_its_owner_dies(tiny_llama):
    program = (
        "import asyncio, os, sys\n"
        "from pathlib import Path\n"
        "from llm_backend.engine import EngineClient, EngineConfig\n"
        "async def main():\n"
        "    engine = EngineClient(EngineConfig(model_path=Path(sys.argv[1]), threads=1))\n"
        "    engine.start()\n"
        "    await engine.ready()\n"
        "    print(engine.pid, flush=True)\n"
        "    os._exit(1)\n"
        "asyncio.run(main())\n"
    )
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(tiny_llama), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await owner.communicate()

    await eventually(lambda: not is_alive(int(output)))


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


async def test_watchdog_replaces_a_worker_that_hangs(tiny_llama, caplog):
    async with EngineClient(config(tiny_llama, hang_timeout_s=4)) as engine:
        await engine.ready()
        generation = await engine.generate(request(max_tokens=None))
        os.kill(engine.pid, signal.SIGSTOP)
        with pytest.raises(EngineDown):
            async for _ in generation:
                pass
        await eventually(lambda: engine.state == "ready")

        assert await answer(engine, request())
        assert "not answered for 4 s" in logged(caplog)


async def test_watchdog_does_not_probe_an_idle_engine(tiny_llama):
    async with EngineClient(config(tiny_llama, hang_timeout_s=1)) as engine:
        await engine.ready()
        pid = engine.pid
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(2)

        assert (engine.pid, engine.state) == (pid, "ready")
        os.kill(pid, signal.SIGCONT)


async def test_worker_log_contains_the_last_lines_of_native_code(tiny_llama, caplog):
    async with crashing(tiny_llama, "says-why", restart_limit=0) as engine:
        with pytest.raises(EngineStartError):
            await engine.ready()

    assert "GGML_ASSERT(everything) failed" in caplog.text
    assert (
        "llm_backend.engine.process.worker",
        logging.ERROR,
        "engine.example",
    ) in caplog.record_tuples


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("name", "value", "seen"),
    [
        ("UNRELATED", "1", b"GOMP_SPINCOUNT=10000"),
        ("GOMP_SPINCOUNT", "7", b"GOMP_SPINCOUNT=7"),
        ("OMP_WAIT_POLICY", "active", None),
    ],
)
async def test_worker_spin_count_is_bounded_unless_set(tiny_llama, monkeypatch, name, value, seen):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setenv(name, value)
    async with EngineClient(config(tiny_llama)) as engine:
        await engine.ready()
        pid = engine.pid
        given = await asyncio.to_thread(Path(f"/proc/{pid}/environ").read_bytes)

    spins = [line for line in given.split(b"\0") if line.startswith(b"GOMP_SPINCOUNT=")]
    assert spins == ([] if seen is None else [seen])
