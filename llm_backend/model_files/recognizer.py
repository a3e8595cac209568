"""ONNX models that transcribe, in the form of sherpa-onnx: NeMo's transducers and CTC models.

Such a model is a folder: `encoder.onnx`, `decoder.onnx` and `joiner.onnx` of a transducer
(Parakeet TDT), or the one file of a CTC model, and `tokens.txt`. The native code ends the process
where metadata or tokens are wrong: they are checked here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from llm_backend.model_files.header import HeaderError
from llm_backend.model_files.onnx_metadata import TOKENS_FILE, metadata_number, read_metadata

BLANK = "<blk>"

_TOKENS_LIMIT_BYTES = 16 * 1024 * 1024
_MAX_VOCABULARY = 1_000_000
_MAX_DIGITS = 7  # of a token's number
_KIND = re.compile(r"EncDec\w*(CTC|RNNT)\w*")  # NeMo's classes of such models
_ENCODER = re.compile(r"(.*?)encoder(.*)\.onnx")
_NORMALISATIONS = ("", "NA", "per_feature")
_COMPUTE_BYTES = 400_000_000  # of a window of a recording
_FRAME_S = 0.01  # of a frame of features, before subsampling


@dataclass(frozen=True, kw_only=True)
class RecognizerFiles:
    """Files of a model that transcribes. The `encoder` of a CTC model is the whole model, without a
    `decoder` and a `joiner`. `frame_s` is the length of the frames to which it assigns tokens."""

    extra: ClassVar[str] = "voices"
    library: ClassVar[str] = "sherpa-onnx"

    name: str
    encoder: Path
    decoder: Path | None
    joiner: Path | None
    tokens: Path
    vocabulary: int
    frame_s: float
    is_tdt: bool
    file_bytes: int

    @property
    def is_transducer(self) -> bool:
        """True for a transducer, which reports the probabilities of its tokens; False for CTC."""
        return self.joiner is not None

    @property
    def description(self) -> str:
        """Family and size of the vocabulary, in words."""
        kind = "CTC model" if not self.is_transducer else "transducer"
        return f"NeMo {kind}{' (TDT)' if self.is_tdt else ''}, {self.vocabulary:,} tokens"

    @property
    def memory_bytes(self) -> int:
        """Memory of a loaded model, an estimate: its weights as they are in the files and as they
        are computed with, and a window of a recording."""
        return 2 * self.file_bytes + _COMPUTE_BYTES


def is_recognizer_file(path: Path) -> bool:
    """Returns True for the encoder of a transducer and for a CTC model, with tokens beside it."""
    if path.suffix != ".onnx" or not path.with_name(TOKENS_FILE).is_file():
        return False
    try:
        return _KIND.fullmatch(read_metadata(path).get("model_type", "")) is not None
    except HeaderError:
        return False


def recognizers_in(folder: Path) -> list[Path]:
    """Returns the models that transcribe in a folder, not in those below."""
    return sorted(path for path in folder.glob("*.onnx") if is_recognizer_file(path))


def read_recognizer(path: Path) -> RecognizerFiles:
    """Reads the metadata and tokens of a model. Raises `HeaderError` if the library cannot compute
    them, or a file is missing."""
    metadata = read_metadata(path)
    if _KIND.fullmatch(metadata.get("model_type", "")) is None:
        kind = metadata.get("model_type", "none")
        raise HeaderError(f"{path} is not a NeMo model of a known kind: it is {kind[:50]}.")
    decoder, joiner = _transducer_parts(path)
    if joiner is None and "CTC" not in metadata["model_type"]:
        raise HeaderError(f"{path} is a transducer, whose file must be named encoder.onnx.")
    for part in (decoder, joiner):
        if part is not None:
            read_metadata(part)  # raises an error for a truncated file
    vocabulary = metadata_number(path, metadata, "vocab_size", _MAX_VOCABULARY)
    subsampling = metadata_number(path, metadata, "subsampling_factor", 1000)
    for key in ("pred_rnn_layers", "pred_hidden") if joiner is not None else ():
        metadata_number(path, metadata, key, 100_000)
    for key in ("is_giga_am", "feat_dim"):
        if metadata.get(key):
            metadata_number(path, metadata, key, 1000, least=0)
    normalisation = metadata.get("normalize_type", "")
    if normalisation not in _NORMALISATIONS:
        raise HeaderError(f"{path} is broken: its `normalize_type` is {normalisation[:50]}.")
    symbols = read_symbols(path.with_name(TOKENS_FILE))
    _check_blank(path.with_name(TOKENS_FILE), symbols, vocabulary if joiner is not None else None)
    return RecognizerFiles(
        name=path.parent.resolve().name,
        encoder=path,
        decoder=decoder,
        joiner=joiner,
        tokens=path.with_name(TOKENS_FILE),
        vocabulary=vocabulary,
        frame_s=subsampling * _FRAME_S,
        is_tdt=joiner is not None and "tdt" in metadata.get("url", ""),
        file_bytes=_weights_bytes(path, decoder, joiner),
    )


def read_symbols(path: Path) -> Mapping[str, int]:
    """Reads the number of each token. Raises `HeaderError`."""
    try:
        with path.open("rb") as file:
            data = file.read(_TOKENS_LIMIT_BYTES + 1)
    except OSError as error:
        raise HeaderError(f"{path} cannot be read: {error.strerror or error}.") from error
    if len(data) > _TOKENS_LIMIT_BYTES:
        raise HeaderError(
            f"{path} is not a list of tokens: it exceeds {_TOKENS_LIMIT_BYTES:,} bytes."
        )
    symbols: dict[str, int] = {}
    for at, line in enumerate(data.rstrip(b"\n").split(b"\n")):
        *symbol, number = line.split() or [b""]  # spaces other than ASCII's may be tokens
        if len(symbol) > 1 or not number.isdigit() or len(number) > _MAX_DIGITS:
            raise HeaderError(f"{path} is broken in line {at + 1}: no token with its number.")
        try:
            symbols[symbol[0].decode() if symbol else " "] = int(number)
        except UnicodeDecodeError as error:
            raise HeaderError(f"{path} is not a list of tokens: it is not UTF-8.") from error
    return symbols


def _check_blank(path: Path, symbols: Mapping[str, int], last: int | None) -> None:
    """Raises `HeaderError` unless there is a blank token. That of a transducer must be the last,
    and have the number `last`."""
    if BLANK not in symbols:
        raise HeaderError(f"{path} has no token {BLANK}.")
    if last is not None and (symbols[BLANK] != last or len(symbols) != last + 1):
        raise HeaderError(
            f"{path} has {len(symbols):,} tokens, and {BLANK} is number {symbols[BLANK]:,}: the "
            f"model has {last + 1:,}, and it is the last."
        )


def _transducer_parts(path: Path) -> tuple[Path | None, Path | None]:
    """Returns the decoder and joiner beside an encoder, with the encoder's quantization if there
    are such files; None twice for a file of another name. Raises `HeaderError` if one is
    missing."""
    named = _ENCODER.fullmatch(path.name)
    if named is None:
        return None, None
    parts = []
    for part in ("decoder", "joiner"):
        names = [f"{named[1]}{part}{suffix}.onnx" for suffix in (named[2], "", ".int8")]
        found = next((path.with_name(one) for one in names if path.with_name(one).is_file()), None)
        if found is None:
            raise HeaderError(f"{path} needs the file {names[0]} beside it.")
        parts.append(found)
    return parts[0], parts[1]


def _weights_bytes(path: Path, *others: Path | None) -> int:
    """Returns the bytes of the files, and of a separate file with an encoder's weights."""
    outside = (path.with_suffix(".weights"), path.with_name(f"{path.name}.data"))
    files = [path, *(one for one in others if one is not None), *outside]
    return sum(one.stat().st_size for one in files if one.is_file())
