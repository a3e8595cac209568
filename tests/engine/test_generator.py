from collections.abc import Iterator

import pytest

from llm_backend.backends.base import TextDelta
from llm_backend.controllers.rendering.chunks import ChunkHead, TextOffsets, text_chunk
from llm_backend.engine.command_refused import CommandRefused
from llm_backend.engine.generator import Generator
from llm_backend.engine.messages import (
    Delta,
    Embed,
    Failed,
    Failure,
    Priority,
    Sampling,
    SlotAssigned,
)
from llm_backend.engine.messages.address import Address
from llm_backend.engine.speculation.drafter import Drafter
from tests.engine.fakes import (
    END,
    LETTERS,
    FakeModel,
    FakeVocabulary,
    Outbox,
    SlowVocabulary,
    generate,
    greedy,
    load_command,
)


class Bench:
    """A generator over a fake model, and what it published."""

    def __init__(
        self, model: FakeModel | None = None, drafter: Drafter | None = None, **bounds: object
    ) -> None:
        self.model = model or FakeModel()
        self.outbox = Outbox()
        self.generator = Generator(self.model, load_command(**bounds), self.outbox, drafter)

    def submit(self, *commands, now: float = 0) -> None:
        for command in commands:
            self.generator.submit(Address(1, command.id), command, now)

    def run(self, steps: int = 1000, now: float = 0) -> None:
        for _ in range(steps):
            if self.generator.is_idle:
                return
            self.generator.wait()
            self.generator.step(now)
        raise AssertionError("it does not come to an end")

    def answer(self, command) -> list[Delta]:
        self.submit(command)
        self.run()
        return self.deltas(command.id)

    def deltas(self, name: str, index: int = 0) -> list[Delta]:
        events = self.outbox.events.get(name, [])
        return [event for event in events if isinstance(event, Delta) and event.index == index]

    def text(self, name: str, index: int = 0) -> str:
        return "".join(delta.text for delta in self.deltas(name, index))

    def failures(self, name: str) -> list[Failure]:
        events = self.outbox.events.get(name, [])
        return [event.failure for event in events if isinstance(event, Failed)]

    def compiled(self) -> list:
        """The grammars that were asked for, and what became of them."""
        return list(self.generator._requests.grammars._cache.items())


@pytest.fixture
def slow() -> Iterator[Bench]:
    """A bench with one slot for which no grammar is compiled before its gate is opened."""
    model = FakeModel(slots=1)
    model.vocabulary = SlowVocabulary()
    yield Bench(model, queue_limit=2, queue_deadline_s=10)
    model.vocabulary.may_compile.set()


def refusal(bench: Bench, command) -> CommandRefused:
    with pytest.raises(CommandRefused) as caught:
        bench.submit(command)
    return caught.value


def test_generator_answers_with_the_tokens_of_the_model():
    bench = Bench()
    bench.submit(generate("abc"))
    bench.run()

    assert bench.outbox.events["1"][0] == SlotAssigned(id="1", prompt_tokens=3)
    assert bench.text("1") == greedy("abc", 8)


def test_generator_answers_in_a_batch_as_alone():
    bench = Bench()
    prompts = [f"{letter}{letter} tell me" for letter in "abcdefghij"]
    bench.submit(*(generate(prompt, id=prompt) for prompt in prompts))
    bench.run()

    assert [bench.text(prompt) for prompt in prompts] == [greedy(prompt, 8) for prompt in prompts]


def test_generator_computes_the_prompt_of_several_answers_once():
    bench = Bench()
    prompt = "a prompt of thirty letters, see"
    bench.submit(generate(prompt, n=4, max_tokens=1))
    bench.run()

    assert bench.model.computed_tokens == len(prompt) + 3
    assert [bench.text("1", index) for index in range(4)] == [greedy(prompt, 1)] * 4


