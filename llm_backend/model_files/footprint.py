"""Memory footprint of a model, estimated from its GGUF header before anything is loaded.

Weights are as large as in the file. A KV cell holds, for each layer, a key and a value for each KV
head (GQA). Compute buffers hold the activations of a pass's tokens and the logits of its outputs.
The process is the interpreter with its libraries and the tokens of recent chats. The estimate is an
upper bound: it counts all cells, although a cell takes memory only once it is used, and layers with
a sliding window as layers with full attention.
"""

from dataclasses import dataclass

from llm_backend.model_files.header import GgufHeader
from llm_backend.model_files.model_costs import ModelCosts, model_costs

DEFAULT_CONTEXT = 4096
"""Tokens of a slot unless a memory plan makes it longer, or the model was trained for fewer."""

_PROCESS_BYTES = 60_000_000  # a worker without its model
_TOKEN_TEXT_BYTES = 110  # a token's text and its entries in two tables
_CELL_RECORD_BYTES = 48  # llama.cpp's record of a cell: position, shift, the sequences in it


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Settings of a loaded model. If `context_tokens` is None, it is the trained length, at most
    4096."""

    context_tokens: int | None = None
    slots: int = 8
    batch_tokens: int = 512
    output_rows: int = 32
    cache_type: str = "f16"
    kv_unified: bool = False  # the cells of all slots are one pool, to all of which a pass attends
    has_flash_attention: bool = True
    generated_tokens_bytes: int = 0
    draft_tokens: int = 0


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


def footprint(model: GgufHeader | ModelCosts, shape: ModelShape) -> Footprint:
    """Estimates the memory of a model with these settings on the CPU."""
    costs = model if isinstance(model, ModelCosts) else model_costs(model)
    context, slots = context_of(costs, shape), shape.slots if costs.is_generating else 0
    tokens = slots * context
    return Footprint(
        weights=costs.weights,
        cells=sum(
            one.cells(tokens, state_count(costs, shape), shape.cache_type) for one in costs.layers
        )
        if costs.is_generating
        else 0,
        compute=compute_buffer_bytes(costs, shape) + logits_bytes(costs, shape),
        process=_PROCESS_BYTES
        + _CELL_RECORD_BYTES * (tokens if costs.has_cells else 0)
        + (_chat_bytes(costs, shape) if costs.is_generating else 0),
    )


def _chat_bytes(costs: ModelCosts, shape: ModelShape) -> int:
    """Bytes of the tokens of recent chats, and of the texts of tokens."""
    return shape.generated_tokens_bytes + _TOKEN_TEXT_BYTES * costs.vocabulary


def state_count(costs: ModelCosts, shape: ModelShape) -> int:
    """Returns the number of recurrent states: one for each slot, and its snapshots."""
    return shape.slots * (1 + min(costs.snapshots_limit, shape.draft_tokens))


def context_of(costs: ModelCosts, shape: ModelShape) -> int:
    """Returns the number of tokens of a slot."""
    trained = costs.trained_tokens or DEFAULT_CONTEXT
    return shape.context_tokens or min(trained, DEFAULT_CONTEXT)


def compute_buffer_bytes(costs: ModelCosts, shape: ModelShape) -> int:
    """Returns the bytes of a device's compute buffer."""
    context = context_of(costs, shape)
    batch = shape.batch_tokens
    if not costs.is_generating:
        context = min(context, costs.trained_tokens or context)
        batch = max(batch, context)
    rows = shape.slots + shape.output_rows if costs.is_generating else 0
    is_unified = shape.kv_unified and costs.is_generating
    return costs.compute(
        batch_tokens=batch,
        cells=context * shape.slots if is_unified else context,
        slots=1 if is_unified else shape.slots,
        rows=rows,
        cache_type=shape.cache_type,
        has_flash_attention=shape.has_flash_attention,
    )


def logits_bytes(costs: ModelCosts, shape: ModelShape) -> int:
    """Returns the bytes of a pass's logits in host memory."""
    if not costs.is_generating:
        return 0
    return 4 * (shape.slots + shape.output_rows) * costs.vocabulary
