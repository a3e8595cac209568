"""A tiny BERT of random weights: its folder, and what it computes, in numpy alone."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, INNER, HEADS, LAYERS, CONTEXT_TOKENS, EPSILON = 64, 128, 2, 2, 32, 1e-12

# the special tokens stand elsewhere than in the vocabulary that llama.cpp takes for granted
VOCABULARY = [
    *("[MASK]", "the", "play", "##ing", "##s", "[SEP]", "dog", "cat", "Dog", ".", ",", "#", "##"),
    *("un", "##play", "##ed", "[PAD]", "é", "e", "[UNK]", "x", "##x", "[CLS]", "学", "\u2028"),
]
CLS, SEP, UNK = (VOCABULARY.index(token) for token in ("[CLS]", "[SEP]", "[UNK]"))

CONFIG = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "layer_norm_eps": EPSILON,
    "max_position_embeddings": CONTEXT_TOKENS,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "position_embedding_type": "absolute",
    "type_vocab_size": 2,
    "vocab_size": len(VOCABULARY),
}
TOKENIZER = {
    "added_tokens": [],
    "normalizer": {"type": "BertNormalizer", "lowercase": True, "strip_accents": None},
    "model": {
        "type": "WordPiece",
        "continuing_subword_prefix": "##",
        "vocab": {token: token_id for token_id, token in enumerate(VOCABULARY)},
    },
}
Weights = dict[str, np.ndarray]


def random_weights(rows: int = len(VOCABULARY)) -> Weights:
    """A checkpoint's tensors by their names, the same at every call."""
    random = np.random.default_rng(7)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (rows, WIDTH),
        "embeddings.position_embeddings.weight": (CONTEXT_TOKENS, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
        "embeddings.LayerNorm.weight": (WIDTH,),
        "embeddings.LayerNorm.bias": (WIDTH,),
        "pooler.dense.weight": (WIDTH, WIDTH),
    }
    for layer in range(LAYERS):
        for name, (out, into) in {
            "attention.self.query": (WIDTH, WIDTH),
            "attention.self.key": (WIDTH, WIDTH),
            "attention.self.value": (WIDTH, WIDTH),
            "attention.output.dense": (WIDTH, WIDTH),
            "intermediate.dense": (INNER, WIDTH),
            "output.dense": (WIDTH, INNER),
        }.items():
            shapes[f"encoder.layer.{layer}.{name}.weight"] = (out, into)
            shapes[f"encoder.layer.{layer}.{name}.bias"] = (out,)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"encoder.layer.{layer}.{name}.weight"] = (WIDTH,)
            shapes[f"encoder.layer.{layer}.{name}.bias"] = (WIDTH,)
    return {
        name: (random.normal(size=shape) * 0.2 + name.endswith("Norm.weight")).astype("<f4")
        for name, shape in shapes.items()
    }


def write_folder(
    folder: Path,
    *,
    weights: Weights | None = None,
    config: Mapping[str, Any] = CONFIG,
    tokenizer: Mapping[str, Any] = TOKENIZER,
    pooling: Mapping[str, Any] | None = None,
) -> Path:
    """The folder of a model in the sentence-transformers layout."""
    (folder / "1_Pooling").mkdir(parents=True)
    pooling = pooling or {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    write_safetensors(folder / "model.safetensors", weights or random_weights())
    return folder


def write_safetensors(path: Path, weights: Weights) -> None:
    """Float32, float16, int64, and uint16 for bfloat16, which numpy does not have."""
    names = {"<f4": "F32", "<f2": "F16", "<i8": "I64", "<u2": "BF16"}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in weights.items():
        header[name] = {
            "dtype": names[tensor.dtype.str],
            "shape": tensor.shape,
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        offset += tensor.nbytes
    head = json.dumps(header).encode()
    body = b"".join(tensor.tobytes() for tensor in weights.values())
    path.write_bytes(len(head).to_bytes(8, "little") + head + body)


def token_vectors(weights: Weights, token_ids: Sequence[int]) -> np.ndarray:
    """Vectors of the tokens, [tokens, width] float32, as the network computes them."""
    words = weights["embeddings.word_embeddings.weight"][list(token_ids)]
    positions = weights["embeddings.position_embeddings.weight"][: len(token_ids)]
    state = words + positions + weights["embeddings.token_type_embeddings.weight"][0]
    state = _norm(weights, "embeddings.LayerNorm", state)
    for layer in range(LAYERS):
        name = f"encoder.layer.{layer}"
        mixed = _dense(weights, f"{name}.attention.output.dense", _attend(weights, name, state))
        state = _norm(weights, f"{name}.attention.output.LayerNorm", state + mixed)
        inner = _gelu(_dense(weights, f"{name}.intermediate.dense", state))
        outer = _dense(weights, f"{name}.output.dense", inner)
        state = _norm(weights, f"{name}.output.LayerNorm", state + outer)
    return state


def cosine(left: Sequence[float] | np.ndarray, right: Sequence[float] | np.ndarray) -> float:
    """1.0 where both point the same way."""
    return float(np.dot(left, right) / (np.linalg.norm(left) * np.linalg.norm(right)))


def _attend(weights: Weights, name: str, state: np.ndarray) -> np.ndarray:
    query, key, value = (
        _dense(weights, f"{name}.attention.self.{role}", state)
        .reshape(len(state), HEADS, -1)
        .transpose(1, 0, 2)
        for role in ("query", "key", "value")
    )
    scores = np.exp(query @ key.transpose(0, 2, 1) / math.sqrt(WIDTH // HEADS))
    mixed = scores / scores.sum(axis=-1, keepdims=True) @ value
    return mixed.transpose(1, 0, 2).reshape(len(state), WIDTH)


def _dense(weights: Weights, name: str, state: np.ndarray) -> np.ndarray:
    return state @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _norm(weights: Weights, name: str, state: np.ndarray) -> np.ndarray:
    centred = state - state.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + EPSILON)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _gelu(state: np.ndarray) -> np.ndarray:
    return state * 0.5 * (1 + np.vectorize(math.erf)(state / math.sqrt(2)))
