"""Images and audio in prompts, by tiny projectors over a tiny model, exact in float32."""

import asyncio
import hashlib
import io
import re
import wave
from collections.abc import Iterable

import numpy as np
import pytest
import pytest_asyncio
from msgspec.structs import replace

from llm_backend.engine import CommandFailed, EngineClient, EngineStartError
from llm_backend.engine.messages import Delta, Failure, Generate, MediaItem, MediaKind, Sampling
from tests.audio_files import float_wav_file
from tests.engine.conftest import answer, config
from tests.engine.gguf_models import write_llama
from tests.engine.media_reference import reference_answer
from tests.engine.projectors import write_ears, write_eyes

TEXT = "the cat sat in the rain and then "


@pytest.fixture(scope="module")
def eyes(tmp_path_factory):
    return write_eyes(tmp_path_factory.mktemp("eyes") / "mmproj.gguf")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def seeing(tiny_llama, eyes):
    """A running engine that sees."""
    async with EngineClient(config(tiny_llama, projector_path=eyes)) as engine:
        await engine.ready()
        yield engine


@pytest_asyncio.fixture
async def engine_of_text(tiny_llama):
    async with EngineClient(config(tiny_llama)) as engine:
        await engine.ready()
        yield engine


def image(seed: int = 0, *, at: int = len(TEXT), width: int = 40, height: int = 30) -> MediaItem:
    """Noise."""
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, (height, width, 3), dtype=np.uint8).tobytes()
    digest = hashlib.sha256(data).digest()
    return MediaItem(
        at=at, medium=MediaKind.IMAGE, data=data, digest=digest, width=width, height=height
    )


def audio(seconds: float = 1.0, *, pitch: float = 0.1, at: int = len(TEXT)) -> MediaItem:
    """A tone, as a WAV file."""
    file = io.BytesIO()
    samples = np.sin(np.arange(int(seconds * 8000)) * pitch) * 20_000
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(8000)
        writer.writeframes(samples.astype("<i2").tobytes())
    data = file.getvalue()
    return MediaItem(at=at, medium=MediaKind.AUDIO, data=data, digest=hashlib.sha256(data).digest())


def ask(*media: MediaItem, text: str = TEXT + "what is it?", **fields: object) -> Generate:
    """A greedy request; each has an id of its own."""
    defaults = {"max_tokens": 12, "sampling": Sampling(temperature=0), "ignore_eos": True}
    name = hashlib.sha256(repr((text, media, fields)).encode()).hexdigest()
    return Generate(id=name, prompt=text, media=list(media), **{**defaults, **fields})


