"""A real draft head of random weights: the same answers as without, and which heads are used."""

import asyncio
import ctypes
import itertools
from pathlib import Path

import numpy as np
import pytest

from llm_backend.engine import EngineClient
from llm_backend.engine.batch import BatchChunk
from llm_backend.engine.llama import LlamaLog, LlamaModel, load_eagle_head, native_head
from llm_backend.engine.llama.native_head import NativeHead
from llm_backend.engine.messages import Generate, Sampling
from llm_backend.engine.messages.address import Address
from llm_backend.engine.model import DecodeError
from llm_backend.engine.sequence import ScheduledTokens, Sequence
from llm_backend.engine.speculation.head_drafter import HeadDrafter
from llm_backend.model_files import draft_head_problem, read_header
from tests.engine.conftest import answer, config
from tests.engine.fakes import load_command
from tests.engine.gguf_models import write_delta_net, write_eagle, write_llama, write_with_head
from tests.engine.test_generator import Bench

NUMBERS = itertools.count()
GREEDY = Sampling(temperature=0)
SAMPLINGS = (GREEDY, Sampling(seed=4, temperature=0.4, top_p=0.9))
PROMPTS = ("the cat in the hat", "one two three", "an other thing that is said", "the")
LONG = "a text of which the head reads more than it leaves for later. " * 3


@pytest.fixture(scope="module")
def copying(tmp_path_factory) -> Path:
    """A model whose head predicts as the model does."""
    return write_with_head(tmp_path_factory.mktemp("heads") / "copies.gguf", copies=True)


@pytest.fixture(scope="module")
def random_head(tmp_path_factory) -> Path:
    """A model whose head predicts something else."""
    return write_with_head(tmp_path_factory.mktemp("heads") / "random.gguf", seed=5)


@pytest.fixture(scope="module")
def copying_state(tmp_path_factory) -> Path:
    """The same with a recurrent state."""
    return write_delta_net(tmp_path_factory.mktemp("heads") / "state.gguf", copies=True)


@pytest.fixture(scope="module", params=[False, True], ids=["qwen35", "qwen35moe"])
def random_state(request, tmp_path_factory) -> Path:
    """A model with a recurrent state whose head predicts something else."""
    path = tmp_path_factory.mktemp("heads") / "state.gguf"
    return write_delta_net(path, seed=5, has_experts=request.param)


def request(prompt: str = PROMPTS[0], **fields: object) -> Generate:
    defaults = {"max_tokens": 60, "sampling": GREEDY, "ignore_eos": True}
    return Generate(id=f"h{next(NUMBERS)}", prompt=prompt, **{**defaults, **fields})


def bench(path: Path, *, drafts: bool = True, **fields: object) -> Bench:
    """An engine in this process whose passes seem to cost nothing: it drafts whenever it can."""
    log = LlamaLog()
    bounds = {"batch_tokens": 64, "draft_tokens": 4 if drafts else 0, "logit_rows": 16, **fields}
    model = LlamaModel(load_command(model_path=path, **bounds), log)
    model.verify()
    head = model.open_draft_head()
    assert (head is not None) == drafts
    drafter = None if head is None else HeadDrafter(head, clock=lambda: 0.0)
    return Bench(model, drafter, **bounds)


def answers_of(bench: Bench, *commands: Generate) -> list[str]:
    bench.submit(*commands)
    bench.run()
    return [bench.text(command.id) for command in commands]


def drafted(bench: Bench, commands: list[Generate]) -> int:
    return sum(bench.deltas(command.id)[-1].drafted_tokens for command in commands)


def accepted(bench: Bench, commands: list[Generate]) -> int:
    return sum(bench.deltas(command.id)[-1].accepted_tokens for command in commands)


def test_head_that_predicts_as_its_model_is_always_accepted(copying):
    plain, ahead = bench(copying, drafts=False), bench(copying)
    expected = answers_of(plain, *map(request, PROMPTS))
    commands = [request(prompt) for prompt in PROMPTS]

    assert answers_of(ahead, *commands) == expected
    assert accepted(ahead, commands) == drafted(ahead, commands) > 100
    assert ahead.generator.statistics.passes < 0.4 * plain.generator.statistics.passes


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_random_head_changes_no_answer(random_head, sampling):
    prompts = (*PROMPTS, LONG, LONG + "and another", PROMPTS[1])
    plain, ahead = bench(random_head, drafts=False), bench(random_head)
    expected = answers_of(plain, *(request(prompt, sampling=sampling) for prompt in prompts))
    commands = [request(prompt, sampling=sampling) for prompt in prompts]

    assert answers_of(ahead, *commands) == expected
    assert drafted(ahead, commands) > 0


