"""ONNX voices in the form of sherpa-onnx: recognition, speakers, and the files beside a model.

A voice is a folder: the model, the symbols of its tokens (`tokens.txt`), and further files that its
family needs. The model's metadata are read without the library, and without reading the weights.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

from llm_backend.model_files.header import HeaderError
from llm_backend.model_files.onnx_metadata import TOKENS_FILE, metadata_number, read_metadata

_STYLES = "voices.bin"
_STYLE_SIZES = re.compile(r"([0-9]{1,9}),([0-9]{1,9}),([0-9]{1,9})")
_VOCODERS = ("hifigan", "vocos")  # parts of their `model_type`
_VOCODER_RATE_HZ = 22_050  # of a vocoder whose metadata lack it
_MAX_RATE_HZ = 192_000
_NAMES_LIMIT_BYTES = 1 << 20  # of Piper's file of speakers
_LANGUAGE = re.compile(r"[A-Za-z][A-Za-z0-9 +()_-]{0,60}")  # `en-us`, `English`, `Chinese+English`
_MAX_SPEAKERS = 10_000
_COMPUTE_BYTES = 200_000_000  # of a long sentence


class VoiceFamily(StrEnum):
    """Architecture of a voice."""

    VITS = "vits"
    KOKORO = "kokoro"
    MATCHA = "matcha"


@dataclass(frozen=True, kw_only=True)
class VoiceFiles:
    """Files and speakers of a voice. `speakers` are their names, or their numbers if they have no
    names. `phonemizer` is the voice of `espeak-ng` that finds the phonemes of texts; None if the
    voice has a lexicon, or reads letters. `styles` is Kokoro's file of speakers, `vocoder` Matcha's
    vocoder."""

    extra: ClassVar[str] = "voices"
    library: ClassVar[str] = "sherpa-onnx"
    computes_speed: ClassVar[bool] = True
    takes_samples: ClassVar[bool] = False

    name: str
    family: VoiceFamily
    model: Path
    tokens: Path
    lexicons: tuple[Path, ...]
    rules: tuple[Path, ...]
    styles: Path | None
    vocoder: Path | None
    language: str
    phonemizer: str | None
    rate_hz: int
    speakers: tuple[str, ...]
    file_bytes: int

    @property
    def description(self) -> str:
        """Family, language and number of speakers, in words."""
        count = len(self.speakers)
        return f"{self.family} voice, {self.language}, {count} speaker{'s' if count > 1 else ''}"

    @property
    def memory_bytes(self) -> int:
        """Memory of a loaded voice, an estimate: its weights as they are in the file and as they
        are computed with, and the audio of a long sentence."""
        return 2 * self.file_bytes + _COMPUTE_BYTES

    def find_speaker(self, name: str) -> int | None:
        """Returns the number of a speaker by name or number; None if there is none."""
        return find_speaker(self.speakers, name)


def find_speaker(speakers: Sequence[str], name: str) -> int | None:
    """Returns the number of a speaker by name or number; None if there is none."""
    if name in speakers:
        return speakers.index(name)
    is_number = name.isascii() and name.isdigit() and len(name) <= len(str(_MAX_SPEAKERS))
    return int(name) if is_number and int(name) < len(speakers) else None


def is_voice_file(path: Path) -> bool:
    """Returns True for the model of a voice, also for a damaged one; False for other ONNX files."""
    if path.suffix != ".onnx" or not path.with_name(TOKENS_FILE).is_file():
        return False
    try:
        return _family(read_metadata(path)) is not None
    except HeaderError:
        return True


def voices_in(folder: Path) -> list[Path]:
    """Returns the models of voices in a folder, not in those below."""
    return sorted(path for path in folder.glob("*.onnx") if is_voice_file(path))


def read_voice(path: Path) -> VoiceFiles:
    """Reads the metadata of a voice's model. Raises `HeaderError`, also for files it lacks."""
    metadata = read_metadata(path)
    family = _family(metadata)
    if family is None:
        kind = metadata.get("model_type", "none")
        raise HeaderError(
            f"{path} is not a voice of a known kind: its `model_type` is {kind[:50]}."
        )
    tokens = path.with_name(TOKENS_FILE)
    if not tokens.is_file():
        raise HeaderError(f"{path} needs the file {tokens.name} beside it.")
    rate_hz = metadata_number(path, metadata, "sample_rate", _MAX_RATE_HZ)
    styles = _styles(path, metadata) if family is VoiceFamily.KOKORO else None
    vocoder = _vocoder(path, rate_hz) if family is VoiceFamily.MATCHA else None
    lexicons = _lexicons(path.parent)
    needs_no_phonemes = bool(lexicons) or metadata.get("frontend") == "characters"
    parts = [one for one in (path, styles, vocoder) if one is not None]
    return VoiceFiles(
        name=path.parent.resolve().name,
        family=family,
        model=path,
        tokens=tokens,
        lexicons=lexicons,
        rules=tuple(sorted(path.parent.glob("*.fst"))),
        styles=styles,
        vocoder=vocoder,
        language=_language_name(path, metadata, "language") or "unknown language",
        phonemizer=None
        if needs_no_phonemes
        else _language_name(path, metadata, "voice") or "en-us",
        rate_hz=rate_hz,
        speakers=_speakers(path, metadata),
        file_bytes=sum(one.stat().st_size for one in parts),
    )


