"""Writes tiny random-weight projectors, as `gguf_models` writes models for them."""

from pathlib import Path

import numpy as np
from gguf import GGUFWriter

from tests.gguf_file import write_gguf

WIDTH, FORWARD, HEADS, PATCH = 16, 32, 2, 14
MELS, FRAMES, STACK = 8, 1500, 8  # windows of audio are half a minute at most


def write_eyes(
    path: Path, *, size: int = 64, seed: int = 0, kind: str = "mlp", can_hear: bool = False
) -> Path:
    """A float32 projector of images for a model of this width. `mlp` makes four embeddings of
    every image, as LLaVA's does; those of `gemma3` see each other; `qwen2vl_merger` makes one of
    every 28 by 28 pixels, which have a place in two dimensions. With `can_hear` it is one of audio
    besides."""
    writer = GGUFWriter(str(path), "clip")
    _add_head(writer, "vision", kind, size=size, is_alone=not can_hear)
    rng = np.random.default_rng(seed)
    writer.add_uint32("clip.vision.image_size", 2 * PATCH if kind == "mlp" else 4 * PATCH)
    writer.add_uint32("clip.vision.patch_size", PATCH)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    _tensor(writer, rng, "v.patch_embd.weight", WIDTH, 3, PATCH, PATCH, scale=0.05)
    if kind == "qwen2vl_merger":
        _tensor(writer, rng, "v.patch_embd.weight.1", WIDTH, 3, PATCH, PATCH, scale=0.05)
    else:
        _tensor(writer, rng, "v.position_embd.weight", 4 if kind == "mlp" else 16, WIDTH)
    _blocks(writer, rng, "v")
    if kind == "mlp":
        _dense(writer, rng, "mm.0", size, WIDTH)
        _dense(writer, rng, "mm.2", size, size)
    elif kind == "gemma3":
        writer.add_uint32("clip.vision.projector.scale_factor", 2)
        _ones(writer, "mm.soft_emb_norm.weight")
        _tensor(writer, rng, "mm.input_projection.weight", WIDTH, size)
    else:
        _norm(writer, "v.post_ln")
        _dense(writer, rng, "mm.0", 4 * WIDTH, 4 * WIDTH)
        _dense(writer, rng, "mm.2", size, 4 * WIDTH)
    if can_hear:
        _add_ears(writer, rng, size=size, is_alone=False)
    return write_gguf(writer, path)


def write_ears(path: Path, *, size: int = 64, seed: int = 0) -> Path:
    """A float32 projector of audio for a model of this width, as Ultravox's is."""
    writer = GGUFWriter(str(path), "clip")
    _add_ears(writer, np.random.default_rng(seed), size=size, is_alone=True)
    return write_gguf(writer, path)


def _add_ears(writer: GGUFWriter, rng: np.random.Generator, *, size: int, is_alone: bool) -> None:
    _add_head(writer, "audio", "ultravox", size=size, is_alone=is_alone)
    writer.add_uint32("clip.audio.num_mel_bins", MELS)
    writer.add_uint32("clip.audio.projector.stack_factor", STACK)
    for place, width in ((1, MELS), (2, WIDTH)):
        _tensor(writer, rng, f"a.conv1d.{place}.weight", WIDTH, width, 3)
        _tensor(writer, rng, f"a.conv1d.{place}.bias", WIDTH, 1)
    _tensor(writer, rng, "a.position_embd.weight", FRAMES, WIDTH)
    _blocks(writer, rng, "a")
    _norm(writer, "a.post_ln")
    _ones(writer, "mm.a.norm_pre.weight", STACK * WIDTH)
    _tensor(writer, rng, "mm.a.mlp.1.weight", 2 * FORWARD, STACK * WIDTH)
    _ones(writer, "mm.a.norm_mid.weight", FORWARD)
    _tensor(writer, rng, "mm.a.mlp.2.weight", size, FORWARD)


def _add_head(writer: GGUFWriter, sense: str, kind: str, *, size: int, is_alone: bool) -> None:
    writer.add_bool(f"clip.has_{sense}_encoder", True)
    writer.add_string(f"clip.{'' if is_alone else sense + '.'}projector_type", kind)
    if is_alone or sense == "vision":
        writer.add_bool("clip.use_gelu", True)
    for name, value in (
        ("embedding_length", WIDTH),
        ("feed_forward_length", FORWARD),
        ("block_count", 2),
        ("projection_dim", size),
        ("attention.head_count", HEADS),
    ):
        writer.add_uint32(f"clip.{sense}.{name}", value)
    writer.add_float32(f"clip.{sense}.attention.layer_norm_epsilon", 1e-5)


def _blocks(writer: GGUFWriter, rng: np.random.Generator, prefix: str) -> None:
    for layer in range(2):
        block = f"{prefix}.blk.{layer}."
        _norm(writer, block + "ln1")
        _norm(writer, block + "ln2")
        for name in ("attn_q", "attn_v", "attn_out"):
            _dense(writer, rng, block + name, WIDTH, WIDTH)
        if prefix == "v":
            _dense(writer, rng, block + "attn_k", WIDTH, WIDTH)
        else:  # Whisper's keys have no bias
            _tensor(writer, rng, block + "attn_k.weight", WIDTH, WIDTH)
        _dense(writer, rng, block + "ffn_up", FORWARD, WIDTH)
        _dense(writer, rng, block + "ffn_down", WIDTH, FORWARD)


def _dense(writer: GGUFWriter, rng: np.random.Generator, name: str, rows: int, width: int) -> None:
    _tensor(writer, rng, name + ".weight", rows, width)
    _tensor(writer, rng, name + ".bias", rows)


def _norm(writer: GGUFWriter, name: str) -> None:
    _ones(writer, name + ".weight")
    writer.add_tensor(name + ".bias", np.zeros(WIDTH, dtype=np.float32))


def _ones(writer: GGUFWriter, name: str, length: int = WIDTH) -> None:
    writer.add_tensor(name, np.ones(length, dtype=np.float32))


def _tensor(
    writer: GGUFWriter, rng: np.random.Generator, name: str, *shape: int, scale: float = 0.2
) -> None:
    writer.add_tensor(name, rng.standard_normal(shape, dtype=np.float32) * np.float32(scale))
