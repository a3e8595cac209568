"""Memory costs of a model by layer, from its GGUF header: weights, cells, states, passes.

The figures follow llama.cpp. Weights are an input part (token embeddings), which always stays in
host memory, layers, and an output part. Each layer with attention has cells, and each recurrent
layer a state. The activations of a pass are largest in a feed-forward part, or without fused
attention, in the attention to all cells.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from llm_backend.model_files.draft_heads import draft_head_count, snapshot_count
from llm_backend.model_files.header import GgufHeader

CELL_BYTES = {"f32": 4.0, "f16": 2.0, "q8_0": 34 / 32, "q4_0": 18 / 32}
"""Bytes of one element of a KV cell, by type."""

_LAYER = re.compile(r"blk\.(\d+)\.")
_EXPERTS = re.compile(r"\.ffn_(up|down|gate|gate_up)_(ch|)exps")
_FLOAT = 4  # bytes of an activation
_UNLIMITED = 1 << 30  # drafted tokens
_MOST_LAYERS = 10_000  # more than any model has
_FUSED_MASK, _PLAIN_MASK = 2, 4  # bytes per token of a pass and cell of a slot


@dataclass(frozen=True, kw_only=True)
class LayerCosts:
    """Bytes of one layer: `weights` without those of its `experts`, and its `state` of one
    sequence. `cell_values` counts the key and value elements of one cell."""

    weights: int
    experts: int
    cell_values: int
    state: int

    def cells(self, tokens: int, slots: int, cache_type: str) -> int:
        """Bytes of the cells of `tokens`, and of the states of `slots`."""
        return int(self.cell_values * tokens * CELL_BYTES[cache_type]) + self.state * slots


@dataclass(frozen=True, kw_only=True)
class ModelCosts:
    """Costs of a model in bytes. `tied_output` is the size of the token embeddings if they are the
    output weights, too: a GPU with the output part holds a copy of them."""

    layers: tuple[LayerCosts, ...]
    input: int
    output: int
    tied_output: int
    vocabulary: int
    is_generating: bool
    trained_tokens: int
    pass_values: int  # peak activations per token of a pass with fused attention
    unquantized_values: int  # of these, the ones that a pass over quantized cells does not have
    attention_values: int  # peak activations per token with plain attention, without scores
    heads: int  # attention scores per token of a pass and cell
    snapshots_limit: int = 0  # copies of each state, if a head of the model drafts

    @property
    def weights(self) -> int:
        """Bytes of all weights."""
        return self.input + self.output + sum(one.weights + one.experts for one in self.layers)

    def device_weights(self, gpu_layers: int | None, host_experts: int) -> int:
        """Bytes of the weights on GPUs: the last `gpu_layers` (None: all), of which the output
        part is one, without the experts of the model's first `host_experts` layers."""
        count = len(self.layers) + 1
        placed = count if gpu_layers is None or gpu_layers < 0 else min(gpu_layers, count)
        if not placed:
            return 0
        layers = list(enumerate(self.layers))[count - placed :]
        kept = [one.experts for layer, one in layers if layer >= host_experts]
        return self.output + self.tied_output + sum(kept) + sum(one.weights for _, one in layers)

    @property
    def has_cells(self) -> bool:
        """True unless all layers are recurrent."""
        return any(one.cell_values for one in self.layers)

    def compute(
        self,
        *,
        batch_tokens: int,
        cells: int,
        slots: int,
        rows: int,
        cache_type: str,
        has_flash_attention: bool,
    ) -> int:
        """Bytes of the activations of a pass over `slots` slots of `cells` cells each, with `rows`
        rows of logits. Fused attention converts `f32` cells of a whole layer to half precision."""
        seen = cells if self.has_cells else 0
        values = self.pass_values
        if cache_type.startswith("q"):
            values -= self.unquantized_values
        if not has_flash_attention:
            values = max(values, self.attention_values + self.heads * seen)
        mask = (_FUSED_MASK if has_flash_attention else _PLAIN_MASK) * seen
        logits = _FLOAT * rows * self.vocabulary
        converted = 0
        if has_flash_attention and cache_type == "f32":
            widest = max((one.cell_values for one in self.layers), default=0)
            converted = int(widest * slots * seen * CELL_BYTES["f16"])
            converted += batch_tokens * _FLOAT * self.attention_values
        return max(batch_tokens * _FLOAT * values, converted, logits) + batch_tokens * mask


