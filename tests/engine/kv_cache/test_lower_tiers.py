"""Prefixes that outlive their slots, with a model that notices any mistake with cells."""

import logging
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest

from llm_backend.engine.generator import Generator
from llm_backend.engine.kv_cache.cache import Cache
from llm_backend.engine.kv_cache.host_prefix_cache import HostPrefixCache
from llm_backend.engine.kv_cache.prefix_files import PrefixFolder, open_folder
from llm_backend.engine.kv_cache.prefix_files.prefix_restorer import PrefixRestorer
from llm_backend.engine.messages import PREFIX_BLOCK, PrefixLimits
from llm_backend.engine.scheduling.scheduler import Scheduler
from llm_backend.engine.scheduling.slot_cells import SlotCells
from llm_backend.engine.statistics import Statistics
from tests.engine.fakes import LETTERS, FakeModel, Outbox, generate, greedy, image, load_command
from tests.engine.kv_cache.test_host_prefix_cache import host_cache as in_host_memory
from tests.engine.test_generator import Bench

RESTED_S = 100.0
SYSTEM = "what the system says to everybody before they begin. " * 4  # 212 tokens
OTHER = "something else, and a good deal of that, too, as it is. " * 4


class Kept(Bench):
    """A generator over a fake model, with prefix files in a folder."""

    def __init__(
        self, folder: PrefixFolder, host_cache: HostPrefixCache | None = None, **shape: object
    ) -> None:
        self.folder = folder
        self.model = FakeModel(**{"context_tokens": 512, "batch_tokens": 128, **shape})
        self.outbox = Outbox()
        self.generator = Generator(self.model, load_command(), self.outbox, prefixes=folder,
                                   host_cache=host_cache)  # fmt: skip

    def idle(self) -> None:
        """Long enough for all that is to be written."""
        while self.generator.idle_timeout_s(RESTED_S) is not None:
            self.generator.step(RESTED_S)

    @property
    def cached_tokens(self) -> int:
        return self.deltas("1")[-1].cached_tokens


Begin = Callable[..., Kept]


@pytest.fixture
def begin(tmp_path) -> Begin:
    """Starts an engine over the same folder; what one has closed, the next one finds."""
    model = tmp_path / "model.gguf"
    model.write_bytes(b"GGUF")

    def begin(limits: dict[str, int] | None = None, **shape: object) -> Kept:
        prefixes = PrefixLimits(folder=str(tmp_path / "kept"), **{"tokens": 64, **(limits or {})})
        folder = open_folder(load_command(model_path=model, prefixes=prefixes), "fake")
        assert folder is not None
        return Kept(folder, **shape)

    return begin


@pytest.fixture
def files(tmp_path) -> Callable[[], list[Path]]:
    return lambda: sorted((tmp_path / "kept").glob("*/*.prefix"))


def had(begin: Begin, *prompts: str, **shape: object) -> None:
    """An engine that has answered these and has ended."""
    bench = begin(**shape)
    for prompt in prompts:
        bench.answer(generate(prompt, id=prompt))
    bench.generator.close()


def test_prefix_files_restore_a_long_prompt_after_a_restart(begin):
    had(begin, SYSTEM + "and hello")
    bench = begin()
    bench.answer(generate(SYSTEM + "what now?"))

    assert bench.text("1") == greedy(SYSTEM + "what now?", 8)
    assert bench.cached_tokens >= len(SYSTEM)
    assert bench.model.computed_tokens < 20
    assert bench.generator.statistics.prefix_reads == 1


def test_prefix_files_are_read_once_for_all_sequences_that_share_them(begin):
    had(begin, SYSTEM)
    bench = begin(slots=8)
    prompts = [f"{SYSTEM}{letter}" for letter in "abcdefgh"]
    bench.submit(*(generate(prompt, id=prompt) for prompt in prompts))
    bench.run()

    assert [bench.text(prompt) for prompt in prompts] == [greedy(prompt, 8) for prompt in prompts]
    assert bench.model.computed_tokens < 16 * len(prompts)
    assert bench.generator.statistics.prefix_reads == 1


def test_prefix_files_delay_no_sequence_without_a_match(begin):
    had(begin, SYSTEM)
    bench = begin()
    bench.answer(generate(OTHER))

    assert bench.text("1") == greedy(OTHER, 8)
    assert bench.cached_tokens == bench.generator.statistics.prefix_reads == 0


def test_prefix_files_are_saved_when_the_engine_is_idle(begin, files):
    bench = begin()
    bench.answer(generate(SYSTEM))
    bench.answer(generate(OTHER, id="2"))
    bench.generator.step(1.0)
    at_once = files()
    bench.idle()

    assert at_once == []
    assert len(files()) == bench.generator.statistics.prefix_writes == 2
    status = bench.generator.status("probe")
    assert (status.prefix_files, status.prefix_bytes) == (2, sum(map(size_of, files())))


