"""A loaded model of whisper.cpp: the transcript of one window of samples."""

import re
from collections.abc import Callable
from ctypes import c_int
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.command_refused import CommandRefused, check_samples
from llm_backend.engine.messages import (
    SAMPLE_BYTES,
    SAMPLES_HZ,
    WINDOW_S,
    Failure,
    LoadModel,
    ModelInfo,
    ModelKind,
    TokenLogprob,
    Transcribe,
    Transcribed,
    TranscriptSegment,
)
from llm_backend.engine.model import DecodeError, LoadError
from llm_backend.engine.pass_threads import PassThreads, first_thread_count
from llm_backend.engine.sequential_engine import Cancelled, Report, SequentialCommand
from llm_backend.engine.transcript_words import TimedToken, timed_words
from llm_backend.engine.whisper.library import (
    AbortCallback,
    EncoderCallback,
    FullParams,
    capture_log,
    default_context,
    default_params,
    has_gpu,
    open_library,
)
from llm_backend.model_files import HeaderError, read_whisper_header

_LEAST_SAMPLES = SAMPLES_HZ  # input is padded to it: the native code ignores short input
_LEAST_END_S = 1.0  # of a window, so that the transcript proceeds
_CENTI = 100  # native times are hundredths of a second

# The native tokenizer recurses for each character of a word, and its time grows with the square of
# a word's length. So it gets only the end of a prompt, in pieces that begin where its own words
# begin.
_PROMPT_CHARACTERS = 2000  # more than the tokens that a model takes
_PIECE = re.compile(r"\s{0,100}\S{1,100}|\s{1,100}")
_KEPT_PROMPTS = 16  # cached tokens: all windows of a recording have one prompt


