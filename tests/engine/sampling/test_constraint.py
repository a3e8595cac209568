"""Answers that must follow a grammar, from a real model of random weights."""

import asyncio
import itertools
import json
import time

import pytest
import pytest_asyncio

from llm_backend.engine import CommandFailed, EngineClient
from llm_backend.engine.messages import Failure, FinishReason, Generate, GrammarLimits, Sampling
from tests.engine.conftest import answer, config

pytestmark = pytest.mark.asyncio(loop_scope="module")

GREEDY = Sampling(temperature=0)
NUMBERS = itertools.count()
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
SLOW = 'start: %json {"type": "integer", "multipleOf": 200003}'  # seconds, where bounds allow it


def request(grammar: str | None, prompt: str = "the cat in the hat", **fields: object) -> Generate:
    defaults = {"max_tokens": 200, "sampling": GREEDY}
    return Generate(
        id=f"g{next(NUMBERS)}", prompt=prompt, grammar=grammar, **{**defaults, **fields}
    )


def schema(value: object) -> str:
    compact = {"x-guidance": {"whitespace_flexible": False}}
    return f"start: %json {json.dumps(value | compact)}"


def text(deltas, index: int = 0) -> str:
    return "".join(delta.text for delta in deltas if delta.index == index)


def last(deltas, index: int = 0):
    return [delta for delta in deltas if delta.index == index][-1]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def spm(tiny_spm):
    async with EngineClient(config(tiny_spm)) as engine:
        await engine.ready()
        yield engine


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def patient(tiny_llama):
    """An engine that compiles what takes long."""
    async with EngineClient(config(tiny_llama, grammars=GrammarLimits(multiple=10**6))) as engine:
        await engine.ready()
        yield engine


async def test_answer_follows_its_grammar(say):
    deltas = await say(request('start: "yes" | "no"'))

    assert text(deltas) in ("yes", "no")
    assert deltas[-1].finish_reason is FinishReason.STOP


async def test_answer_follows_its_schema(say):
    deltas = await say(request(schema(PERSON)))

    assert set(json.loads(text(deltas))) == {"name", "age"}


async def test_answer_follows_gbnf(say):
    deltas = await say(request('root ::= item "!"\nitem ::= [0-9]{4}'))

    assert text(deltas)[:4].isdigit()
    assert text(deltas)[4:] == "!"


async def test_blank_lines_of_a_grammar_are_scanned_in_linear_time(say):
    deltas = await say(request("\n" * 100_000 + 'start: "once"'))

    assert text(deltas) == "once"  # a minute later, if each line were the first of all others


async def test_vocabulary_with_a_leading_space_follows_its_schema(spm):
    deltas = await answer(spm, request(schema(PERSON)))

    assert set(json.loads(text(deltas))) == {"name", "age"}


async def test_vocabulary_with_a_leading_space_writes_forced_text_verbatim(spm):
    deltas = await answer(spm, request('start: "the name" " a é\\n" "<s>" "</s>the"'))

    assert text(deltas) == "the name a é\n<s></s>the"
    assert last(deltas).completion_tokens < len("the name a é\n<s></s>the")


async def test_each_sampled_answer_follows_the_grammar(say):
    deltas = await say(request("start: /[ab]{5}/", n=4, sampling=Sampling(seed=1)))

    texts = [text(deltas, index) for index in range(4)]
    assert all(len(one) == 5 and set(one) <= {"a", "b"} for one in texts)
    assert len(set(texts)) > 1


async def test_best_of_follows_the_grammar(say):
    deltas = await say(request("start: /[ab]{5}/", n=2, best_of=4, sampling=Sampling(seed=1)))

    assert all(len(text(deltas, index)) == 5 for index in range(2))


@pytest.mark.parametrize(
    "grammar",
    [
        'start: "a" (',
        "start: nothing",
        "",
        'start: %json {"$ref": "#"}',
        'start: %json {"type": "integer", "multipleOf": 999983}',
        "root ::= [",
        '{"grammars": [{"json_schema": {}}]}',
        "start: " + " | ".join(f'"{number}"' for number in range(2000)),
        "start: aa\n" + "".join(f"r{n}: r{n + 1}\n" for n in range(9000)) + 'r9000: "a"',
    ],
)
async def test_invalid_grammar_is_refused(engine, grammar):
    with pytest.raises(CommandFailed) as caught:
        await answer(engine, request(grammar))

    assert caught.value.failure is Failure.INVALID
    assert caught.value.field == "grammar"
    assert "\n" not in str(caught.value)


