"""Recordings transcribed by language models that hear, with the official client."""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import yaml

from tests.audio_files import wav_file
from tests.engine.gguf_models import write_llama
from tests.engine.hearing.families import (
    GLM_ASR,
    GRANITE_SPEECH,
    LFM2_AUDIO,
    MERALION,
    QWEN3_ASR,
    RECORDINGS,
    VOXTRAL,
    chirp_file,
)
from tests.engine.hearing.gguf_files import write_projector, write_text_model
from tests.engine.hearing.test_reference import ENTRIES as REFERENCE
from tests.engine.projectors import write_ears, write_eyes
from tests.kills import transcribe_through_a_kill
from tests.media_files import in_base64
from tests.patience import wait_until
from tests.realtime_client import opened, parts
from tests.serving import Served, serve
from tests.strict_sdk import StrictOpenAI

SAYS = ["language", "ĠGerman", "<asr_text>", "Guten", "ĠMorgen."]
TEXT = "Guten Morgen."
AUDIO = wav_file(2)
QWEN3_ASR_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GRANITE_TEMPLATE = (
    "{% for message in messages %}<|start_of_role|>{{ message.role }}<|end_of_role|>"
    "{{ message.content }}<|end_of_text|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start_of_role|>assistant<|end_of_role|>{% endif %}"
)
GLM_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>\n{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
LFM2_TEMPLATE = "{{ bos_token }}" + QWEN3_ASR_TEMPLATE
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>{{ message.role }}\n"
    "{{ message.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
TASK = (
    "Transcribe the speech in this audio word for word, in the language that is spoken. "
    "Answer with the transcript only."
)


@pytest.fixture(scope="module")
def hearing(tmp_path_factory) -> Iterator[Served]:
    """A server with tiny models: `ears` is of random weights, `asr` answers in Qwen3-ASR's form
    whatever it hears, `voxtral`, `qwen3_asr`, `granite_speech`, `glm_asr`, `lfm2_audio` and
    `meralion` are those of the reference, `eyes` and `builtin` do not hear."""
    folder: Path = tmp_path_factory.mktemp("hearing")
    random, says = write_llama(folder / "r.gguf"), write_llama(folder / "s.gguf", says=SAYS)
    ears, eyes = write_ears(folder / "ears.gguf"), write_eyes(folder / "eyes.gguf")
    templates = {
        VOXTRAL: "mistral-v7-tekken",
        QWEN3_ASR: QWEN3_ASR_TEMPLATE,
        GRANITE_SPEECH: GRANITE_TEMPLATE,
        GLM_ASR: GLM_TEMPLATE,
        LFM2_AUDIO: LFM2_TEMPLATE,
        MERALION: GEMMA_TEMPLATE,
    }
    references = [
        {"id": family.name,
         "path": str(write_text_model(folder / f"{family.name}.gguf", family, template=template)),
         "mmproj": str(write_projector(folder / f"{family.name}-ears.gguf", family))}
        for family, template in templates.items()
    ]  # fmt: skip
    shape = {"slots": 2, "context_tokens": 1024, "cache_type": "f32", "flash_attention": False}
    models = [
        {**shape, "id": "ears", "path": str(random), "mmproj": str(ears),
         "chat_template": "human-assistant"},
        {**shape, "id": "asr", "path": str(says), "mmproj": str(ears)},
        {**shape, "id": "small", "path": str(says), "mmproj": str(ears), "context_tokens": 16},
        *({**shape, **one} for one in references),
        {**shape, "id": "eyes", "path": str(random), "mmproj": str(eyes)},
    ]  # fmt: skip
    config = {"models": models, "threads": 1, "realtime_transcription_model": "asr"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with serve(folder / "data", "--config", str(folder / "config.yaml")) as served:
        yield served


@pytest.fixture
def client(hearing) -> Iterator[openai.OpenAI]:
    with StrictOpenAI(
        base_url=hearing.base_url, api_key="none", admin_api_key="none", max_retries=0
    ) as one:
        yield one


def transcribe(
    hearing: Served, file: bytes = AUDIO, path: str = "transcriptions", **fields: str
) -> httpx.Response:
    form: list[tuple[str, Any]] = [
        (name, (None, value)) for name, value in {"model": "asr", **fields}.items()
    ]
    form.append(("file", ("audio.wav", file, "audio/wav")))
    return httpx.post(f"{hearing.base_url}/audio/{path}", files=form, timeout=60)


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line]


def test_a_transcript_is_the_answer_of_a_chat_with_the_audio(client):
    audio = {"type": "input_audio", "input_audio": {"data": in_base64(AUDIO), "format": "wav"}}
    chat = client.chat.completions.create(
        model="ears", temperature=0, max_tokens=104,
        messages=[{"role": "user", "content": [{"type": "text", "text": TASK + "\n"}, audio]}],
    )  # fmt: skip

    heard = client.audio.transcriptions.create(model="ears", file=("a.wav", AUDIO))

    assert heard.text == chat.choices[0].message.content.strip()
    assert heard.usage.type == "tokens"
    assert heard.usage.input_tokens == chat.usage.prompt_tokens
    assert heard.usage.output_tokens == chat.usage.completion_tokens
    assert heard.usage.input_token_details.audio_tokens == 13
    other = client.audio.transcriptions.create(model="ears", file=("a.wav", wav_file(1)))
    assert other.text != heard.text


@pytest.mark.parametrize(
    ("family", "language"),
    [
        pytest.param(VOXTRAL, "en", id="voxtral"),
        pytest.param(QWEN3_ASR, "en", id="qwen3_asr"),
        pytest.param(GRANITE_SPEECH, openai.omit, id="granite_speech"),
        pytest.param(GLM_ASR, openai.omit, id="glm_asr"),
        pytest.param(LFM2_AUDIO, openai.omit, id="lfm2_audio"),
        pytest.param(MERALION, openai.omit, id="meralion"),
    ],
)
def test_a_model_transcribes_as_its_reference(client, family, language):
    """The reference's prompt is that of a transcription in this language."""
    entry = next(one for one in REFERENCE if one["family"] == family.name)
    (recording,) = [one for one in RECORDINGS[family.name] if one.name == entry["recording"]]
    answer = client.audio.transcriptions.create(
        model=family.name,
        file=("a.wav", chirp_file(recording)),
        language=language,
        include=["logprobs"],
    )

    found = answer.logprobs[: len(entry["answer"])]
    assert answer.usage.input_tokens == sum(
        one[0] if isinstance(one, list) else 1 for one in entry["prompt"]
    )
    assert [bytes(map(int, one.bytes)) for one in found] == [
        family.bytes_of(token) for token in entry["answer"]
    ]
    assert [one.logprob for one in found] == pytest.approx(entry["logprobs"], abs=0.1)


def test_the_header_of_an_answer_is_no_text(client):
    answer = client.audio.transcriptions.create(
        model="asr", file=("a.wav", AUDIO), include=["logprobs"]
    )

    assert answer.text == TEXT
    assert [one.token for one in answer.logprobs][:2] == ["Guten", " Morgen."]
    assert all(one.logprob <= 0 for one in answer.logprobs)


def test_a_known_language_is_given_to_the_model(client):
    asked: dict[str, Any] = {"model": "asr", "file": ("a.wav", AUDIO)}
    plain = client.audio.transcriptions.create(**asked)
    given = client.audio.transcriptions.create(**asked, language="de", prompt="Names: Anna.")

    assert given.text == TEXT
    assert given.usage.output_tokens == plain.usage.output_tokens - 3  # the header
    assert given.usage.input_tokens > plain.usage.input_tokens


def test_a_stream_has_deltas_and_the_tokens(client):
    *deltas, done = client.audio.transcriptions.create(
        model="asr", file=("a.wav", AUDIO), stream=True
    )

    assert "".join(one.delta for one in deltas) == TEXT
    assert (done.type, done.text) == ("transcript.text.done", TEXT)
    assert done.usage.input_token_details.audio_tokens == 13


def test_windows_of_a_long_recording_follow_each_other(hearing):
    answer = transcribe(hearing, wav_file(70)).json()
    stream = events(transcribe(hearing, wav_file(70), stream="true"))

    assert answer["text"] == " ".join([TEXT] * 3)
    assert 438 <= answer["usage"]["input_token_details"]["audio_tokens"] <= 440
    assert "".join(one["delta"] for one in stream[:-1]) == stream[-1]["text"] == answer["text"]


def last_event(stream: bytes) -> dict[str, Any]:
    """Returns the last event of a stream."""
    return json.loads(stream.decode().strip().rpartition("data: ")[2])


def test_a_killed_worker_is_started_again_and_the_recording_goes_on(hearing):
    long = wav_file(500)
    *_, whole = events(transcribe(hearing, long, stream="true"))
    form = [("model", (None, "asr")), ("file", ("a.wav", long))]
    for _ in range(10):
        last = last_event(transcribe_through_a_kill(hearing, form))
        if "error" not in last:
            break
        # text of the window was sent already: it is not computed once more
        assert last["error"]["code"] == "engine_unavailable"
        hearing.wait_ready()

    assert last == whole
    assert last["text"] == " ".join([TEXT] * last["text"].count(TEXT))


def test_a_text_is_plain(hearing):
    assert transcribe(hearing, response_format="text").text == f"{TEXT}\n"


def test_a_model_that_follows_requests_translates(client):
    asked: dict[str, Any] = {"model": "ears", "file": ("a.wav", AUDIO)}
    heard = client.audio.transcriptions.create(**asked)
    with pytest.deprecated_call():  # the SDK calls all translations so
        translated = client.audio.translations.create(**asked)

    assert translated.text not in ("", heard.text)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": "srt"}, "response_format"),
        ({"response_format": "vtt"}, "response_format"),
        ({"response_format": "verbose_json"}, "response_format"),
        ({"response_format": "diarized_json"}, "response_format"),
        ({"timestamp_granularities[]": "segment"}, "timestamp_granularities"),
        ({"language": "xx"}, "language"),
        ({"language": "German."}, "language"),
        ({"temperature": "1.5"}, "temperature"),
        ({"model": "eyes"}, "model"),
        ({"model": "small"}, "file"),
        ({"model": "small", "prompt": "Anna"}, "prompt"),
    ],
)
def test_a_bad_field_is_a_400_that_names_it(hearing, fields, param):
    answer = transcribe(hearing, **fields)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize("fields", [{}, {"stream": "true"}, {"prompt": "Anna"}])
