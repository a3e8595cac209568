"""Transcription and translation: a recording as text, by a local model or relayed."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import IO, TYPE_CHECKING, Final, Literal, TypeAlias, cast

from starlette.responses import PlainTextResponse, Response

from llm_backend.access import Caller, fairness_key
from llm_backend.backends.base import Usage
from llm_backend.backends.data_url import decode_base64, parse_data_url
from llm_backend.backends.local.local_model import LocalModel
from llm_backend.backends.recordings.pauses import SpeechOptions
from llm_backend.backends.recordings.recording import Recording, RecordingLimits
from llm_backend.backends.transcription import (
    Diarization,
    KnownSpeaker,
    TranscriptPart,
    TranscriptRequest,
)
from llm_backend.backends.transcription.speakers import missing_extra
from llm_backend.contract.client_disconnect import cancel_on_disconnect
from llm_backend.contract.request import ApiRequest
from llm_backend.controllers.audio.recordings import RECORDING, check_codecs, read_recording
from llm_backend.controllers.audio.transcript_formats import (
    ENGLISH,
    Transcript,
    TranscriptFormat,
    diarized_segment,
    diarized_transcript,
    json_transcript,
    logprobs_of,
    subtitles,
    token_usage,
    verbose_transcript,
)
from llm_backend.controllers.generation.request_translation import check_supported_fields
from llm_backend.controllers.relay.routing import answer_transcription_by_route
from llm_backend.controllers.rendering.event_stream import event_stream
from llm_backend.controllers.rendering.json_response import JsonResponse
from llm_backend.controllers.services import Services
from llm_backend.engine.messages import REFERENCE_S
from llm_backend.errors import InvalidRequest, Unsupported, UnsupportedField
from llm_backend.extras import install_command, is_installed
from llm_backend.json_types import JsonValue
from llm_backend.model_files import RecognizerFiles

if TYPE_CHECKING:
    from llm_backend.contract import api_types as api

    _Body: TypeAlias = api.CreateTranscriptionRequest | api.CreateTranslationRequest

FIELDS = {
    "file", "model", "language", "prompt", "response_format", "temperature", "stream", "include",
    "timestamp_granularities", "chunking_strategy", "known_speaker_names",
    "known_speaker_references",
}  # fmt: skip
TRANSLATION_FIELDS = {"file", "model", "prompt", "response_format", "temperature"}

_PAUSE_LIMIT_MS = 10_000
_STREAMED = ("json", "text", "diarized_json")
_TIMED = ("srt", "vtt", "verbose_json", "diarized_json")
_REFERENCES: Final = "known_speaker_references"
_REFERENCES_BYTES = 16 * 1024 * 1024  # of all in a request, as data URLs
_NO_TIMES = (
    "`{model}` is a language model, which gives no timestamps: ask for the `response_format` "
    "`json` or `text`, without `timestamp_granularities`."
)


@dataclass(frozen=True, kw_only=True)
class _Options:
    """Options of a request. `language_name` is set for a translation, whose language is fixed."""

    transcript: TranscriptRequest
    format: TranscriptFormat
    streams: bool = False
    has_logprobs: bool = False
    has_segments: bool = True
    speech: SpeechOptions | None = None
    language_name: str | None = None


async def create_transcription(services: Services, request: ApiRequest) -> Response:
    """`POST /audio/transcriptions`"""
    return await answer_transcription_by_route(services, request, local=_transcribe)


async def create_translation(services: Services, request: ApiRequest) -> Response:
    """`POST /audio/translations`"""
    return await answer_transcription_by_route(services, request, local=_translate)


async def _transcribe(services: Services, request: ApiRequest, model: LocalModel) -> Response:
    return await _answer(services, request, model, _transcription_options)


async def _translate(services: Services, request: ApiRequest, model: LocalModel) -> Response:
    return await _answer(services, request, model, _translation_options)


async def _answer(
    services: Services,
    request: ApiRequest,
    model: LocalModel,
    options_of: Callable[[JsonValue], "_Options"],
) -> Response:
    if not model.can_transcribe:
        message = f"`{model.card.id}` {model.purpose}; it cannot transcribe."
        raise InvalidRequest(message, param="model")
    if model.hears:
        check_codecs("file")
    if model.recognizer is not None:
        _check_recognizer(model, model.recognizer, translates=options_of is _translation_options)
    file = services.temporary_files.open(RECORDING)
    try:
        limit_bytes = services.settings.transcription_limit_bytes
        _, fields = await read_recording(
            services,
            request,
            file,
            field="file",
            limit_bytes=limit_bytes,
            text_limits={_REFERENCES: _REFERENCES_BYTES},
        )
        if model.hears:
            _check_needs_no_timestamps(fields)
        if model.recognizer is not None:
            _check_recognizer_fields(model.recognizer, fields)
        options = options_of(fields)
        limits = RecordingLimits(
            bytes=limit_bytes,
            seconds=services.settings.transcription_limit_s,
        )
        parts = services.transcriber.transcribe(
            model,
            Recording(file=file, field="file", limits=limits, speech=options.speech),
            options.transcript,
            fairness_key=fairness_key(request.caller),
            diarization=_diarization(services, request.caller, fields, limits),
        )
        if options.streams:
            return await cancel_on_disconnect(
                request, event_stream(_events(parts, options), ending=b"")
            )
        return _render(await cancel_on_disconnect(request, _collect(parts, options)), options)
    except BaseException:
        file.close()
        raise


def _transcription_options(body: "api.CreateTranscriptionRequest") -> _Options:
    check_supported_fields(body, FIELDS)
    format: TranscriptFormat = body.get("response_format", "json")
    granularities = body.get("timestamp_granularities") or ["segment"]
    if format != "verbose_json" and "word" in granularities:
        message = "`timestamp_granularities` needs the `response_format` `verbose_json`."
        raise InvalidRequest(message, param="timestamp_granularities")
    streams = bool(body.get("stream"))
    if streams and format not in _STREAMED:
        message = (
            f"The `response_format` `{format}` is not streamed; `json`, `text` and "
            "`diarized_json` are."
        )
        raise InvalidRequest(message, param="stream")
    has_logprobs = "logprobs" in (body.get("include") or ())
    if has_logprobs and format != "json":
        message = "`logprobs` need the `response_format` `json`."
        raise InvalidRequest(message, param="include")
    return _Options(
        transcript=TranscriptRequest(
            language=body.get("language"),
            prompt=body.get("prompt", ""),
            temperature=_temperature(body),
            words="word" in granularities,
            logprobs=has_logprobs,
        ),
        format=format,
        streams=streams,
        has_logprobs=has_logprobs,
        has_segments="segment" in granularities,
        speech=_speech_options(body.get("chunking_strategy")),
    )


def _speech_options(strategy: "api.VadConfig | Literal['auto'] | None") -> SpeechOptions | None:
    """Returns the options of speech detection; None if the recording is transcribed without it.
    Raises `InvalidRequest`, and `Unsupported` if `server_vad` lacks its extra."""
    if strategy is None or (strategy == "auto" and not is_installed("realtime")):
        return None
    if isinstance(strategy, str):
        return SpeechOptions()
    if not is_installed("realtime"):
        raise Unsupported(
            f"`server_vad` needs an extra, which is not installed: {install_command('realtime')}.",
            param="chunking_strategy.type",
        )
    options = SpeechOptions(
        threshold=float(strategy.get("threshold", SpeechOptions.threshold)),
        prefix_ms=int(strategy.get("prefix_padding_ms", SpeechOptions.prefix_ms)),
        silence_ms=int(strategy.get("silence_duration_ms", SpeechOptions.silence_ms)),
    )
    if not 0 <= options.threshold <= 1:
        raise InvalidRequest(
            "`threshold` must be from 0 to 1.", param="chunking_strategy.threshold"
        )
    for name, value in (
        ("prefix_padding_ms", options.prefix_ms),
        ("silence_duration_ms", options.silence_ms),
    ):
        if not 0 <= value <= _PAUSE_LIMIT_MS:
            raise InvalidRequest(
                f"`{name}` must be from 0 to {_PAUSE_LIMIT_MS}.", param=f"chunking_strategy.{name}"
            )
    return options


def _translation_options(body: "api.CreateTranslationRequest") -> _Options:
    check_supported_fields(body, TRANSLATION_FIELDS)
    return _Options(
        transcript=TranscriptRequest(
            translate=True, prompt=body.get("prompt", ""), temperature=_temperature(body)
        ),
        format=body.get("response_format", "json"),
        language_name=ENGLISH,
    )


def _diarization(
    services: Services,
    caller: Caller,
    body: "api.CreateTranscriptionRequest",
    limits: RecordingLimits,
) -> Diarization | None:
    """Returns the options of diarization; None for all formats but `diarized_json`, which no
    translation has. Raises `ApiError` for invalid speakers, or without a model for the caller."""
    names: Sequence[str] = body.get("known_speaker_names", ())
    references: Sequence[str] = body.get(_REFERENCES, ())
    if body.get("response_format") != "diarized_json":
        if names or references:
            message = "Known speakers need the `response_format` `diarized_json`."
            raise InvalidRequest(message, param="known_speaker_names" if names else _REFERENCES)
        return None
    model = services.registry.diarization_model
    may_use = model is not None and services.access.admission.may_use(caller, model.card.id)
    if model is None or model.diarization is None or not may_use:
        raise UnsupportedField(
            "`diarized_json` needs a second local model that tells speakers apart, and none is "
            "served: add a folder with segmentation.onnx and embedding.onnx to `models`.",
            param="response_format",
        )
    if (missing := missing_extra(model.card.id, model.diarization)) is not None:
        raise Unsupported(missing, param="response_format")
    if len(names) != len(references):
        message = f"There are {len(names)} names of speakers and {len(references)} references."
        raise InvalidRequest(message, param=_REFERENCES)
    if len(set(names)) < len(names) or not all(one.strip() for one in names):
        message = "Names of speakers must differ, and none may be empty."
        raise InvalidRequest(message, param="known_speaker_names")
    limits = replace(limits, seconds=REFERENCE_S + 1)  # some formats pad their audio
    known = []
    with ExitStack() as files:
        for at, (name, url) in enumerate(zip(names, references, strict=True)):
            field = f"{_REFERENCES}[{at}]"
            file = files.enter_context(_reference(services, url, field))
            sample = Recording(file=file, field=field, limits=limits)
            known.append(KnownSpeaker(name=name, sample=sample))
        files.pop_all()  # the transcription closes them
    threshold = services.settings.diarization_threshold
    return Diarization(model=model, known=known, threshold=threshold)


def _reference(services: Services, url: str, field: str) -> IO[bytes]:
    """Returns the decoded data URL as a temporary file. Raises `InvalidRequest`."""
    parsed = parse_data_url(url)
    try:
        if parsed is None:
            raise ValueError("it is no data: URL in base64")
        data = decode_base64(parsed.base64)
    except ValueError as error:
        message = f"A sample of a speaker cannot be read: {error}."
        raise InvalidRequest(message, param=field) from error
    file = services.temporary_files.open(RECORDING)
    with services.temporary_files.writing(RECORDING):
        file.write(data)
    return file


def _check_needs_no_timestamps(body: "_Body") -> None:
    """Raises `UnsupportedField` for fields that ask for timestamps, which a language model does not
    report."""
    if body.get("timestamp_granularities"):
        raise UnsupportedField(_NO_TIMES.format(**body), param="timestamp_granularities")
    if body.get("response_format", "json") in _TIMED:
        raise UnsupportedField(_NO_TIMES.format(**body), param="response_format")


def _check_recognizer(model: LocalModel, files: RecognizerFiles, *, translates: bool) -> None:
    """Raises `ApiError` if a NeMo model lacks its extra, or if the task is translation."""
    if translates:
        message = f"`{model.card.id}` transcribes; it cannot translate."
        raise InvalidRequest(message, param="model")
    if (missing := missing_extra(model.card.id, files)) is not None:
        raise Unsupported(missing, param="model")


def _check_recognizer_fields(
    files: RecognizerFiles, body: "api.CreateTranscriptionRequest"
) -> None:
    """Raises `UnsupportedField` for fields that a NeMo model cannot honour."""
    for field in ("language", "prompt", "temperature"):
        if body.get(field):
            raise UnsupportedField(f"{files.description}: it takes no `{field}`.", param=field)
    if "logprobs" in (body.get("include") or ()) and not files.is_transducer:
        message = f"{files.description}: it reports no `logprobs`."
        raise UnsupportedField(message, param="include")


def _temperature(body: "_Body") -> float:
    temperature = float(body.get("temperature", 0))
    if not 0 <= temperature <= 1:
        raise InvalidRequest("`temperature` must be from 0 to 1.", param="temperature")
    return temperature


async def _collect(parts: AsyncGenerator[TranscriptPart, None], options: _Options) -> Transcript:
    async with aclosing(parts):
        return Transcript.join(
            [part async for part in parts],
            temperature=options.transcript.temperature,
            language_name=options.language_name,
        )


def _render(transcript: Transcript, options: _Options) -> Response:
    if options.format == "json" and options.transcript.translate:
        return JsonResponse({"text": transcript.text})  # a translation has no `usage`
    if options.format == "json":
        return JsonResponse(json_transcript(transcript, has_logprobs=options.has_logprobs))
    if options.format == "diarized_json":
        return JsonResponse(diarized_transcript(transcript))
    if options.format == "verbose_json":
        return JsonResponse(
            verbose_transcript(
                transcript,
                task="translate" if options.transcript.translate else "transcribe",
                has_segments=options.has_segments,
                has_words=options.transcript.words,
            )
        )
    if options.format == "text":
        return PlainTextResponse(transcript.text + "\n")
    return PlainTextResponse(subtitles(transcript, is_srt=options.format == "srt"))


async def _events(
    parts: AsyncGenerator[TranscriptPart, None], options: _Options
) -> "AsyncGenerator[api.CreateTranscriptionResponseStreamEvent, None]":
    """Yields the document's events: a delta for each segment, then the segment if it has a
    speaker."""
    transcript, logprobs, usages, number = "", [], [], 0
    async with aclosing(parts):
        async for part in parts:
            usages += [] if part.usage is None else [part.usage]
            for segment, speaker in zip_longest(part.segments, part.speakers):
                text = segment.text if transcript else segment.text.lstrip()
                transcript += text
                event: api.TranscriptTextDeltaEvent = {
                    "type": "transcript.text.delta",
                    "delta": text,
                }
                if options.has_logprobs:
                    event["logprobs"] = cast(
                        "list[api.TranscriptTextDeltaEventLogprob]", logprobs_of([segment])
                    )
                    logprobs += event["logprobs"]
                if speaker is None:
                    yield event
                    continue
                diarized = diarized_segment(number, segment, speaker)
                number += 1
                event["segment_id"] = diarized["id"]
                yield event
                yield diarized
    done: api.TranscriptTextDoneEvent = {"type": "transcript.text.done", "text": transcript}
    if usages:
        done["usage"] = token_usage(sum(usages, Usage()))
    if options.has_logprobs:
        done["logprobs"] = logprobs
    yield done
