"""The engine with a real model, from the API process's side."""

import asyncio
import itertools
import os
import random
from pathlib import Path

import llama_cpp
import msgspec
import numpy as np
import pytest

import llm_backend.builtin
from llm_backend.engine import CommandFailed, EngineClient
from llm_backend.engine.messages import (
    Delta,
    Failure,
    FinishReason,
    Generate,
    ModelKind,
    Sampling,
)
from tests.engine.conftest import answer, config, eventually
from tests.engine.gguf_models import write_llama
from tests.patience import settle

pytestmark = pytest.mark.asyncio(loop_scope="module")

GREEDY = Sampling(temperature=0)
NUMBERS = itertools.count()


def request(prompt: str | list[int] = "the cat in the hat", **fields: object) -> Generate:
    """A greedy request of its own id that generates 24 tokens, end tokens or not."""
    defaults = {"max_tokens": 24, "sampling": GREEDY, "ignore_eos": True}
    return Generate(id=f"r{next(NUMBERS)}", prompt=prompt, **{**defaults, **fields})


EVERYTHING = Sampling(
    seed=5,
    temperature=0.9,
    top_k=40,
    typical_p=0.95,
    xtc_probability=0.5,
    dry_multiplier=0.8,
    repeat_penalty=1.1,
    repeat_last_n=None,
    logprobs=1,
)


def text(deltas: list[Delta], index: int = 0) -> str:
    return "".join(delta.text for delta in deltas if delta.index == index)


async def tokens_of(deltas: list[Delta]) -> list[int]:
    return [item.token for delta in deltas for item in delta.logprobs]


@pytest.fixture(scope="module")
def reference(tiny_llama):
    """The same model in the bindings' own class, one sequence at a time."""
    exact = {"type_k": llama_cpp.GGML_TYPE_F32, "type_v": llama_cpp.GGML_TYPE_F32}
    model = llama_cpp.Llama(
        str(tiny_llama), n_ctx=512, n_threads=1, verbose=False, logits_all=True, **exact
    )
    yield model
    model.close()


def greedy_reference(model: llama_cpp.Llama, prompt: str, count: int) -> list[int]:
    ids = model.tokenize(prompt.encode(), add_bos=False, special=True)
    found: list[int] = []
    model.reset()
    model.eval(ids)
    while len(found) < count:
        scores = model.scores[model.n_tokens - 1].copy()
        scores[[269, 271]] = -np.inf  # <|endoftext|> and <|im_end|>, which the requests ignore
        found.append(int(scores.argmax()))
        model.eval(found[-1:])
    return found


async def test_engine_info_describes_the_model(engine):
    info = await engine.ready()

    assert engine.state == "ready"
    assert (info.architecture, info.name) == ("llama", "tiny random")
    assert (info.context_tokens, info.slots, info.vocabulary_size) == (512, 4, 274)
    assert (info.eos_token, info.kind) == ("<|im_end|>", ModelKind.CHAT)


async def test_greedy_tokens_equal_those_of_llama_cpp_python(say, reference):
    prompt = "an other reaction in the end"
    deltas = await say(request(prompt, sampling=Sampling(temperature=0, logprobs=0)))

    assert await tokens_of(deltas) == greedy_reference(reference, prompt, 24)


async def test_greedy_text_is_the_same_alone_and_in_a_batch(say):
    prompts = ["the cat", "an other reaction" * 9, "in " * 60, "x", "hat and cat" * 5, "tea" * 44]
    alone = [text(await say(request(prompt))) for prompt in prompts]
    together = [request(prompt) for prompt in prompts * 3]
    noise = [request("noise" * 7, sampling=Sampling(seed=3, top_p=0.9)) for _ in range(3)]
    answers = await asyncio.gather(*(say(item) for item in together + noise))

    assert [text(deltas) for deltas in answers[: len(together)]] == alone * 3


async def test_shared_prefix_is_reported_and_changes_nothing(say):
    prefix = "a system prompt that everybody has in front of the question, "
    first = await say(request(prefix + "one"))
    again = await say(request(prefix + "one"))
    other = await say(request(prefix + "two"))

    assert first[-1].cached_tokens == 0
    assert again[-1].cached_tokens > 40
    assert other[-1].cached_tokens > 40
    assert text(again) == text(first)


async def test_several_answers_share_the_prompt_and_differ(say):
    prompt = "several answers to one and the same question, which is not short"
    deltas = await say(request(prompt, n=3, sampling=Sampling(seed=1)))

    assert len({text(deltas, index) for index in range(3)}) == 3
    cached = {delta.index: delta.cached_tokens for delta in deltas}
    assert cached[0] == 0
    assert min(cached[1], cached[2]) > 30


