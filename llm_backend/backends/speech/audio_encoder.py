"""Encodes samples as audio files, piece by piece, by PyAV."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream

from llm_backend.engine.messages import SAMPLE_BYTES

RATE_HZ = 24_000


@dataclass(frozen=True, kw_only=True)
class _FfmpegFormat:
    """Container and codec by FFmpeg's names."""

    container: str
    codec: str
    bits_per_s: int | None = None
    rate_hz: int = RATE_HZ
    options: Mapping[str, str] = field(default_factory=dict)


_FORMATS = {
    "mp3": _FfmpegFormat(container="mp3", codec="libmp3lame", bits_per_s=64_000),
    "opus": _FfmpegFormat(
        container="ogg",
        codec="libopus",
        bits_per_s=32_000,
        options={"page_duration": "200000"},  # microseconds; by default a second
    ),
    "aac": _FfmpegFormat(container="adts", codec="aac", bits_per_s=64_000),
    "flac": _FfmpegFormat(container="flac", codec="flac"),
    "wav": _FfmpegFormat(container="wav", codec="pcm_s16le"),
    "pcm": _FfmpegFormat(container="s16le", codec="pcm_s16le"),
    "mulaw": _FfmpegFormat(container="mulaw", codec="pcm_mulaw", rate_hz=8_000),
    "alaw": _FfmpegFormat(container="alaw", codec="pcm_alaw", rate_hz=8_000),
}


class _Sink:
    """Unseekable file; `take` removes and returns the bytes that were written so far."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def write(self, data: bytes) -> int:
        self._bytes += data
        return len(data)

    def take(self) -> bytes:
        data = bytes(self._bytes)
        self._bytes.clear()
        return data


class AudioEncoder:
    """Encodes signed 16-bit mono samples at `rate_hz` as a mono file at `RATE_HZ`, or at 8 kHz for
    telephony (`mulaw`, `alaw`). `tempo` makes speech faster (above 1) or slower (0.25 at least) at
    the same pitch."""

    def __init__(self, format: str, *, rate_hz: int, tempo: float = 1.0) -> None:
        chosen = _FORMATS[format]
        self._rate_hz = rate_hz
        self._sink = _Sink()
        options = {"flush_packets": "1", **chosen.options}
        self._container = av.open(self._sink, "w", format=chosen.container, options=options)
        stream = self._container.add_stream(chosen.codec, rate=chosen.rate_hz, layout="mono")
        assert isinstance(stream, AudioStream), "the codecs above are those of audio"
        if chosen.bits_per_s is not None:
            stream.bit_rate = chosen.bits_per_s
        self._stream = stream
        self._tempo = None if tempo == 1.0 else _Tempo(rate_hz, tempo)
        self._samples = 0

    def encode(self, pcm: bytes) -> bytes:
        """Adds samples, and returns the bytes that are ready."""
        if pcm:
            self._add(self._frame(pcm))
        return self._sink.take()

    def finish(self) -> bytes:
        """Returns the last bytes."""
        if self._tempo is not None:
            if 0 < self._samples < (least := round(self._rate_hz * _LEAST_S)):
                self._add(self._frame(bytes((least - self._samples) * SAMPLE_BYTES)))
            for frame in self._tempo.finish():
                self._mux(frame)
        self._mux(None)
        self._container.close()
        return self._sink.take()

    def _frame(self, pcm: bytes) -> AudioFrame:
        frame = AudioFrame(format="s16", layout="mono", samples=len(pcm) // SAMPLE_BYTES)
        frame.planes[0].update(pcm)
        frame.sample_rate = self._rate_hz
        frame.time_base = Fraction(1, self._rate_hz)
        frame.pts = self._samples
        self._samples += frame.samples
        return frame

    def _add(self, frame: AudioFrame) -> None:
        frames = (frame,) if self._tempo is None else self._tempo.change(frame)
        for one in frames:
            self._mux(one)

    def _mux(self, frame: AudioFrame | None) -> None:
        self._container.mux(self._stream.encode(frame))


_LEAST_TEMPO = 0.5  # of one filter
_LEAST_S = 0.2  # the filter drops audio that is shorter than its window


class _Tempo:
    """FFmpeg's filter `atempo`, twice for a tempo below 0.5: one filter does no less."""

    def __init__(self, rate_hz: int, tempo: float) -> None:
        self._graph = av.filter.Graph()
        source = self._graph.add_abuffer(
            sample_rate=rate_hz, format="s16", layout="mono", time_base=Fraction(1, rate_hz)
        )
        sink = self._graph.add("abuffersink")
        tempos = [tempo] if tempo >= _LEAST_TEMPO else [_LEAST_TEMPO, tempo / _LEAST_TEMPO]
        last = source
        for one in tempos:
            tempo_filter = self._graph.add("atempo", f"{one:.6f}")
            last.link_to(tempo_filter)
            last = tempo_filter
        last.link_to(sink)
        self._graph.configure()

    def change(self, frame: AudioFrame | None) -> Iterator[AudioFrame]:
        """Yields the frames that are ready."""
        self._graph.push(frame)
        while True:
            try:
                changed = self._graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            assert isinstance(changed, AudioFrame)
            yield changed

    def finish(self) -> Iterator[AudioFrame]:
        """Yields the last frames."""
        yield from self.change(None)
