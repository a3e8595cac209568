"""Tensors of a tiny LFM2-Audio: a conformer encoder, and a text model with a short convolution.

Names and shapes are those of its authors' classes, but for the prefix of the text model. The size
of the encoder is the one that llama.cpp computes.
"""

import re
from collections.abc import Iterator

import numpy as np
from gguf import GGUFWriter
from numpy.typing import NDArray

Tensor = tuple[str, tuple[int, ...]]
"""The name and the shape of a tensor."""
Values = NDArray[np.float32]

SIZE, LAYERS, HEADS = 512, 2, 8
FORWARD_FACTOR = 1
"""The authors' models have 4."""
MELS, CHANNELS, KERNEL = 128, 8, 9
CODES, CODEBOOKS = 2049, 8
"""Audio that the model speaks, of which llama.cpp reads the embeddings as well."""
TEXT_LAYER_TYPES = ("conv", "full_attention")
CONVOLUTION_TOKENS = 3
"""Tokens that a convolution of the text model sees."""

TEXT_NAMES = {
    "embedding_norm": "token_embd_norm",
    "operator_norm": "attn_norm",
    "ffn_norm": "ffn_norm",
    "feed_forward.w1": "ffn_gate",
    "feed_forward.w2": "ffn_down",
    "feed_forward.w3": "ffn_up",
    "conv.conv": "shortconv.conv",
    "conv.in_proj": "shortconv.in_proj",
    "conv.out_proj": "shortconv.out_proj",
    "self_attn.out_proj": "attn_output",
    "self_attn.q_layernorm": "attn_q_norm",
    "self_attn.k_layernorm": "attn_k_norm",
}
_NAMES = {
    "conformer.pre_encode.out": "a.pre_encode.out",
    "audio_embedding.embedding": "a.position_embd",  # so does llama.cpp's converter name it
}
_LAYER_NAMES = {
    "norm_feed_forward1": "ffn_norm",
    "feed_forward1.linear1": "ffn_up",
    "feed_forward1.linear2": "ffn_down",
    "norm_feed_forward2": "ffn_norm_1",
    "feed_forward2.linear1": "ffn_up_1",
    "feed_forward2.linear2": "ffn_down_1",
    "norm_self_att": "ln1",
    "self_attn.linear_q": "attn_q",
    "self_attn.linear_k": "attn_k",
    "self_attn.linear_v": "attn_v",
    "self_attn.linear_out": "attn_out",
    "self_attn.linear_pos": "linear_pos",
    "self_attn.pos_bias_u": "pos_bias_u",
    "self_attn.pos_bias_v": "pos_bias_v",
    "norm_conv": "norm_conv",
    "conv.pointwise_conv1": "conv_pw1",
    "conv.depthwise_conv": "conv_dw",
    "conv.batch_norm": "conv_norm",
    "conv.pointwise_conv2": "conv_pw2",
    "norm_out": "ln2",
}
_LAYER = re.compile(r"conformer\.layers\.(\d+)\.(.+)")
_NUMBERED = re.compile(r"(?:conformer\.pre_encode\.conv|audio_adapter\.model)\.(\d+)")
_BATCH_NORM_EPSILON = 1e-5


