"""A model of the smallest architecture that stable-diffusion.cpp draws with (SDXS 512): random
weights where an image comes from its seed, its prompt and another image, and zeros elsewhere,
which take no place on the disk.

Where the library is not installed, a stand-in takes its place (`fake_diffusion/`): the whole way
from a request to the library's C functions is this project's own, and what these functions draw is
the stand-in's. It draws by hashes of what it gets, and knows nothing of models.
"""

import os
import struct
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

__all__ = ["HAS_LIBRARY", "use_library", "write_tiny_diffusion"]

HAS_LIBRARY = find_spec("stable_diffusion_cpp") is not None
_STAND_IN = Path(__file__).with_name("fake_diffusion")
_MODULES = ("stable_diffusion_cpp", "stable_diffusion_cpp.stable_diffusion_cpp")

_ALIGNMENT = 32
_F32, _F16, _Q4_0 = 0, 1, 2
_BLOCK, _BLOCK_BYTES = 32, 18
_CHANNELS, _EMBEDDING, _CONTEXT, _LATENT = 320, 1280, 768, 4
_WORDS, _POSITIONS, _CLIP_LAYERS = 49_408, 77, 12
_RANDOM_WORDS = 2000
_TINY = 64
_RANDOM = (
    "input_blocks.0.0.weight",
    "output_blocks.4.1.proj_out.weight",
    "output_blocks.5.2.conv.weight",
    "output_blocks.6.0.skip_connection.weight",
    "output_blocks.7.0.skip_connection.weight",
    "diffusion_model.out.2.weight",
)
_NORMS = ("norm", ".in_layers.0.", ".out_layers.0.", ".out.0.")
_RANDOM_LINEAR = (
    "output_blocks.4.1.transformer_blocks.0.attn2.to_v.weight",
    "output_blocks.4.1.transformer_blocks.0.attn2.to_out.0.weight",
)

Tensors = Iterator[tuple[str, tuple[int, ...], int]]
"""Names, shapes with the longest stride first, and types."""


def use_library(patch: pytest.MonkeyPatch) -> dict[str, str]:
    """Makes the library importable, or its stand-in, here and in processes that are started with
    the environment that is returned."""
    if HAS_LIBRARY:
        return {}
    for module in _MODULES:  # what is imported meanwhile is forgotten at the end
        patch.setitem(sys.modules, module, None)
        del sys.modules[module]
    patch.syspath_prepend(str(_STAND_IN))
    paths = [str(_STAND_IN), *filter(None, [os.environ.get("PYTHONPATH")])]
    patch.setenv("PYTHONPATH", os.pathsep.join(paths))
    return {"PYTHONPATH": os.pathsep.join(paths)}