def text_of(deltas: Iterable[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


@pytest.mark.asyncio(loop_scope="module")
async def test_image_changes_the_answer(seeing):
    info = await seeing.ready()
    answers = [text_of(await answer(seeing, ask(image(seed)))) for seed in range(3)]
    plain = text_of(await answer(seeing, ask()))

    assert info.media == [MediaKind.IMAGE]
    assert len({plain, *answers}) == 4


@pytest.mark.asyncio(loop_scope="module")
async def test_image_positions_are_prompt_tokens(seeing):
    async with await seeing.generate(ask()) as plain, await seeing.generate(ask(image())) as seen:
        assert seen.slot_assigned.prompt_tokens == plain.slot_assigned.prompt_tokens + 4
    read = await seeing.tokenize_with_media(TEXT, media=[image()])
    assert read[-4:] == [None] * 4
    assert None not in read[:-4]


@pytest.mark.asyncio(loop_scope="module")
async def test_equal_image_after_equal_text_is_computed_once(seeing):
    first = ask(image(7), max_tokens=1)
    again = ask(image(7), text=TEXT + "what is it? tell", max_tokens=1)
    other = ask(image(8), max_tokens=1)
    before = len(TEXT.encode())  # no more tokens than bytes

    await answer(seeing, first)
    before_again = (await seeing.status()).media_tokens
    (*_, same) = await answer(seeing, again)
    after_again = (await seeing.status()).media_tokens
    (*_, different) = await answer(seeing, other)

    tokens = await seeing.tokenize_with_media(TEXT + "what is it?", media=[image(7)])
    assert same.cached_tokens >= len(tokens) - 1
    assert after_again == before_again
    assert 0 < different.cached_tokens <= before
    assert different.cached_tokens == tokens.index(None)


@pytest.mark.asyncio(loop_scope="module")
async def test_answers_about_images_are_the_same_in_a_batch(seeing):
    requests = [ask(image(seed, at=3 * seed), text=TEXT * 2 + "so") for seed in range(10, 14)]
    requests += [ask(image(14), image(15)), ask(text="the rain in the"), ask(image(10, at=0))]
    alone = [text_of(await answer(seeing, one)) for one in requests]

    together = await asyncio.gather(*(answer(seeing, one) for one in requests))

    assert [text_of(deltas) for deltas in together] == alone


@pytest.mark.asyncio(loop_scope="module")
async def test_cancelled_request_leaves_the_encoder_usable(seeing):
    request = ask(image(21), text=TEXT + "once more", max_tokens=200)
    async with await seeing.generate(request) as generation:
        await anext(generation)

    assert text_of(await answer(seeing, ask(image(21))))
    assert (await seeing.status()).running == 0


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("request_", "failure", "field", "why"),
    [
        (ask(audio()), Failure.UNSUPPORTED, "media[0]", "hears no audio"),
        (ask(image(), text=TEXT), Failure.INVALID, "media[0]", "no text after"),
        (ask(image(), echo=True), Failure.INVALID, "media", "without `suffix` and `echo`"),
        (ask(replace(image(), width=9)), Failure.INVALID, "media[0]", "do not match its width"),
        (ask(*[image()] * 200), Failure.CONTEXT_LENGTH, "prompt", "context is 512 tokens"),
    ],
)
async def test_invalid_media_are_refused(seeing, request_, failure, field, why):
    with pytest.raises(CommandFailed, match=re.escape(why)) as refused:
        await seeing.generate(request_)

    assert (refused.value.failure, refused.value.field) == (failure, field)


async def test_model_without_a_projector_refuses_images(engine_of_text):
    with pytest.raises(CommandFailed, match="sees no images"):
        await engine_of_text.generate(ask(image()))


async def test_image_that_exceeds_a_pass_is_refused(tiny_llama, tmp_path):
    projector = write_eyes(tmp_path / "mmproj.gguf", kind="gemma3")
    async with EngineClient(
        config(tiny_llama, projector_path=projector, batch_tokens=3, slots=1)
    ) as engine:
        await engine.ready()

        with pytest.raises(CommandFailed, match="reads the 4 tokens of this image at once"):
            await engine.generate(ask(image()))


async def test_projector_of_another_width_is_refused_at_the_start(tiny_llama, tmp_path):
    projector = write_eyes(tmp_path / "mmproj.gguf", size=32)
    async with EngineClient(config(tiny_llama, projector_path=projector)) as engine:
        with pytest.raises(EngineStartError) as error:
            await engine.ready()

    assert str(error.value) == (
        f"{projector} is not a projector for {tiny_llama}: mismatch between text model "
        "(n_embd = 64) and mmproj (n_embd = 32)"
    )


async def test_file_that_is_no_projector_is_refused_at_the_start(tiny_llama):
    async with EngineClient(config(tiny_llama, projector_path=tiny_llama)) as engine:
        with pytest.raises(EngineStartError, match="not a projector: its architecture is `llama`"):
            await engine.ready()


async def test_audio_is_encoded_and_shared_as_images_are(tiny_llama, tmp_path):
    ears = write_ears(tmp_path / "mmproj.gguf")
    low, high = ask(audio(pitch=0.1)), ask(audio(pitch=0.7))
    async with EngineClient(config(tiny_llama, projector_path=ears, audio_limit_s=40)) as engine:
        info = await engine.ready()
        async with await engine.generate(low) as generation:
            first = [delta async for delta in generation]
        (*_, again) = await answer(engine, low)
        other = await answer(engine, high)
        long = ask(audio(35))
        for seconds, shown_seconds in ((41, "41.00"), (1 / 8000, "0.00")):
            with pytest.raises(
                CommandFailed, match=f"lasts {shown_seconds} s; it may last 0.01 to 40 s"
            ):
                await engine.generate(ask(audio(seconds)))
        async with await engine.generate(long) as generation:
            two_windows = generation.slot_assigned

    assert info.media == [MediaKind.AUDIO]
    assert two_windows.tokens_of(MediaKind.AUDIO) == 187 + 32
    assert again.cached_tokens > 7
    assert text_of(first) != text_of(other)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e30])
