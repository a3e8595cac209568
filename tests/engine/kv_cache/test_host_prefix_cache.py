"""The host prefix cache, with a model that notices any mistake with cells."""

import itertools
import random

import numpy as np
import pytest

from llm_backend.engine.generator import Generator
from llm_backend.engine.kv_cache.host_prefix_cache import HostPrefixCache, default_limit_bytes
from llm_backend.engine.kv_cache.prefix import Prefix
from llm_backend.engine.messages import PREFIX_BLOCK
from tests.engine.fakes import LETTERS, FakeModel, Outbox, generate, image, load_command
from tests.engine.test_generator import Bench

CHATS = [f"{name} asks for a story of many words, and gets it. " * 3 for name in ("ann", "bob")]
PLENTY = 1 << 40


def host_cache(
    limit_bytes: int = PLENTY, available_bytes: int = PLENTY, **options: bool
) -> HostPrefixCache:
    return HostPrefixCache(
        limit_bytes,
        can_roll_back=options.get("can_roll_back", True),
        machine_bytes=PLENTY,
        available_bytes=lambda: available_bytes,
    )


class HostCacheBench(Bench):
    """A generator over a fake model that saves overwritten slots in host memory."""

    def __init__(self, tier: HostPrefixCache | None, **shape: object) -> None:
        self.model = FakeModel(**{"slots": 1, "context_tokens": 512, "batch_tokens": 128, **shape})
        self.outbox = Outbox()
        self.generator = Generator(self.model, load_command(), self.outbox, host_cache=tier)
        self.numbers = itertools.count()

    def chat(self, prompt: str) -> tuple[str, int]:
        """Text of the answer, and number of cached prompt tokens."""
        deltas = self.answer(generate(prompt, id=str(next(self.numbers)), max_tokens=8))
        return "".join(delta.text for delta in deltas), deltas[-1].cached_tokens


def tokens(text: str) -> list[int]:
    return [ord(letter) % 31 + 1 for letter in text]


def prefix(text: str, size: int = 1000) -> Prefix:
    return Prefix(tokens=tokens(text), state=np.zeros(size, dtype=np.uint8))


def save(tier: HostPrefixCache, saved: Prefix) -> None:
    tier.save(saved.tokens, saved.state.size, lambda: saved.state)


def refuse_to_read() -> np.ndarray:
    raise AssertionError("the state is not to be allocated")


def test_chats_that_take_turns_in_one_slot_compute_each_token_once():
    bench, plain = HostCacheBench(host_cache()), HostCacheBench(None)
    texts = list(CHATS)
    for _ in range(3):
        for number, text in enumerate(texts):
            answer, cached = bench.chat(text)
            assert answer == plain.chat(text)[0]
            assert cached == 0 or cached >= len(CHATS[number])
            texts[number] = text + answer + " and then? "

    status = bench.generator.status("status")
    assert status.prefix_ram_restores == 4
    assert status.admitted_tokens - status.cached_tokens <= sum(map(len, texts))


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_restored_states_change_no_answer(slots):
    bench, plain = HostCacheBench(host_cache(), slots=slots), HostCacheBench(None, slots=slots)
    prompts = [f"{chat}{end}" for end in ("", "more. " * 20, "more. " * 9) for chat in CHATS * 2]
    prompts += [f"{number} is another one. " * 6 for number in "abcd"] + CHATS

    assert [bench.chat(one)[0] for one in prompts] == [plain.chat(one)[0] for one in prompts]


def test_model_that_cannot_roll_back_restores_whole_states_only():
    bench = HostCacheBench(host_cache(can_roll_back=False), can_roll_back=False)
    first, _ = bench.chat(CHATS[0])
    bench.chat(CHATS[1])
    _, cached = bench.chat(CHATS[0] + first[:-1] + "zzz")
    bench.chat(CHATS[1])

    assert cached in (0, len(CHATS[0] + first) - 1)
    assert bench.chat(CHATS[0][:-20] + "zzz")[1] == 0


def test_state_that_the_model_refuses_is_computed_instead(caplog, monkeypatch):
    bench, plain = HostCacheBench(host_cache()), HostCacheBench(None)
    bench.chat(CHATS[0])
    bench.chat(CHATS[1])
    monkeypatch.setattr(
        bench.model, "restore", lambda slot, state, end: not bench.model.truncate(slot, 0)
    )

    assert bench.chat(CHATS[0])[0] == plain.chat(CHATS[0])[0]
    assert "engine.prefix_not_restored" in caplog.text


def test_prefixes_evicted_as_cells_are_exhausted_are_saved():
    bench = HostCacheBench(host_cache(), slots=2, cells=250)
    for prompt in (*CHATS, CHATS[0]):
        _, cached = bench.chat(prompt)

    assert cached == len(CHATS[0]) - 1


def test_images_are_not_saved():
    bench = HostCacheBench(host_cache())
    bench.answer(generate(CHATS[0] * 2, id="1", max_tokens=4, media=[image()]))
    bench.chat(CHATS[1])

    assert bench.generator.status("status").prefix_ram_states == 0


def test_oldest_states_are_evicted_for_size():
    tier = host_cache(limit_bytes=8000)
    texts = [letter * (PREFIX_BLOCK + 10) for letter in "abc"]
    for text in texts:
        save(tier, prefix(text))

    assert len(tier) == 2
    assert tier.bytes <= 8000
    assert tier.find(tokens(texts[0])) is None
    assert tier.find(tokens(texts[2])) is not None