def model_costs(header: GgufHeader) -> ModelCosts:
    """Reads the costs of the model of this header."""
    sizes, layers = header.tensor_bytes, _layer_count(header)
    weights, experts = [0] * layers, [0] * layers
    output = 0
    for name, size in sizes.items():
        match = _LAYER.match(name)
        if match and int(match[1]) < layers:
            kind = experts if _EXPERTS.search(name) else weights
            kind[int(match[1])] += size
        elif name.startswith("output"):
            output += size
    is_tied = bool(sizes) and "output.weight" not in sizes
    width = _count(header.of_architecture("embedding_length"))
    heads = max(_values_by_layer(header, "attention.head_count"), default=0)
    values, states = _cell_values(header), _states(header)
    return ModelCosts(
        layers=tuple(
            LayerCosts(weights=weight, experts=expert, cell_values=value, state=state)
            for weight, expert, value, state in zip(weights, experts, values, states, strict=True)
        ),
        input=max(0, header.weights_bytes - sum(weights) - sum(experts) - output),
        output=output,
        tied_output=sizes.get("token_embd.weight", 0) if is_tied else 0,
        vocabulary=_count(header.of_architecture("vocab_size"))
        or _count(header.values.get("tokenizer.ggml.tokens.length")),
        is_generating=generates(header),
        trained_tokens=_count(header.of_architecture("context_length")),
        pass_values=_pass_values(header, width),
        unquantized_values=0 if _has_experts(header) else width,
        attention_values=2 * heads * _key_length(header, width, heads) + 7 * width // 2,
        heads=heads,
        snapshots_limit=snapshot_count(header, _UNLIMITED),
    )


def generates(header: GgufHeader) -> bool:
    """True if the model generates text, and so needs KV cells; False for pooling models."""
    pools = header.of_architecture("pooling_type") not in (None, 0)
    return not pools and header.of_architecture("attention.causal") is not False


def _has_experts(header: GgufHeader) -> bool:
    return _count(header.of_architecture("expert_used_count")) > 0


def _pass_values(header: GgufHeader, width: int) -> int:
    """Returns the activations of a token in the feed-forward part, summed over its experts."""
    if _has_experts(header):
        experts = _count(header.of_architecture("expert_used_count"))
        inner = _count(header.of_architecture("expert_feed_forward_length"))
        return 3 * experts * inner + (experts + 5) * width
    return 3 * max(_values_by_layer(header, "feed_forward_length"), default=0) + 4 * width


def _cell_values(header: GgufHeader) -> list[int]:
    """Returns the number of key and value elements of one token in each layer."""
    heads = _values_by_layer(header, "attention.head_count")
    own = header.of_architecture("attention.head_count_kv")
    kv_heads = heads if own is None else _values_by_layer(header, "attention.head_count_kv")
    width, max_heads = _count(header.of_architecture("embedding_length")), max(heads, default=0)
    key = _key_length(header, width, max_heads)
    value = _count(header.of_architecture("attention.value_length")) or _quotient(width, max_heads)
    if _count(header.of_architecture("attention.key_length_mla")):
        value = 0  # multi-head latent attention: values are computed from the keys
    interval = _count(header.of_architecture("full_attention_interval"))
    own_layers = len(kv_heads) - draft_head_count(header)
    return [
        0 if interval and (layer + 1) % interval and layer < own_layers else count * (key + value)
        for layer, count in enumerate(kv_heads)
    ]


def _states(header: GgufHeader) -> list[int]:
    """Returns the bytes of a sequence's recurrent state (SSM) in each layer: 0 in a layer with
    cells, unless all layers have cells."""
    inner = _count(header.of_architecture("ssm.inner_size"))
    each = _count(header.of_architecture("ssm.state_size"))
    window = max(0, _count(header.of_architecture("ssm.conv_kernel")) - 1)
    groups = _count(header.of_architecture("ssm.group_count"))
    state = _FLOAT * (inner * each + window * (inner + 2 * groups * each))
    values = _cell_values(header)
    is_mixed = any(values) and not all(values)
    return [0 if is_mixed and value else state for value in values]


def _key_length(header: GgufHeader, width: int, heads: int) -> int:
    return _count(header.of_architecture("attention.key_length")) or _quotient(width, heads)


def _quotient(width: int, heads: int) -> int:
    return width // heads if heads else 0


def _values_by_layer(header: GgufHeader, key: str) -> Sequence[int]:
    """Returns a value for each layer; a header with a single value has the same for all."""
    layers, value = _layer_count(header), header.of_architecture(key)
    if isinstance(value, list):
        return ([_count(one) for one in value] + [0] * layers)[:layers]
    return [_count(value)] * layers


def _layer_count(header: GgufHeader) -> int:
    """Returns the number of layers; 0 if it is absent or implausible."""
    layers = _count(header.of_architecture("block_count"))
    return layers if layers <= _MOST_LAYERS else 0


def _count(value: object) -> int:
    """Returns a count of the header; 0 if it is absent or implausible."""
    return value if isinstance(value, int) and 0 < value < 1 << 40 else 0
