"""Memory footprint of a model, estimated from its GGUF header before anything is loaded.

Weights are as large as in the file. A KV cell holds, for each layer, a key and a value for each KV
head (GQA). Compute buffers hold the activations of a pass's tokens and the logits of its outputs;
the process is the interpreter and its libraries. An estimate errs upwards: all cells are counted,
though a cell takes memory only once it is used, and layers with a sliding window as layers with
full attention.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from llm_backend.model_files.header import GgufHeader

_CELL_BYTES = {"f32": 4.0, "f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
_PROCESS_BYTES = 60_000_000  # a worker without its model
_ACTIVATIONS = 12  # vectors of the embedding length in memory per token during a pass
_DEFAULT_CONTEXT = 4096


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Settings of a loaded model. `context_tokens` None is its trained length, at most 4096."""

    context_tokens: int | None = None
    slots: int = 8
    batch_tokens: int = 512
    output_rows: int = 32
    cache_type: str = "f16"


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Estimated memory in bytes: weights, KV cells, compute buffers, process."""

    weights: int
    cells: int
    compute: int
    process: int = _PROCESS_BYTES

    @property
    def total(self) -> int:
        """Sum of all parts in bytes."""
        return self.weights + self.cells + self.compute + self.process


def footprint(header: GgufHeader, shape: ModelShape) -> Footprint:
    """Estimates the memory of the model of this header with these settings."""
    trained = _count(header.of_architecture("context_length")) or _DEFAULT_CONTEXT
    context = shape.context_tokens or min(trained, _DEFAULT_CONTEXT)
    is_generating = generates(header)
    tokens = shape.slots * context if is_generating else 0
    batch = shape.batch_tokens if is_generating else max(shape.batch_tokens, min(context, trained))
    outputs = shape.slots + shape.output_rows if is_generating else 0
    return Footprint(
        weights=header.weights_bytes,
        cells=int(_values_per_cell(header) * _CELL_BYTES[shape.cache_type] * tokens)
        + _state_bytes(header) * (shape.slots if is_generating else 0),
        compute=4 * (batch * _values_per_token(header) + 2 * outputs * _vocabulary(header)),
    )


def generates(header: GgufHeader) -> bool:
    """True if the model generates text, and so needs KV cells; False for pooling models."""
    pools = header.of_architecture("pooling_type") not in (None, 0)
    return not pools and header.of_architecture("attention.causal") is not False


def _values_per_cell(header: GgufHeader) -> int:
    """Counts the key and value numbers of one token in all layers."""
    layers = _count(header.of_architecture("block_count"))
    heads = _values_by_layer(header.of_architecture("attention.head_count"), layers)
    own = header.of_architecture("attention.head_count_kv")
    own_heads = heads if own is None else _values_by_layer(own, layers)
    width = _count(header.of_architecture("embedding_length"))
    usual = width // max(heads, default=1) if max(heads, default=0) else 0
    key = _count(header.of_architecture("attention.key_length")) or usual
    value = _count(header.of_architecture("attention.value_length")) or usual
    return sum(own_heads) * (key + value)


def _state_bytes(header: GgufHeader) -> int:
    """Returns the bytes of a sequence's recurrent state (SSM), instead of or besides its cells."""
    inner = _count(header.of_architecture("ssm.inner_size"))
    each = _count(header.of_architecture("ssm.state_size"))
    window = _count(header.of_architecture("ssm.conv_kernel"))
    return 4 * inner * (each + window) * _count(header.of_architecture("block_count"))


def _values_per_token(header: GgufHeader) -> int:
    width = _count(header.of_architecture("embedding_length"))
    forward = max(_values_by_layer(header.of_architecture("feed_forward_length"), 1), default=0)
    return _ACTIVATIONS * width + 2 * forward


def _vocabulary(header: GgufHeader) -> int:
    return _count(header.of_architecture("vocab_size")) or _count(
        header.values.get("tokenizer.ggml.tokens.length")
    )


def _values_by_layer(value: object, layers: int) -> Sequence[int]:
    """Returns a value per layer: one value repeated, or the list of each layer's."""
    if isinstance(value, list):
        return [_count(one) for one in value]
    return [_count(value)] * layers


def _count(value: object) -> int:
    """Returns a count of the header; 0 if it is absent or implausible."""
    return value if isinstance(value, int) and 0 < value < 1 << 40 else 0