def test_answer_that_waits_for_a_slot_has_read_no_prompt_for_its_penalties(monkeypatch):
    read = []

    def token_bytes(self, token: int) -> bytes:
        read.append(token)
        return LETTERS[token].encode()

    monkeypatch.setattr(FakeVocabulary, "token_bytes", token_bytes)
    bench, sampling = Bench(FakeModel(slots=2)), Sampling(seed=1, dry_multiplier=1.0)
    bench.submit(generate("ab" * 20, n=4, sampling=sampling))
    assert not read

    bench.run()
    assert len(read) >= 4 * 40


def test_generator_shares_a_prefill_in_progress():
    bench = Bench()
    prefix = "the same forty letters before all others"
    bench.submit(generate(prefix + "a", id="a"))
    bench.generator.step(0)
    bench.submit(generate(prefix + "b", id="b"))
    bench.run()

    assert bench.deltas("b")[0].cached_tokens == len(prefix)
    assert bench.text("b") == greedy(prefix + "b", 8)


def test_generator_shares_a_prefill_in_progress_in_a_long_context():
    model = FakeModel(context_tokens=131072)
    model.copies_only_used_cells = True
    bench = Bench(model)
    prefix = "the same forty letters before all others" * 3
    bench.submit(generate(prefix + "a", id="a"))
    bench.generator.step(0)
    bench.submit(generate(prefix + "b", id="b"))
    bench.run()

    assert bench.deltas("b")[0].cached_tokens == len(prefix)


def test_generator_continues_a_chat_from_its_cells():
    bench = Bench()
    first = bench.answer(generate("hello there", id="a"))
    second = "hello there" + first[0].text + " and more"
    answer = bench.answer(generate(second, id="b"))

    assert answer[0].cached_tokens >= len("hello there")
    assert bench.text("b") == greedy(second, 8)


def test_generator_answers_with_a_recurrent_state():
    bench = Bench(FakeModel(can_roll_back=False))
    prompts = ["abcdefgh", "abcdefxy", "abcdefgh", "abcdefgh and on"]
    for number, prompt in enumerate(prompts):
        bench.submit(generate(prompt, id=str(number), n=2))
    bench.run()

    assert [bench.text(str(number), 1) for number in range(4)] == [greedy(p, 8) for p in prompts]


def test_generator_recomputes_after_a_failed_truncation():
    model = FakeModel(can_roll_back=False)
    bench = Bench(model)
    bench.generator._scheduler._cache.can_roll_back = True  # it was believed to be able to
    bench.answer(generate("abcdefgh", id="a"))
    bench.answer(generate("abcdefxy", id="b"))

    assert bench.text("b") == greedy("abcdefxy", 8)


def test_generator_answers_all_when_cells_are_exhausted():
    bench = Bench(FakeModel(cells=70, context_tokens=64))
    prompts = [f"{letter} prompt of some length" for letter in "abcd"]
    bench.submit(*(generate(prompt, id=prompt, max_tokens=20) for prompt in prompts))
    bench.run()

    assert [bench.text(prompt) for prompt in prompts] == [greedy(prompt, 20) for prompt in prompts]


def test_request_beside_exhausted_cells_fails_after_its_deadline():
    bench = Bench(FakeModel(cells=70, context_tokens=64), queue_deadline_s=10)
    prompts = [f"{letter} prompt of some length" for letter in "ab"]
    bench.submit(*(generate(prompt, id=prompt, max_tokens=20) for prompt in prompts))
    for _ in range(100):
        bench.generator.step(0)
        if not bench.generator._scheduler.can_admit:
            break
    bench.submit(generate("xyz", id="late"), now=0)
    bench.generator.step(11)

    assert bench.generator._scheduler.free_slots
    assert bench.failures("late") == [Failure.QUEUE_DEADLINE]


def test_answer_ends_at_max_tokens_or_with_the_context():
    bench = Bench(FakeModel(context_tokens=12))
    short = bench.answer(generate("abc", id="a", max_tokens=2))
    full = bench.answer(generate("abc", id="b", max_tokens=None, ignore_eos=True))

    assert (short[-1].finish_reason, short[-1].completion_tokens) == ("length", 2)
    assert (full[-1].finish_reason, full[-1].completion_tokens) == ("length", 9)


