"""Writes GGUF files with the shapes of real models, of which the weights are a hole in the file."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter, quant_shape_to_byte_shape

FLOAT, QUANTIZED = GGMLQuantizationType.F32, GGMLQuantizationType.Q8_0


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A network's dimensions. With `experts`, of which `used` compute a token, it is a mixture."""

    architecture: str = "llama"
    layers: int
    width: int
    heads: int
    kv_heads: int
    head: int
    forward: int
    vocabulary: int
    context: int
    experts: int = 0
    used: int = 0
    is_tied: bool = False


HALF_BILLION = Shape(
    layers=24, width=896, heads=14, kv_heads=2, head=64, forward=4864, vocabulary=151936,
    context=32768, is_tied=True,
)  # fmt: skip
EIGHT_BILLION = Shape(
    layers=32, width=4096, heads=32, kv_heads=8, head=128, forward=14336, vocabulary=128256,
    context=131072,
)  # fmt: skip
SEVENTY_BILLION = Shape(
    layers=80, width=8192, heads=64, kv_heads=8, head=128, forward=28672, vocabulary=128256,
    context=131072,
)  # fmt: skip
MIXTURE_30_BILLION = Shape(
    architecture="qwen3moe", layers=48, width=2048, heads=32, kv_heads=4, head=128, forward=768,
    vocabulary=151936, context=40960, experts=128, used=8,
)  # fmt: skip
MIXTURE_120_BILLION = Shape(
    architecture="qwen3moe", layers=46, width=4096, heads=64, kv_heads=4, head=128, forward=1536,
    vocabulary=151936, context=131072, experts=128, used=8,
)  # fmt: skip


def write_shape(path: Path, shape: Shape) -> Path:
    """A model file of this shape, whose weights read as zeros and take no room on the disk."""
    writer = GGUFWriter(str(path), shape.architecture)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head)
    writer.add_value_length(shape.head)
    writer.add_rope_dimension_count(shape.head)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(shape.vocabulary)
    writer.add_tokenizer_model("none")
    if shape.experts:
        writer.add_expert_count(shape.experts)
        writer.add_expert_used_count(shape.used)
        writer.add_expert_feed_forward_length(shape.forward)
    total = 0
    for name, sizes in _tensors(shape):
        kind = FLOAT if "norm" in name or "gate_inp" in name else QUANTIZED
        numbers, size = GGML_QUANT_SIZES[kind]
        count = int(np.prod(sizes)) // numbers * size
        stored = sizes if kind is FLOAT else quant_shape_to_byte_shape(sizes, kind)
        data = np.dtype(np.float32 if kind is FLOAT else np.uint8)
        writer.add_tensor_info(name, stored, data, count, raw_dtype=kind)
        total += -(-count // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    os.truncate(path, -(-path.stat().st_size // 32) * 32 + total)
    return path


def _tensors(shape: Shape) -> list[tuple[str, tuple[int, ...]]]:
    width, forward, query = shape.width, shape.forward, shape.heads * shape.head
    layer: dict[str, tuple[int, ...]] = {
        "attn_norm": (width,),
        "ffn_norm": (width,),
        "attn_q": (query, width),
        "attn_k": (shape.kv_heads * shape.head, width),
        "attn_v": (shape.kv_heads * shape.head, width),
        "attn_output": (width, query),
    }
    if shape.experts:
        layer |= {
            "attn_q_norm": (shape.head,),
            "attn_k_norm": (shape.head,),
            "ffn_gate_inp": (shape.experts, width),
            "ffn_gate_exps": (shape.experts, forward, width),
            "ffn_up_exps": (shape.experts, forward, width),
            "ffn_down_exps": (shape.experts, width, forward),
        }
    else:
        layer |= {
            "ffn_gate": (forward, width),
            "ffn_up": (forward, width),
            "ffn_down": (width, forward),
        }
    tensors = [("token_embd.weight", (shape.vocabulary, width)), ("output_norm.weight", (width,))]
    if not shape.is_tied:
        tensors.append(("output.weight", (shape.vocabulary, width)))
    names = [
        (f"blk.{at}.{name}.weight", sizes)
        for at in range(shape.layers)
        for name, sizes in layer.items()
    ]
    return [*tensors, *names]
