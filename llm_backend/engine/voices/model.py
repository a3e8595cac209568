"""A loaded ONNX voice, which reads one sentence at a time."""

from collections.abc import Callable
from typing import Any

from llm_backend.engine.command_refused import CommandRefused
from llm_backend.engine.messages import Failure, LoadModel, ModelInfo, ModelKind, Speak, Spoken
from llm_backend.engine.model import DecodeError, LoadError
from llm_backend.engine.pass_threads import first_thread_count
from llm_backend.engine.pcm import pcm_of
from llm_backend.engine.sequential_engine import Cancelled, Report, SequentialCommand
from llm_backend.engine.voices.library import LIBRARY_ERRORS, load_library
from llm_backend.engine.voices.quiet import quiet
from llm_backend.model_files import HeaderError, VoiceFamily, VoiceFiles, read_voice

_SILENCE_SCALE = 0.2  # factor for pauses within a sentence; the library's default


class OnnxVoiceModel:
    """A voice of sherpa-onnx. Raises `LoadError`."""

    kind = ModelKind.SPEECH

    def __init__(self, config: LoadModel) -> None:
        try:  # before the native code, which ends the process if a file is missing
            self._files = read_voice(config.model_path)
        except HeaderError as error:
            raise LoadError(str(error)) from error
        self._library = library = load_library()
        threads = first_thread_count(config, self._files.file_bytes)
        settings = _config(library, self._files, threads)
        try:
            self._voice = library.OfflineTts(settings)
        except LIBRARY_ERRORS as error:
            raise LoadError(f"{config.model_path} cannot be loaded: {error}") from error

    def info(self) -> ModelInfo:
        """Information about the voice."""
        files = self._files
        return ModelInfo(
            kind=self.kind,
            architecture=files.family.value,
            name=files.name,
            description=files.description,
            size_bytes=files.file_bytes,
            backend=f"sherpa-onnx {self._library.version}",
        )

    def check(self, command: SequentialCommand) -> None:
        """Raises `CommandRefused` for a sentence that this voice cannot read."""
        assert isinstance(command, Speak), "the engine takes no other command for a voice"
        if not 0 <= command.speaker < len(self._files.speakers):
            message = f"The voice has no speaker {command.speaker}."
            raise CommandRefused(Failure.INVALID, message, "voice")

    def compute(
        self, command: SequentialCommand, should_stop: Callable[[], bool], _report: Report
    ) -> Spoken:
        """Computes the audio of a sentence, empty if the voice knows none of its words. Calls
        `should_stop` between its parts. Raises `Cancelled` if that returned True, `DecodeError` if
        the native code fails."""
        assert isinstance(command, Speak), "the engine takes no other command for a voice"
        is_stopped = False

        def go_on(_samples: object, _progress: float) -> int:
            nonlocal is_stopped
            is_stopped = is_stopped or should_stop()
            return int(not is_stopped)

        with quiet():
            try:
                audio = self._voice.generate(command.text, self._options(command), go_on)
            except LIBRARY_ERRORS as error:
                raise DecodeError(f"sherpa-onnx failed: {error}") from error
        if is_stopped:
            raise Cancelled
        return Spoken(id=command.id, samples=pcm_of(audio.samples), rate_hz=self._files.rate_hz)

    def _options(self, command: Speak) -> Any:
        options = self._library.GenerationConfig()
        options.sid = command.speaker
        options.speed = command.speed
        options.silence_scale = _SILENCE_SCALE
        if command.phonemes:
            options.phoneme_codepoints = [[ord(one) for one in command.phonemes]]
        return options


def _config(library: Any, files: VoiceFiles, threads: int) -> Any:
    shared = {"tokens": str(files.tokens), "lexicon": ",".join(map(str, files.lexicons))}
    model = str(files.model)
    match files.family:
        case VoiceFamily.VITS:
            family = {"vits": library.OfflineTtsVitsModelConfig(model=model, **shared)}
        case VoiceFamily.KOKORO:
            voices = str(files.styles)
            kokoro = library.OfflineTtsKokoroModelConfig(model=model, voices=voices, **shared)
            family = {"kokoro": kokoro}
        case VoiceFamily.MATCHA:
            vocoder = str(files.vocoder)
            matcha = library.OfflineTtsMatchaModelConfig(
                acoustic_model=model, vocoder=vocoder, **shared
            )
            family = {"matcha": matcha}
    return library.OfflineTtsConfig(
        model=library.OfflineTtsModelConfig(**family, num_threads=threads),
        rule_fsts=",".join(map(str, files.rules)),
    )