def test_end_token_ends_the_answer_without_text():
    bench = Bench()
    prompt = next(p for p in (f"q{a}{b}" for a in "abc" for b in LETTERS[1:]) if ends_early(p))
    answer = bench.answer(generate(prompt, max_tokens=30))

    assert answer[-1].finish_reason == "stop"
    assert answer[-1].completion_tokens == len(greedy(prompt, 30))


def ends_early(prompt: str) -> bool:
    return 0 < len(greedy(prompt, 30)) < 30


def test_end_token_can_be_ignored():
    bench = Bench()
    prompt = next(p for p in (f"q{a}{b}" for a in "abc" for b in LETTERS[1:]) if ends_early(p))
    answer = bench.answer(generate(prompt, max_tokens=30, ignore_eos=True))

    assert answer[-1].completion_tokens == 30


def test_stop_token_ends_the_answer_without_its_text():
    bench = Bench()
    whole = greedy("abc", 8)
    index = next(index for index in range(2, 8) if whole[index] not in whole[:index])
    answer = bench.answer(generate("abc", stop_token_ids=[LETTERS.index(whole[index])]))

    assert bench.text("1") == whole[:index]
    assert answer[-1].finish_reason == "stop"


@pytest.mark.parametrize("ignore_eos", [False, True])
def test_stop_token_may_be_an_end_token(ignore_eos):
    bench = Bench()
    prompt = next(p for p in (f"q{a}{b}" for a in "abc" for b in LETTERS[1:]) if ends_early(p))
    command = generate(prompt, max_tokens=30, stop_token_ids=[0], ignore_eos=ignore_eos)
    bench.answer(command)

    assert bench.text("1") == greedy(prompt, 30)


def test_answer_does_not_end_before_min_tokens():
    bench = Bench()
    prompt = next(p for p in (f"q{a}{b}" for a in "abc" for b in LETTERS[1:]) if ends_early(p))
    early = len(greedy(prompt, 30))
    longer = bench.answer(generate(prompt, id="a", max_tokens=30, min_tokens=early + 3))
    same = bench.answer(generate(prompt, id="b", max_tokens=30, min_tokens=early))

    assert longer[-1].completion_tokens >= early + 3
    assert bench.text("a").startswith(bench.text("b"))
    assert same[-1].completion_tokens == early


def test_stop_strings_are_ignored_before_min_tokens():
    bench = Bench()
    whole = greedy("abc", 8)
    bench.answer(generate("abc", id="a", stop=[whole[1]], min_tokens=4))
    bench.answer(generate("abc", id="b", stop=[whole[6:8]], min_tokens=4))

    assert bench.text("a").startswith(whole[:4])
    assert bench.text("b") == whole[:6]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"min_tokens": 9, "max_tokens": 8}, "min_tokens"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"stop_token_ids": [99]}, "stop_token_ids"),
        ({"stop_token_ids": [1] * 5}, "stop_token_ids"),
        ({"sampling": Sampling(typical_p=1.5)}, "typical_p"),
        ({"sampling": Sampling(xtc_probability=float("nan"))}, "xtc_probability"),
        ({"sampling": Sampling(xtc_threshold=-1)}, "xtc_threshold"),
        ({"sampling": Sampling(mirostat=3)}, "mirostat"),
        ({"sampling": Sampling(mirostat_tau=float("inf"))}, "mirostat_tau"),
        ({"sampling": Sampling(mirostat_eta=-0.1)}, "mirostat_eta"),
        ({"sampling": Sampling(repeat_last_n=-1)}, "repeat_last_n"),
        ({"sampling": Sampling(repeat_penalty=float("inf"))}, "repeat_penalty"),
        ({"sampling": Sampling(dry_multiplier=float("inf"))}, "dry_multiplier"),
        ({"sampling": Sampling(dry_base=0.5)}, "dry_base"),
        ({"sampling": Sampling(dry_allowed_length=-1)}, "dry_allowed_length"),
        ({"sampling": Sampling(dry_penalty_last_n=-2)}, "dry_penalty_last_n"),
        ({"sampling": Sampling(dry_sequence_breakers=("",))}, "dry_sequence_breakers"),
        ({"sampling": Sampling(dry_sequence_breakers=("a" * 41,))}, "dry_sequence_breakers"),
        ({"sampling": Sampling(dry_sequence_breakers=("a",) * 65)}, "dry_sequence_breakers"),
        ({"sampling": Sampling(temperature=float("inf"))}, "temperature"),
    ],
)
def test_invalid_parameters_are_refused_by_name(fields, field):
    refused = refusal(Bench(), generate("abc", **fields))

    assert (refused.failure, refused.field) == (Failure.INVALID, field)