async def test_audio_whose_embeddings_are_no_numbers_is_refused(tiny_llama, tmp_path, value):
    ears = write_ears(tmp_path / "mmproj.gguf")
    data = float_wav_file([value, -value] * 4000)
    digest = hashlib.sha256(data).digest()
    bad = MediaItem(at=len(TEXT), medium=MediaKind.AUDIO, data=data, digest=digest)
    async with EngineClient(
        config(tiny_llama, projector_path=ears, slots=1, flash_attention=False)
    ) as engine:
        await engine.ready()
        before = text_of(await answer(engine, ask()))

        for _ in range(2):  # refused again: nothing is cached
            with pytest.raises(CommandFailed, match="audio cannot be computed") as refused:
                await answer(engine, ask(bad))

        assert text_of(await answer(engine, ask())) == before
    assert (refused.value.failure, refused.value.field) == (Failure.INVALID, "media[0]")


async def test_model_may_support_images_and_audio(tiny_llama, tmp_path):
    senses = write_eyes(tmp_path / "mmproj.gguf", can_hear=True)
    request = ask(image(at=3), audio(at=9))
    async with EngineClient(config(tiny_llama, projector_path=senses)) as engine:
        info = await engine.ready()
        async with await engine.generate(request) as generation:
            both = [delta async for delta in generation]
        seen = await answer(engine, ask(image(at=3)))

    assert set(info.media) == {MediaKind.IMAGE, MediaKind.AUDIO}
    assert [(one.medium, one.tokens) for one in generation.slot_assigned.media] == [
        (MediaKind.IMAGE, 4), (MediaKind.AUDIO, 7),
    ]  # fmt: skip
    assert text_of(both) != text_of(seen)


async def test_draft_model_skips_texts_with_images(tiny_llama, eyes):
    request = ask(image(5), max_tokens=30)
    async with EngineClient(config(tiny_llama, projector_path=eyes)) as engine:
        await engine.ready()
        plain = text_of(await answer(engine, request))
    async with EngineClient(
        config(tiny_llama, projector_path=eyes, draft_model_path=tiny_llama)
    ) as engine:
        await engine.ready()
        drafted, beside = await asyncio.gather(
            answer(engine, request), answer(engine, ask(max_tokens=30))
        )

    assert text_of(drafted) == plain
    assert text_of(beside)


@pytest.mark.parametrize(
    ("kind", "has_places", "size"),
    [
        ("mlp", False, (40, 30)),
        ("gemma3", False, (40, 30)),  # embeddings that see each other
        ("qwen2vl_merger", True, (140, 84)),  # with rows and columns
        ("qwen2vl_merger", True, (560, 252)),  # more of them than one pass takes
    ],
)
async def test_image_is_encoded_as_by_the_native_library(tmp_path, kind, has_places, size):
    model = write_llama(tmp_path / "tiny.gguf", has_places=has_places)
    projector = write_eyes(tmp_path / "mmproj.gguf", kind=kind)
    seen = image(3, width=size[0], height=size[1])
    request = ask(seen)
    expected = reference_answer(model, projector, request.prompt, seen, 12)

    async with EngineClient(config(model, projector_path=projector, batch_tokens=64)) as engine:
        await engine.ready()
        alone = text_of(await answer(engine, request))
        others = [ask(image(seed, width=84, height=84)) for seed in range(4, 6)]
        cached, *_ = await asyncio.gather(
            *(answer(engine, one) for one in (request, *others, ask(text=TEXT)))
        )
        twice = await answer(engine, ask(seen, n=2))  # one of them with copied cells

    assert alone == expected
    assert text_of(cached) == expected
    for index in range(2):
        assert text_of(delta for delta in twice if delta.index == index) == expected
    assert cached[-1].cached_tokens > 0


async def test_images_of_equal_bytes_differ_by_their_shape(tmp_path):
    model = write_llama(tmp_path / "tiny.gguf", has_places=True)
    projector = write_eyes(tmp_path / "mmproj.gguf", kind="qwen2vl_merger")
    lying = image(1, width=112, height=56)
    standing = replace(lying, width=56, height=112)

    async with EngineClient(config(model, projector_path=projector)) as engine:
        await engine.ready()
        answers = [text_of(await answer(engine, ask(one))) for one in (lying, standing)]

    assert answers == [
        reference_answer(model, projector, ask().prompt, one, 12) for one in (lying, standing)
    ]
    assert answers[0] != answers[1]
