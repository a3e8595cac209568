import asyncio
from contextlib import aclosing

import pytest

from llm_backend.backends.base import Chat, GenerationLimits, ModelCard, TextPrompt
from llm_backend.backends.local.admitted_generation import AdmittedGeneration
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.local.media import Image
from llm_backend.backends.local.model_handle import ModelState
from llm_backend.backends.local.model_manager import LocalModelManager
from llm_backend.engine import EngineClient
from llm_backend.errors import InvalidRequest
from tests.engine.conftest import config
from tests.engine.gguf_models import write_llama

PROMPTS = [
    TextPrompt(prompt=one, limits=GenerationLimits(max_tokens=3, ignore_eos=True))
    for one in ("the cat", "the hat")
]


async def estimate_bytes() -> int:
    return 1


async def read(answer: AdmittedGeneration) -> int:
    """The number of tokens of an answer."""
    async with answer:
        async for _ in answer.text_deltas():
            pass
    return answer.usage.completion_tokens


async def test_answer_that_is_read_to_its_end_uses_the_model_no_longer(tmp_path):
    """The request may go on with another model, which does not fit beside it."""
    path = write_llama(tmp_path / "tiny.gguf")
    async with LocalModelManager() as manager:
        handle = manager.add_model("a", lambda _: EngineClient(config(path)), estimate_bytes)
        model = LocalModel(ModelCard(id="a", created_at=1, owned_by="test"), handle)
        text, other = await model.complete(PROMPTS)
        chat = Chat(
            messages=[{"role": "user", "content": "the cat"}],
            limits=GenerationLimits(max_tokens=3, ignore_eos=True),
        )
        async with text, other, await model.chat(chat) as talk, asyncio.timeout(10):
            for deltas in (text.text_deltas(), other.text_deltas(), talk.chat_deltas(chat)):
                assert handle.users.count
                async for _ in deltas:
                    pass
            await handle.unload()


async def test_model_that_is_unloaded_answers_all_prompts_of_a_completion(tmp_path, monkeypatch):
    """The unload begins before the second prompt, and waits for the answers to both."""
    path = write_llama(tmp_path / "tiny.gguf")
    async with LocalModelManager() as manager:
        handle = manager.add_model("a", lambda _: EngineClient(config(path)), estimate_bytes)
        model = LocalModel(ModelCard(id="a", created_at=1, owned_by="test"), handle)
        await model.load()
        generate, unloads = handle.engine.generate, []

        async def generate_while_unloading(command):
            unloads.append(asyncio.create_task(handle.unload()))
            await asyncio.sleep(0)
            assert handle.state is ModelState.UNLOADING
            return await generate(command)

        monkeypatch.setattr(handle.engine, "generate", generate_while_unloading)
        async with asyncio.timeout(10):
            first, second = await model.complete(PROMPTS)
            assert await read(first) == 3
            assert handle.state is ModelState.UNLOADING
            assert await read(second) == 3
            await asyncio.gather(*unloads)
        assert handle.state is ModelState.UNLOADED


async def test_chat_beside_an_answer_does_not_wait_while_the_model_is_unloaded(tmp_path):
    """The unload waits for the answer, and the reader of the answer for the chat beside it."""
    path = write_llama(tmp_path / "tiny.gguf")
    chat = Chat(
        messages=[{"role": "user", "content": "the cat"}],
        limits=GenerationLimits(max_tokens=3, ignore_eos=True),
    )
    async with LocalModelManager() as manager:
        handle = manager.add_model("a", lambda _: EngineClient(config(path)), estimate_bytes)
        model = LocalModel(ModelCard(id="a", created_at=1, owned_by="test"), handle)
        async with asyncio.timeout(20), await model.chat(chat) as answer:
            unload = asyncio.create_task(handle.unload())
            await asyncio.sleep(0)
            assert handle.state is ModelState.UNLOADING
            beside = await model.chat_beside(answer, chat)
            assert await read(beside) == 3
            assert handle.state is ModelState.UNLOADING
            assert await read(answer) == 3
            await unload
            assert handle.state is ModelState.UNLOADED
            assert await read(await model.chat_beside(answer, chat)) == 3


@pytest.mark.parametrize(
    ("modalities", "message"),
    [(("text",), "The model `a` sees no images."), (("text", "image"), "The image is empty.")],
)
async def test_image_that_the_model_cannot_see_is_refused_without_loading_it(
    tmp_path, modalities, message
):
    path, more = tmp_path / "none.gguf", (("input_modalities", modalities),)
    async with LocalModelManager() as manager:
        handle = manager.add_model("a", lambda _: EngineClient(config(path)), estimate_bytes)
        model = LocalModel(ModelCard(id="a", created_at=1, owned_by="test", more=more), handle)
        with pytest.raises(InvalidRequest, match=message) as refused:
            await model.check_image(Image(url="data:image/png;base64,", param="item.content[0]"))

    assert refused.value.param == "item.content[0]"


async def test_tokens_of_best_of_are_counted_though_its_client_leaves(tmp_path):
    path, counted = write_llama(tmp_path / "tiny.gguf"), []
    limits = GenerationLimits(max_tokens=30, ignore_eos=True, best_of=3)
    async with LocalModelManager() as manager:
        handle = manager.add_model("a", lambda _: EngineClient(config(path)), estimate_bytes)
        card = ModelCard(id="a", created_at=1, owned_by="test")
        model = LocalModel(card, handle, lambda *fields: counted.append(fields[-1]))
        (answer,) = await model.complete([TextPrompt(prompt="the cat", limits=limits)])
        async with answer, aclosing(answer.text_deltas()) as deltas:
            await anext(deltas)

    assert 0 < counted[0].completion_tokens < 3 * 30