def test_model_with_a_recurrent_state_drafts_with_its_head(copying_state):
    plain, ahead = bench(copying_state, drafts=False), bench(copying_state)
    expected = answers_of(plain, *map(request, PROMPTS))
    commands = [request(prompt) for prompt in PROMPTS]

    assert answers_of(ahead, *commands) == expected
    assert accepted(ahead, commands) == drafted(ahead, commands) > 100
    assert ahead.generator.statistics.passes < 0.4 * plain.generator.statistics.passes


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_recurrent_state_is_taken_back_after_rejected_drafts(random_state, sampling):
    prompts = (*PROMPTS, LONG, LONG + "and another", PROMPTS[1])
    plain, ahead = bench(random_state, drafts=False), always_drafting(random_state)
    expected = answers_of(plain, *(request(prompt, sampling=sampling) for prompt in prompts))
    commands = [request(prompt, sampling=sampling) for prompt in prompts]

    assert answers_of(ahead, *commands) == expected
    assert drafted(ahead, commands) > 100
    assert accepted(ahead, commands) < drafted(ahead, commands) / 2


class RecordingDrafter(HeadDrafter):
    """Drafts always; records each text, with the first token that it drafts."""

    def follow(self, sequence):
        return 1.0, super().follow(sequence)[1]

    def draft(self, counts):
        drafts = super().draft(counts)
        self.first_tokens += [(one.tokens[:], draft[0]) for one, draft in drafts.items() if draft]
        return drafts

    first_tokens: list


@pytest.mark.parametrize("architecture", ["deepseek2", "glm4moe", "hy_v3"])
def test_drafts_follow_from_the_hidden_states_of_the_whole_text(tmp_path, architecture):
    path = write_with_head(tmp_path / "random.gguf", seed=5, architecture=architecture)
    log = LlamaLog()
    command = load_command(model_path=path, batch_tokens=64, draft_tokens=4, logit_rows=16)
    model = LlamaModel(command, log)
    drafter = RecordingDrafter(model.open_draft_head(), clock=lambda: 0.0)
    drafter.first_tokens = []
    answers_of(
        Bench(model, drafter, batch_tokens=64, draft_tokens=4, logit_rows=16),
        *(request(prompt, max_tokens=20) for prompt in (LONG, *PROMPTS[:3])),
    )

    assert len(drafter.first_tokens) > 40
    assert {len(tokens) > 100 for tokens, _ in drafter.first_tokens} == {True, False}
    whole = LlamaModel(load_command(model_path=path, batch_tokens=256, draft_tokens=4), log)
    head = whole.open_draft_head()
    for tokens, drafted in drafter.first_tokens:
        assert reference_token(whole, head, tokens) == drafted


def test_head_follows_cancelled_copied_and_failed_texts(random_head):
    def run(bench: Bench) -> list[str]:
        first = request(LONG, n=3, sampling=Sampling(seed=1))
        others = [request(LONG + end) for end in ("and more", "or less", "of it")]
        bench.submit(first, request(PROMPTS[1]))
        for _ in range(12):
            bench.generator.step(0)
        bench.generator.cancel(Address(1, first.id))
        bench.submit(*others)
        for _ in range(6):
            bench.generator.step(0)
        bench.generator.abort("a step failed")
        bench.run()
        again = [request(LONG + "and more of it", n=2), request(PROMPTS[0]), request(PROMPTS[1])]
        texts = answers_of(bench, *again)
        return [*texts, bench.text(again[0].id, 1)]

    log, bounds = LlamaLog(), {"batch_tokens": 64, "draft_tokens": 4, "logit_rows": 16}
    model = LlamaModel(load_command(model_path=random_head, **bounds), log)
    drafter = RecordingDrafter(model.open_draft_head(), clock=lambda: 0.0)
    drafter.first_tokens = []

    assert run(Bench(model, drafter, **bounds)) == run(bench(random_head, drafts=False))
    assert len(drafter.first_tokens) > 50


def always_drafting(path: Path, **fields: object) -> Bench:
    """An engine that drafts with the model's head in every pass that may have drafts."""
    log, bounds = LlamaLog(), {"batch_tokens": 64, "draft_tokens": 4, "logit_rows": 16, **fields}
    model = LlamaModel(load_command(model_path=path, **bounds), log)
    model.verify()
    drafter = RecordingDrafter(model.open_draft_head(), clock=lambda: 0.0)
    drafter.first_tokens = []
    return Bench(model, drafter, **bounds)


