"""Delays between the deaths of a worker and its next start."""

from pathlib import Path

from llm_backend.engine import EngineConfig
from llm_backend.engine.process.restart_policy import RestartPolicy

CONFIG = EngineConfig(
    model_path=Path("none.gguf"),
    restart_limit=3,
    restart_delay_s=1,
    restart_delay_limit_s=3,
    restart_pause_s=10,
    restart_pause_limit_s=50,
    restart_reset_s=30,
)


def delays(restarts: RestartPolicy, number: int, ready_s: float = 1) -> list[tuple[float, bool]]:
    """The delays after `number` deaths in a row."""
    made = [
        restarts.next_restart(ready_s=ready_s, was_ready=True, cannot_start=False)
        for _ in range(number)
    ]
    return [(restart.delay_s, restart.is_pause) for restart in made]


def test_restart_policy_delays_grow_and_become_pauses():
    assert delays(RestartPolicy(CONFIG), 8) == [
        (1, False), (2, False), (3, False), (10, True), (20, True), (40, True), (50, True),
        (50, True),
    ]  # fmt: skip


def test_restart_policy_resets_after_a_long_lived_worker():
    restarts = RestartPolicy(CONFIG)
    delays(restarts, 6)

    assert delays(restarts, 1, ready_s=31) == [(1, False)]
    assert delays(restarts, 3) == [(2, False), (3, False), (10, True)]


def test_restart_policy_pauses_at_once_if_the_model_cannot_be_loaded():
    restart = RestartPolicy(CONFIG).next_restart(ready_s=0, was_ready=False, cannot_start=True)

    assert (restart.delay_s, restart.is_pause) == (10, True)


def test_restart_policy_pause_never_exceeds_its_limit():
    assert delays(RestartPolicy(CONFIG), 5000)[-1] == (50, True)
