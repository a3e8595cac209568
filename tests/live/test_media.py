"""Images and audio reach local models that see and hear."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
import yaml

from llm_backend.cli.api import Api, ApiRequestError
from llm_backend.cli.attachments import attachment
from llm_backend.cli.chat import ChatSession
from tests.audio_files import float_wav_file
from tests.engine.gguf_models import write_llama
from tests.engine.projectors import write_ears, write_eyes
from tests.media_files import as_url, image, in_base64, wav
from tests.serving import serve
from tests.strict_sdk import StrictOpenAI


@pytest.fixture(scope="module")
def ask(tmp_path_factory) -> Iterator[openai.OpenAI]:
    """A server with three tiny models: one sees, one hears, one does neither."""
    folder: Path = tmp_path_factory.mktemp("media")
    model = str(write_llama(folder / "tiny.gguf"))
    shape = {
        "path": model,
        "slots": 2,
        "context_tokens": 2048,
        "cache_type": "f32",
        "flash_attention": False,
    }
    eyes, ears = write_eyes(folder / "eyes.gguf"), write_ears(folder / "ears.gguf")
    config = {
        "image_limit_pixels": 100_000,
        "audio_limit_s": 2,
        "media_limit": 3,
        "models": [
            {**shape, "id": "eyes", "mmproj": str(eyes), "defaults": {"temperature": 0}},
            {**shape, "id": "ears", "mmproj": str(ears), "defaults": {"temperature": 0}},
            {**shape, "id": "blind"},
        ],
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with (
        serve(folder / "data", "--config", str(folder / "config.yaml")) as served,
        StrictOpenAI(
            base_url=served.base_url, api_key="none", admin_api_key="none", max_retries=0
        ) as client,
    ):
        yield client


def image_content(seed: int = 0, **fields: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": as_url(image(seed)), **fields}}


def audio(data: bytes, format: str = "wav") -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": in_base64(data), "format": format}}


def said(ask: openai.OpenAI, *parts: dict[str, Any], model: str = "eyes", **fields: Any):
    content = [{"type": "text", "text": "What is it in the rain? "}, *parts,
               {"type": "text", "text": "Tell me."}]  # fmt: skip
    return ask.chat.completions.create(
        model=model, messages=[{"role": "user", "content": content}], max_tokens=12, **fields
    )


def test_models_list_their_input_types(ask):
    told = {one.id: (one.model_extra or {}).get("input_modalities") for one in ask.models.list()}

    assert told == {"eyes": ["text", "image"], "ears": ["text", "audio"], "blind": None}


def test_an_image_is_seen_and_taken_from_the_cache_when_it_comes_again(ask):
    first, again, other = (said(ask, image_content(seed)) for seed in (1, 1, 2))
    plain = said(ask)

    texts = [one.choices[0].message.content for one in (first, other, plain)]
    assert len(set(texts)) == 3
    assert again.choices[0].message.content == texts[0]
    newline = 1  # between two texts, where the image is
    assert first.usage.prompt_tokens == plain.usage.prompt_tokens - newline + 4
    assert again.usage.prompt_tokens_details.cached_tokens == again.usage.prompt_tokens - 1
    details = [one.usage.prompt_tokens_details.to_dict() for one in (first, plain)]
    assert [(one["image_tokens"], one["text_tokens"]) for one in details] == [
        (4, first.usage.prompt_tokens - 4), (0, plain.usage.prompt_tokens),
    ]  # fmt: skip


def test_a_streamed_answer_sees_the_same(ask):
    whole = said(ask, image_content(1)).choices[0].message.content

    chunks = said(ask, image_content(1, detail="low"), stream=True)

    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole


def test_an_image_of_a_message_is_seen(ask):
    def told(*seeds: int) -> anthropic.types.Message:
        images = [
            {"type": "image", "source": {
                "type": "base64", "media_type": "image/png", "data": in_base64(image(seed))}}
            for seed in seeds
        ]  # fmt: skip
        content = [*images, {"type": "text", "text": "What is it?"}]
        return client.messages.create(
            model="eyes", max_tokens=12, messages=[{"role": "user", "content": content}]
        )

    address = str(ask.base_url).removesuffix("/v1/")
    with anthropic.Anthropic(base_url=address, api_key="none", max_retries=0) as client:
        one, other, plain = told(1), told(2), told()
        with pytest.raises(anthropic.BadRequestError, match="more than 3 images"):
            told(1, 2, 3, 4)

    assert len({one.content[0].text, other.content[0].text, plain.content[0].text}) == 3
    assert one.usage.input_tokens + (one.usage.cache_read_input_tokens or 0) > (
        plain.usage.input_tokens + (plain.usage.cache_read_input_tokens or 0)
    )


def test_audio_is_heard_and_counted(ask):
    low, high = (said(ask, audio(wav(pitch=pitch)), model="ears") for pitch in (0.1, 0.7))

    assert low.choices[0].message.content != high.choices[0].message.content
    assert low.usage.prompt_tokens_details.audio_tokens == 7
    assert said(ask).usage.prompt_tokens_details.audio_tokens == 0


def test_the_chat_command_sends_an_image_with_the_next_message(ask, tmp_path):
    (tmp_path / "a cat.png").write_bytes(image(1))
    talk = ChatSession(Api(str(ask.base_url), None), "eyes", temperature=0)
    shown: list[str] = []

    talk.attachments.append(attachment(str(tmp_path / "a cat.png")))
    talk.send("What is it?", shown.append)
    again = talk.pop_last_turn()
    talk.send(again, shown.append)
    talk.attachments.append(attachment(str(tmp_path / "a cat.png")))
    talk.model = "blind"
    with pytest.raises(ApiRequestError, match="sees no images"):
        talk.send("And now?", shown.append)

    kinds = [[part["type"] for part in one["content"]] for one in talk.messages[::2]]
    assert kinds == [["image_url", "text"]]
    assert [part["type"] for part in talk.attachments] == ["image_url"]


def used(ask: openai.OpenAI) -> Counter[str]:
    told = ask.admin.organization.usage.completions(start_time=int(time.time()) - 3600, limit=2)
    return sum((Counter(counts(one)) for bucket in told.data for one in bucket.results), Counter())


def counts(result: Any) -> dict[str, int]:
    return {name: count for name, count in result.to_dict().items() if name.endswith("_tokens")}


def test_usage_counts_images_and_audio_separately(ask):
    before = used(ask)
    for _ in "12":
        said(ask, image_content(7))
    said(ask, audio(wav(pitch=0.3)), model="ears")

    added = used(ask) - before
    assert (added["input_image_tokens"], added["input_cached_image_tokens"]) == (4, 4)
    assert (added["input_audio_tokens"], added["input_cached_audio_tokens"]) == (7, 0)
    assert added["input_tokens"] == added["input_cached_tokens"] + added["input_uncached_tokens"]
    assert added["input_uncached_tokens"] == added["input_text_tokens"] + 4 + 7


BAD = {
    "fetched": ({"url": "https://example.com/cat.png"}, "does not fetch images from there"),
    "no base64": ({"url": "data:image/png;base64,A"}, "not base64"),
    "no data": ({"url": "data:image/png,AA"}, "must be a data: URL with base64"),
    "empty": ({"url": "data:image/png;base64,"}, "is empty"),
    "no image": ({"url": as_url(b"<svg/>")}, "not a PNG, JPEG, WebP or GIF"),
    "cut off": ({"url": as_url(image()[:200])}, "is damaged"),
    "too large": ({"url": as_url(image(size=(400, 300)))}, "may have at most 100,000"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_is_refused_by_its_place(ask, name):
    fields, why = BAD[name]

    with pytest.raises(openai.BadRequestError, match=why) as refused:
        said(ask, {"type": "image_url", "image_url": fields})

    assert refused.value.param == "messages[0].content[1].image_url"


@pytest.mark.parametrize(
    ("part", "model", "why"),
    [
        (image_content(), "blind", "`blind` sees no images"),
        (image_content(), "ears", "`ears` sees no images"),
        (audio(wav()), "eyes", "`eyes` hears no audio"),
        (audio(wav(3)), "ears", "lasts 3.0 s; it may last 2 s"),
        (audio(wav(), "mp3"), "ears", "not an MP3 file"),
    ],
)
def test_media_that_a_model_cannot_encode_are_refused_by_their_place(ask, part, model, why):
    with pytest.raises(openai.BadRequestError, match=why) as refused:
        said(ask, part, model=model)

    assert refused.value.param.startswith("messages[0].content[1].")


@pytest.mark.parametrize(
    ("samples", "why"),
    [
        ([0.1, float("nan")] * 4000, "samples that are NaN or infinite"),
        ([0.1, float("-inf")] * 4000, "samples that are NaN or infinite"),
        ([1e30, -1e30] * 4000, "cannot be computed"),
    ],
)
def test_audio_without_numbers_is_refused_and_harms_no_other_request(ask, samples, why):
    before = said(ask, model="ears", seed=1).choices[0].message.content

    for _ in range(2):  # one for each slot
        with pytest.raises(openai.BadRequestError, match=why) as refused:
            said(ask, audio(float_wav_file(samples)), model="ears")

    assert refused.value.param == "messages[0].content[1].input_audio"
    assert said(ask, model="ears", seed=1).choices[0].message.content == before
    assert said(ask, audio(wav()), model="ears").choices[0].message.content


def test_more_images_than_may_be_are_refused(ask):
    with pytest.raises(openai.BadRequestError, match="more than 3 images and audio files"):
        said(ask, *[image_content()] * 4)


def test_the_rendered_prompt_counts_the_places_of_images(ask):
    body = {
        "model": "eyes",
        "messages": [
            {"role": "user", "content": [image_content(), {"type": "text", "text": "It?"}]}
        ],
    }

    told = ask.post("/chat/prompt", body=body, cast_to=object)

    assert told["prompt"] == "It?"
    assert told["tokens"][:4] == [None] * 4
    assert told["count"] == len(told["tokens"])


def seen(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    text = {"type": "input_text", "text": "What is it?"}
    return [{"role": "user", "content": [*parts, text]}]


def shown(seed: int, **fields: Any) -> dict[str, Any]:
    return {"type": "input_image", "detail": "auto", "image_url": as_url(image(seed)), **fields}


def test_a_response_sees_an_image_and_remembers_it(ask):
    first = ask.responses.create(model="eyes", input=seen(shown(1)), max_output_tokens=16)
    plain = ask.responses.create(model="eyes", input=seen(), max_output_tokens=16)
    next_one = ask.responses.create(
        model="eyes", input="And?", previous_response_id=first.id, max_output_tokens=16
    )
    kept = ask.responses.input_items.list(first.id).data[0]

    assert first.output_text != plain.output_text
    assert first.usage.input_tokens == plain.usage.input_tokens + 4
    assert next_one.usage.input_tokens_details.cached_tokens >= first.usage.input_tokens
    assert kept.content[0].image_url == as_url(image(1))


def test_an_uploaded_image_is_seen_as_one_that_was_sent(ask):
    file = ask.files.create(file=("cat.png", image(2), "image/png"), purpose="vision")
    uploaded = {"type": "input_image", "detail": "auto", "file_id": file.id}

    sent, named = (
        ask.responses.create(model="eyes", input=seen(part), max_output_tokens=16)
        for part in (shown(2), uploaded)
    )
    counted = ask.responses.input_tokens.count(model="eyes", input=seen(uploaded))

    assert named.output_text == sent.output_text
    assert named.usage.input_tokens == counted.input_tokens
    assert ask.responses.input_items.list(named.id).data[0].content[0].file_id == file.id


def test_a_streamed_response_sees_the_same(ask):
    whole = ask.responses.create(model="eyes", input=seen(shown(1)), max_output_tokens=16)

    events = list(
        ask.responses.create(model="eyes", input=seen(shown(1)), stream=True, max_output_tokens=16)
    )

    assert events[-1].response.output_text == whole.output_text


@pytest.mark.parametrize(
    ("part", "model", "param"),
    [
        (shown(1, image_url="https://example.com/a.png"), "eyes", "input[0].content[0].image_url"),
        (shown(1), "blind", "input[0].content[0].image_url"),
        (
            {"type": "input_image", "detail": "auto", "file_id": "file-none"},
            "eyes",
            "input[0].content[0].file_id",
        ),
        ({"type": "input_image", "detail": "auto"}, "eyes", "input[0].content[0]"),
    ],
)
def test_a_response_refuses_an_image_by_its_place(ask, part, model, param):
    with pytest.raises(openai.BadRequestError) as refused:
        ask.responses.create(model=model, input=seen(part))

    assert refused.value.param == param


def test_a_model_that_sees_judges_images(ask):
    image_part = {"type": "image_url", "image_url": {"url": as_url(image(1))}}
    text = {"type": "text", "text": "Look."}

    (result,) = ask.moderations.create(model="eyes", input=[text, image_part]).results
    with pytest.raises(openai.BadRequestError, match="sees no images") as refused:
        ask.moderations.create(model="blind", input=[text, image_part])
    url = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    with pytest.raises(openai.BadRequestError, match="does not fetch") as fetched:
        ask.moderations.create(model="eyes", input=[text, url])

    assert result.category_applied_input_types.violence == ["text", "image"]
    assert result.category_applied_input_types.hate == ["text"]
    assert refused.value.param == fetched.value.param == "input[1].image_url"


def decided(ask: openai.OpenAI, question: object, *parts: object, model: str = "eyes"):
    content = [{"type": "input_text", "text": "What is it in the rain?"}, *parts]
    return ask.decisions.create(
        model=model,
        input=[{"role": "user", "content": content}],
        questions=[{"type": "predicate", "instructions": question}] * 2,
    )


def in_decision(seed: int) -> dict[str, str]:
    return {"type": "input_image", "image_url": as_url(image(seed))}


def test_decisions_are_about_images_of_the_input_and_of_a_question(ask):
    first, same, other = (decided(ask, "It is red.", in_decision(seed)) for seed in (11, 11, 12))
    instructions = [{"type": "input_text", "text": "It is like this: "}, in_decision(13)]
    of_question = decided(ask, instructions)

    doubts = [1 - one.answers[0].probability for one in (first, same, other)]
    assert doubts[0] == pytest.approx(doubts[1], rel=1e-2)
    assert doubts[0] != pytest.approx(doubts[2], rel=0.5)
    assert same.usage.input_tokens_details.cached_tokens > 0
    assert 1 - first.answers[1].probability == pytest.approx(doubts[0], rel=1e-2)
    assert of_question.usage.input_tokens > 20


def test_decisions_of_a_model_that_sees_nothing_name_the_image(ask):
    with pytest.raises(openai.BadRequestError) as of_input:
        decided(ask, "It is red.", in_decision(11), model="blind")
    with pytest.raises(openai.BadRequestError) as of_question:
        decided(ask, [in_decision(11)], model="blind")

    assert of_input.value.param == "input[0].content[1].image_url"
    assert of_question.value.param == "questions[0].instructions[0].image_url"
