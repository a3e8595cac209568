"""Chats whose answers come back as text, with a real model that spells them unlike its
tokenizer."""

import itertools

import pytest
import pytest_asyncio

from llm_backend.engine import EngineClient
from llm_backend.engine.messages import Generate, Sampling
from tests.engine.conftest import config
from tests.engine.gguf_models import write_llama

SAYS = ["cats", "dogs", "hats", "that"]
ANSWER = "".join(SAYS)  # the tokenizer knows none of these words, only letters and pairs of them
NEXT = "<|im_end|>on the mat<|im_start|>"
NUMBERS = itertools.count()

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def speller(tmp_path_factory):
    return write_llama(tmp_path_factory.mktemp("models") / "speller.gguf", says=SAYS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(speller):
    async with EngineClient(config(speller)) as engine:
        await engine.ready()
        yield engine


@pytest.fixture
def question() -> str:
    """A chat that begins like no other one."""
    return f"{chr(ord('A') + next(NUMBERS))} rat<|im_start|>"


async def ask(engine: EngineClient, prompt: str, **fields: object) -> tuple[str, int, int, int]:
    """The answer of a chat; the tokens of its prompt, how many were cached, and those of the
    answer."""
    sampling = Sampling(temperature=0.8, seed=1)
    command = {"is_chat": True, "sampling": sampling, "max_tokens": 16, **fields}
    request = Generate(id=f"a{next(NUMBERS)}", prompt=prompt, **command)
    async with await engine.generate(request) as generation:
        deltas = [delta async for delta in generation]
        prompt_tokens = generation.slot_assigned.prompt_tokens
    text = "".join(delta.text for delta in deltas)
    return text, prompt_tokens, deltas[-1].cached_tokens, deltas[-1].completion_tokens


async def test_returning_chat_computes_only_what_is_new(engine, question):
    first, new = await engine.tokenize(question), await engine.tokenize(NEXT)
    prompt, known = question, 0
    for _ in range(3):
        text, prompt_tokens, cached, completion_tokens = await ask(engine, prompt)

        assert (text, completion_tokens) == (ANSWER, len(SAYS))
        assert cached == known
        assert prompt_tokens == (known + len(new) if known else len(first))
        known = prompt_tokens + completion_tokens
        prompt += text + NEXT


async def test_prompt_that_is_no_chat_has_the_tokens_of_its_text(engine, question):
    await ask(engine, question)
    prompt = question + ANSWER + NEXT
    tokens = await engine.tokenize(prompt)
    _, prompt_tokens, cached, _ = await ask(engine, prompt, is_chat=False)

    assert prompt_tokens == len(tokens)
    assert cached == len(await engine.tokenize(question))


@pytest.mark.parametrize(
    "steered",
    [
        {"grammar": f'start: "{ANSWER}"'},
        {"sampling": Sampling(temperature=0, logit_bias={0: -1})},
        {"sampling": Sampling(temperature=0, repeat_penalty=0.999999)},
        {"sampling": Sampling(temperature=0, presence_penalty=-1e-6)},
        {"sampling": Sampling(temperature=0, repeat_penalty=1.6, repeat_last_n=0)},
        {"sampling": Sampling(temperature=0, xtc_probability=1e-9)},
        {"sampling": Sampling(temperature=0, dry_multiplier=1e-9)},
        {"sampling": Sampling(temperature=0, mirostat=2)},
        {"sampling": Sampling(temperature=0, typical_p=0.999999)},
    ],
    ids=[
        "grammar",
        "bias",
        "factor",
        "penalty",
        "large factor",
        "XTC",
        "DRY",
        "mirostat",
        "typical",
    ],
)
async def test_answer_that_a_client_has_steered_is_not_remembered(engine, question, steered):
    text, *_ = await ask(engine, question, **steered)
    prompt = question + text + NEXT
    _, prompt_tokens, _, _ = await ask(engine, prompt)

    assert text == ANSWER
    assert prompt_tokens == len(await engine.tokenize(prompt))


async def test_answer_that_a_client_has_cancelled_is_remembered(engine, question):
    request = Generate(id=f"a{next(NUMBERS)}", prompt=question, is_chat=True, ignore_eos=True)
    async with await engine.generate(request) as generation:
        text = ""
        while not text.startswith(ANSWER):
            text += (await anext(generation)).text
    prompt = question + ANSWER + NEXT
    _, prompt_tokens, cached, _ = await ask(engine, prompt)

    spoken = len(await engine.tokenize(question)) + len(SAYS)
    assert prompt_tokens == spoken + len(await engine.tokenize(NEXT))
    assert cached == spoken


async def test_without_space_for_generated_tokens_answers_are_tokenized(speller, question):
    async with EngineClient(config(speller, generated_tokens_bytes=0)) as engine:
        await engine.ready()
        await ask(engine, question)
        prompt = question + ANSWER + NEXT
        _, prompt_tokens, _, _ = await ask(engine, prompt)

        assert prompt_tokens == len(await engine.tokenize(prompt))