def size_of(path: Path) -> int:
    return path.stat().st_size


def test_prefix_files_wake_no_engine_without_requests(begin):
    assert begin().generator.idle_timeout_s(0.0) is None


def test_prefix_files_save_a_prefix_before_it_is_overwritten(begin):
    bench = begin(slots=1)
    bench.answer(generate(SYSTEM))
    bench.answer(generate(OTHER, id="2"))
    bench.idle()
    again = begin()
    again.answer(generate(SYSTEM + "again"))

    assert again.cached_tokens >= len(SYSTEM)
    assert again.text("1") == greedy(SYSTEM + "again", 8)


def test_restored_file_moves_the_overwritten_prefix_to_host_memory(begin):
    had(begin, SYSTEM)
    bench = begin(host_cache=in_host_memory(), slots=1)
    bench.answer(generate(OTHER, id="other"))
    bench.answer(generate(SYSTEM + "again"))
    bench.answer(generate(OTHER + "more", id="more"))

    assert bench.cached_tokens >= len(SYSTEM)
    assert bench.deltas("more")[-1].cached_tokens >= len(OTHER) - PREFIX_BLOCK


def test_prefix_in_host_memory_is_restored_without_its_file(begin):
    bench = begin(host_cache=in_host_memory(), slots=1)
    bench.answer(generate(SYSTEM + "one", id="first"))
    bench.idle()
    bench.answer(generate(OTHER, id="other"))
    bench.answer(generate(SYSTEM + "one again"))

    assert bench.cached_tokens >= len(SYSTEM)
    assert bench.generator.statistics.prefix_read_tokens == 0


def test_prefix_files_are_not_written_twice(begin, files):
    had(begin, SYSTEM + "one chat", SYSTEM + "another chat", SYSTEM + "one more")

    assert len(files()) == 1


def test_prefix_files_replace_the_file_of_a_continued_chat(begin, files):
    bench = begin()
    bench.answer(generate(SYSTEM))
    bench.idle()
    (before,) = files()
    bench.answer(generate(SYSTEM + OTHER, id="2"))
    bench.idle()

    assert len(files()) == 1
    assert not before.exists()


def test_prefix_files_omit_short_prompts(begin, files):
    had(begin, "a prompt of less than sixty tokens, answer included")

    assert files() == []


def test_prefix_files_omit_texts_with_images_but_restore_the_text_before(begin, files):
    bench = begin()
    bench.answer(generate(SYSTEM + "x", media=[image(at=len(SYSTEM))]))
    bench.generator.close()
    assert files() == []

    had(begin, SYSTEM)
    again = begin()
    again.answer(generate(SYSTEM + "x", media=[image(at=len(SYSTEM))]))
    assert again.cached_tokens >= 192
    assert again.text("1") == bench.text("1")


def test_prefix_files_evict_the_least_recently_used_above_the_size_limit(begin, files):
    had(begin, SYSTEM)
    bound = 2 * size_of(files()[0]) + 2000
    bench = begin({"bytes": bound})
    for number, letter in enumerate("abcde"):
        bench.answer(generate(letter * 200, id=str(number)))
        bench.idle()
        assert sum(map(size_of, files())) <= bound

    found = [
        letter for letter in "abcde" if bench.folder.index.match([LETTERS.index(letter)] * 200)
    ]
    assert found == ["d", "e"]


def test_prefix_files_remove_a_damaged_file_and_compute_its_tokens(begin, files, caplog):
    had(begin, SYSTEM)
    (path,) = files()
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    bench = begin()
    with caplog.at_level(logging.WARNING):
        bench.answer(generate(SYSTEM + "what now?"))

    assert bench.text("1") == greedy(SYSTEM + "what now?", 8)
    assert bench.cached_tokens == 0
    assert "checksum differs" in caplog.text
    assert bench.folder.index.match([LETTERS.index(letter) for letter in SYSTEM]) is None


def test_prefix_files_with_other_tokens_than_indexed_restore_no_wrong_cells(begin, files):
    """As if two texts had the same hash."""
    had(begin, SYSTEM)
    (system,) = files()
    had(begin, OTHER)
    (other,) = set(files()) - {system}
    bench = begin()
    other.replace(system)
    bench.answer(generate(SYSTEM + "what now?"))

    assert bench.text("1") == greedy(SYSTEM + "what now?", 8)
    assert bench.cached_tokens == 0


