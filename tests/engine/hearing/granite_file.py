"""Tensors of a tiny Granite speech in the form of llama.cpp."""

import re
from collections.abc import Iterator

import numpy as np
from gguf import GGUFWriter
from numpy.typing import NDArray

from tests.engine.hearing.granite import (
    BLOCK_FRAMES,
    FRAMES_PER_EMBEDDING,
    HEADS,
    KERNEL,
    POSITIONS,
    WINDOW_FRAMES,
)

Values = NDArray[np.float32]

_NAMES = {
    "encoder.input_linear": "a.input_projection",
    "encoder.out": "a.enc_ctc_out",
    "encoder.out_mid": "a.enc_ctc_out_mid",
    "projector.qformer.layernorm": "a.proj_norm",
    "projector.linear": "a.proj_linear",
}
_LAYER_NAMES = {
    "ff1.pre_norm": "ffn_norm",
    "ff1.up_proj": "ffn_up",
    "ff1.down_proj": "ffn_down",
    "ff2.pre_norm": "ffn_norm_1",
    "ff2.up_proj": "ffn_up_1",
    "ff2.down_proj": "ffn_down_1",
    "attn.pre_norm": "ln1",
    "attn.to_q": "attn_q",
    "attn.to_k": "attn_k",
    "attn.to_v": "attn_v",
    "attn.to_out": "attn_out",
    "conv.norm": "norm_conv",
    "conv.up_conv": "conv_pw1",
    "conv.depth_conv.conv": "conv_dw",
    "conv.batch_norm": "conv_norm",
    "conv.down_conv": "conv_pw2",
    "post_norm": "ln2",
}
_QUERY_NAMES = {
    "attention.attention.query": "self_attn_q",
    "attention.attention.key": "self_attn_k",
    "attention.attention.value": "self_attn_v",
    "attention.output.dense": "self_attn_out",
    "attention.output.LayerNorm": "self_attn_norm",
    "crossattention.attention.query": "cross_attn_q",
    "crossattention.attention.key": "cross_attn_k",
    "crossattention.attention.value": "cross_attn_v",
    "crossattention.output.dense": "cross_attn_out",
    "crossattention.output.LayerNorm": "cross_attn_norm",
    "intermediate_query.dense": "ffn_up",
    "output_query.dense": "ffn_down",
    "output_query.LayerNorm": "ffn_norm",
}
_LAYER = re.compile(r"encoder\.layers\.(\d+)\.(.+)")
_QUERY_LAYER = re.compile(r"projector\.qformer\.encoder\.layer\.(\d+)\.(.+)")
_BATCH_NORM_EPSILON = 1e-5


def add_granite(writer: GGUFWriter, weights: dict[str, Values]) -> None:
    """Adds the numbers and the tensors that no other family has."""
    for name, value in (
        ("chunk_size", BLOCK_FRAMES),
        ("conv_kernel_size", KERNEL),
        ("max_pos_emb", POSITIONS),
        ("projector.window_size", WINDOW_FRAMES),
        ("projector.downsample_rate", FRAMES_PER_EMBEDDING),
        ("projector.head_count", HEADS),
    ):
        writer.add_uint32(f"clip.audio.{name}", value)
    for name, values in _converted(weights):
        writer.add_tensor(_gguf_name(name), values)


def _converted(weights: dict[str, Values]) -> Iterator[tuple[str, Values]]:
    """Keys and values apart, norms of batches as one product and sum, convolutions of one frame as
    matrices."""
    for name, values in weights.items():
        inner = name.removeprefix("model.")
        if not inner.startswith(("encoder.", "projector.")) or ".running_" in inner:
            continue
        if inner.endswith("to_kv.weight"):
            keys, rest = np.split(values, 2)
            yield inner.replace("to_kv", "to_k"), keys
            yield inner.replace("to_kv", "to_v"), rest
        elif inner.endswith("batch_norm.weight"):
            scale, bias = _folded(weights, name.removesuffix(".weight"))
            yield inner, scale
            yield inner.replace("weight", "bias"), bias
        elif not inner.endswith("batch_norm.bias"):
            yield inner, values.squeeze() if "_conv" in inner else values


def _folded(weights: dict[str, Values], norm: str) -> tuple[Values, Values]:
    variance, mean = weights[f"{norm}.running_var"], weights[f"{norm}.running_mean"]
    scale = weights[f"{norm}.weight"] / np.sqrt(variance + np.float32(_BATCH_NORM_EPSILON))
    return scale, weights[f"{norm}.bias"] - mean * scale


def _gguf_name(name: str) -> str:
    if name == "projector.query":
        return "a.proj_query"
    inner, _, kind = name.rpartition(".")
    if found := _QUERY_LAYER.fullmatch(inner):
        return f"a.proj_blk.{found[1]}.{_QUERY_NAMES[found[2]]}.{kind}"
    if found := _LAYER.fullmatch(inner):
        if found[2] == "attn.rel_pos_emb":
            return f"a.blk.{found[1]}.attn_rel_pos_emb"
        return f"a.blk.{found[1]}.{_LAYER_NAMES[found[2]]}.{kind}"
    return f"{_NAMES[inner]}.{kind}"
