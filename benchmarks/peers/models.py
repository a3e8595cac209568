"""Model files of random weights, around real vocabularies: speed does not depend on the values."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import (
    GGMLQuantizationType,
    GGUFReader,
    GGUFValueType,
    GGUFWriter,
    LlamaFileType,
    quants,
)

from benchmarks.peers.build import VOCABULARIES

__all__ = ["SHAPES", "Shape", "write_model", "write_model_folder"]

FILE_TYPES = {
    GGMLQuantizationType.Q8_0: LlamaFileType.MOSTLY_Q8_0,
    GGMLQuantizationType.Q4_0: LlamaFileType.MOSTLY_Q4_0,
}
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTEXT_TOKENS, EPSILON, ROPE_BASE = 32768, 1e-5, 10_000.0


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A llama: how many layers of which width, and the vocabulary's name in llama.cpp's models."""

    layers: int
    width: int
    heads: int
    key_heads: int
    feed_forward: int
    vocabulary: str
    kind: GGMLQuantizationType = GGMLQuantizationType.Q8_0
    copies: bool = False  # each token has one successor, so that answers repeat themselves


SMALL: dict[str, Any] = {
    "layers": 30,
    "width": 576,
    "heads": 9,
    "key_heads": 3,
    "feed_forward": 1536,
}
SHAPES = {
    "135m-q8": Shape(**SMALL, vocabulary="gpt-2"),
    "135m-q4": Shape(**SMALL, vocabulary="gpt-2", kind=GGMLQuantizationType.Q4_0),
    "135m-copies": Shape(**SMALL, vocabulary="gpt-2", copies=True),
    "500m-q8": Shape(
        layers=24, width=896, heads=14, key_heads=2, feed_forward=4864, vocabulary="qwen2"
    ),
    "1500m-q8": Shape(
        layers=28, width=1536, heads=12, key_heads=2, feed_forward=8960, vocabulary="qwen2"
    ),
}


def write_model(name: str, folder: Path) -> Path:
    """The file of the shape with this name, written if it is not there."""
    path = folder / f"{name}.gguf"
    if not path.exists():
        print(f"Writing {path.name} ...", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        write(SHAPES[name], partial)
        partial.rename(path)
    return path


def write_model_folder(name: str, folder: Path) -> Path:
    """The same shape as transformers reads it: its numbers and its byte-level vocabulary, without
    weights, which vLLM draws itself."""
    shape = SHAPES[name]
    fields = GGUFReader(VOCABULARIES / f"ggml-vocab-{shape.vocabulary}.gguf").fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    end = tokens[fields["tokenizer.ggml.eos_token_id"].contents()]
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(tokens),
        "hidden_size": shape.width,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_heads,
        "max_position_embeddings": CONTEXT_TOKENS,
        "rope_theta": ROPE_BASE,
        "rms_norm_eps": EPSILON,
        "tie_word_embeddings": True,
        "eos_token_id": tokens.index(end),
    }
    tokenizer = {
        "tokenizer_class": "GPT2Tokenizer",
        "chat_template": CHATML,
        **dict.fromkeys(("bos_token", "eos_token", "unk_token"), end),
    }
    folder.mkdir()
    for file, content in (
        ("config.json", config),
        ("tokenizer_config.json", tokenizer),
        ("vocab.json", {token: number for number, token in enumerate(tokens)}),
    ):
        (folder / file).write_text(json.dumps(content))
    merges = fields["tokenizer.ggml.merges"].contents()
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    return folder


def write(shape: Shape, path: Path) -> None:
    """A llama of this shape with random weights."""
    writer = GGUFWriter(str(path), "llama")
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.key_heads)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_rope_dimension_count(shape.width // shape.heads)
    writer.add_chat_template(CHATML)
    writer.add_file_type(FILE_TYPES[shape.kind])  # this and the next only OpenVINO needs
    writer.add_rope_freq_base(ROPE_BASE)
    size = add_vocabulary(writer, VOCABULARIES / f"ggml-vocab-{shape.vocabulary}.gguf")
    writer.add_vocab_size(size)
    add_tensors(writer, shape, size)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_vocabulary(writer: GGUFWriter, path: Path) -> int:
    """Everything that a vocabulary's file says of its tokenizer; gives the number of tokens."""
    fields = GGUFReader(path).fields
    for name, field in fields.items():
        if not name.startswith("tokenizer.") or name == "tokenizer.chat_template":
            continue
        kind = field.types[0]
        part = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, sub_type=part)
    return len(fields["tokenizer.ggml.tokens"].data)


def add_tensors(writer: GGUFWriter, shape: Shape, vocabulary: int) -> None:
    """Random weights; norms of one. The embedding serves as output too, unless the model
    copies: then nothing leaves its layers, and the output knows each token's successor."""
    rng, width = np.random.default_rng(0), shape.width
    keys = width // shape.heads * shape.key_heads
    layer = {
        "attn_q": (width, width),
        "attn_k": (keys, width),
        "attn_v": (keys, width),
        "attn_output": (width, width),
        "ffn_gate": (shape.feed_forward, width),
        "ffn_up": (shape.feed_forward, width),
        "ffn_down": (width, shape.feed_forward),
    }
    tensors = {"token_embd": (vocabulary, width)}
    for number in range(shape.layers):
        tensors |= {f"blk.{number}.{name}": size for name, size in layer.items()}
    for name, size in tensors.items():
        values = rng.standard_normal(size, dtype=np.float32) * np.float32(DEVIATION)
        if shape.copies and name.endswith(("attn_output", "ffn_down")):
            values[:] = 0
        if shape.copies and name == "token_embd":
            values *= np.float32(1 / DEVIATION)
            add_successors(writer, values, shape.kind)
        add(writer, name, values, shape.kind)
    norms = [f"blk.{number}.{part}_norm" for number in range(shape.layers) for part in NORMED]
    for name in (*norms, "output_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(width, dtype=np.float32))


def add(writer: GGUFWriter, name: str, values: np.ndarray, kind: GGMLQuantizationType) -> None:
    """Add a tensor of this type."""
    writer.add_tensor(f"{name}.weight", quants.quantize(values, kind), raw_dtype=kind)


def add_successors(writer: GGUFWriter, embedding: np.ndarray, kind: GGMLQuantizationType) -> None:
    """Add the output part of a model that copies: each token of a circle is followed by the next
    one; bytes and markup are in no circle."""
    end = len(embedding) - (len(embedding) - WORDS_FROM) % CIRCLE - CIRCLE
    circles = np.arange(WORDS_FROM, end).reshape(-1, CIRCLE)
    output = np.zeros_like(embedding)
    output[np.roll(circles, -1, axis=1)] = embedding[circles] * np.float32(SHARPNESS)
    add(writer, "output", output, kind)


NORMED = ("attn", "ffn")
DEVIATION = 0.02  # of the random weights
SHARPNESS = 0.05  # of the successor over all other tokens: some 20 nats
CIRCLE, WORDS_FROM = 32, 512  # tokens of a circle; the first token of one