class WhisperModel:
    """A model and its state, which computes one window at a time. Raises `LoadError`, and
    `DecodeError` if silence cannot be computed."""

    kind = ModelKind.TRANSCRIPTION

    def __init__(self, config: LoadModel) -> None:
        self._config = config
        try:  # the native code would load a file that ends before its weights
            read_whisper_header(config.model_path)
        except HeaderError as error:
            raise LoadError(str(error)) from error
        self._library = open_library()
        self._log = capture_log(self._library)
        params = default_context(self._library)
        params.use_gpu = config.gpu_layers != 0
        params.gpu_device = config.main_gpu
        if config.flash_attention is not None:
            params.flash_attn = config.flash_attention
        path = bytes(config.model_path)
        self._context = self._library.whisper_init_from_file_with_params(path, params)
        if not self._context:
            raise LoadError(f"{config.model_path} cannot be loaded: {self._log.pop_reason()}")
        self._is_multilingual = bool(self._library.whisper_is_multilingual(self._context))
        self._end_of_text = self._library.whisper_token_eot(self._context)
        self._context_tokens = self._library.whisper_model_n_text_ctx(self._context)
        self._prompt_tokens = lru_cache(_KEPT_PROMPTS)(self._tokenize)
        self._thread_count = first_thread_count(config, config.model_path.stat().st_size)
        is_on_gpu = params.use_gpu and has_gpu(self._library)
        is_learning = config.threads is None and not is_on_gpu  # on a GPU, threads only wait
        self._threads = PassThreads(
            self._thread_count, self._set_thread_count, is_learning=is_learning
        )
        self._verify()

    def _verify(self) -> None:
        """Computes a window of silence."""
        silence = bytes(_LEAST_SAMPLES * SAMPLE_BYTES)
        self.compute(Transcribe(samples=silence, language="en"), lambda: False, lambda _event: None)

    def info(self) -> ModelInfo:
        """Information about the model."""
        library, context = self._library, self._context
        size = library.whisper_model_type_readable(context).decode()
        return ModelInfo(
            kind=self.kind,
            architecture="whisper",
            name=self._config.model_path.stem,
            description=f"whisper {size}".removesuffix(" unknown"),
            size_bytes=self._config.model_path.stat().st_size,
            vocabulary_size=library.whisper_model_n_vocab(context),
            embedding_size=library.whisper_model_n_audio_state(context),
            trained_context_tokens=self._context_tokens,
            context_tokens=self._context_tokens,
            backend=library.whisper_print_system_info().decode().strip(" |"),
        )

    def check(self, command: SequentialCommand) -> None:
        """Raises `CommandRefused` for a window that this model cannot transcribe."""
        assert isinstance(command, Transcribe), "the engine takes no other command for this kind"
        check_samples(command.samples, WINDOW_S, noun="window")
        language = command.language
        if language is not None and self._library.whisper_lang_id(_text(language)) < 0:
            message = f"The model has no language `{language[:32]}`; name it by ISO 639-1."
            raise CommandRefused(Failure.INVALID, message, "language")
        if self._is_multilingual:
            return
        if language is not None and self._code(language) != "en":
            message = f"This model transcribes English only, not `{language[:32]}`."
            raise CommandRefused(Failure.INVALID, message, "language")
        if command.translate:
            message = "This model transcribes English only; it cannot translate."
            raise CommandRefused(Failure.UNSUPPORTED, message)

    def compute(
        self, command: SequentialCommand, should_stop: Callable[[], bool], _report: Report
    ) -> Transcribed:
        """Returns the transcript of a window. `should_stop` is called often meanwhile. Raises
        `Cancelled` if it returned True, `DecodeError` if the native code fails."""
        assert isinstance(command, Transcribe), "the engine takes no other command for this kind"
        samples = np.frombuffer(command.samples, "<i2").astype(np.float32) / np.float32(32768)
        length_s = len(samples) / SAMPLES_HZ
        params, begun = self._params(command), 0
        is_stopped = False

        def begin_encoder(*_: object) -> bool:
            nonlocal begun
            begun += 1
            return begun == 1 or command.is_last  # the next window computes the rest

        def abort(_: object) -> bool:
            nonlocal is_stopped
            is_stopped = is_stopped or should_stop()
            return is_stopped

        # The names keep the native pointers to them alive.
        params.encoder_begin_callback = encoder_callback = EncoderCallback(begin_encoder)
        params.abort_callback = abort_callback = AbortCallback(abort)
        padded = _pad(samples)

        def run() -> int:
            params.n_threads = self._thread_count
            full = self._library.whisper_full
            return int(full(self._context, params, padded.ctypes.data, len(padded)))

        result = self._threads.compute(self._computed_tokens, run)
        del encoder_callback, abort_callback
        if is_stopped:
            raise Cancelled
        if result != 0:
            raise DecodeError(f"whisper.cpp failed ({result}): {self._log.pop_reason()}")
        language = self._language()
        count = self._library.whisper_full_n_segments(self._context)
        segments = [self._segment(at, length_s, language, command) for at in range(count)]
        is_cut = begun > 1 and not command.is_last
        end_s = max(segments[-1].end_s, _LEAST_END_S) if is_cut and segments else length_s
        return Transcribed(
            id=command.id,
            segments=segments,
            language=language,
            language_name=self._language_name(),
            end_s=min(end_s, length_s),
        )

    def _params(self, command: Transcribe) -> FullParams:
        params = default_params(self._library)
        params.translate = command.translate
        params.token_timestamps = command.words
        params.temperature = command.temperature
        if command.temperature > 0:
            params.temperature_inc = 0  # no fallback to higher temperatures
        language = command.language or (None if self._is_multilingual else "en")
        params.language = None if language is None else _text(language)
        prompt = self._prompt_tokens(command.prompt[-_PROMPT_CHARACTERS:])
        tokens = [*prompt, *command.context][-self._prompt_limit :]
        if tokens:
            params.prompt_tokens = (c_int * len(tokens))(*tokens)
            params.prompt_n_tokens = len(tokens)
        return params

    @property
    def _prompt_limit(self) -> int:
        """Number of prompt and context tokens before a window: at most half of the model's context,
        whose other half holds the transcript."""
        return max(1, int(self._context_tokens) // 2 - 1)

    def _tokenize(self, text: str) -> list[int]:
        tokens: list[int] = []
        for piece in _PIECE.findall(text):
            data = _text(piece)
            buffer = (c_int * (len(data) + 1))()
            count = self._library.whisper_tokenize(self._context, data, buffer, len(buffer))
            tokens += buffer[: max(0, count)]
        return tokens

    def _set_thread_count(self, count: int) -> None:
        self._thread_count = count

    def _computed_tokens(self) -> int:
        """Tokens of the last window's transcript, and one for its encoder."""
        library, context = self._library, self._context
        segments = range(library.whisper_full_n_segments(context))
        return 1 + sum(int(library.whisper_full_n_tokens(context, at)) for at in segments)

    def _language(self) -> str:
        number = self._library.whisper_full_lang_id(self._context)
        return str(self._library.whisper_lang_str(number).decode())

    def _language_name(self) -> str:
        number = self._library.whisper_full_lang_id(self._context)
        return str(self._library.whisper_lang_str_full(number).decode())

    def _code(self, language: str) -> str:
        """Returns the code of a language that may be named by its English name."""
        number = self._library.whisper_lang_id(_text(language))
        return str(self._library.whisper_lang_str(number).decode())

    def _segment(
        self, at: int, length_s: float, language: str, command: Transcribe
    ) -> TranscriptSegment:
        library, context = self._library, self._context

        def seconds(native: int) -> float:
            return float(min(max(native, 0) / _CENTI, length_s))

        count = library.whisper_full_n_tokens(context, at)
        tokens = [library.whisper_full_get_token_data(context, at, one) for one in range(count)]
        spoken = [one for one in tokens if one.id < self._end_of_text]
        timed = [
            TimedToken(bytes=self._bytes(one.id), start_s=seconds(one.t0), end_s=seconds(one.t1))
            for one in spoken
        ]
        text = library.whisper_full_get_segment_text(context, at).decode(errors="replace")
        return TranscriptSegment(
            start_s=seconds(library.whisper_full_get_segment_t0(context, at)),
            end_s=seconds(library.whisper_full_get_segment_t1(context, at)),
            text=text,
            tokens=[one.id for one in tokens],
            logprobs=[
                TokenLogprob(token=one.id, bytes=self._bytes(one.id), logprob=one.plog)
                for one in spoken
            ],
            no_speech_probability=library.whisper_full_get_segment_no_speech_prob(context, at),
            words=timed_words(timed, language) if command.words else [],
        )

    def _bytes(self, token: int) -> bytes:
        return bytes(self._library.whisper_token_to_str(self._context, token))


def _text(value: str) -> bytes:
    return value.encode(errors="replace").replace(b"\0", b"?")


def _pad(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    missing = max(0, _LEAST_SAMPLES - len(samples))
    return np.ascontiguousarray(np.pad(samples, (0, missing)))
