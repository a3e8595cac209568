"""Native projector (mtmd): encodes images and audio into rows of embeddings."""

import ctypes
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import llama_cpp as native
import llama_cpp.mtmd_cpp as mtmd
import numpy as np
from numpy.typing import NDArray

from llm_backend.engine.llama import voxtral
from llm_backend.engine.llama.audio_windows import AudioLength, AudioWindows, audio_limit_s
from llm_backend.engine.llama.convolution_end import ConvolutionEnd, LastFrame
from llm_backend.engine.llama.devices import computes_on_gpu
from llm_backend.engine.llama.header import check_file
from llm_backend.engine.llama.log import LlamaLog
from llm_backend.engine.llama.rotary_positions import RotaryPositions
from llm_backend.engine.llama.spectrogram import Spectrogram
from llm_backend.engine.llama.stacked_norm import StackedNorm
from llm_backend.engine.llama.vocabulary import Handle
from llm_backend.engine.media_runs import Identity, MediaError, Part, Piece, Run, identity
from llm_backend.engine.messages import LoadModel, MediaItem, MediaKind
from llm_backend.engine.model import LoadError
from llm_backend.model_files import (
    GgufHeader,
    HeaderError,
    audio_projector_types,
    read_header,
)
from llm_backend.operating_system import usable_cores

_CACHE_BYTES = 64 << 20  # of embeddings: a conversation sends its media again with each turn
_CACHED_MEDIA = 256  # media whose pieces are cached
_LEAST_AUDIO_S = 0.01  # shorter audio is refused: a single sample crashes the native code
_MARKER = b"<media>"  # media are tokenized in a text of only this, so prompts may contain it
_DIMENSIONS = 4  # dimensions of a position that has several: time, row, column, and one unused
_CONTEXT_DEPENDENT = {"hunyuanvl", "deepseek4v"}
"""Projectors whose embeddings of an image depend on the text before it."""
_WITHOUT_TEXT = {"musicflamingo"}
"""Projectors whose models are trained without the token that llama.cpp adds before audio."""


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """The embeddings of one run: [count, embedding size] float32, and their positions in each
    dimension, from 0 on: [dimensions, count] int32. The run's start is added in the dimensions
    where `dimension_offsets` is 1. `is_non_causal`: attention among them is not causal."""

    rows: NDArray[np.float32]
    positions: NDArray[np.int32]
    dimension_offsets: NDArray[np.int32]
    is_non_causal: bool

    def positions_from(self, position: int) -> NDArray[np.int32]:
        """Returns the positions of a run that begins at `position`: [dimensions, count] int32."""
        return self.positions + self.dimension_offsets[:, np.newaxis] * np.int32(position)


@dataclass(frozen=True, kw_only=True)
class _Chunks:
    """The chunks of a medium, in native memory. Those after the audio's `length` are padding."""

    media: Identity
    handle: Handle
    length: AudioLength = field(default_factory=AudioLength)

    def select(self) -> Iterator[Handle]:
        """Yields the texts, and the runs that are encoded."""
        count = 0
        for chunk in _each(self.handle):
            is_text = _is_text(chunk)
            if is_text or self.length.has_audio(count):
                yield chunk
            count += not is_text

    def free(self) -> None:
        mtmd.mtmd_input_chunks_free(self.handle)