async def test_rules_may_be_nested_deeply(say):
    grammar = "start: r0\n" + "".join(f"r{n:x}: r{n + 1:x}\n" for n in range(9000))

    assert text(await say(request(grammar + f'r{9000:x}: "a"'))) == "a"


async def test_grammar_without_answers_fails_its_request_alone(engine):
    grammar = 'start: "a" X\nX: /x/ & /y/'
    free = asyncio.create_task(answer(engine, request(None, max_tokens=60, ignore_eos=True)))
    with pytest.raises(CommandFailed) as caught:
        await answer(engine, request(grammar))

    assert caught.value.failure is Failure.INVALID
    assert len(text(await free)) > 0


async def test_forced_text_equals_sampled_text(say):
    grammar = 'start: "then the hat " /[ab]{3}/ " in the end"'
    forced = await say(request(grammar))
    chosen = await say(request(grammar, sampling=Sampling(temperature=0, logprobs=0)))

    assert text(forced) == text(chosen)
    assert last(forced).completion_tokens == last(chosen).completion_tokens
    assert text(forced[:1]).startswith("then the hat")  # in one delta
    assert forced[0].completion_tokens > 1


async def test_seed_gives_the_same_text_with_and_without_logprobs(say):
    grammar = 'start: "then the hat " /[a-z]{20}/ " in the end " /[a-z]{20}/'
    without = await say(request(grammar, sampling=Sampling(seed=5)))
    with_logprobs = await say(request(grammar, sampling=Sampling(seed=5, logprobs=0)))

    assert text(without) == text(with_logprobs)


async def test_constrained_logprobs_are_of_the_unmasked_model(say):
    free = await say(request(None, max_tokens=1, sampling=Sampling(temperature=0, logprobs=5)))
    constrained = await say(request("start: /[ab]/", sampling=Sampling(temperature=0, logprobs=5)))

    (own,), (entry,) = free[0].logprobs, constrained[0].logprobs
    assert [top.token for top in entry.top] == [top.token for top in own.top]
    assert entry.bytes in (b"a", b"b")
    assert entry.logprob <= own.logprob


async def test_answer_cut_by_its_length_has_finish_reason_length(say):
    deltas = await say(request("start: /[ab]{50}/", max_tokens=7))

    assert last(deltas).finish_reason is FinishReason.LENGTH
    assert last(deltas).completion_tokens == 7


async def test_forced_text_is_cut_by_the_length(say):
    deltas = await say(request('start: "abcdefghijklmnopqrstuvwxyz"', max_tokens=7))

    assert last(deltas).finish_reason is FinishReason.LENGTH
    assert last(deltas).completion_tokens == 7


async def test_answer_ends_at_a_stop_string_within_forced_text(say):
    deltas = await say(request('start: "one two three"', stop=["tw"]))

    assert text(deltas) == "one "
    assert last(deltas).stop_sequence == "tw"


async def test_ignored_end_tokens_do_not_end_an_unfinished_answer(say):
    deltas = await say(request('start: "a"*', ignore_eos=True, max_tokens=20))

    assert text(deltas) == "a" * 20


async def test_complete_answer_ends_although_end_tokens_are_ignored(say):
    deltas = await say(request('start: "a"{1,3}', ignore_eos=True))

    assert text(deltas) == "aaa"
    assert last(deltas).finish_reason is FinishReason.STOP


async def test_grammar_may_end_an_answer_with_an_end_token(say):
    deltas = await say(request('start: "a" <|im_end|>'))

    assert text(deltas) == "a"
    assert last(deltas).finish_reason is FinishReason.STOP


async def test_grammar_markers_are_never_text(say):
    named = await say(request("start: <tool_call> <[273]>", sampling=Sampling(logprobs=0)))
    sampled = await say(request('start: "<tool_call>"', sampling=Sampling(logprobs=0)))

    tokens = [[item.token for delta in deltas for item in delta.logprobs]
              for deltas in (named, sampled)]  # fmt: skip
    assert tokens[0] == [272, 273]
    assert 272 not in tokens[1]
    assert text(sampled) == "<tool_call>"


