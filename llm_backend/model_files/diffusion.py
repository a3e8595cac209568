"""Diffusion models, which draw: recognition of their GGUF and safetensors files, families, and the
further files that they need.

A checkpoint holds the network that draws, and often the encoders of its texts and the autoencoder
of its images: its parts. Parts that it lacks come from files of their own.
"""

import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

from llm_backend.model_files.header import GGUF_MAGIC, HeaderError, first_value, read_header

DRAWING_PARTS = ("vae", "taesd", "clip_l", "clip_g", "t5xxl", "llm")
"""Names of the parts: autoencoders, and encoders of texts."""

_SAFETENSORS = ".safetensors"
_HEADER_LIMIT_BYTES = 64 << 20  # of the header of a safetensors file
_DIMENSIONS = 8  # more than any tensor has
_NETWORK_PREFIXES = ("model.diffusion_model.", "unet.", "")
_BYTES_PER_PIXEL = 2500  # of an image while it is drawn, an estimate


class DiffusionFamily(StrEnum):
    """Architecture of a model that draws; its value is the name that users know."""

    SD = "Stable Diffusion"
    SDXL = "Stable Diffusion XL"
    SD3 = "Stable Diffusion 3"
    FLUX = "FLUX.1"
    FLUX2 = "FLUX.2"
    QWEN_IMAGE = "Qwen-Image"
    Z_IMAGE = "Z-Image"


_FAMILY_PREFIXES = (
    ("double_stream_modulation_img.", DiffusionFamily.FLUX2),
    ("double_blocks.", DiffusionFamily.FLUX),
    ("joint_blocks.", DiffusionFamily.SD3),
    ("transformer_blocks.0.img_mod.1.", DiffusionFamily.QWEN_IMAGE),
    ("cap_embedder.", DiffusionFamily.Z_IMAGE),
    ("label_emb.", DiffusionFamily.SDXL),
    ("input_blocks.", DiffusionFamily.SD),
)
"""Prefixes of tensors' names; the first of these that occurs in a file identifies its family."""

_ARCHITECTURES = frozenset({"flux", "sd1", "sdxl", "sd3", "qwen_image", "lumina2"})
"""Values of `general.architecture` in GGUF files of models that draw; some converters omit it."""

_REQUIRED_PARTS: Mapping[DiffusionFamily, tuple[str, ...]] = {
    DiffusionFamily.SD: ("vae",),
    DiffusionFamily.SDXL: ("vae",),
    DiffusionFamily.SD3: ("clip_l", "clip_g", "vae"),
    DiffusionFamily.FLUX: ("clip_l", "t5xxl", "vae"),
    DiffusionFamily.FLUX2: ("llm", "vae"),
    DiffusionFamily.QWEN_IMAGE: ("llm", "vae"),
    DiffusionFamily.Z_IMAGE: ("llm", "vae"),
}
_PARTS_IN_CHECKPOINT: Mapping[DiffusionFamily, tuple[str, ...]] = {
    DiffusionFamily.SD: ("clip_l",),
    DiffusionFamily.SDXL: ("clip_l", "clip_g"),
}
"""Parts that a checkpoint itself must hold, because stable-diffusion.cpp recognizes these families
by them."""