class NativeProjector:
    """The file at `config.projector_path`, for the model of this handle. Raises `LoadError`."""

    def __init__(self, config: LoadModel, model: Handle, log: LlamaLog) -> None:
        assert config.projector_path is not None, "a projector is configured"
        self._path = config.projector_path
        self._log = log
        check_file(self._path)
        header = _checked_header(self._path)
        is_rewritten = voxtral.is_rewritable(header)
        self._end_rows = voxtral.END_ROWS if is_rewritten else 0  # not a part of the audio
        self._adds_text = audio_projector_types(header).isdisjoint(_WITHOUT_TEXT)
        self._text = (voxtral.BEGIN_AUDIO if is_rewritten else b"") + _MARKER
        self._audio_windows = AudioWindows.of(header)
        self._convolution_end = (
            ConvolutionEnd() if self._audio_windows.changes_convolutions else None
        )
        self._changed_encoder = RotaryPositions.of(header) or StackedNorm.of(header)
        log.redirect(mtmd.mtmd_helper_log_set)
        with self._loadable_file(header, is_rewritten=is_rewritten) as path:
            self._context = self._load(path, config, model)
        self._width: int = native.llama_model_n_embd_inp(model)
        self._audio_limit_s = min(config.audio_limit_s, audio_limit_s(header, self._width))
        self._has_dimensions = bool(mtmd.mtmd_decode_use_mrope(self._context))
        self._cached_pieces: OrderedDict[Identity, list[Piece]] = OrderedDict()
        self._rate_hz: int = mtmd.mtmd_get_audio_sample_rate(self._context)  # below 0 without audio
        self._open_chunks: _Chunks | None = None  # the medium split last
        self._cached_embeddings: OrderedDict[tuple[Identity, int], Embeddings] = OrderedDict()
        self._cached_bytes = 0

    @property
    def media(self) -> frozenset[MediaKind]:
        """The supported kinds of media."""
        can = {
            MediaKind.IMAGE: mtmd.mtmd_support_vision(self._context),
            MediaKind.AUDIO: mtmd.mtmd_support_audio(self._context),
        }
        return frozenset(medium for medium, is_supported in can.items() if is_supported)

    def pieces(self, media: MediaItem) -> list[Piece]:
        """Returns the text and runs of a medium in a prompt, without computing it. Raises
        `MediaError`."""
        key = identity(media)
        found = self._cached_pieces.get(key)
        if found is None:
            found = self._cached_pieces[key] = self._pieces(media)
        self._cached_pieces.move_to_end(key)
        if len(self._cached_pieces) > _CACHED_MEDIA:
            self._cached_pieces.popitem(last=False)
        return found

    def embeddings(self, run: Run) -> Embeddings:
        """Encodes a run, unless its embeddings are cached. Raises `MediaError`."""
        key = (identity(run.media), run.part_index)
        found = self._cached_embeddings.get(key)
        if found is None:
            found = self._cached_embeddings[key] = self._encode(run)
            self._cached_bytes += found.rows.nbytes
        self._cached_embeddings.move_to_end(key)
        while self._cached_bytes > _CACHE_BYTES and len(self._cached_embeddings) > 1:
            _, oldest = self._cached_embeddings.popitem(last=False)
            self._cached_bytes -= oldest.rows.nbytes
        return found

    def _pieces(self, media: MediaItem) -> list[Piece]:
        if media.medium is MediaKind.AUDIO:  # to count its tokens costs as much as to split it
            chunks = self._split(media)
            found = [
                self._piece(chunk)
                for chunk in chunks.select()
                if self._adds_text or not _is_text(chunk)
            ]
            _shorten_last(found, chunks.length.silent_embeddings)
        else:
            chunks = self._chunks(media, counts_only=True)
            found = [self._piece(chunk) for chunk in chunks.select()]
            chunks.free()
        if not any(isinstance(piece, Part) for piece in found):
            raise MediaError(f"The {media.medium} is too small to be read.")
        return found

    @contextmanager
    def _loadable_file(self, header: GgufHeader, *, is_rewritten: bool) -> Iterator[Path]:
        if not is_rewritten:
            yield self._path
            return
        try:
            with voxtral.rewrite(self._path, header) as path:
                yield path
        except OSError as error:
            raise LoadError(f"{self._path} cannot be copied: {error.strerror or error}") from error

    def _load(self, path: Path, config: LoadModel, model: Handle) -> Handle:
        params = mtmd.mtmd_context_params_default()
        params.use_gpu = computes_on_gpu(config)
        params.print_timings = False
        params.n_threads = config.threads or usable_cores()
        params.media_marker = _MARKER
        if config.image_tokens is not None:
            params.image_max_tokens = config.image_tokens
        if self._convolution_end is not None:
            params.cb_eval = self._convolution_end.callback
        elif self._changed_encoder is not None:
            params.cb_eval = self._changed_encoder.callback
        context = mtmd.mtmd_init_from_file(bytes(path), model, params)
        if not context:
            raise LoadError(
                f"{self._path} is not a projector for {config.model_path}: {self._reason()}"
            )
        return context

    def _encode(self, run: Run) -> Embeddings:
        chunks = self._split(run.media)
        parts = [one for one in chunks.select() if not _is_text(one)]
        chunk, is_last = parts[run.part_index], run.part_index == len(parts) - 1
        computed = self._compute(run, chunk, chunks.length.last_frame if is_last else None)
        rows = self._select_heard(computed, run.part.count)
        if not np.isfinite(rows).all():  # without flash attention they would spoil the cells
            raise MediaError(
                f"The {run.media.medium} cannot be computed: its embeddings are NaN or infinite."
            )
        positions = self._positions(chunk, run)
        offsets = np.ones(len(positions), dtype=np.int32)
        if self._has_dimensions and run.media.medium is MediaKind.IMAGE:
            offsets[-1] = 0
        if is_last:
            self._free_chunks()
        return Embeddings(
            rows=rows,
            positions=positions,
            dimension_offsets=offsets,
            is_non_causal=run.part.is_non_causal,
        )

    def _compute(
        self, run: Run, chunk: Handle, last_frame: LastFrame | None
    ) -> NDArray[np.float32]:
        """Computes a chunk, in blocks of audio if the model hears these apart:
        [embeddings, embedding size] float32."""
        windows = self._audio_windows
        if run.media.medium is not MediaKind.AUDIO or windows.block_frames is None:
            return self._compute_block(run, chunk, last_frame)
        assert windows.frames_per_embedding is not None, "blocks end with the audio"
        blocks = Spectrogram.of(chunk).blocks(
            windows.block_frames, frames_per_embedding=windows.frames_per_embedding
        )
        with closing(blocks):
            return np.concatenate(
                [
                    self._compute_block(run, chunk, last_frame if is_last else None)
                    for is_last in blocks
                ]
            )

    def _compute_block(
        self, run: Run, chunk: Handle, last_frame: LastFrame | None
    ) -> NDArray[np.float32]:
        if self._convolution_end is not None:
            self._convolution_end.expect(last_frame)
        if self._changed_encoder is not None:
            self._changed_encoder.begin()
        if mtmd.mtmd_encode_chunk(self._context, chunk):
            raise MediaError(f"The {run.media.medium} cannot be computed: {self._reason()}")
        shape = (mtmd.mtmd_input_chunk_get_n_tokens(chunk), self._width)
        return np.ctypeslib.as_array(mtmd.mtmd_get_output_embd(self._context), shape=shape).copy()

    def _select_heard(self, output: NDArray[np.float32], count: int) -> NDArray[np.float32]:
        """Selects the embeddings that the model hears."""
        if self._end_rows:
            return output[self._end_rows : self._end_rows + count]
        if count == len(output):
            return output
        return np.concatenate([output[: count - 1], output[-1:]])  # the last one is an end

    def _positions(self, chunk: Handle, run: Run) -> NDArray[np.int32]:
        along = np.arange(run.part.count, dtype=np.int32)
        if not self._has_dimensions:
            return along[np.newaxis]
        if run.media.medium is MediaKind.AUDIO:
            return np.tile(along, (_DIMENSIONS, 1))
        decoder_positions = (mtmd.mtmd_decoder_pos * run.part.count)()
        tokens = mtmd.mtmd_input_chunk_get_tokens_image(chunk)
        mtmd.mtmd_helper_image_get_decoder_pos(tokens, 0, decoder_positions)
        found = np.frombuffer(decoder_positions, dtype=np.uint32).reshape(
            run.part.count, _DIMENSIONS
        )
        time, column, row, spare = found.astype(np.int32).T
        return np.stack([time, row, column, spare])

    def _piece(self, chunk: Handle) -> Piece:
        count: int = mtmd.mtmd_input_chunk_get_n_tokens(chunk)
        if _is_text(chunk):
            length = ctypes.c_size_t()
            tokens = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(length))
            return list(tokens[: length.value])
        ends = 2 * self._end_rows
        return Part(
            count=count - ends,
            positions=mtmd.mtmd_input_chunk_get_n_pos(chunk) - ends,
            is_non_causal=bool(mtmd.mtmd_decode_use_non_causal(self._context, chunk)),
        )

    def _split(self, media: MediaItem) -> "_Chunks":
        """Returns the chunks of a medium, cached until the last one is encoded or another medium is
        split."""
        if self._open_chunks is not None and self._open_chunks.media == identity(media):
            return self._open_chunks
        self._free_chunks()
        self._open_chunks = self._chunks(media, counts_only=False)
        return self._open_chunks

    def _free_chunks(self) -> None:
        if self._open_chunks is not None:
            self._open_chunks.free()
            self._open_chunks = None

    def _chunks(self, media: MediaItem, *, counts_only: bool) -> "_Chunks":
        """Splits a medium into chunks; if `counts_only`, only for their numbers of tokens."""
        with self._bitmap(media, counts_only=counts_only) as bitmap:
            if media.medium is not MediaKind.AUDIO:
                return _Chunks(media=identity(media), handle=self._tokenize(media, [bitmap]))
            samples: int = mtmd.mtmd_bitmap_get_nx(bitmap)
            with self._audio_windows.prepare(bitmap, self._rate_hz) as prepared:
                handle = self._tokenize(media, prepared)
        found = _Chunks(media=identity(media), handle=handle)
        audio = [chunk for chunk in found.select() if not _is_text(chunk)]
        try:
            length = self._audio_windows.finish(audio, samples, self._rate_hz)
        except MediaError:
            found.free()
            raise
        return replace(found, length=length)

    def _tokenize(self, media: MediaItem, parts: Sequence[Handle]) -> Handle:
        """Tokenizes a medium, whose parts follow one another."""
        marks = self._text * len(parts)
        text = mtmd.mtmd_input_text(text=marks, text_len=len(marks), parse_special=True)
        chunks = mtmd.mtmd_input_chunks_init()
        bitmaps = (mtmd.mtmd_bitmap_p_ctypes * len(parts))(*parts)
        if mtmd.mtmd_tokenize(self._context, chunks, ctypes.byref(text), bitmaps, len(parts)):
            mtmd.mtmd_input_chunks_free(chunks)
            raise MediaError(f"The {media.medium} cannot be read: {self._reason()}")
        return chunks

    @contextmanager
    def _bitmap(self, media: MediaItem, *, counts_only: bool) -> Iterator[Handle]:
        is_audio = media.medium is MediaKind.AUDIO
        make = self._audio if is_audio else self._image
        bitmap = make(media, counts_only)
        if not bitmap:
            raise MediaError(f"The {media.medium} cannot be decoded.")
        try:
            yield bitmap
        finally:
            mtmd.mtmd_bitmap_free(bitmap)

    def _image(self, media: MediaItem, counts_only: bool) -> Handle:
        if len(media.data) != 3 * media.width * media.height:
            raise MediaError("The image's bytes do not match its width and height.")
        data = None if counts_only else _bytes_of(media.data)
        return mtmd.mtmd_bitmap_init(media.width, media.height, data)

    def _audio(self, media: MediaItem, counts_only: bool) -> Handle:
        bitmap = mtmd.mtmd_helper_bitmap_init_from_buf(
            self._context, _bytes_of(media.data), len(media.data), counts_only
        )
        if not bitmap or not mtmd.mtmd_bitmap_is_audio(bitmap):
            mtmd.mtmd_bitmap_free(bitmap)
            return None
        samples: int = mtmd.mtmd_bitmap_get_nx(bitmap)
        seconds = samples / self._rate_hz
        if not _LEAST_AUDIO_S <= seconds <= self._audio_limit_s:
            mtmd.mtmd_bitmap_free(bitmap)
            raise MediaError(
                f"The audio lasts {seconds:.2f} s; it may last {_LEAST_AUDIO_S:g} to "
                f"{self._audio_limit_s:g} s."
            )
        return bitmap

    def _reason(self) -> str:
        """Returns the native code's last error, without the name of its function and hints."""
        if not self._log.errors:
            return "the native code gives no reason"
        return self._log.errors[-1].rpartition("error: ")[2].partition("\n")[0]


