"""Prompts with which audio language models transcribe or translate a recording (pure).

Models trained to transcribe expect prompts of their own. Qwen3-ASR takes only the audio, and
context as the system message. It answers `language NAME<asr_text>TEXT`; if the language is known,
the prompt contains the beginning of this answer. Voxtral's transcription mode is `lang:CODE` and
the token `[TRANSCRIBE]` after the user's turn. Granite and LFM2 have fixed sentences, and so has
GLM-ASR, as a message of its own after the audio's. MERaLiON is trained with instructions in a form
of its own before the audio. Other models follow a request in words. The architecture, and tokens of
some vocabularies, tell the models apart.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from llm_backend.backends.transcription.windows import TranscriptRequest
from llm_backend.errors import InvalidRequest, UnsupportedField

ASR_TEXT = "<asr_text>"
TRANSCRIBE = "[TRANSCRIBE]"
BEGIN_OF_AUDIO = "<|begin_of_audio|>"
SPEECH_HERE = "<SpeechHere>"
MARKS = (ASR_TEXT, TRANSCRIBE, BEGIN_OF_AUDIO, SPEECH_HERE)
"""Texts that are single tokens in the vocabularies of the models trained with them."""

LANGUAGES = {
    "ar": "Arabic", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek", "en": "English",
    "es": "Spanish", "fa": "Persian", "fi": "Finnish", "fil": "Filipino", "fr": "French",
    "hi": "Hindi", "hu": "Hungarian", "id": "Indonesian", "it": "Italian", "ja": "Japanese",
    "ko": "Korean", "mk": "Macedonian", "ms": "Malay", "nl": "Dutch", "pl": "Polish",
    "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sv": "Swedish", "th": "Thai",
    "tr": "Turkish", "vi": "Vietnamese", "yue": "Cantonese", "zh": "Chinese",
}  # fmt: skip
"""English names, by code, of the languages that Qwen3-ASR transcribes."""

_CODE = re.compile("[a-z]{2,3}")


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """Texts around the audio: the `system` message (None: no such message), the user's text
    `before` and `after` the audio, the user's `next_message`, if any, and the beginning of the
    answer (`opening`), which the model continues. `has_header`: answers may begin with the language
    and `ASR_TEXT`."""

    system: str | None = None
    before: str = ""
    after: str = ""
    next_message: str = ""
    opening: str = ""
    has_header: bool = False


def instruction_for(
    architecture: str, marks: Collection[str], request: TranscriptRequest
) -> Instruction:
    """Returns the instruction for a model of this architecture, in whose vocabulary `marks` are
    single tokens. Raises `InvalidRequest` for a field that the model cannot honour."""
    if request.language is not None and not _CODE.fullmatch(request.language):
        raise InvalidRequest(
            f"`{request.language[:32]}` is not a code of a language; name it by ISO 639-1.",
            param="language",
        )
    if ASR_TEXT in marks:
        return _qwen_asr(request)
    if TRANSCRIBE in marks and not request.translate and not request.prompt:
        language = f"lang:{request.language}" if request.language else ""
        return Instruction(opening=language + TRANSCRIBE)
    if architecture.startswith("granite"):
        task = "translate the speech to English" if request.translate else None
        return _after(task or "can you transcribe the speech into a written format?", request)
    if architecture.startswith("lfm2"):
        return _lfm2(request)
    if BEGIN_OF_AUDIO in marks and architecture == "llama":
        return Instruction(next_message=_with_hints(_glm_task(request), request))
    if SPEECH_HERE in marks:
        return _meralion(request)
    if TRANSCRIBE in marks:
        return _after(_task(request), request)
    return Instruction(before=_with_hints(_task(request), request) + "\n")


def _qwen_asr(request: TranscriptRequest) -> Instruction:
    _check_only_transcribes(request)
    code = request.language
    if code is None:
        return Instruction(system=request.prompt, has_header=True)
    if code not in LANGUAGES:
        raise InvalidRequest(
            f"The model has no language `{code}`; it has {', '.join(sorted(LANGUAGES))}.",
            param="language",
        )
    return Instruction(
        system=request.prompt, opening=f"language {LANGUAGES[code]}{ASR_TEXT}", has_header=True
    )


def _lfm2(request: TranscriptRequest) -> Instruction:
    _check_only_transcribes(request)
    for name, value in (("prompt", request.prompt), ("language", request.language)):
        if value:
            raise UnsupportedField(f"This model takes no `{name}`.", param=name)
    return Instruction(system="Perform ASR.")


def _glm_task(request: TranscriptRequest) -> str:
    if request.translate:
        return _task(request)
    has_hints = request.language or request.prompt
    return "Please transcribe this audio into text" + ("." if has_hints else "")


def _meralion(request: TranscriptRequest) -> Instruction:
    task = "Please transcribe this speech."
    if request.translate:
        task = "Can you please translate this speech into written English?"
    return Instruction(
        before=f"Instruction: {_with_hints(task, request)} \n"
        "Follow the text instruction based on the following audio: "
    )


def _check_only_transcribes(request: TranscriptRequest) -> None:
    if request.translate:
        raise InvalidRequest("This model transcribes; it cannot translate.", param="model")


def _task(request: TranscriptRequest) -> str:
    if request.translate:
        return "Translate the speech in this audio into English. Answer with the translation only."
    return (
        "Transcribe the speech in this audio word for word, in the language that is spoken. "
        "Answer with the transcript only."
    )


def _after(task: str, request: TranscriptRequest) -> Instruction:
    return Instruction(after=_with_hints(task, request))


def _with_hints(task: str, request: TranscriptRequest) -> str:
    if request.language:
        task += f" The language is {LANGUAGES.get(request.language, request.language)}."
    return f"{task} Context: {request.prompt}" if request.prompt else task