_PART_PREFIXES = {
    "vae": ("first_stage_model.", "vae.", "tae."),
    "clip_l": ("cond_stage_model.", "conditioner.embedders.0.", "text_encoders.clip_l.", "te."),
    "clip_g": ("cond_stage_model.1.", "conditioner.embedders.1.", "text_encoders.clip_g.", "te2."),
    "t5xxl": ("text_encoders.t5xxl.",),
    "llm": ("text_encoders.llm.",),
}
"""Prefixes of the names of a part's tensors in a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class DiffusionFile:
    """A checkpoint; `held` are the parts in it."""

    path: Path
    family: DiffusionFamily
    held: tuple[str, ...]
    parameters: int
    file_bytes: int

    @property
    def missing(self) -> tuple[str, ...]:
        """Parts that have to come from other files."""
        return tuple(one for one in _REQUIRED_PARTS[self.family] if one not in self.held)

    @property
    def description(self) -> str:
        """The family in words."""
        return f"{self.family} draws images"

    @property
    def is_network_only(self) -> bool:
        """True if the checkpoint holds the network that draws, and no part."""
        return not self.held

    @property
    def side_step(self) -> int:
        """Width and height of an image are multiples of this many pixels."""
        return 64 if self.family in (DiffusionFamily.SD, DiffusionFamily.SDXL) else 16

    @property
    def side(self) -> int:
        """Pixels of width and height of the images that it was trained with."""
        return 512 if self.family is DiffusionFamily.SD else 1024

    @property
    def guidance(self) -> float:
        """Default guidance scale; 1 for models that were distilled with their guidance."""
        return _GUIDANCE[self.family]

    def lacks(self, parts: Iterable[str]) -> tuple[str, ...]:
        """Returns the parts that are missing although `parts` are given. A small autoencoder,
        `taesd`, replaces the large one."""
        given = {*parts, *(["vae"] if "taesd" in parts else [])}
        return tuple(one for one in self.missing if one not in given)

    def memory_bytes(self, parts: Mapping[str, Path], pixels: int) -> int:
        """Estimates the memory of the loaded model: the size of its files, and the activations
        for an image of `pixels`."""
        others = sum(path.stat().st_size for path in parts.values() if path.is_file())
        return self.file_bytes + others + pixels * _BYTES_PER_PIXEL


_GUIDANCE: Mapping[DiffusionFamily, float] = {
    DiffusionFamily.SD: 7.0,
    DiffusionFamily.SDXL: 7.0,
    DiffusionFamily.SD3: 4.5,
    DiffusionFamily.FLUX: 1.0,
    DiffusionFamily.FLUX2: 1.0,
    DiffusionFamily.QWEN_IMAGE: 2.5,
    DiffusionFamily.Z_IMAGE: 1.0,
}


def is_diffusion_file(path: Path) -> bool:
    """Returns True for a checkpoint that draws; False for files that cannot be read, and for parts
    of one."""
    try:
        state = path.stat()
        return _is_diffusion(path, state.st_mtime_ns, state.st_size)
    except (OSError, HeaderError):  # not cached: the file may be repaired
        return False


def read_diffusion(path: Path) -> DiffusionFile:
    """Reads the names of a checkpoint's tensors. Raises `HeaderError`, also for a checkpoint that
    cannot be completed by other files."""
    sizes = _read_safetensors(path) if path.suffix == _SAFETENSORS else _read_gguf(path)
    family = _family(sizes)
    if family is None:
        raise HeaderError(f"{path} has no network that draws, or one of an unknown family.")
    parts = _PART_PREFIXES.items()
    held = [part for part, marks in parts if any(one.startswith(marks) for one in sizes)]
    if lacking := [one for one in _PARTS_IN_CHECKPOINT.get(family, ()) if one not in held]:
        raise HeaderError(
            f"{path} has no {' and no '.join(lacking)}, which a checkpoint of {family} has to "
            "hold: its network alone cannot draw."
        )
    return DiffusionFile(
        path=path,
        family=family,
        held=tuple(held),
        parameters=sum(sizes.values()),
        file_bytes=path.stat().st_size,
    )


@lru_cache(maxsize=1024)
def _is_diffusion(path: Path, _modified_ns: int, _size: int) -> bool:
    """Does the work of `is_diffusion_file`, once for each modification time and size of a file.
    Raises `HeaderError` or `OSError` for a file that cannot be read."""
    if path.suffix == _SAFETENSORS:
        return _family(_read_safetensors(path)) is not None
    if path.suffix != ".gguf" or not _may_draw(path):
        return False
    return _family(_read_gguf(path)) is not None


def _may_draw(path: Path) -> bool:
    """Returns False for GGUF files of other architectures, without reading their vocabularies."""
    with path.open("rb") as file:
        if file.read(len(GGUF_MAGIC)) != GGUF_MAGIC:
            return False
    architecture = first_value(path, "general.architecture")
    return architecture is None or architecture in _ARCHITECTURES


def _family(names: Iterable[str]) -> DiffusionFamily | None:
    """Returns the family by the names of a file's tensors; None if it has no network that draws.
    Tensors of parts are ignored, because their names resemble those of a network without a
    prefix."""
    known = tuple(one for marks in _PART_PREFIXES.values() for one in marks)
    network = [one for one in names if not one.startswith(known)]
    for mark, family in _FAMILY_PREFIXES:
        prefixes = tuple(f"{prefix}{mark}" for prefix in _NETWORK_PREFIXES)
        if any(name.startswith(prefixes) for name in network):
            return family
    return None


def _read_gguf(path: Path) -> Mapping[str, int]:
    return read_header(path).tensor_elements


def _read_safetensors(path: Path) -> Mapping[str, int]:
    """Returns the number of elements of each tensor. Raises `HeaderError`, also for a truncated
    file."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
            if not 2 <= length <= min(_HEADER_LIMIT_BYTES, size):
                raise HeaderError(f"{path} is not a safetensors file, or is cut short.")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        tensors = {name: (one["shape"], one["data_offsets"]) for name, one in header.items()}
        numbers = (number for lists in tensors.values() for one in lists for number in one)
        if not all(type(one) is int and one >= 0 for one in numbers):
            raise ValueError("shapes and offsets are integers")
        if any(len(shape) > _DIMENSIONS for shape, _ in tensors.values()):
            raise ValueError("a tensor has too many dimensions")
        ends = [offsets[1] for _, offsets in tensors.values()]
        sizes = {name: math.prod(shape) for name, (shape, _) in tensors.items()}
    except OSError as error:
        raise HeaderError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (ValueError, AttributeError, LookupError, TypeError, RecursionError) as error:
        raise HeaderError(f"The header of {path} is broken.") from error
    if 8 + length + max(ends, default=0) > size:
        raise HeaderError(f"{path} is cut short: it has {size:,} bytes; copy or download it again.")
    return sizes
