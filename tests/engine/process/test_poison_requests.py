import fcntl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from llm_backend.engine.messages import Generate
from llm_backend.engine.process import poison_requests as poison_requests_module
from llm_backend.engine.process.engine_connection import CrashCandidate
from llm_backend.engine.process.poison_requests import PoisonRequests, SharedPoisonRequests

LIMITS = {"limit": 10, "quarantine_weight": 2, "age_s": 60}


def command(prompt: str, name: str = "1") -> Generate:
    return Generate(id=name, prompt=prompt)


def candidate(prompt: str, name: str = "1", weight: float = 1) -> CrashCandidate:
    return CrashCandidate(command=command(prompt, name), weight=weight)


@pytest.fixture(params=["of one process", "of several"])
def poison_requests_of(request, tmp_path) -> Callable[..., PoisonRequests]:
    """Factory of both kinds of poison requests."""
    if request.param == "of one process":
        return lambda **fields: PoisonRequests(**{**LIMITS, **fields})
    return lambda **fields: SharedPoisonRequests(
        tmp_path / "poison_requests", **{**LIMITS, **fields}
    )


def test_poison_requests_are_recognised_by_content_not_id(poison_requests_of):
    poison_requests = poison_requests_of()
    poison_requests.record_crash([candidate("a", "1")], 1)
    poison_requests.record_crash([candidate("a", "2"), candidate("b")], 2)

    assert poison_requests.is_quarantined(command("a", "3"))
    assert not poison_requests.is_quarantined(command("b"))


def test_poison_requests_are_cleared_by_an_answer(poison_requests_of):
    poison_requests = poison_requests_of(quarantine_weight=1)
    poison_requests.record_crash([candidate("a")], 1)
    poison_requests.clear(command("a"))

    assert not poison_requests.is_quarantined(command("a"))


def test_poison_requests_are_bounded(poison_requests_of):
    poison_requests = poison_requests_of(limit=2, quarantine_weight=1)
    poison_requests.record_crash([candidate("a"), candidate("b"), candidate("c")], 1)

    assert [poison_requests.is_quarantined(command(prompt)) for prompt in "abc"] == [
        False,
        True,
        True,
    ]


def test_poison_requests_with_less_weight_are_quarantined_later(poison_requests_of):
    poison_requests = poison_requests_of()
    quarantined = []
    for worker in range(4):
        poison_requests.record_crash([candidate("a", weight=0.5)], worker)
        quarantined.append(poison_requests.is_quarantined(command("a")))

    assert quarantined == [False, False, False, True]


def test_poison_requests_expire(poison_requests_of):
    now = 0.0
    poison_requests = poison_requests_of(clock=lambda: now)
    poison_requests.record_crash([candidate("a"), candidate("b")], 1)
    now = 50.0
    poison_requests.record_crash([candidate("a")], 2)
    now = 100.0
    poison_requests.record_crash([candidate("b")], 3)

    assert poison_requests.is_quarantined(command("a"))
    assert not poison_requests.is_quarantined(command("b"))
    now = 111.0
    assert not poison_requests.is_quarantined(command("a"))


def test_poison_requests_are_shared_between_processes(tmp_path):
    one, other = (SharedPoisonRequests(tmp_path / "poison_requests", **LIMITS) for _ in range(2))
    for worker, poison_requests in enumerate((one, other)):
        poison_requests.record_crash([candidate("a")], worker)

    assert one.is_quarantined(command("a"))


def test_poison_requests_file_that_is_half_written_counts_as_empty(tmp_path):
    path: Path = tmp_path / "poison_requests"
    poison_requests = SharedPoisonRequests(path, **LIMITS)
    poison_requests.record_crash([candidate("a"), candidate("b")], 1)
    path.write_bytes(path.read_bytes()[:-5])

    assert not poison_requests.is_quarantined(command("a"))
    for worker in (2, 3):
        poison_requests.record_crash([candidate("a")], worker)
    assert poison_requests.is_quarantined(command("a"))


def test_poison_requests_count_in_memory_while_their_file_cannot_be_opened(tmp_path, caplog):
    (tmp_path / "poison_requests").mkdir()
    poison_requests = SharedPoisonRequests(tmp_path / "poison_requests", **LIMITS)
    for worker in (1, 2):
        poison_requests.record_crash([candidate("a")], worker)
    poison_requests.discard_crash(3)

    assert poison_requests.is_quarantined(command("a"))
    assert "poison_requests_not_shared" in caplog.messages


def test_poison_requests_count_a_crash_once_per_worker(poison_requests_of):
    poison_requests = poison_requests_of()
    poison_requests.record_crash([candidate("a", "1"), candidate("a", "2")], 1)

    assert not poison_requests.is_quarantined(command("a"))


@pytest.mark.parametrize("is_discarded_first", [True, False])
def test_poison_requests_ignore_workers_killed_from_outside(poison_requests_of, is_discarded_first):
    poison_requests = poison_requests_of()
    for worker in (1, 2):
        if is_discarded_first:
            poison_requests.discard_crash(worker)
        poison_requests.record_crash([candidate("a")], worker)
        if not is_discarded_first:
            poison_requests.discard_crash(worker)

    assert not poison_requests.is_quarantined(command("a"))


def test_poison_requests_withdraw_the_crash_of_a_living_worker_only(poison_requests_of):
    poison_requests = poison_requests_of()
    for worker in (1, 2):
        poison_requests.record_crash([candidate("a")], worker)
    poison_requests.withdraw_crash(2)
    is_quarantined_at_first = poison_requests.is_quarantined(command("a"))
    poison_requests.record_crash([candidate("a")], 2)

    assert not is_quarantined_at_first
    assert poison_requests.is_quarantined(command("a"))


def test_poison_requests_file_is_empty_after_expiry(tmp_path):
    now = 0.0
    path: Path = tmp_path / "poison_requests"
    poison_requests = SharedPoisonRequests(path, **LIMITS, clock=lambda: now)
    poison_requests.record_crash([candidate("a")], 1)
    poison_requests.discard_crash(2)
    now = 61.0

    poison_requests.clear(command("b"))
    assert path.stat().st_size == 0


def test_poison_requests_wait_no_longer_than_a_moment_for_a_stopped_process(
    tmp_path, caplog, monkeypatch
):
    path: Path = tmp_path / "poison_requests"
    poison_requests = SharedPoisonRequests(path, **LIMITS)
    for worker in (1, 2):
        poison_requests.record_crash([candidate("a")], worker)
    answers = []
    asking = threading.Thread(
        target=lambda: answers.append(poison_requests.is_quarantined(command("a")))
    )
    with path.open("rb") as held_by_another:
        fcntl.flock(held_by_another, fcntl.LOCK_EX)
        asking.start()
        asking.join(20)
        is_answered = bool(answers)
        now, pauses = time.monotonic(), []
        stopped = SimpleNamespace(monotonic=lambda: now, sleep=pauses.append)
        monkeypatch.setattr(poison_requests_module, "time", stopped)
        again = [poison_requests.is_quarantined(command("a")) for _ in range(40)]
        monkeypatch.undo()
    asking.join()

    assert is_answered
    assert answers == [True]
    assert (set(again), sum(pauses) < 0.06) == ({True}, True)  # one of them may try the lock
    assert "poison_requests_not_shared" in caplog.messages