async def test_unconstrained_answers_are_unchanged_beside_constrained_ones(engine):
    prompts = [f"{letter} the hat" for letter in "abc"]
    free = [request(None, prompt, max_tokens=40, ignore_eos=True) for prompt in prompts]
    alone = [text(await answer(engine, one)) for one in free]
    together = await asyncio.gather(
        *(answer(engine, request(None, prompt, max_tokens=40, ignore_eos=True))
          for prompt in prompts),
        *(answer(engine, request(schema(PERSON))) for _ in prompts),
    )  # fmt: skip

    assert [text(deltas) for deltas in together[:3]] == alone
    assert len({text(deltas) for deltas in together[3:]}) == 1


async def test_constrained_answers_are_the_same_when_cells_are_exhausted(tiny_llama):
    grammar = schema({"type": "string", "pattern": "^[a-z ]{60}$"})
    prompts = [f"{letter} the hat and the cat" for letter in "abcd"]
    async with EngineClient(config(tiny_llama, kv_unified=True, cells=160)) as crowded:
        await crowded.ready()
        alone = [text(await answer(crowded, request(grammar, prompt))) for prompt in prompts]
        together = await asyncio.gather(
            *(answer(crowded, request(grammar, prompt)) for prompt in prompts)
        )

    assert [text(deltas) for deltas in together] == alone


async def test_grammar_compilation_does_not_stall_decoding_sequences(patient):
    compiling = asyncio.create_task(answer(patient, request(SLOW)))
    await being_compiled(patient)
    deltas = await answer(patient, request(None, max_tokens=5, ignore_eos=True))

    assert not compiling.done()
    assert last(deltas).completion_tokens == 5
    await asyncio.gather(compiling, return_exceptions=True)


async def test_request_can_be_cancelled_while_its_grammar_is_compiled(patient):
    waiting = asyncio.create_task(patient.generate(request(SLOW.replace("200003", "200017"))))
    await being_compiled(patient)
    is_early = not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    status = await patient.status()

    assert is_early
    assert status.waiting == 0
    assert text(await answer(patient, request('start: "b"'))) == "b"


async def test_waiting_for_a_grammar_does_not_count_as_busy(patient):
    before, begun = await patient.status(), time.monotonic()
    await answer(patient, request(SLOW.replace("200003", "200009"), max_tokens=1))
    waited_s, after = time.monotonic() - begun, await patient.status()

    assert waited_s > 0.1
    assert after.busy_s - before.busy_s < waited_s / 2


async def being_compiled(engine: EngineClient) -> None:
    """Waits until a request is in the engine that has a free slot, but no grammar yet."""
    while not (await engine.status()).waiting:  # noqa: ASYNC110  # the engine tells when asked
        await asyncio.sleep(0.001)


async def test_grammar_cache_is_bounded(say):
    texts = [text(await say(request(f'start: "{number}"'))) for number in range(40)]

    assert texts == [str(number) for number in range(40)]


async def test_grammar_is_checked_although_max_tokens_is_zero(engine):
    with pytest.raises(CommandFailed):
        await answer(engine, request("start: (", max_tokens=0, echo=True))

    deltas = await answer(engine, request('start: "a"', max_tokens=0, echo=True))
    assert text(deltas) == "the cat in the hat"


@pytest.mark.parametrize(
    "grammar",
    [
        'start: %json {"type": "nothing"} | %json {"type": "string"}',
        'start: %json {"type": "object", "properties": 5}',
        'start: %json {"type": "object", "properties": {"a": {"allOf": 5}}}',
        'start: %json {"type": "object", "required": 5, "properties": {"a": false}}',
        "start: %json "
        + json.dumps({"allOf": 5, "properties": {str(at): {"pattern": "a"} for at in range(11)}}),
        "start: %json "
        + json.dumps({"allOf": [{"properties": 5}], "enum": [{"pattern": "a"}] * 11}),
    ],
)
async def test_grammar_with_a_malformed_schema_is_refused_as_invalid(spm, grammar):
    with pytest.raises(CommandFailed) as caught:
        await answer(spm, request(grammar))

    assert caught.value.failure is Failure.INVALID