@pytest.mark.parametrize("kv_unified", [False, True])
def test_state_that_was_taken_back_is_copied_and_continued(random_state, kv_unified):
    """Of `n` answers the second ones begin with a copy of a slot, and chats come back."""

    def run(bench: Bench) -> list[str]:
        texts = []
        for turn in range(3):
            commands = [
                request(prompt + " more" * turn, n=2, max_tokens=9 + turn, sampling=SAMPLINGS[1])
                for prompt in (LONG, *PROMPTS)
            ]
            texts += answers_of(bench, *commands)
            texts += [bench.text(one.id, 1) for one in commands]
        return texts

    ahead = always_drafting(random_state, kv_unified=kv_unified)
    assert run(ahead) == run(bench(random_state, drafts=False))
    assert len(ahead.generator._speculation._drafter.first_tokens) > 50


class FailingHead:
    """A head of which one function fails at its fifth call."""

    def __init__(self, head: NativeHead, name: str) -> None:
        self._head, self._name, self.calls = head, name, 0

    def __getattr__(self, name: str) -> object:
        found = getattr(self._head, name)
        return self._failing(found) if name == self._name else found

    def _failing(self, function):
        def call(*arguments):
            self.calls += 1
            if self.calls == 5:
                raise DecodeError("it fails")
            return function(*arguments)

        return call


@pytest.mark.parametrize("name", ["hidden_states", "forward"])
def test_failure_of_the_head_ends_drafting_and_no_answer(copying, name, caplog):
    log, bounds = LlamaLog(), {"batch_tokens": 64, "draft_tokens": 2, "logit_rows": 16}
    model = LlamaModel(load_command(model_path=copying, **bounds), log)
    head = FailingHead(model.open_draft_head(), name)
    ahead = Bench(model, HeadDrafter(head, clock=lambda: 0.0), **bounds)
    expected = answers_of(bench(copying, drafts=False), *map(request, PROMPTS))

    assert answers_of(ahead, *map(request, PROMPTS)) == expected
    assert head.calls == 5
    assert "engine.draft_failed" in caplog.text


def reference_token(model: LlamaModel, head: NativeHead, tokens: list[int]) -> int:
    """The token that the head predicts after `tokens`, computed in one pass of either."""
    whole = Sequence(
        request=Address(1, "r"), index=0, tokens=tokens, max_length=999, arrived_at=0, slot=0
    )
    model.truncate(0, 0)
    head.truncate(0, 0)
    model.forward([ScheduledTokens(whole, len(tokens))])
    hidden = np.roll(head.hidden_states(len(tokens)), 1, axis=0)
    hidden[0] = 0
    chunk = BatchChunk(slot=0, position=0, tokens=tokens, outputs=[len(tokens) - 1])
    logits, _ = head.forward([chunk], hidden)
    return int(logits[0].argmax())


def eagle_bench(path: Path, draft: Path, draft_tokens: int) -> Bench:
    """An engine with an EAGLE-3 draft, whose passes seem to cost nothing."""
    log, bounds = LlamaLog(), {"batch_tokens": 64, "draft_tokens": draft_tokens, "logit_rows": 16}
    command = load_command(model_path=path, draft_model_path=draft, **bounds)
    model = LlamaModel(command, log)
    model.verify()
    drafter = HeadDrafter(load_eagle_head(model, command, log), clock=lambda: 0.0)
    return Bench(model, drafter, **bounds)


def test_eagle_draft_that_copies_its_model_is_always_accepted(tmp_path):
    model = write_llama(tmp_path / "model.gguf", layers=3, copies=True)
    draft = write_eagle(tmp_path / "eagle.gguf", copies=True)
    plain, ahead = bench(model, drafts=False), eagle_bench(model, draft, 1)
    prompts = [f"{prompt} {number}" for number, prompt in enumerate((*PROMPTS, LONG, LONG))]
    expected = answers_of(plain, *(request(prompt, max_tokens=30) for prompt in prompts))
    commands = [request(prompt, max_tokens=30) for prompt in prompts]

    assert answers_of(ahead, *commands) == expected
    assert accepted(ahead, commands) == drafted(ahead, commands) >= 14 * len(prompts)


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_random_eagle_draft_changes_no_answer(tmp_path, sampling):
    model = write_llama(tmp_path / "model.gguf", layers=3)
    draft = write_eagle(tmp_path / "eagle.gguf", seed=3, size=32)
    plain, ahead = bench(model, drafts=False), eagle_bench(model, draft, 4)
    prompts = (*PROMPTS, LONG, LONG + "and another", PROMPTS[1])
    expected = answers_of(plain, *(request(prompt, sampling=sampling) for prompt in prompts))
    commands = [request(prompt, sampling=sampling) for prompt in prompts]

    assert answers_of(ahead, *commands) == expected
    assert drafted(ahead, commands) > 0