async def test_the_same_seed_gives_the_same_text(say):
    sampling = Sampling(seed=11, top_p=0.9, temperature=1.3)
    first = text(await say(request(sampling=sampling)))

    assert text(await say(request(sampling=sampling))) == first
    assert text(await say(request(sampling=Sampling(seed=12, temperature=1.3)))) != first


async def test_stop_string_across_tokens_cuts_the_text(say):
    whole = text(await say(request(max_tokens=40)))
    stop = whole[10:14]
    deltas = await say(request(max_tokens=40, stop=["never seen", stop]))

    assert text(deltas) == whole[: whole.find(stop)]
    assert deltas[-1].finish_reason is FinishReason.STOP
    assert deltas[-1].stop_sequence == stop


async def test_characters_of_several_bytes_are_never_cut(say):
    deltas = await say(request("x", max_tokens=200))
    bytes_ = await say(request("x", max_tokens=200, sampling=Sampling(temperature=0, logprobs=0)))
    whole = b"".join(item.bytes for delta in bytes_ for item in delta.logprobs)

    assert text(deltas) == whole.decode(errors="replace")
    assert any(len(character.encode()) > 1 for character in text(deltas) if character != "\ufffd")


async def test_control_tokens_give_no_text_but_user_defined_ones_do(engine):
    tokens = await engine.tokenize("<|im_start|>the<tool_call>x</tool_call><|im_end|>")

    assert len(tokens) == 7
    assert await engine.detokenize(tokens) == "the<tool_call>x</tool_call>"
    assert len(await engine.tokenize("<|im_end|>", parse_special=False)) > 5


async def test_echo_logprobs_equal_those_of_llama_cpp_python(say, reference):
    prompt = "the cat in the hat"
    sampling = Sampling(temperature=0, logprobs=2)
    deltas = await say(request(prompt, echo=True, max_tokens=0, sampling=sampling))
    ids = reference.tokenize(prompt.encode(), add_bos=False, special=True)
    reference.reset()
    reference.eval(ids)
    expected = llama_cpp.Llama.logits_to_logprobs(reference.scores[: len(ids)])
    (delta,) = deltas

    assert delta.text == prompt
    assert [item.token for item in delta.logprobs] == ids
    assert delta.logprobs[0].logprob is None
    assert [item.logprob for item in delta.logprobs[1:]] == pytest.approx(
        [float(expected[index, token]) for index, token in enumerate(ids[1:])], abs=1e-3
    )
    assert all(len(item.top) == 2 for item in delta.logprobs[1:])


async def test_best_of_returns_one_answer(say):
    deltas = await say(request(best_of=3, sampling=Sampling(seed=1)))

    assert deltas[-1].finish_reason is FinishReason.LENGTH
    assert not any(delta.text or delta.finish_reason for delta in deltas[:-1])


@pytest.mark.parametrize(
    ("fields", "failure"),
    [
        ({"prompt": "x" * 600}, Failure.CONTEXT_LENGTH),
        ({"prompt": [5, 274]}, Failure.INVALID),
        ({"prompt": [-3]}, Failure.INVALID),
        ({"prompt": "half a pair: \ud800"}, Failure.INVALID),
        ({"n": 1000}, Failure.INVALID),
    ],
)
async def test_engine_refuses_invalid_commands(engine, fields, failure):
    with pytest.raises(CommandFailed) as caught:
        await engine.generate(request(**fields))

    assert caught.value.failure is failure


async def test_chat_engine_refuses_to_embed(engine):
    with pytest.raises(CommandFailed, match="cannot embed"):
        await engine.embed(["a"])


async def test_pending_command_id_is_refused(engine):
    first = request(max_tokens=None)
    async with await engine.generate(first):
        with pytest.raises(ValueError, match="pending"):
            await engine.generate(first)


async def test_slow_reader_gets_everything_and_delays_no_other(engine, say):
    slow = request(max_tokens=100)
    async with await engine.generate(slow) as generation:
        for _ in range(3):
            await say(request(max_tokens=100))
        deltas = [delta async for delta in generation]

    assert len(deltas) < 5
    assert text(deltas) == text(await say(request(max_tokens=100)))
    assert deltas[-1].completion_tokens == 100


async def test_closed_generation_frees_its_slot(engine, say):
    endless = [request("leave" + "!" * index, max_tokens=None) for index in range(4)]
    for generation in [await engine.generate(item) for item in endless]:
        await anext(generation)
        await generation.aclose()

    async with asyncio.timeout(30):
        assert text(await say(request()))


async def test_cancelled_request_leaves_the_queue(engine, say):
    running = [await engine.generate(request(max_tokens=400)) for _ in range(4)]
    waiting = asyncio.create_task(engine.generate(request()))
    await settle()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    for generation in running:
        await generation.aclose()

    assert text(await say(request()))


