"""Settings of audio: the local voice, and transcription."""

from pydantic import BaseModel, Field

from llm_backend.settings.kinds import Names, NonEmptyText
from llm_backend.settings.model_entry import Bytes

NO_VOICE = "none"


class SpeechSettings(BaseModel):
    """The model `builtin-voice`, which reads texts aloud."""

    voice_program: NonEmptyText = Field(
        "espeak-ng",
        description="Program of `builtin-voice`, which also finds the phonemes of ONNX voices "
        "without a lexicon: the name or path of `espeak-ng`. `none` disables `builtin-voice`.",
    )
    voices: Names = Field(
        (),
        description="Further names of voices, `NAME=VOICE`, for example `alloy=de+f3`; OpenAI's "
        "names are English voices unless they are given here.",
    )
    speech_concurrency: int = Field(
        16,
        ge=1,
        description="Texts that one process reads aloud at the same time; others wait in turn: at "
        "most `queue_limit`, for at most `queue_deadline_s`.",
    )
    speech_timeout_s: float = Field(
        10,
        gt=0,
        description="Seconds without audio after which the process that speaks is killed.",
    )


class VoiceSettings(BaseModel):
    """Cloned voices: clients create them from a sample."""

    voices_limit: int = Field(
        100,
        ge=0,
        description="Maximum number of cloned voices of a project, and of recorded consents.",
    )
    voice_recording_limit_bytes: Bytes = Field(
        10 * 1024 * 1024,
        description="Largest file of a voice's sample or of a consent, in bytes.",
    )
    voice_sample_limit_s: int = Field(
        30, ge=1, le=30, description="Longest sample of a voice, in seconds; the shortest is 1."
    )
    voice_consent_limit_s: int = Field(
        120, ge=1, description="Longest recording of a consent, in seconds."
    )


class TranscriptionSettings(BaseModel):
    """Local models that transcribe recordings."""

    transcription_concurrency: int = Field(
        4,
        ge=1,
        description="Recordings that one process transcribes at the same time, window by window in "
        "turns; others wait, as many as `queue_limit` and as long as `queue_deadline_s`.",
    )
    transcription_limit_bytes: Bytes = Field(
        512 * 1024 * 1024, description="Largest file of a recording, in bytes."
    )
    transcription_limit_s: int = Field(
        21_600, ge=1, description="Longest recording, in seconds of audio."
    )
    diarization_threshold: float = Field(
        0.5,
        gt=0,
        le=2,
        description="For `diarized_json`: two voices closer than this cosine distance count as "
        "one speaker; a lower value yields more speakers.",
    )