@pytest.mark.asyncio
async def test_engine_with_an_eagle_draft_gives_the_same_answers(tmp_path, tiny_llama):
    model = write_llama(tmp_path / "model.gguf", layers=3, copies=True)
    draft = write_eagle(tmp_path / "eagle.gguf", copies=True)
    async with (
        EngineClient(config(model, draft_model_path=draft)) as ahead,
        EngineClient(config(model, speculation=False)) as plain,
    ):
        await asyncio.gather(ahead.ready(), plain.ready())
        deltas, expected = await asyncio.gather(
            answer(ahead, request(max_tokens=100)), answer(plain, request(max_tokens=100))
        )

    assert "".join(one.text for one in deltas) == "".join(one.text for one in expected)


@pytest.mark.asyncio
async def test_engine_finds_the_head_by_itself_and_reports_it(copying):
    async with (
        EngineClient(config(copying)) as ahead,
        EngineClient(config(copying, speculation=False)) as plain,
    ):
        info, other = await asyncio.gather(ahead.ready(), plain.ready())
        deltas, expected = await asyncio.gather(
            answer(ahead, request(max_tokens=200)), answer(plain, request(max_tokens=200))
        )

    assert info.backend == f"{other.backend}, drafts with its own head"
    assert "".join(one.text for one in deltas) == "".join(one.text for one in expected)


@pytest.mark.parametrize("fields", [{"has_head": False}, {"heads": 3}])
def test_unusable_head_is_logged_and_the_model_answers(tmp_path, caplog, fields):
    path = write_with_head(tmp_path / "odd.gguf", **fields)
    model = LlamaModel(load_command(model_path=path, draft_tokens=4), LlamaLog())
    model.verify()

    assert model.open_draft_head() is None
    assert "engine.draft_head_unused" in caplog.text
    assert Bench(model).answer(request(max_tokens=3))[-1].completion_tokens == 3


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, None),
        ({"has_head": False}, "the file does not have their weights"),
        ({"heads": 3}, "there are 3 of them, and only one is supported"),
        ({"architecture": "exaone4"}, "those of exaone4 are not supported"),
        (
            {"architecture": "qwen3next"},
            "the state of qwen3next cannot be truncated after a rejected draft",
        ),
    ],
)
def test_heads_are_refused_by_the_header_of_their_file(tmp_path, fields, reason):
    header = read_header(write_with_head(tmp_path / "odd.gguf", **fields))

    assert draft_head_problem(header) == reason


def test_crashed_head_is_not_used_again(copying, caplog):
    command = load_command(model_path=copying, draft_tokens=4, draft_heads=False)

    assert LlamaModel(command, LlamaLog()).open_draft_head() is None
    assert "a worker that used it has crashed" in caplog.text


def test_head_follows_a_text_whose_oldest_tokens_are_dropped(random_head):
    bounds = {"batch_tokens": 64, "logit_rows": 16, "context_tokens": 96}
    bounds |= {"context_shift_tokens": 200}
    command = request("what", max_tokens=200)
    plain = bench(random_head, drafts=False, **bounds)
    log = LlamaLog()
    model = LlamaModel(load_command(model_path=random_head, draft_tokens=4, **bounds), log)
    drafter = RecordingDrafter(model.open_draft_head(), clock=lambda: 0.0)
    drafter.first_tokens = []
    ahead = Bench(model, drafter, draft_tokens=4, **bounds)

    assert answers_of(ahead, command) == answers_of(plain, command)
    assert ahead.generator.statistics.context_shifts > 1
    assert len(drafter.first_tokens) > 100


def test_pass_without_hidden_states_is_a_decode_error(monkeypatch):
    null = native_head.HiddenStates.__new__(native_head.HiddenStates)
    null._context, null._size = None, 4
    nothing = ctypes.POINTER(ctypes.c_float)()
    monkeypatch.setattr(native_head, "_function", lambda _name: lambda *_: nothing)

    with pytest.raises(DecodeError):
        null.rows(3)
