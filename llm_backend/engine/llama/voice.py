"""Voice of llama.cpp: a language model of speech, whose projector turns its output into the audio
of a sentence."""

import ctypes
import logging
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import llama_cpp as native
import llama_cpp.mtmd_cpp as mtmd
import numpy as np

from llm_backend.engine.command_refused import CommandRefused
from llm_backend.engine.llama.audio_bitmap import audio_bitmap
from llm_backend.engine.llama.devices import computes_on_gpu, describe_devices
from llm_backend.engine.llama.log import LlamaLog
from llm_backend.engine.llama.vocabulary import Handle
from llm_backend.engine.llama.voice_codes import sample_codes
from llm_backend.engine.llama.weights import DevicePlacement, load_weights
from llm_backend.engine.messages import (
    SAMPLE_BYTES,
    Failure,
    LoadModel,
    ModelInfo,
    ModelKind,
    Speak,
    Spoken,
)
from llm_backend.engine.model import DecodeError, LoadError
from llm_backend.engine.pass_threads import first_thread_count
from llm_backend.engine.pcm import pcm_of
from llm_backend.engine.sequential_engine import Cancelled, Report, SequentialCommand
from llm_backend.model_files import (
    VOICE_CONTEXT_TOKENS,
    VOICE_SAMPLE_S,
    HeaderError,
    read_gguf_voice,
)

_BATCH_TOKENS = 512  # of a prompt; `should_stop` is called between two batches
_PCM_SCALE = 32767  # of the recording that comes with a sentence: signed 16-bit PCM
_DEFAULT_LANGUAGE = "en"
# Codes of a sentence, 12.5 a second: two seconds, and half a second for each character, at most.
_BASE_CODES, _CODES_PER_CHARACTER, _CODES_LIMIT = 25, 6, 1024
_SEED_BITS = 0x7FFFFFFF  # 0xFFFFFFFF makes the native code choose a seed