def _checked_header(path: Path) -> GgufHeader:
    """The header of a projector. Raise `LoadError` for a file that is not one, or one whose
    embeddings of an image depend on the text before it."""
    try:
        header = read_header(path)
    except HeaderError as error:
        raise LoadError(str(error)) from error
    if header.architecture != "clip":
        raise LoadError(f"{path} is not a projector: its architecture is `{header.architecture}`")
    keys = ("clip.projector_type", "clip.vision.projector_type")
    for kind in {header.values.get(key) for key in keys} & _CONTEXT_DEPENDENT:
        raise LoadError(
            f"{path} is a `{kind}`: what it makes of an image depends on the text before it, "
            "which is not supported"
        )
    return header


def _shorten_last(pieces: list[Piece], embeddings: int) -> None:
    """Takes a number of embeddings from the last run."""
    if not embeddings:
        return
    at, last = [(at, one) for at, one in enumerate(pieces) if isinstance(one, Part)][-1]
    pieces[at] = replace(last, count=last.count - embeddings, positions=last.positions - embeddings)


def _each(chunks: Handle) -> Iterator[Handle]:
    for index in range(mtmd.mtmd_input_chunks_size(chunks)):
        yield mtmd.mtmd_input_chunks_get(chunks, index)


def _is_text(chunk: Handle) -> bool:
    return bool(mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_TEXT)


def _bytes_of(data: bytes) -> Handle:
    """Returns a pointer to bytes; the caller keeps them alive while it uses the pointer."""
    return ctypes.cast(ctypes.c_char_p(data), ctypes.POINTER(ctypes.c_uint8))
