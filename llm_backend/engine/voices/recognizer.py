"""A loaded NeMo model: the transcript of one window of samples."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from llm_backend.engine.command_refused import CommandRefused, check_samples
from llm_backend.engine.messages import (
    SAMPLE_BYTES,
    SAMPLES_HZ,
    WINDOW_S,
    Failure,
    LoadModel,
    ModelInfo,
    ModelKind,
    Transcribe,
    Transcribed,
)
from llm_backend.engine.model import DecodeError, LoadError
from llm_backend.engine.pass_threads import first_thread_count
from llm_backend.engine.sequential_engine import Cancelled, Report, SequentialCommand
from llm_backend.engine.voices.library import LIBRARY_ERRORS, load_library
from llm_backend.engine.voices.quiet import quiet
from llm_backend.engine.voices.token_segments import RecognizedToken, build_segments, end_times
from llm_backend.model_files import HeaderError, RecognizerFiles, read_recognizer, read_symbols

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_LEAST_SAMPLES = SAMPLES_HZ  # the native code computes nothing for less than a moment


class RecognizerModel:
    """A model that transcribes one window at a time. Raises `LoadError`, and
    `DecodeError` if silence cannot be computed."""

    kind = ModelKind.TRANSCRIPTION

    def __init__(self, config: LoadModel) -> None:
        try:  # the native code ends the process where metadata or tokens are wrong
            self._files = read_recognizer(config.model_path)
            self._numbers = _numbers(read_symbols(self._files.tokens))
        except HeaderError as error:
            raise LoadError(str(error)) from error
        self._library = library = load_library()
        threads = first_thread_count(config, self._files.file_bytes)
        try:
            self._recognizer = _open(library, self._files, threads)
        except LIBRARY_ERRORS as error:
            raise LoadError(f"{config.model_path} cannot be loaded: {error}") from error
        self._verify()

    def _verify(self) -> None:
        """Computes a moment of silence."""
        self._decode(bytes(_LEAST_SAMPLES * SAMPLE_BYTES))

    def info(self) -> ModelInfo:
        """Information about the model."""
        files = self._files
        return ModelInfo(
            kind=self.kind,
            architecture="nemo-transducer" if files.is_transducer else "nemo-ctc",
            name=files.name,
            description=files.description,
            size_bytes=files.file_bytes,
            vocabulary_size=files.vocabulary,
            backend=f"sherpa-onnx {self._library.version}",
        )

    def check(self, command: SequentialCommand) -> None:
        """Raises `CommandRefused` for a window, or an option, that this model cannot compute."""
        assert isinstance(command, Transcribe), "the engine takes no other command for this kind"
        check_samples(command.samples, WINDOW_S, noun="window")
        if command.translate:
            raise CommandRefused(Failure.UNSUPPORTED, "This model cannot translate.")
        for field in ("language", "prompt", "temperature"):
            if getattr(command, field):
                message = f"This model takes no `{field}`."
                raise CommandRefused(Failure.INVALID, message, field)

    def compute(
        self, command: SequentialCommand, should_stop: Callable[[], bool], _report: Report
    ) -> Transcribed:
        """Returns the transcript of a window. `should_stop` is called before and after it. Raises
        `Cancelled` if it returned True, `DecodeError` if the native code fails."""
        assert isinstance(command, Transcribe), "the engine takes no other command for this kind"
        if should_stop():
            raise Cancelled
        length_s = len(command.samples) / SAMPLE_BYTES / SAMPLES_HZ
        result = self._decode(command.samples)
        try:
            tokens = self._tokens(result, length_s)
        except (KeyError, ValueError):  # which hold text of a transcript, for no log
            message = "sherpa-onnx answered with tokens that are not those of the model."
            raise DecodeError(message) from None
        if should_stop():
            raise Cancelled
        return Transcribed(
            id=command.id,
            segments=build_segments(tokens, words=command.words),
            language="",  # such a model reports none
            language_name="",
            end_s=length_s,
        )

    def _decode(self, samples: bytes) -> Any:
        """Returns the library's result for a window."""
        floats = np.frombuffer(samples, "<i2").astype(np.float32) / np.float32(32768)
        padded = np.pad(floats, (0, max(0, _LEAST_SAMPLES - len(floats))))
        with quiet():
            try:
                stream = self._recognizer.create_stream()
                stream.accept_waveform(SAMPLES_HZ, padded)
                self._recognizer.decode_stream(stream)
                return stream.result
            except LIBRARY_ERRORS as error:
                raise DecodeError(f"sherpa-onnx failed: {error}") from error

    def _tokens(self, result: Any, length_s: float) -> list[RecognizedToken]:
        texts, starts = list(result.tokens), [min(one, length_s) for one in result.timestamps]
        logprobs = list(result.ys_log_probs) or [None] * len(texts)
        ends = end_times(starts, list(result.durations), length_s)
        return [
            RecognizedToken(
                text=text, number=self._numbers[text], start_s=start_s, end_s=end_s, logprob=logprob
            )
            for text, start_s, end_s, logprob in zip(texts, starts, ends, logprobs, strict=True)
        ]


def _open(library: Any, files: RecognizerFiles, threads: int) -> Any:
    shared = {"tokens": str(files.tokens), "num_threads": threads}
    if not files.is_transducer:
        return library.OfflineRecognizer.from_nemo_ctc(model=str(files.encoder), **shared)
    return library.OfflineRecognizer.from_transducer(
        encoder=str(files.encoder),
        decoder=str(files.decoder),
        joiner=str(files.joiner),
        model_type="nemo_transducer",
        **shared,
    )


def _numbers(symbols: Mapping[str, int]) -> Mapping[str, int]:
    """Returns the numbers of tokens by the library's texts, in which a word begins with a space and
    a byte is `<0xE4>`, or the character that it is."""
    bytes_ = {int(one[3:5], 16): number for one, number in symbols.items() if _BYTE.fullmatch(one)}
    return {
        **{f"<0x{byte:X}>": number for byte, number in bytes_.items()},
        **{chr(byte): number for byte, number in bytes_.items()},
        **{re.sub("^▁", " ", text): number for text, number in symbols.items()},
    }