async def test_full_queue_refuses_and_the_rest_is_answered(tiny_llama):
    async with EngineClient(config(tiny_llama, slots=1, queue_limit=2)) as small:
        await small.ready()
        results = await asyncio.gather(
            *(answer(small, request(max_tokens=200)) for _ in range(8)), return_exceptions=True
        )
    refused = [item.failure for item in results if isinstance(item, CommandFailed)]

    assert refused
    assert set(refused) == {Failure.QUEUE_FULL}
    assert len(refused) <= 5


async def test_three_hundred_cancelled_requests_leave_every_slot_free(engine, say):
    dice = random.Random(1)

    async def one(number: int) -> None:
        await asyncio.sleep(dice.random())
        wanted = request(
            "word " * dice.randrange(1, 40),
            max_tokens=dice.randrange(0, 30),
            n=dice.randrange(1, 4),
        )
        try:
            async with asyncio.timeout(dice.choice([0.01, 0.1, 1, 60, 60])):
                await say(wanted)
        except TimeoutError:
            return

    await asyncio.gather(*(one(number) for number in range(300)))
    at_once = [await engine.generate(request(max_tokens=400)) for _ in range(4)]

    assert len(at_once) == 4
    for generation in at_once:
        await generation.aclose()


async def test_exhausted_unified_cells_cost_no_answer(tiny_llama, say):
    prompts = [f"{letter} story of some length" for letter in "abcd"]
    expected = [text(await say(request(prompt, max_tokens=250))) for prompt in prompts]
    pool = config(tiny_llama, kv_unified=True, cells=600)
    async with EngineClient(pool) as engine:
        await engine.ready()
        answers = await asyncio.gather(
            *(answer(engine, request(prompt, max_tokens=250)) for prompt in prompts)
        )

    assert [text(deltas) for deltas in answers] == expected


async def test_built_in_model_generates():
    folder = Path(llm_backend.builtin.__file__).parent
    async with EngineClient(config(folder / "builtin.gguf")) as engine:
        info = await engine.ready()
        prompt = "<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\n"
        deltas = await answer(engine, request(prompt, ignore_eos=False, max_tokens=100))

        assert info.chat_template
        assert deltas[-1].finish_reason in FinishReason
        assert len(text(deltas)) > 3
        assert "<|im_" not in text(deltas)


async def test_idle_engine_does_not_wake(tiny_llama):
    async with EngineClient(config(tiny_llama)) as idle:
        await idle.ready()
        await answer(idle, request(max_tokens=2))
        for _ in range(30):  # on a busy machine what was under way takes a while to end
            woken, used_s = wakes(idle.pid), cpu_seconds(idle.pid)
            await asyncio.sleep(1)
            woken, used_s = wakes(idle.pid) - woken, cpu_seconds(idle.pid) - used_s
            if woken <= 5 and used_s <= 0.25:
                break

        assert woken <= 5
        assert used_s <= 0.25  # what never sleeps never wakes


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def wakes(pid: int) -> int:
    """Number of times that the threads of a process went to sleep."""
    lines = [
        line
        for status in Path(f"/proc/{pid}/task").glob("*/status")
        for line in status.read_text().splitlines()
    ]
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt"))


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="passes have one thread anyway")
async def test_tiny_model_has_one_thread_unless_set(tiny_llama):
    counts = {}
    for wanted in (None, 1, 2):
        async with EngineClient(config(tiny_llama, threads=wanted)) as engine:
            await engine.ready()
            await answer(engine, request(max_tokens=8))
            counts[wanted] = threads(engine.pid)

    assert counts[None] == counts[1] == counts[2] - 1


async def test_closed_engine_ends_its_process(tiny_llama):
    async with EngineClient(config(tiny_llama)) as engine:
        await engine.ready()
        pid = engine.pid

    await eventually(lambda: not Path(f"/proc/{pid}").exists())
    assert engine.state == "closed"


async def test_engine_status_reports_its_load(engine, say):
    before = await engine.status()
    await say(request("how busy", max_tokens=8))
    after = await engine.status()

    assert (after.running, after.waiting) == (0, 0)
    assert after.computed_tokens > before.computed_tokens
    assert after.sequences - before.sequences >= after.passes - before.passes > 0
    assert after.cell_tokens > 0
    assert after.busy_s > before.busy_s


@pytest.mark.parametrize("mirostat", [0, 1, 2])
async def test_all_samplers_at_once_give_the_same_text_for_the_same_seed(say, mirostat):
    sampling = msgspec.structs.replace(EVERYTHING, mirostat=mirostat)
    fields = {"sampling": sampling, "n": 2, "best_of": 3, "echo": True, "min_tokens": 8}
    first, again = await say(request(**fields)), await say(request(**fields))

    assert text(first) == text(again)
    assert text(first).startswith("the cat in the hat")
    assert text(first) != text(first, 1)