def write_tiny_diffusion(path: Path, *, without: str = "no tensor") -> Path:
    """Writes the model, without the tensors whose names begin with `without`."""
    tensors = [one for one in _tensors() if not one[0].startswith(without)]
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), 1)
    head += _string("general.alignment") + struct.pack("<II", 4, _ALIGNMENT)
    offset, offsets = 0, []
    for name, shape, kind in tensors:
        head += _string(name) + struct.pack("<I", len(shape))
        head += struct.pack(f"<{len(shape)}Q", *reversed(shape)) + struct.pack("<IQ", kind, offset)
        offsets.append(offset)
        offset += -(-_size(shape, kind) // _ALIGNMENT) * _ALIGNMENT
    start = -(-len(head) // _ALIGNMENT) * _ALIGNMENT
    random = np.random.default_rng(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(head)
        for (name, shape, kind), at in zip(tensors, offsets, strict=True):
            if HAS_LIBRARY and (data := _weights(name, shape, kind, random)):
                file.seek(start + at)
                file.write(data)
        file.truncate(start + offset)
    return path


def _linear(name: str, inputs: int, outputs: int, *, has_bias: bool = True) -> Tensors:
    yield f"{name}.weight", (outputs, inputs), _Q4_0
    if has_bias:
        yield f"{name}.bias", (outputs,), _F32


def _convolution(
    name: str, inputs: int, outputs: int, size: int = 3, *, has_bias: bool = True
) -> Tensors:
    yield f"{name}.weight", (outputs, inputs, size, size), _F16
    if has_bias:
        yield f"{name}.bias", (outputs,), _F32


def _norm(name: str, width: int) -> Tensors:
    yield f"{name}.weight", (width,), _F32
    yield f"{name}.bias", (width,), _F32


def _residual(name: str, inputs: int, outputs: int) -> Tensors:
    yield from _norm(f"{name}.in_layers.0", inputs)
    yield from _convolution(f"{name}.in_layers.2", inputs, outputs)
    yield from _linear(f"{name}.emb_layers.1", _EMBEDDING, outputs)
    yield from _norm(f"{name}.out_layers.0", outputs)
    yield from _convolution(f"{name}.out_layers.3", outputs, outputs)
    if inputs != outputs:
        yield from _convolution(f"{name}.skip_connection", inputs, outputs, 1)


def _attention(name: str, width: int) -> Tensors:
    yield from _norm(f"{name}.norm", width)
    yield from _convolution(f"{name}.proj_in", width, width, 1)
    block = f"{name}.transformer_blocks.0"
    for number, context in ((1, width), (2, _CONTEXT)):
        yield from _norm(f"{block}.norm{number}", width)
        yield from _linear(f"{block}.attn{number}.to_q", width, width, has_bias=False)
        yield from _linear(f"{block}.attn{number}.to_k", context, width, has_bias=False)
        yield from _linear(f"{block}.attn{number}.to_v", context, width, has_bias=False)
        yield from _linear(f"{block}.attn{number}.to_out.0", width, width)
    yield from _norm(f"{block}.norm3", width)
    yield from _linear(f"{block}.ff.net.0.proj", width, 8 * width)
    yield from _linear(f"{block}.ff.net.2", 4 * width, width)
    yield from _convolution(f"{name}.proj_out", width, width, 1)


def _unet() -> Tensors:
    yield from _linear("time_embed.0", _CHANNELS, _EMBEDDING)
    yield from _linear("time_embed.2", _EMBEDDING, _EMBEDDING)
    yield from _convolution("input_blocks.0.0", _LATENT, _CHANNELS)
    yield from _residual("input_blocks.1.0", 320, 320)
    yield from _convolution("input_blocks.3.0.op", 320, 320)
    yield from _residual("input_blocks.4.0", 320, 640)
    yield from _attention("input_blocks.4.1", 640)
    yield from _convolution("input_blocks.6.0.op", 640, 640)
    yield from _residual("input_blocks.7.0", 640, 1280)
    yield from _attention("input_blocks.7.1", 1280)
    yield from _residual("output_blocks.0.0", 2560, 1280)
    yield from _attention("output_blocks.0.1", 1280)
    yield from _residual("output_blocks.1.0", 1920, 1280)
    yield from _attention("output_blocks.1.1", 1280)
    yield from _convolution("output_blocks.2.1.conv", 1280, 1280)
    yield from _residual("output_blocks.3.0", 1920, 640)
    yield from _attention("output_blocks.3.1", 640)
    yield from _residual("output_blocks.4.0", 960, 640)
    yield from _attention("output_blocks.4.1", 640)
    yield from _convolution("output_blocks.5.2.conv", 640, 640)
    yield from _residual("output_blocks.6.0", 960, 320)
    yield from _residual("output_blocks.7.0", 640, 320)
    yield from _norm("out.0", _CHANNELS)
    yield from _convolution("out.2", _CHANNELS, _LATENT)


def _clip() -> Tensors:
    yield "embeddings.token_embedding.weight", (_WORDS, _CONTEXT), _F16
    yield "embeddings.position_embedding.weight", (_POSITIONS, _CONTEXT), _F32
    for number in range(_CLIP_LAYERS):
        layer = f"encoder.layers.{number}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from _linear(f"{layer}.self_attn.{part}", _CONTEXT, _CONTEXT)
        yield from _norm(f"{layer}.layer_norm1", _CONTEXT)
        yield from _norm(f"{layer}.layer_norm2", _CONTEXT)
        yield from _linear(f"{layer}.mlp.fc1", _CONTEXT, 4 * _CONTEXT)
        yield from _linear(f"{layer}.mlp.fc2", 4 * _CONTEXT, _CONTEXT)
    yield from _norm("final_layer_norm", _CONTEXT)


def _tiny_block(name: str) -> Tensors:
    for number in (0, 2, 4):
        yield from _convolution(f"{name}.conv.{number}", _TINY, _TINY)


def _autoencoder() -> Tensors:
    yield from _convolution("encoder.layers.0", 3, _TINY)
    yield from _tiny_block("encoder.layers.1")
    for at in (2, 6, 10):
        yield from _convolution(f"encoder.layers.{at}", _TINY, _TINY, has_bias=False)
        for number in range(at + 1, at + 4):
            yield from _tiny_block(f"encoder.layers.{number}")
    yield from _convolution("encoder.layers.14", _TINY, _LATENT)
    yield from _convolution("decoder.layers.0", _LATENT, _TINY)
    for at in (2, 7, 12):
        for number in range(at, at + 3):
            yield from _tiny_block(f"decoder.layers.{number}")
        yield from _convolution(f"decoder.layers.{at + 4}", _TINY, _TINY, has_bias=False)
    yield from _tiny_block("decoder.layers.17")
    yield from _convolution("decoder.layers.18", _TINY, 3)


def _tensors() -> Tensors:
    for name, shape, kind in _unet():
        yield f"model.diffusion_model.{name}", shape, kind
    for name, shape, kind in _clip():
        yield f"cond_stage_model.transformer.text_model.{name}", shape, kind
    for name, shape, kind in _autoencoder():
        yield f"tae.{name}", shape, kind


def _size(shape: tuple[int, ...], kind: int) -> int:
    numbers = int(np.prod(shape))
    return {_F32: 4 * numbers, _F16: 2 * numbers, _Q4_0: numbers // _BLOCK * _BLOCK_BYTES}[kind]


def _weights(name: str, shape: tuple[int, ...], kind: int, random: np.random.Generator) -> bytes:
    """The bytes of a tensor that are not zero, from its start on."""
    fan = int(np.prod(shape[1:])) or 1
    if name.endswith(".weight") and any(one in name for one in _NORMS):
        return np.ones(shape, np.float32).tobytes()
    if name.startswith("tae."):
        scale = 0.1 if len(shape) == 1 else (0.5 / fan) ** 0.5
        values = random.standard_normal(shape) * scale
        return values.astype(np.float32 if kind == _F32 else np.float16).tobytes()
    if name.endswith(_RANDOM):
        return (random.standard_normal(shape) / fan**0.5).astype(np.float16).tobytes()
    if name.endswith("token_embedding.weight"):
        return random.standard_normal((_RANDOM_WORDS, shape[1])).astype(np.float16).tobytes()
    if name.endswith(_RANDOM_LINEAR):
        blocks = int(np.prod(shape)) // _BLOCK
        data = random.integers(0, 256, (blocks, _BLOCK_BYTES), dtype=np.uint8)
        data[:, :2] = np.frombuffer(np.float16(0.02).tobytes(), np.uint8)
        return data.tobytes()
    return b""


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data
