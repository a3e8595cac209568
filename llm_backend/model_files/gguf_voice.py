"""GGUF voices: a language model of speech, the projector that turns its output into audio, and
samples of its speakers beside it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

from llm_backend.model_files.header import GgufHeader, HeaderError, read_header
from llm_backend.model_files.onnx_voice import find_speaker

VOICE_CONTEXT_TOKENS = 2048
"""Context of a voice: a sample of a speaker, a sentence, and the frames of its audio."""

VOICE_SAMPLE_S = 30
"""Longest sample of a speaker."""

VOICE_SAMPLE_RATE_HZ = 24_000
"""Rate of the recording of a speaker that comes with a sentence."""

_CODE_SAMPLING_TYPE = "qwen3tts_gen"
_FAMILIES = {"pockettts_gen": "Pocket TTS", _CODE_SAMPLING_TYPE: "Qwen3-TTS"}
VOICE_ARCHITECTURES = {"pockettts": "Pocket TTS", "qwen3tts": "Qwen3-TTS"}
"""Architectures of language models of speech, which are voices with their projector alone."""

_FLOAT_BYTES = 4
_SAMPLES_FOLDER = "voices"  # beside the model
_SAMPLE_SUFFIXES = (".wav", ".mp3", ".flac")
_SAMPLE_LIMIT_BYTES = 20_000_000
_DEFAULT_SPEAKER = "default"
_DEFAULT_LANGUAGE = "en"
_COMPUTE_BYTES = 150_000_000  # of a long sentence, and of a speaker's sample
_EMBEDDINGS = "token_embd.weight"
_CELL_BYTES = 2 * 2  # keys and values, of 16 bits
_LANGUAGE = re.compile(rb"<\|codec_language_([a-z_]+)\|>")
_ISO_CODES = {
    "chinese": "zh", "english": "en", "german": "de", "italian": "it", "portuguese": "pt",
    "spanish": "es", "japanese": "ja", "korean": "ko", "french": "fr", "russian": "ru",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class GgufVoiceFiles:
    """Files and speakers of a voice. Each speaker has the name of the file of its sample. Without
    samples there is one speaker, `default`. A model that `takes_samples` can also speak like a
    sample that comes with a sentence. A model that `samples_codes` has a token for each frame of
    audio. `languages` are the names of its languages, by name and by ISO 639-1 code. `table_bytes`
    is the size of a second copy of its token embeddings, which the library keeps."""

    extra: ClassVar[str] = "audio"
    library: ClassVar[str] = "llama.cpp"
    computes_speed: ClassVar[bool] = False
    phonemizer: ClassVar[None] = None
    rate_hz: ClassVar[int] = VOICE_SAMPLE_RATE_HZ

    name: str
    family: str
    model: Path
    projector: Path
    samples: tuple[Path, ...]
    takes_samples: bool
    language: str
    file_bytes: int
    cell_bytes: int
    table_bytes: int
    samples_codes: bool
    languages: Mapping[str, str]

    @property
    def unknown_languages(self) -> Mapping[str, str]:
        """Endings of speakers' names that look like languages but are none of the model's, by
        name."""
        endings = {one: one.rpartition(".")[2] for one in self.speakers if "." in one}
        return {
            name: ending
            for name, ending in endings.items()
            if self.samples_codes and ending not in self.languages
        }

    @property
    def speakers(self) -> tuple[str, ...]:
        """Names of the speakers."""
        return tuple(one.stem for one in self.samples) or (_DEFAULT_SPEAKER,)

    @property
    def description(self) -> str:
        """Family, language and number of speakers, in words."""
        count = len(self.speakers)
        return f"{self.family} voice, {self.language}, {count} speaker{'s' if count > 1 else ''}"

    @property
    def memory_bytes(self) -> int:
        """Memory of a loaded voice, an estimate."""
        return self.file_bytes + self.cell_bytes + self.table_bytes + _COMPUTE_BYTES

    def find_language(self, speaker: str, requested: str = "") -> str | None:
        """Returns the name of the language that is spoken: the requested one, else that of the
        ending of the speaker's name (as in `anna.de`), else English. None if it is none of the
        model's `languages`."""
        if requested:
            return self.languages.get(requested.partition("-")[0].lower())
        default = self.languages.get(_DEFAULT_LANGUAGE)
        return self.languages.get(speaker.rpartition(".")[2], default)

    def find_speaker(self, name: str) -> int | None:
        """Returns the number of a speaker by name or number; None if there is none."""
        return find_speaker(self.speakers, name)


def read_gguf_voice(model: Path, projector: Path) -> GgufVoiceFiles:
    """Reads the headers of a voice and finds its samples. Raises `HeaderError`."""
    header, codec = read_header(model), read_header(projector)
    kind = codec.values.get("clip.gen.audio.projector_type")
    family = _FAMILIES.get(str(kind))
    if family is None:
        raise HeaderError(
            f"{projector} makes audio in the form `{kind}`, which this server does not compute; "
            f"it computes {', '.join(_FAMILIES.values())}."
        )
    folder = model.parent / _SAMPLES_FOLDER
    samples = sorted(
        one for one in folder.glob("*") if one.suffix.lower() in _SAMPLE_SUFFIXES and one.is_file()
    )
    for one in samples:
        if one.stat().st_size > _SAMPLE_LIMIT_BYTES:
            raise HeaderError(f"{one} has more than {_SAMPLE_LIMIT_BYTES:,} bytes.")
    for one, other in pairwise(samples):
        if one.stem == other.stem:
            raise HeaderError(f"{one} and {other} name the same speaker: rename one of them.")
    several = "several languages" if kind == _CODE_SAMPLING_TYPE else "unknown language"
    variant = str(codec.values.get("clip.gen.audio.model_variant") or several)
    return GgufVoiceFiles(
        name=model.stem,
        family=family,
        model=model,
        projector=projector,
        samples=tuple(samples),
        takes_samples=codec.values.get("clip.has_audio_encoder") is True,
        language=variant.partition("_")[0],
        file_bytes=model.stat().st_size + projector.stat().st_size,
        samples_codes=kind == _CODE_SAMPLING_TYPE,
        languages=_read_languages(model, header) if kind == _CODE_SAMPLING_TYPE else {},
        table_bytes=_FLOAT_BYTES * header.tensor_elements.get(_EMBEDDINGS, 0),
        cell_bytes=VOICE_CONTEXT_TOKENS * _CELL_BYTES * _width(header),
    )


def _read_languages(model: Path, header: GgufHeader) -> Mapping[str, str]:
    """Returns the languages in the vocabulary, by name and by code."""
    with model.open("rb") as file:
        metadata = file.read(header.header_bytes)
    names = [one.decode() for one in _LANGUAGE.findall(metadata)]
    return {key: name for name in names for key in (name, _ISO_CODES.get(name, name))}


def _width(header: GgufHeader) -> int:
    """Returns the sum of the embedding lengths of all layers; 0 if the header lacks them."""
    layers = header.values.get(f"{header.architecture}.block_count")
    width = header.values.get(f"{header.architecture}.embedding_length")
    return layers * width if isinstance(layers, int) and isinstance(width, int) else 0