def tensors(text_size: int) -> Iterator[Tensor]:
    """The encoder's and the projector's tensors."""
    for number, shape in (
        (0, (CHANNELS, 1, 3, 3)),
        (2, (CHANNELS, 1, 3, 3)),
        (3, (CHANNELS, CHANNELS, 1, 1)),
        (5, (CHANNELS, 1, 3, 3)),
        (6, (CHANNELS, CHANNELS, 1, 1)),
    ):
        yield from _with_bias(f"conformer.pre_encode.conv.{number}", shape)
    yield from _with_bias("conformer.pre_encode.out", (SIZE, CHANNELS * MELS // 8))
    for layer in range(LAYERS):
        yield from _conformer(f"conformer.layers.{layer}.")
    yield from _with_bias("audio_adapter.model.0", (SIZE,))
    yield from _with_bias("audio_adapter.model.1", (text_size, SIZE))
    yield from _with_bias("audio_adapter.model.3", (text_size, text_size))
    yield "audio_embedding.embedding.weight", (CODES * CODEBOOKS, text_size)


def text_tensors(
    size: int, *, forward: int, vocabulary: int, head_size: int, kv_size: int
) -> Iterator[Tensor]:
    """The text model's tensors, whose vocabulary has one for embeddings and logits."""
    model = "model.language_model."
    yield f"{model}embed_tokens.weight", (vocabulary, size)
    for layer, kind in enumerate(TEXT_LAYER_TYPES):
        block = f"{model}layers.{layer}."
        if kind == "conv":
            yield f"{block}conv.conv.weight", (size, 1, CONVOLUTION_TOKENS)
            yield f"{block}conv.in_proj.weight", (3 * size, size)
            yield f"{block}conv.out_proj.weight", (size, size)
        else:
            for name, rows in (("q", size), ("k", kv_size), ("v", kv_size), ("out", size)):
                yield f"{block}self_attn.{name}_proj.weight", (rows, size)
            yield f"{block}self_attn.q_layernorm.weight", (head_size,)
            yield f"{block}self_attn.k_layernorm.weight", (head_size,)
        for name, shape in (("w1", (forward, size)), ("w3", (forward, size)),
                            ("w2", (size, forward))):  # fmt: skip
            yield f"{block}feed_forward.{name}.weight", shape
        yield f"{block}operator_norm.weight", (size,)
        yield f"{block}ffn_norm.weight", (size,)
    yield f"{model}embedding_norm.weight", (size,)


def add_encoder(writer: GGUFWriter, weights: dict[str, Values]) -> None:
    """Adds the tensors of the encoder and of the projector, in the form of llama.cpp: norms of
    batches as one product and sum, convolutions of one frame as matrices."""
    for name, values in weights.items():
        if name.startswith("model.language_model.") or ".running_" in name:
            continue
        if name.endswith("batch_norm.weight"):
            scale, bias = _folded(weights, name.removesuffix(".weight"))
            writer.add_tensor(_gguf_name(name), scale)
            writer.add_tensor(_gguf_name(name).replace("weight", "bias"), bias)
        elif not name.endswith("batch_norm.bias"):
            writer.add_tensor(_gguf_name(name), _converted(name, values))


def in_shape_of_ggml(name: str, values: Values) -> Values:
    """A text model's convolution has a row for each channel."""
    return values[:, 0] if name.endswith("conv.conv.weight") else values


def _converted(name: str, values: Values) -> Values:
    if "pre_encode.conv." in name:
        return values[:, np.newaxis, np.newaxis] if name.endswith("bias") else values
    return values.squeeze() if "wise_conv" in name else values


def _folded(weights: dict[str, Values], norm: str) -> tuple[Values, Values]:
    variance, mean = weights[f"{norm}.running_var"], weights[f"{norm}.running_mean"]
    scale = weights[f"{norm}.weight"] / np.sqrt(variance + np.float32(_BATCH_NORM_EPSILON))
    return scale, weights[f"{norm}.bias"] - mean * scale


def _gguf_name(name: str) -> str:
    inner, _, kind = name.rpartition(".")
    if kind.startswith("pos_bias_"):
        inner, kind = name, ""
    suffix = f".{kind}" if kind else ""
    if found := _LAYER.fullmatch(inner):
        return f"a.blk.{found[1]}.{_LAYER_NAMES[found[2]]}{suffix}"
    if found := _NUMBERED.fullmatch(inner):
        kind_of_layer = "mm.a.mlp" if inner.startswith("audio_adapter") else "a.conv1d"
        return f"{kind_of_layer}.{found[1]}{suffix}"
    return f"{_NAMES[inner]}{suffix}"


def _conformer(block: str) -> Iterator[Tensor]:
    forward = FORWARD_FACTOR * SIZE
    for number in (1, 2):
        yield from _with_bias(f"{block}norm_feed_forward{number}", (SIZE,))
        yield from _with_bias(f"{block}feed_forward{number}.linear1", (forward, SIZE))
        yield from _with_bias(f"{block}feed_forward{number}.linear2", (SIZE, forward))
    yield from _with_bias(f"{block}norm_conv", (SIZE,))
    yield from _with_bias(f"{block}conv.pointwise_conv1", (2 * SIZE, SIZE, 1))
    yield from _with_bias(f"{block}conv.depthwise_conv", (SIZE, 1, KERNEL))
    yield from _with_bias(f"{block}conv.batch_norm", (SIZE,))
    yield f"{block}conv.batch_norm.running_mean", (SIZE,)
    yield f"{block}conv.batch_norm.running_var", (SIZE,)
    yield from _with_bias(f"{block}conv.pointwise_conv2", (SIZE, SIZE, 1))
    yield from _with_bias(f"{block}norm_self_att", (SIZE,))
    for name in ("q", "k", "v", "out"):
        yield from _with_bias(f"{block}self_attn.linear_{name}", (SIZE, SIZE))
    yield f"{block}self_attn.linear_pos.weight", (SIZE, SIZE)
    for bias in ("u", "v"):
        yield f"{block}self_attn.pos_bias_{bias}", (HEADS, SIZE // HEADS)
    yield from _with_bias(f"{block}norm_out", (SIZE,))


def _with_bias(name: str, shape: tuple[int, ...]) -> Iterator[Tensor]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]
