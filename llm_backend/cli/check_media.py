"""Checks of models that speak, transcribe and draw: what they do it with, or what they lack."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llm_backend.extras import install_command, is_installed
from llm_backend.settings import Settings, SettingsError

if TYPE_CHECKING:
    from llm_backend.app.served_models import ServedModel
    from llm_backend.backends.speech import Espeak
    from llm_backend.model_files import DiarizationFiles, SpeakingFiles


def check_voice(settings: Settings) -> str:
    """Return a sentence for each voice: what it speaks with, or lacks; a server may have none."""
    from llm_backend.app.model_startup import build_espeak_model, build_synthesizer
    from llm_backend.metrics import Metrics

    voice = build_espeak_model(settings, build_synthesizer(settings, Metrics()))
    espeak = None if voice is None else voice.espeak
    sentences = _audio_models(settings, espeak)
    if voice is not None:
        speaks = f"`{voice.card.id}` speaks by {settings.voice_program}."
        sentences = [voice.missing or speaks, *sentences]
    if sentences and not is_installed("realtime"):
        command = install_command("realtime")
        sentences.append(f"Realtime sessions detect no turns without an extra: {command}.")
    return " ".join(sentences) or "None."


def check_drawing(settings: Settings) -> str:
    """Return a sentence for each model that draws: the library that it uses, or what it lacks."""
    from llm_backend.backends.images.local_images import missing_to_draw

    sentences = [
        missing_to_draw(one.card.id, one.image_setup)
        or f"`{one.card.id}` draws by stable-diffusion.cpp."
        for one in _read_models(settings)
        if one.image_setup is not None
    ]
    return " ".join(sentences) or "None."


def _audio_models(settings: Settings, espeak: "Espeak | None") -> list[str]:
    """Describe the local models that speak, transcribe or tell speakers apart."""
    from llm_backend.backends.speech.local_voice import missing_to_speak

    models = _read_models(settings)
    voices = {one.card.id: one.voice for one in models if one.voice is not None}
    return [
        *(
            missing_to_speak(name, files, espeak)
            or f"`{name}` speaks by {files.library}.{_warn_of_languages(files)}"
            for name, files in voices.items()
        ),
        *(_describe_transcription(one) for one in models if _hears(one)),
        *(
            _describe_diarization(one.card.id, one.diarization)
            for one in models
            if one.diarization is not None
        ),
    ]


def _warn_of_languages(files: "SpeakingFiles") -> str:
    """Return a warning for each sample whose name does not end with a language of the voice."""
    from llm_backend.model_files import GgufVoiceFiles

    names = files.unknown_languages if isinstance(files, GgufVoiceFiles) else {}
    return "".join(
        f" Its sample `{name}` speaks English: `{ending}` is not a language of the voice."
        for name, ending in names.items()
    )


def _hears(model: "ServedModel") -> bool:
    return model.diarization is None and "audio" in dict(model.card.more).get(
        "input_modalities", ()
    )


def _describe_transcription(model: "ServedModel") -> str:
    """Return what a model transcribes with, or what it lacks."""
    from llm_backend.backends.transcription.speakers import missing_extra
    from llm_backend.model_files import is_whisper_file

    name, files = model.card.id, model.recognizer
    if files is not None:
        return missing_extra(name, files) or f"`{name}` transcribes by {files.library}."
    if is_whisper_file(model.engine.model_path):
        return f"`{name}` transcribes by whisper.cpp."
    if is_installed("audio"):
        return f"`{name}` transcribes by llama.cpp."
    command = install_command("audio")
    return f"`{name}` understands audio in chats; transcription needs an extra: {command}."


def _describe_diarization(model: str, files: "DiarizationFiles") -> str:
    """Return what a model tells speakers apart with, or what it lacks."""
    from llm_backend.backends.transcription.speakers import missing_extra

    return missing_extra(model, files) or f"`{model}` tells speakers apart by {files.library}."


def _read_models(settings: Settings) -> "Sequence[ServedModel]":
    """Return the local models; none if one cannot be served, which the check of models names."""
    from llm_backend.app.served_models import build_served_models

    try:
        return build_served_models(settings)
    except SettingsError:
        return []
