"""Settings of the local voice."""

from pydantic import BaseModel, Field

from llm_backend.settings.kinds import Names, NonEmptyText

NO_VOICE = "none"


class SpeechSettings(BaseModel):
    """The model `builtin-voice`, which reads texts aloud."""

    voice_program: NonEmptyText = Field(
        "espeak-ng",
        description="Program by which `builtin-voice` speaks: `espeak-ng` by its name or path; "
        "`none` serves no voice.",
    )
    voices: Names = Field(
        (),
        description="Voices by further names, `NAME=VOICE`, for example `alloy=de+f3`; OpenAI's "
        "names have English voices unless they are named here.",
    )
    speech_concurrency: int = Field(
        16,
        ge=1,
        description="Texts that one process reads aloud at once; others wait in turns, as many as "
        "`queue_limit` and as long as `queue_deadline_s`.",
    )
    speech_timeout_s: float = Field(
        10,
        gt=0,
        description="Seconds without a sound after which the process that speaks is killed.",
    )