def test_text_that_is_far_too_long_is_refused_by_its_own_name(monkeypatch):
    model = FakeModel()
    monkeypatch.setattr(model.vocabulary, "infill", (1, 2, 3))
    long = "a" * 200_000
    refused = [
        refusal(Bench(model), generate("abc", suffix=long)),
        refusal(Bench(model), generate(long)),
    ]

    assert [one.field for one in refused] == ["suffix", "prompt"]
    for one in refused:
        assert one.failure is Failure.CONTEXT_LENGTH
        assert f"the {one.field} alone has more than" in str(one)


def test_suffix_is_refused_without_infill_tokens():
    refused = refusal(Bench(), generate("abc", suffix="def"))

    assert (refused.failure, refused.field) == (Failure.UNSUPPORTED, "suffix")


def test_stop_string_across_tokens_ends_the_answer():
    bench = Bench()
    whole = greedy("abc", 8)
    answer = bench.answer(generate("abc", stop=[whole[3:6]]))

    assert bench.text("1") == whole[: whole.find(whole[3:6])]
    assert (answer[-1].finish_reason, answer[-1].stop_sequence) == ("stop", whole[3:6])


def test_echo_returns_the_prompt_first_with_its_logprobs():
    bench = Bench()
    command = generate("abcdefghij", echo=True, sampling=Sampling(temperature=0, logprobs=1))
    answer = bench.answer(command)
    logprobs = [item for delta in answer for item in delta.logprobs]

    assert bench.text("1") == "abcdefghij" + greedy("abcdefghij", 8)
    assert answer[0].text.startswith("abcdefghij")
    assert "".join(item.bytes.decode() for item in logprobs) == bench.text("1")
    assert [item.logprob is None for item in logprobs[:2]] == [True, False]


@pytest.mark.parametrize("adds_space", [True, False])
def test_tokens_of_an_echo_begin_where_they_are_in_the_text(monkeypatch, adds_space):
    bench = Bench()
    prompt = [END, *map(LETTERS.index, " abc" if adds_space else "abc")]
    if adds_space:
        monkeypatch.setattr(bench.model.vocabulary, "prompt_tokens", lambda *_, **__: prompt)
    command = generate(
        "abc" if adds_space else prompt,
        echo=True, max_tokens=2, sampling=Sampling(temperature=0, logprobs=0),
    )  # fmt: skip
    answer = bench.answer(command)
    logprobs = [item for delta in answer for item in delta.logprobs]
    head = ChunkHead(id="x", kind="text_completion", created_at=0, model="m")
    delta = TextDelta(choice=0, text=bench.text("1"), logprobs=logprobs)
    (choice,) = text_chunk(head, 0, delta, TextOffsets())["choices"]
    given = choice["logprobs"]

    assert choice["text"].startswith("abc")
    assert given["text_offset"] == [0] * adds_space + [0, 0, 1, 2, 3, 4]
    assert (
        "".join(choice["text"][at] for at in given["text_offset"][1 + adds_space :])
        == (choice["text"])
    )