def test_prefix_files_compute_tokens_of_a_state_that_the_model_refuses(begin):
    had(begin, SYSTEM)
    bench = begin()
    bench.model.refuses_states = True
    bench.answer(generate(SYSTEM + "what now?"))

    assert bench.text("1") == greedy(SYSTEM + "what now?", 8)
    assert len(bench.folder.index) == 0


def test_prefix_files_continue_a_recurrent_state_from_its_end_only(begin):
    had(begin, SYSTEM, can_roll_back=False)
    longer = SYSTEM + greedy(SYSTEM, 8)
    bench = begin(can_roll_back=False)
    bench.answer(generate(SYSTEM + "what now?", id="2"))
    bench.answer(generate(longer + "what now?"))

    assert bench.text("2") == greedy(SYSTEM + "what now?", 8)
    assert bench.deltas("2")[-1].cached_tokens == 0
    assert bench.text("1") == greedy(longer + "what now?", 8)
    assert bench.cached_tokens >= len(longer) - 1


def test_prefix_files_log_a_full_disk_and_fail_no_request(begin, caplog, tmp_path):
    bench = begin()
    bench.answer(generate(SYSTEM))
    (folder,) = (tmp_path / "kept").iterdir()
    folder.rmdir()
    folder.write_text("in its place")
    with caplog.at_level(logging.WARNING):
        bench.idle()
    bench.answer(generate(SYSTEM + "and more", id="2"))

    assert "engine.prefix_not_written" in caplog.text
    assert bench.text("2") == greedy(SYSTEM + "and more", 8)


def test_prefix_files_forget_a_cancelled_request(begin):
    had(begin, SYSTEM)
    bench = begin()
    bench.submit(generate(SYSTEM + "what now?"))
    (address,) = bench.generator._requests
    bench.generator.cancel(address)
    while bench.generator.idle_timeout_s(0.0) is not None:
        bench.generator.wait()
        bench.generator.step(0.0)
    bench.answer(generate(SYSTEM + "and now?", id="2"))

    assert bench.text("2") == greedy(SYSTEM + "and now?", 8)


class Stuck:
    """A folder on a disk that never answers."""

    def __init__(self, folder: PrefixFolder) -> None:
        self.index = folder.index
        self.minimum_tokens = folder.minimum_tokens

    def read(self, name: str) -> Future:
        return Future()


def test_prefix_files_give_up_on_a_disk_that_hangs(begin):
    had(begin, SYSTEM)
    now, cache = [0.0], Cache(slots=2)
    recalling = PrefixRestorer(
        cache,
        SlotCells(FakeModel(), Scheduler(cache=cache, batch_tokens=8), None),
        Stuck(begin().folder),
        Statistics(),
        save_overwritten=lambda placement: None,
        tokens_per_s=lambda: None,
        clock=lambda: now[0],
    )
    tokens = [LETTERS.index(letter) for letter in SYSTEM]
    recalling.request(tokens)
    recalling.step()
    waits_at_first = cache.should_wait_for_restore(tokens)
    now[0] = 10.0
    recalling.step()
    recalling.request(tokens)

    assert waits_at_first
    assert not cache.should_wait_for_restore(tokens)


def test_prefix_files_skip_a_file_that_is_slower_than_computing(begin):
    had(begin, SYSTEM)
    folder, cache = begin().folder, Cache(slots=2)
    recalling = PrefixRestorer(
        cache,
        SlotCells(FakeModel(), Scheduler(cache=cache, batch_tokens=8), None),
        folder,
        Statistics(),
        save_overwritten=lambda placement: None,
        tokens_per_s=lambda: 1000.0,
    )
    recalling._costs.record_read(1000, seconds=1000)
    tokens = [LETTERS.index(letter) for letter in SYSTEM]
    recalling.request(tokens)

    assert not cache.should_wait_for_restore(tokens)
    for _ in range(1000):  # what was so once is not believed for ever
        recalling.request(tokens)
    assert cache.should_wait_for_restore(tokens)


def test_prefix_files_hold_short_prefixes_beside_one_beyond_the_size_limit(begin, files):
    had(begin, SYSTEM)
    bench = begin({"bytes": 2 * size_of(files()[0])}, slots=2)
    bench.answer(generate(OTHER, id="short"))
    bench.answer(generate("a" * 480, id="long"))
    bench.idle()

    assert bench.folder.index.match([LETTERS.index(letter) for letter in OTHER]) is not None
    assert bench.folder.index.match([LETTERS.index("a")] * 480) is None


def test_prefix_files_read_no_state_beyond_the_size_limit(begin, files):
    bench = begin({"bytes": 2000})
    for letter in "abcd":
        bench.answer(generate(letter * 200, id=letter))
    bench.idle()

    assert files() == []
    assert bench.model.saved_states == 0