def _family(metadata: Mapping[str, str]) -> VoiceFamily | None:
    kind = metadata.get("model_type", "")
    if _is_vocoder(kind):  # `matcha-tts vocos` is one
        return None
    return next((one for one in VoiceFamily if one.value in kind), None)


def _lexicons(folder: Path) -> tuple[Path, ...]:
    """Returns the lexicons. If there are both a British and an American one, the British one is
    omitted: they have the same words."""
    single = folder / "lexicon.txt"
    if single.is_file():
        return (single,)
    found = sorted(folder.glob("lexicon-*.txt"))
    if any("us-en" in path.name for path in found):
        found = [path for path in found if "gb-en" not in path.name]
    return tuple(found)


def _is_vocoder(kind: str) -> bool:
    return any(one in kind for one in _VOCODERS)


def _styles(path: Path, metadata: Mapping[str, str]) -> Path:
    """Returns Kokoro's file of speakers. Raises `HeaderError` if its size does not match the model,
    because the library would end the process."""
    file = path.with_name(_STYLES)
    if not file.is_file():
        raise HeaderError(f"{path} needs the file {file.name} beside it.")
    sizes = _STYLE_SIZES.fullmatch(metadata.get("style_dim", ""))
    if sizes is None:
        raise HeaderError(f"{path} is broken: its `style_dim` is not three numbers.")
    count = metadata_number(path, metadata, "n_speakers", _MAX_SPEAKERS)
    expected = 4 * count * math.prod(map(int, sizes.groups()))
    if file.stat().st_size != expected:
        raise HeaderError(
            f"{file} has {file.stat().st_size:,} bytes, and {path.name} needs {expected:,}: "
            "copy or download both again."
        )
    return file


def _vocoder(path: Path, rate_hz: int) -> Path:
    """Returns Matcha's vocoder of the model's sample rate; with another rate the library would end
    the process. Raises `HeaderError` if there is none."""
    rates = []
    for file in sorted(path.parent.glob("*.onnx")):
        metadata = read_metadata(file)
        if not _is_vocoder(metadata.get("model_type", "")):
            continue
        own = _VOCODER_RATE_HZ
        if "sample_rate" in metadata:
            own = metadata_number(file, metadata, "sample_rate", _MAX_RATE_HZ)
        if own == rate_hz:
            return file
        rates.append(f"{file.name} has {own} Hz")
    found = f" ({', '.join(rates)})" if rates else ""
    raise HeaderError(
        f"{path} needs a vocoder of {rate_hz} Hz beside it{found}, for example "
        "vocos-22khz-univ.onnx for 22050 Hz."
    )


def _speakers(path: Path, metadata: Mapping[str, str]) -> tuple[str, ...]:
    count = max(1, metadata_number(path, metadata, "n_speakers", _MAX_SPEAKERS, least=0))
    names = [one for one in metadata.get("speaker_names", "").split(",") if one]
    if len(names) != count:
        names = _piper_names(path, count)
    return tuple(names)


def _piper_names(path: Path, count: int) -> list[str]:
    """Returns the names in the file that comes with Piper's voices; numbers if there is none."""
    numbers = [str(at) for at in range(count)]
    file = path.with_name(f"{path.name}.json")
    if not file.is_file():
        return numbers
    try:
        if file.stat().st_size > _NAMES_LIMIT_BYTES:
            raise ValueError(f"it has more than {_NAMES_LIMIT_BYTES:,} bytes")
        by_name = json.loads(file.read_bytes()).get("speaker_id_map") or {}
        by_number = {number: name for name, number in by_name.items()}
        return [by_number.get(at, numbers[at]) for at in range(count)]
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise HeaderError(f"{file} cannot be read: {error}.") from error


def _language_name(path: Path, metadata: Mapping[str, str], key: str) -> str:
    """Returns a name of a language in the metadata. Raises `HeaderError` for other texts: the name
    is an argument of a program."""
    value = metadata.get(key, "")
    if value and not _LANGUAGE.fullmatch(value):
        raise HeaderError(f"{path} is broken: its `{key}` is not a language.")
    return value