def test_echo_without_max_tokens_scores_a_text():
    bench = Bench()
    command = generate("abcdefgh", echo=True, max_tokens=0, sampling=Sampling(logprobs=0))
    answer = bench.answer(command)

    assert [delta.text for delta in answer] == ["abcdefgh"]
    assert len(answer[0].logprobs) == 8
    assert (answer[0].finish_reason, answer[0].completion_tokens) == ("length", 0)


def test_max_tokens_zero_needs_no_pass():
    bench = Bench()
    answer = bench.answer(generate("abc", max_tokens=0, n=2))

    assert [delta.finish_reason for delta in answer] == ["length"]
    assert bench.model.computed_tokens == 0


def test_best_of_returns_the_likeliest_answer_only():
    bench = Bench()
    sampling = Sampling(seed=5, logprobs=0)
    bench.submit(generate("abc", id="all", n=4, sampling=sampling, ignore_eos=True))
    bench.submit(generate("abc", id="best", best_of=4, sampling=sampling, ignore_eos=True))
    bench.run()
    means = {}
    for index in range(4):
        logprobs = [item.logprob for delta in bench.deltas("all", index) for item in delta.logprobs]
        means[bench.text("all", index)] = sum(logprobs) / len(logprobs)

    *progress, answer = bench.deltas("best")
    assert answer.completion_tokens + answer.discarded_tokens == sum(
        bench.deltas("all", index)[-1].completion_tokens for index in range(4)
    )
    assert bench.text("best") == max(means, key=lambda text: means[text])
    assert {(delta.text, delta.finish_reason) for delta in progress} == {("", None)}
    counted = [delta.discarded_tokens for delta in progress]
    assert counted == sorted(counted)
    assert counted[-1] == answer.completion_tokens + answer.discarded_tokens


def test_prompt_that_exceeds_the_context_is_refused():
    bench = Bench(FakeModel(context_tokens=8))

    assert refusal(bench, generate("abcdefgh")).failure is Failure.CONTEXT_LENGTH
    assert bench.answer(generate("abcdefg", max_tokens=None))[-1].completion_tokens == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": [1, 99]},
        {"prompt": [-1]},
        {"prompt": []},
        {"prompt": ""},
        {"n": 0},
        {"n": 9},
        {"best_of": 9},
        {"max_tokens": -1},
        {"stop": ["a"] * 5},
        {"sampling": Sampling(logit_bias={99: 1.0})},
        {"sampling": Sampling(logprobs=21)},
        {"sampling": Sampling(logprobs=-1)},
        {"sampling": Sampling(temperature=float("nan"))},
        {"sampling": Sampling(repeat_penalty=0)},
    ],
)
def test_invalid_commands_are_refused(fields):
    assert refusal(Bench(), generate(**fields)).failure is Failure.INVALID


def test_chat_model_refuses_to_embed():
    assert refusal(Bench(), Embed(id="1", inputs=["a"])).failure is Failure.UNSUPPORTED


def test_full_queue_refuses_requests():
    bench = Bench(FakeModel(slots=1), queue_limit=1)
    bench.submit(generate("abc", id="a"))
    bench.generator.step(0)
    bench.submit(generate("abc", id="b"))

    assert refusal(bench, generate("abc", id="c")).failure is Failure.QUEUE_FULL


def test_queued_request_fails_after_its_deadline():
    bench = Bench(FakeModel(slots=1), queue_deadline_s=10)
    bench.submit(generate("abc", id="a"), generate("xyz", id="b"))
    bench.generator.step(5)
    bench.generator.step(11)
    (event,) = bench.outbox.events["b"]

    assert isinstance(event, Failed)
    assert event.failure is Failure.QUEUE_DEADLINE
    bench.run()
    assert bench.text("a") == greedy("abc", 8)


