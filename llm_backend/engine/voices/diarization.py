"""Diarization model: finds the turns of the speakers in one block of a recording."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.command_refused import CommandRefused, check_samples
from llm_backend.engine.messages import (
    BLOCK_S,
    REFERENCE_S,
    SAMPLES_HZ,
    Diarize,
    Diarized,
    Failure,
    LoadModel,
    ModelInfo,
    ModelKind,
    SpeakerTurn,
)
from llm_backend.engine.model import DecodeError, LoadError
from llm_backend.engine.pass_threads import first_thread_count
from llm_backend.engine.sequential_engine import Cancelled, Report, SequentialCommand
from llm_backend.engine.voices.library import LIBRARY_ERRORS, load_library
from llm_backend.engine.voices.quiet import quiet
from llm_backend.engine.voices.speakers import Voice, join_voices, scale_voice
from llm_backend.model_files import DiarizationFiles, HeaderError, read_diarization

_VOICE_S = 20  # of a speaker's longest turns; enough to recognise the voice

_Samples = NDArray[np.float32]


class DiarizationModel:
    """A loaded diarization model, for one block of a recording at a time. The constructor raises
    `LoadError`, or `DecodeError` if a test with silence fails."""

    kind = ModelKind.DIARIZATION

    def __init__(self, config: LoadModel) -> None:
        try:  # without valid metadata the native code would end the process
            self._files = read_diarization(config.model_path)
        except HeaderError as error:
            raise LoadError(str(error)) from error
        self._library = library = load_library()
        threads = first_thread_count(config, self._files.file_bytes)
        self._embedding_config = library.SpeakerEmbeddingExtractorConfig(
            model=str(self._files.embedding), num_threads=threads
        )
        self._segmentation_config = _segmentation(library, self._files, threads)
        try:
            self._extractor = library.SpeakerEmbeddingExtractor(self._embedding_config)
            self._diarization = library.OfflineSpeakerDiarization(self._config(0.5))
        except LIBRARY_ERRORS as error:
            raise LoadError(f"{config.model_path} cannot be loaded: {error}") from error
        self._verify()

    def _verify(self) -> None:
        """Computes one second of silence."""
        self._turns(np.zeros(SAMPLES_HZ, np.float32), lambda: False)

    def info(self) -> ModelInfo:
        """Information about the model."""
        files = self._files
        return ModelInfo(
            kind=self.kind,
            architecture="pyannote",
            name=files.name,
            description=files.description,
            size_bytes=files.file_bytes,
            embedding_size=files.dimensions,
            backend=f"sherpa-onnx {self._library.version}",
        )

    def check(self, command: SequentialCommand) -> None:
        """Raises `CommandRefused` for a block that this model cannot compute."""
        assert isinstance(command, Diarize), "the engine takes no other command for this kind"
        limits = [(command.samples, BLOCK_S), *((one, REFERENCE_S) for one in command.references)]
        for samples, limit_s in limits:
            check_samples(samples, limit_s, noun="block")
        if any(len(one) != self._files.dimensions for one in command.voices):
            message = "The voices were computed by another model, which this one has replaced."
            raise CommandRefused(Failure.INVALID, message, "voices")

    def compute(
        self, command: SequentialCommand, should_stop: Callable[[], bool], _report: Report
    ) -> Diarized:
        """Returns the turns of the speakers. `should_stop` is called after each voice of a window.
        Raises `Cancelled` if it returned True, `DecodeError` if the native code fails."""
        assert isinstance(command, Diarize), "the engine takes no other command for this kind"
        samples = _floats(command.samples)
        self._diarization.set_config(self._config(command.threshold))
        turns = self._turns(samples, should_stop)
        known = [np.asarray(one, dtype=np.float64) for one in command.voices]
        known += [self._voice([_floats(one)]) for one in command.references]
        local = list(dict.fromkeys(one.speaker for one in turns))  # by their first turns
        heard = [self._speaker_voice(samples, turns, speaker) for speaker in local]
        positions, voices = join_voices(heard, known, threshold=command.threshold)
        numbers = dict(zip(local, positions, strict=True))
        return Diarized(
            id=command.id,
            turns=[
                SpeakerTurn(start_s=one.start_s, end_s=one.end_s, speaker=numbers[one.speaker])
                for one in turns
            ],
            voices=[one.tolist() for one in voices],
        )

    def _config(self, threshold: float) -> Any:
        library = self._library
        return library.OfflineSpeakerDiarizationConfig(
            segmentation=self._segmentation_config,
            embedding=self._embedding_config,
            clustering=library.FastClusteringConfig(num_clusters=-1, threshold=threshold),
        )

    def _turns(self, samples: _Samples, should_stop: Callable[[], bool]) -> list[SpeakerTurn]:
        """Returns the turns of the block's own speakers, in the order of their starts."""

        def on_progress(_done: int, _all: int) -> int:
            if should_stop():
                raise Cancelled  # propagates through the native code
            return 0

        with quiet():
            try:
                result = self._diarization.process(samples, on_progress)
            except LIBRARY_ERRORS as error:
                raise DecodeError(f"sherpa-onnx failed: {error}") from error
        end_s = len(samples) / SAMPLES_HZ
        return [
            SpeakerTurn(start_s=one.start, end_s=min(one.end, end_s), speaker=one.speaker)
            for one in result.sort_by_start_time()
            if one.start < end_s
        ]

    def _speaker_voice(
        self, samples: _Samples, turns: Sequence[SpeakerTurn], speaker: int
    ) -> Voice:
        """Returns the voice of a speaker, from the longest turns."""
        own = [one for one in turns if one.speaker == speaker]
        pieces, left_s = [], float(_VOICE_S)
        for turn in sorted(own, key=lambda one: one.start_s - one.end_s):
            end_s = min(turn.end_s, turn.start_s + left_s)
            pieces.append(samples[round(turn.start_s * SAMPLES_HZ) : round(end_s * SAMPLES_HZ)])
            left_s -= end_s - turn.start_s
            if left_s <= 0:
                break
        return self._voice(pieces, sum(one.end_s - one.start_s for one in own))

    def _voice(self, pieces: Sequence[_Samples], heard_s: float | None = None) -> Voice:
        """Returns the vector of the voice in the samples. Its norm is `heard_s`, by default the
        duration of the samples in seconds."""
        stream = self._extractor.create_stream()
        for piece in pieces:
            stream.accept_waveform(SAMPLES_HZ, piece)
        stream.input_finished()
        if not self._extractor.is_ready(stream):
            return np.zeros(self._files.dimensions)
        try:
            vector = self._extractor.compute(stream)
        except LIBRARY_ERRORS as error:
            raise DecodeError(f"sherpa-onnx failed: {error}") from error
        seconds = sum(map(len, pieces)) / SAMPLES_HZ if heard_s is None else heard_s
        return scale_voice(vector, seconds)


def _segmentation(library: Any, files: DiarizationFiles, threads: int) -> Any:
    return library.OfflineSpeakerSegmentationModelConfig(
        pyannote=library.OfflineSpeakerSegmentationPyannoteModelConfig(
            model=str(files.segmentation)
        ),
        num_threads=threads,
    )


def _floats(samples: bytes) -> _Samples:
    return np.frombuffer(samples, "<i2").astype(np.float32) / np.float32(32768)
