"""The asynchronous official client drives every local operation too."""

import openai
import pytest

HELLO = [{"role": "user", "content": "Hello!"}]


async def text_of(stream) -> str:
    return "".join([chunk.choices[0].text async for chunk in stream])


async def test_prompts_are_continued_whole_and_streamed(async_client):
    asked = {"model": "builtin", "prompt": "Hello", "max_tokens": 6, "temperature": 0}
    whole = await async_client.completions.create(**asked)
    stream = await async_client.completions.create(**asked, stream=True)

    assert await text_of(stream) == whole.choices[0].text


async def test_several_prompts_stream_side_by_side(async_client):
    stream = await async_client.completions.create(
        model="builtin", prompt=["Hello", "Good"], n=2, max_tokens=3, stream=True
    )
    finished = {chunk.choices[0].index async for chunk in stream if chunk.choices[0].finish_reason}

    assert finished == {0, 1, 2, 3}


async def test_models_are_listed_and_retrieved(async_client):
    models = [model.id async for model in async_client.models.list()]

    assert (await async_client.models.retrieve(models[0])).id == models[0]
    with pytest.raises(openai.PermissionDeniedError):
        await async_client.models.delete(models[0])


async def test_embeddings_of_a_chat_model_are_refused(async_client):
    with pytest.raises(openai.BadRequestError):
        await async_client.embeddings.create(model="builtin", input="x")


async def test_stored_chats_are_walked_page_by_page(async_client):
    chats = async_client.chat.completions
    made = [
        await chats.create(
            model="builtin", messages=HELLO, max_tokens=1, metadata={"walk": "async"}
        )
        for _ in range(5)
    ]

    walked = [chat.id async for chat in chats.list(metadata={"walk": "async"}, limit=2)]
    messages = [message.content async for message in chats.messages.list(made[0].id)]
    changed = await chats.update(made[0].id, metadata={"walk": "over"})
    deleted = await chats.delete(made[1].id)

    assert walked == [chat.id for chat in made]
    assert messages == ["Hello!"]
    assert changed.metadata == {"walk": "over"}
    assert deleted.deleted
    assert [chat.id async for chat in chats.list(metadata={"walk": "async"})] == walked[2:]
    with pytest.raises(openai.NotFoundError):
        await chats.retrieve(made[1].id)