def test_request_that_waits_for_a_prefix_beside_free_slots_has_no_queue_deadline():
    model = FakeModel(slots=4, context_tokens=2048, batch_tokens=16)
    bench = Bench(model, queue_deadline_s=10)
    prompt = [1 + position % 26 for position in range(1600)]
    bench.submit(generate([*prompt, 1], id="a", max_tokens=2), now=0)
    bench.generator.step(0)
    bench.submit(generate([*prompt, 2], id="b", max_tokens=2), now=0)
    for now in range(200):
        bench.generator.step(now)

    assert not bench.failures("a") + bench.failures("b")
    assert bench.generator.is_idle


def test_running_request_has_no_queue_deadline():
    bench = Bench(FakeModel(slots=1), queue_deadline_s=10)
    bench.submit(generate("abc", n=3))
    bench.generator.step(5)
    bench.run(now=100)

    assert [bench.text("1", index) for index in range(3)] == [greedy("abc", 8)] * 3
    assert not bench.failures("1")


def test_running_request_does_not_count_as_queued():
    bench = Bench(FakeModel(slots=1))
    bench.submit(generate("abc", id="a", n=3), generate("abc", id="b"))
    bench.generator.step(0)

    assert bench.generator.status("s").waiting == 1


def test_batch_requests_have_a_longer_queue_deadline():
    bench = Bench(FakeModel(slots=1), queue_deadline_s=10, batch_queue_deadline_s=100)
    bench.submit(
        generate("abc", id="talks", max_tokens=None, ignore_eos=True),
        generate("abc", id="person"),
        generate("abc", id="job", priority=Priority.BATCH),
    )
    bench.generator.step(0)
    bench.generator.step(99)
    early = bench.failures("person"), bench.failures("job")
    bench.generator.step(101)

    assert early == ([Failure.QUEUE_DEADLINE], [])
    assert bench.failures("job") == [Failure.QUEUE_DEADLINE]


def test_batch_requests_do_not_fill_the_interactive_queue():
    bench = Bench(FakeModel(slots=1), queue_limit=1, batch_queue_limit=2)
    bench.submit(*(generate("abc", id=name, priority=Priority.BATCH) for name in "abc"))
    refused = refusal(bench, generate("abc", id="d", priority=Priority.BATCH))
    bench.submit(generate("xyz", id="person"))
    bench.run()

    assert refused.failure is Failure.QUEUE_FULL
    assert bench.text("person") == greedy("xyz", 8)


def test_requests_whose_grammar_is_compiled_count_as_queued(slow):
    slow.submit(*(generate(id=name, grammar=f'start: "{name}"') for name in "abc"))

    assert slow.generator.status("s").waiting == 3
    assert refusal(slow, generate(id="d", grammar='start: "d"')).failure is Failure.QUEUE_FULL
    assert refusal(slow, generate(id="e")).failure is Failure.QUEUE_FULL


def test_request_fails_if_its_grammar_exceeds_the_deadline(slow):
    slow.submit(generate(grammar='start: "a"'))
    slow.generator.step(9)
    early = slow.failures("1")
    slow.generator.step(11)

    assert early == []
    assert slow.failures("1") == [Failure.QUEUE_DEADLINE]
    assert slow.generator.is_idle


def test_grammar_without_waiting_requests_is_not_compiled(slow):
    slow.submit(
        generate(id="first", grammar='start: "a"'),
        *(generate(id=name, grammar='start: "b"') for name in ("second", "third")),
    )
    (future,) = {future for grammar, future in slow.compiled() if '"b"' in grammar}
    slow.generator.cancel(Address(1, "second"))
    shared = future.cancelled()
    slow.generator.cancel(Address(1, "third"))

    assert not shared
    assert future.cancelled()
    slow.submit(generate(id="fourth", grammar='start: "b"'))
    slow.model.vocabulary.may_compile.set()
    slow.run()
    assert slow.text("fourth") == "b"


def test_grammar_compiler_error_fails_one_request_and_is_retried(slow):
    slow.model.vocabulary.is_broken = True
    slow.model.vocabulary.may_compile.set()
    slow.submit(generate(id="a", grammar='start: "a"'), generate("abc", id="b"))
    slow.run()
    slow.model.vocabulary.is_broken = False
    slow.submit(generate(id="c", grammar='start: "a"'))
    slow.run()

    assert slow.failures("a") == [Failure.INTERNAL]
    assert slow.text("b") == greedy("abc", 8)
    assert slow.text("c") == "a"