def test_state_beyond_the_limit_is_not_read_and_evicts_nothing():
    tier = host_cache(limit_bytes=4000)
    save(tier, prefix("a" * 70))
    tier.save(tokens("b" * 70), 5000, refuse_to_read)

    assert tier.find(tokens("a" * 70)) is not None
    assert tier.find(tokens("b" * 70)) is None


def test_states_are_evicted_when_the_machine_is_short_of_memory():
    available = [PLENTY]
    tier = HostPrefixCache(
        PLENTY, can_roll_back=True, machine_bytes=16_000, available_bytes=lambda: available[0]
    )
    for letter in "abc":
        save(tier, prefix(letter * 70))
    available[0] = 0
    tier.release_memory()

    assert len(tier) == 2
    assert tier.find(tokens("a" * 70)) is None


def test_state_for_which_memory_is_short_is_not_read_and_evicts_nothing():
    available = [PLENTY]
    tier = HostPrefixCache(
        PLENTY, can_roll_back=True, machine_bytes=16_000, available_bytes=lambda: available[0]
    )
    save(tier, prefix("a" * 70))
    available[0] = 2000  # of which 1000 are the reserve
    tier.save(tokens("b" * 70), 8000, refuse_to_read)

    assert tier.find(tokens("a" * 70)) is not None
    assert len(tier) == 1


def test_states_are_evicted_before_one_is_read_for_which_memory_is_short():
    states = {letter: prefix(letter * 70) for letter in "abcd"}  # 3520 bytes each, with tokens
    tier = HostPrefixCache(
        PLENTY,
        can_roll_back=True,
        machine_bytes=16_000,
        available_bytes=lambda: 12_000 - tier.bytes,
    )
    held = []
    for saved in states.values():
        tier.save(saved.tokens, 1000, lambda saved=saved: held.append(len(tier)) or saved.state)

    assert held == [0, 1, 2, 2]
    assert tier.find(states["a"].tokens) is None
    assert len(tier) == 3


def test_longer_state_of_a_chat_replaces_the_shorter():
    tier = host_cache()
    save(tier, prefix("a" * 128))
    save(tier, prefix("a" * 128 + "b" * 64))

    assert len(tier) == 1


def test_state_that_is_restored_whole_leaves_and_one_restored_in_part_stays():
    tier = host_cache()
    whole, part = prefix("a" * 128), prefix("b" * 128)
    save(tier, whole)
    save(tier, part)
    tier.record_restore(whole, 128)
    tier.record_restore(part, 64)

    assert tier.find(whole.tokens) is None
    found = tier.find(part.tokens)
    assert found is not None
    assert found.tokens == part.tokens
    assert (tier.restores, tier.restored_tokens) == (2, 192)


def test_state_that_is_restored_but_for_its_end_is_evicted_first():
    older, chat, third = ("o" * 100, "c" * 100, "t" * 100)
    tier = host_cache(limit_bytes=10_000)  # for two
    save(tier, prefix(older))
    save(tier, prefix(chat))
    found = tier.find(tokens(chat[:-10] + "z" * 40))
    assert found is not None
    tier.record_restore(found, len(chat) - 10)
    save(tier, prefix(third))

    assert tier.find(tokens(older)) is not None
    assert tier.find(tokens(chat)) is None


def test_short_texts_and_saved_texts_are_not_saved_again():
    tier = host_cache()
    saved = prefix("a" * 100)
    save(tier, saved)

    assert not tier.can_save(tokens("b" * (PREFIX_BLOCK - 1)))
    assert tier.can_save(tokens("b" * PREFIX_BLOCK))
    assert not tier.can_save(saved.tokens[:80])
    assert tier.can_save([*saved.tokens, 1])


def test_longest_state_is_found_to_the_token_and_not_saved_again():
    tier = host_cache()
    shorter, longer = prefix("a" * 100 + "b" * 10, size=10), prefix("a" * 120, size=1000)
    save(tier, longer)
    save(tier, shorter)
    found = tier.find(tokens("a" * 125))

    assert found is not None
    assert found.tokens == longer.tokens
    assert not tier.can_save(longer.tokens[:110])
    assert tier.can_save(tokens("a" * 121))


def test_longer_state_whose_restoring_costs_more_than_it_adds_is_not_found():
    tier = host_cache()
    short, long = prefix("a" * 100 + "b" * 10), prefix("a" * 110 + "c" * 1000)
    save(tier, long)
    save(tier, short)
    found = tier.find(tokens("a" * 110))

    assert found is not None
    assert found.tokens == short.tokens


def test_default_limit_is_a_quarter_of_the_available_memory():
    assert default_limit_bytes(8 << 30) == 2 << 30


@pytest.mark.parametrize("slots", [1, 2, 4, 8])
@pytest.mark.parametrize("concurrency", [1, 4, 48])
def test_tree_of_prompts_is_computed_once(slots, concurrency):
    """48 questions about one of three documents, after one system prompt: each token of the tree
    is computed once, in whatever order the requests come."""
    draw = random.Random(1)
    system, *documents = (text(draw, length) for length in (200, 300, 300, 300))
    prompts = [system + documents[number % 3] + text(draw, 20) for number in range(48)]
    bench = HostCacheBench(host_cache(), slots=slots, context_tokens=1024)
    for start_at in range(0, len(prompts), concurrency):
        some = prompts[start_at : start_at + concurrency]
        bench.submit(*(generate(one, id=one, max_tokens=4) for one in some))
        bench.run()

    status = bench.generator.status("status")
    assert status.admitted_tokens - status.cached_tokens <= 200 + 3 * 300 + 48 * 20


def text(draw: random.Random, length: int) -> str:
    return "".join(draw.choices(LETTERS[1:], k=length))