async def test_infill_prompt_uses_the_infill_tokens(tmp_path):
    model = write_llama(tmp_path / "infill.gguf", can_infill=True)
    async with EngineClient(config(model)) as engine:
        info = await engine.ready()
        before, after = await engine.tokenize("the cat "), await engine.tokenize(" in the hat")
        start, middle, last = 274, 275, 276
        whole = [start, *before, middle, *after, last]
        filled = await answer(engine, request("the cat ", suffix=" in the hat"))
        given = await answer(engine, request(before, suffix=" in the hat"))
        echoed = await answer(engine, request("the cat ", suffix=" in the hat", echo=True))
        refused = request("a", suffix="b", echo=True, sampling=Sampling(logprobs=1))
        with pytest.raises(CommandFailed) as caught:
            await answer(engine, refused)

        assert info.can_infill
        assert text(filled) == text(given) == text(await answer(engine, request(whole)))
        assert text(echoed) == "the cat " + text(filled)
        assert caught.value.field == "echo"


async def test_control_token_is_text_only_if_visible(engine):
    constrained = {"grammar": 'start: <|im_start|> "a"', "ignore_eos": False}

    hidden = await answer(engine, request(**constrained))
    visible = await answer(engine, request(**constrained, visible_tokens=[270]))

    assert text(hidden) == "a"
    assert text(visible) == "<|im_start|>a"


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0),
        Sampling(temperature=0.7, top_p=0.9, seed=11),
        Sampling(temperature=0.7, top_k=20, seed=11, repeat_penalty=1.1),
    ],
)
async def test_speculation_changes_no_answer_alone_or_in_a_batch(tiny_llama, sampling):
    prompts = ["the cat in the hat", "say it again, say it again", "one two three one two"]
    letters = dict.fromkeys(range(64, 90), 20.0)  # text that reads as the same tokens again
    sampling = msgspec.structs.replace(sampling, logit_bias=letters)
    async with (
        EngineClient(config(tiny_llama)) as ahead,
        EngineClient(config(tiny_llama, speculation=False)) as plain,
    ):
        await asyncio.gather(ahead.ready(), plain.ready())

        def asked(prompt: str, prediction: str | None = None) -> Generate:
            return request(prompt, sampling=sampling, max_tokens=60, prediction=prediction)

        expected = [text(await answer(plain, asked(prompt))) for prompt in prompts]
        pairs = list(zip(prompts, expected, strict=True))
        answers = [await answer(ahead, asked(*pair)) for pair in pairs]
        alone = [await answer(ahead, asked(prompt)) for prompt in prompts]
        among = await asyncio.gather(
            *(answer(ahead, asked(*pair)) for pair in pairs),
            *(answer(ahead, asked(prompt)) for prompt in prompts),
        )

        assert [text(deltas) for deltas in alone] == expected
        assert [text(deltas) for deltas in answers] == expected
        assert [text(deltas) for deltas in among] == expected * 2
        assert answers[0][-1].accepted_tokens > 0  # how many depends on what passes cost here
        assert all(deltas[-1].predicted_tokens > 50 for deltas in answers)


async def test_no_token_spans_a_cut(engine):
    text = "the<|im_end|>"
    whole = await engine.tokenize(text)

    parted = await engine.generate(request(text, cuts=[4], max_tokens=1))
    await parted.aclose()
    marked = await engine.generate(request(text, max_tokens=1))
    await marked.aclose()

    assert marked.slot_assigned.prompt_tokens == len(whole)
    assert parted.slot_assigned.prompt_tokens > len(whole)
    assert "<|im_end|>" in (await engine.ready()).control_tokens


async def test_speculation_follows_a_grammar(tiny_llama):
    constrained = {
        "grammar": 'start: ("tick " | "tock ")+ "boom"',
        "max_tokens": 80,
        "ignore_eos": False,
    }
    sampling = Sampling(temperature=1.0, seed=3, logprobs=0)  # no token is forced: all are chosen
    prompt = "tick tock tick tock boom, tick tock"
    async with (
        EngineClient(config(tiny_llama)) as ahead,
        EngineClient(config(tiny_llama, speculation=False)) as plain,
    ):
        await asyncio.gather(ahead.ready(), plain.ready())
        expected = await answer(plain, request(prompt, sampling=sampling, **constrained))
        prediction = text(expected) + "boom, and more than the grammar allows"
        chosen = request(prompt, sampling=sampling, prediction=prediction, **constrained)
        forced = request(prompt, prediction=prediction, **constrained)
        unforced = await answer(ahead, chosen)

        assert text(unforced) == text(expected)
        assert unforced[-1].accepted_tokens > 0
        assert text(await answer(ahead, forced)) == text(await answer(plain, forced))