def test_invalid_grammar_fails_one_request_by_its_field():
    bench = Bench()
    grammar = 'start: %json {"multipleOf": true}'
    bench.submit(generate(id="a", grammar=grammar), generate("abc", id="b"))
    bench.run()

    (failed,) = bench.outbox.events["a"]
    assert (failed.failure, failed.field) == (Failure.INVALID, "grammar")
    assert bench.text("b") == greedy("abc", 8)


def test_cancelled_request_frees_its_slot_and_sends_nothing_more():
    bench = Bench(FakeModel(slots=1))
    bench.submit(generate("abc", id="a", max_tokens=None), generate("xyz", id="b"))
    bench.generator.step(0)
    bench.generator.cancel(Address(1, "a"))
    event_count = len(bench.outbox.events["a"])
    bench.run()

    assert bench.text("b") == greedy("xyz", 8)
    assert len(bench.outbox.events["a"]) == event_count


def test_closed_connection_cancels_its_own_requests_only():
    bench = Bench()
    bench.generator.submit(Address(1, "mine"), generate("abc", id="mine"), 0)
    bench.generator.submit(Address(2, "other"), generate("abc", id="other"), 0)
    bench.generator.cancel_connection(1)
    bench.run()

    assert bench.text("mine") == ""
    assert bench.text("other") == greedy("abc", 8)


def test_failed_step_fails_its_requests_and_clears_their_cells():
    bench = Bench(FakeModel(slots=1))
    bench.submit(generate("abcdef", id="a"), generate("abcdefg", id="b"))
    bench.generator.step(0)
    bench.model.fails_next_pass = True
    with pytest.raises(RuntimeError):
        bench.generator.step(0)
    bench.generator.abort("went wrong")
    bench.run()

    assert isinstance(bench.outbox.events["a"][-1], Failed)
    assert bench.deltas("b")[0].cached_tokens == 0
    assert bench.text("b") == greedy("abcdefg", 8)


def test_invalid_logits_fail_one_request_only():
    bench = Bench()
    everything = {token: -float("inf") for token in range(bench.model.vocabulary.size)}
    impossible = Sampling(logit_bias=everything)
    bench.submit(generate("abc", id="a", n=2, sampling=impossible), generate("abc", id="b"))
    bench.run()

    assert isinstance(bench.outbox.events["a"][-1], Failed)
    assert bench.text("b") == greedy("abc", 8)


def test_request_with_invalid_logits_leaves_no_cached_prefix():
    bench = Bench()
    everything = {token: -float("inf") for token in range(bench.model.vocabulary.size)}
    impossible = Sampling(logit_bias=everything)
    bench.submit(generate("abcdef", id="a", n=2, sampling=impossible))
    bench.run()
    bench.submit(generate("abcdef", id="b"))
    bench.run()

    assert bench.deltas("b")[0].cached_tokens == 0
    assert bench.text("b") == greedy("abcdef", 8)


def test_moved_sequence_is_not_counted_as_cached_again(monkeypatch):
    bench = Bench(FakeModel(slots=3, context_tokens=512, batch_tokens=128))
    copy, targets = bench.model.copy, []
    monkeypatch.setattr(
        bench.model, "copy", lambda source, target: (targets.append(target), copy(source, target))
    )
    prompts = {"1": "the first of them", "2": "one between them", "3": "and the last one"}
    bench.submit(
        *(
            generate(prompt, id=id, max_tokens=4 if id == "2" else 200)
            for id, prompt in prompts.items()
        )
    )
    bench.run()

    assert targets == [1], "the last sequence moves next to the first"
    assert bench.generator.statistics.admitted_tokens == sum(map(len, prompts.values()))
    assert bench.generator.statistics.cached_tokens == 0