def test_a_recording_that_does_not_fit_the_context_is_refused_with_both_numbers(hearing, fields):
    answer = transcribe(hearing, model="small", **fields)
    error = events(answer)[-1]["error"] if "stream" in fields else answer.json()["error"]
    needed, context = map(int, re.findall(r"\d+", error["message"]))

    assert needed > context == 16


def test_a_model_that_only_transcribes_is_refused_for_translation(hearing):
    answer = transcribe(hearing, path="translations")

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")


@pytest.mark.parametrize("file", [b"no audio", wav_file(2, amplitude=0)], ids=["text", "silent"])
def test_a_bad_recording_is_a_400(hearing, file):
    answer = transcribe(hearing, file)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "file")


def test_a_transcript_that_the_context_has_no_room_for_is_not_cut_off(hearing):
    stream = events(transcribe(hearing, model="small", stream="true"))

    assert stream[-1]["error"]["code"] == "context_length_exceeded"


def test_a_turn_of_a_realtime_session_is_heard(hearing):
    transcript = "conversation.item.input_audio_transcription"
    audio_input = {"turn_detection": None, "transcription": {"model": "asr", "language": "de"}}
    noise = base64.b64encode(AUDIO[44:]).decode()
    with opened(hearing, "intent=transcription") as session:
        fields = {"type": "transcription", "audio": {"input": audio_input}}
        session.send({"type": "session.update", "session": fields})
        session.receive()
        session.send({"type": "input_audio_buffer.append", "audio": noise})
        session.send({"type": "input_audio_buffer.commit"})
        told = session.until(f"{transcript}.completed")

    assert parts(told, f"{transcript}.delta") == told[-1]["transcript"] == TEXT
    assert told[-1]["usage"]["input_token_details"]["audio_tokens"] == 9  # of 24 kHz


def test_usage_counts_tokens_and_seconds(hearing, client):
    def counted() -> float:
        lines = httpx.get(f"{hearing.address}/metrics", timeout=60).text.splitlines()
        name = 'llm_backend_transcription_seconds_total{model="asr"} '
        return sum(float(one.removeprefix(name)) for one in lines if one.startswith(name))

    before = counted()
    transcribe(hearing)

    wait_until(lambda: counted() > before)
    assert counted() - before == pytest.approx(2)