class LlamaVoiceModel:
    """A loaded voice, which computes one sentence at a time. Raises `LoadError`."""

    kind = ModelKind.SPEECH

    def __init__(self, config: LoadModel, log: LlamaLog) -> None:
        assert config.projector_path is not None, "a voice has a projector"
        self._log = log
        try:
            self._files = read_gguf_voice(config.model_path, config.projector_path)
        except HeaderError as error:
            raise LoadError(str(error).removesuffix(".")) from error
        native.llama_backend_init()
        log.redirect(mtmd.mtmd_helper_log_set)
        self._config = config
        self._threads = first_thread_count(config, self._files.file_bytes)
        self._placement = DevicePlacement(config)
        self._model = self._load_model()
        self._context = self._open_context()
        self._projector = self._load_projector(config.projector_path)
        self._samples = [self._load_sample(path) for path in self._files.samples]
        self._generator = mtmd.mtmd_helper_gen_audio_init(self._context, self._projector)
        self._last_seed = 0
        self._languages = self._files.languages if self._files.samples_codes else None
        self._warn_about_languages()

    def info(self) -> ModelInfo:
        """Information about the voice."""
        files = self._files
        return ModelInfo(
            kind=self.kind,
            architecture=files.family,
            name=files.name,
            description=files.description,
            parameters=int(native.llama_model_n_params(self._model)),
            size_bytes=files.file_bytes,
            embedding_size=native.llama_model_n_embd(self._model),
            trained_context_tokens=native.llama_model_n_ctx_train(self._model),
            context_tokens=VOICE_CONTEXT_TOKENS,
            backend=describe_devices(on_gpu=computes_on_gpu(self._config)),
        )

    def check(self, command: SequentialCommand) -> None:
        """Raises `CommandRefused` for a sentence that this voice cannot read."""
        assert isinstance(command, Speak), "the engine takes no other command for a voice"
        if command.sample:
            if not self._files.takes_samples:
                raise CommandRefused(Failure.INVALID, "The voice takes no samples.", "voice")
            seconds = len(command.sample) / SAMPLE_BYTES / self._files.rate_hz
            if not 1 <= seconds <= VOICE_SAMPLE_S:
                message = f"The sample lasts {seconds:g} s; it may last 1 to {VOICE_SAMPLE_S} s."
                raise CommandRefused(Failure.INVALID, message, "voice")
        elif self._speaker(command) is None:
            wanted = command.speaker if command.speaker_name is None else command.speaker_name
            raise CommandRefused(Failure.INVALID, f"The voice has no speaker {wanted}.", "voice")
        if self._languages is not None and self._language(command) is None:
            spoken = ", ".join(sorted(set(self._languages.values())))
            message = f"The voice does not speak `{command.language[:100]}`, but {spoken}."
            raise CommandRefused(Failure.INVALID, message, "voice")

    def compute(
        self, command: SequentialCommand, should_stop: Callable[[], bool], _report: Report
    ) -> Spoken:
        """Returns the audio of a sentence. `should_stop` is called between its frames. Raises
        `Cancelled` once it returns True, `DecodeError` if the native code fails."""
        assert isinstance(command, Speak), "the engine takes no other command for a voice"
        native.llama_memory_clear(native.llama_get_memory(self._context), True)
        with self._sample(command) as sample:
            seed = self._set_input(command, sample)
        status = 1  # above zero while tokens of the prompt are left, below zero after an error
        while status > 0:
            status = mtmd.mtmd_helper_gen_audio_step_prompt(self._generator, _BATCH_TOKENS)
            if should_stop():
                raise Cancelled
        self._check(status)
        with closing(self._codes(command.text, seed)) as codes:
            self._compute_frames(codes, should_stop)
        return Spoken(id=command.id, samples=self._output(), rate_hz=self._files.rate_hz)

    def _speaker(self, command: Speak) -> int | None:
        """Returns the number of the command's speaker, None if there is no such speaker. A name
        takes precedence: the numbers change when sample files are added."""
        names = self._files.speakers
        if command.speaker_name is not None:
            return names.index(command.speaker_name) if command.speaker_name in names else None
        return command.speaker if 0 <= command.speaker < len(names) else None

    @contextmanager
    def _sample(self, command: Speak) -> Iterator[Handle | None]:
        """Yields the speaker's sample, None if it has none. A sample that came with the sentence is
        freed afterwards."""
        if not command.sample:
            speaker = self._speaker(command)
            assert speaker is not None, "the command was checked"
            yield self._samples[speaker] if self._samples else None
            return
        values = np.frombuffer(command.sample, "<i2").astype(np.float32) / np.float32(_PCM_SCALE)
        with audio_bitmap(values) as sample:
            yield sample

    def _language(self, command: Speak) -> str | None:
        """Returns the language of a sentence. None if the voice does not speak it."""
        speaker = None if command.sample else self._speaker(command)
        name = "" if speaker is None else self._files.speakers[speaker]
        return self._files.find_language(name, command.language)

    def _warn_about_languages(self) -> None:
        """Logs the speakers whose names end like a language that the voice does not speak."""
        for name, ending in self._files.unknown_languages.items():
            facts = {"speaker": name, "ending": ending, "spoken": _DEFAULT_LANGUAGE}
            logging.getLogger(__name__).warning("voice_language_unknown", extra=facts)

    def _set_input(self, command: Speak, sample: Handle | None) -> int:
        """Sets the generator's text, speaker and language; returns the seed of the sentence."""
        text = command.text.encode(errors="replace")
        language = None if self._languages is None else self._language(command)
        seed = self._choose_seed(text)
        request = mtmd.mtmd_helper_gen_audio_inp(
            seq_id=0,
            prompt=text,
            prompt_len=len(text),
            speaker_ref=sample,
            lang=language and language.encode(),
            top_k=0,  # the model's default, as `top_p`
            top_p=0.0,
            seed=seed,
            out_type=mtmd.MTMD_HELPER_GEN_AUDIO_OUTTYPE_PCM,
        )
        self._check(mtmd.mtmd_helper_gen_audio_set_input(self._generator, ctypes.byref(request)))
        return seed

    def _choose_seed(self, text: bytes) -> int:
        """Returns the seed of a sentence, which follows from its text, so that it always sounds the
        same. The native code restarts its random numbers only when the seed changes. So between two
        sentences with the same seed, a frame with another seed is computed."""
        seed = zlib.crc32(text) & _SEED_BITS
        if seed == self._last_seed:
            frame, result = mtmd.mtmd_gen_inp_default(self._projector), mtmd.mtmd_gen_out()
            frame.seed = seed ^ 1
            frame.embd = (ctypes.c_float * native.llama_model_n_embd(self._model))()
            self._check(
                mtmd.mtmd_gen_audio_process(
                    self._projector, ctypes.byref(frame), ctypes.byref(result)
                )
            )
        self._last_seed = seed
        return seed

    def _codes(self, text: str, seed: int) -> Generator[int, None, None]:
        """Yields the token of each frame; the null token, without end, for a model that samples no
        codes. Of such a model the native code bounds the frames, and reports the last one."""
        if self._files.samples_codes:
            limit = min(_CODES_LIMIT, _BASE_CODES + _CODES_PER_CHARACTER * len(text))
            yield from sample_codes(self._context, seed=seed, limit=limit)
            return
        while True:
            yield native.LLAMA_TOKEN_NULL

    def _compute_frames(
        self, codes: Generator[int, None, None], should_stop: Callable[[], bool]
    ) -> None:
        state = native.llama_get_embeddings_ith(self._context, -1)
        following = ctypes.POINTER(ctypes.c_float)()
        has_ended = ctypes.c_bool(False)
        while state and not has_ended.value and (code := next(codes, None)) is not None:
            if should_stop():
                raise Cancelled
            self._check(
                mtmd.mtmd_helper_gen_audio_step_gen(
                    self._generator,
                    code,
                    state,
                    ctypes.byref(following),
                    ctypes.byref(has_ended),
                )
            )
            state = following

    def _output(self) -> bytes:
        rate_hz, size = ctypes.c_int32(), ctypes.c_size_t()
        data, count = ctypes.POINTER(ctypes.c_char)(), ctypes.c_int64()
        self._check(
            mtmd.mtmd_helper_gen_audio_get_output(
                self._generator,
                ctypes.byref(rate_hz),
                ctypes.byref(data),
                ctypes.byref(size),
                ctypes.byref(count),
            )
        )
        assert rate_hz.value == self._files.rate_hz
        if not size.value:
            return b""
        return pcm_of(np.frombuffer(ctypes.string_at(data, size.value), np.float32))

    def _check(self, status: int) -> None:
        if status:
            raise DecodeError(f"The voice failed ({status}): {self._log.pop_reason()}")

    def _load_model(self) -> Handle:
        model = load_weights(self._config, self._placement, loads_draft_head=False)
        if not model:
            raise LoadError(f"{self._config.model_path} cannot be loaded: {self._log.pop_reason()}")
        return model

    def _open_context(self) -> Handle:
        params = native.llama_context_default_params()
        params.n_ctx = VOICE_CONTEXT_TOKENS
        params.n_batch = params.n_ubatch = _BATCH_TOKENS
        params.n_threads = params.n_threads_batch = self._threads
        params.embeddings = True
        context = native.llama_init_from_model(self._model, params)
        if not context:
            raise LoadError(f"{self._config.model_path} has no context: {self._log.pop_reason()}")
        return context

    def _load_projector(self, path: Path) -> Handle:
        params = mtmd.mtmd_context_params_default()
        params.use_gpu = computes_on_gpu(self._config)
        params.print_timings = False
        params.n_threads = self._threads
        projector = mtmd.mtmd_init_from_file(bytes(path), self._model, params)
        if not projector:
            reason = self._log.pop_reason()
            raise LoadError(f"{path} is not a projector for {self._config.model_path}: {reason}")
        return projector

    def _load_sample(self, path: Path) -> Handle:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise LoadError(f"{path} cannot be read: {error.strerror}") from error
        buffer = (ctypes.c_ubyte * len(data)).from_buffer_copy(data)
        sample = mtmd.mtmd_helper_bitmap_init_from_buf(self._projector, buffer, len(data), False)
        if not sample or not mtmd.mtmd_bitmap_is_audio(sample):
            raise LoadError(f"{path} is not audio in WAV, MP3 or FLAC")
        seconds = mtmd.mtmd_bitmap_get_nx(sample) / self._files.rate_hz
        if not 1 <= seconds <= VOICE_SAMPLE_S:
            raise LoadError(
                f"{path} lasts {seconds:.1f} s; a sample of a voice lasts 1 to {VOICE_SAMPLE_S} s"
            )
        return sample
