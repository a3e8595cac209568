"""Maps the tensors of a BERT checkpoint to the tensors of a `bert` GGUF file (pure)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from llm_backend.model_import.errors import ConversionError
from llm_backend.model_import.folder import Network
from llm_backend.model_import.safetensors import StoredTensor

_PREFIX = "bert."
"""Prefix of tensor names in a checkpoint with heads besides the encoder."""


@dataclass(frozen=True, kw_only=True)
class PlannedTensor:
    """A tensor to be written; only a weight matrix (`is_matrix`) may be quantized."""

    name: str
    stored: StoredTensor
    is_matrix: bool


@dataclass(frozen=True, kw_only=True)
class _Expected:
    source: str
    name: str
    shape: tuple[int, ...]
    is_matrix: bool = False


def plan_tensors(network: Network, stored: Mapping[str, StoredTensor]) -> list[PlannedTensor]:
    """Returns the tensors of the GGUF file in order; the pooler and other heads are left out.

    Raises `ConversionError` if a tensor is missing or its shape differs from the config's.
    """
    plan = []
    for expected in _expected_tensors(network):
        tensor = stored.get(expected.source) or stored.get(_PREFIX + expected.source)
        if tensor is None:
            raise ConversionError(f"The weights lack the tensor {expected.source}.")
        if tensor.shape != expected.shape:
            raise ConversionError(
                f"The tensor {expected.source} has the shape {tensor.shape},"
                f" where config.json asks for {expected.shape}."
            )
        plan.append(PlannedTensor(name=expected.name, stored=tensor, is_matrix=expected.is_matrix))
    return plan


def _expected_tensors(network: Network) -> Iterator[_Expected]:
    width = network.embedding_length
    yield _Expected(
        source="embeddings.word_embeddings.weight",
        name="token_embd.weight",
        shape=(network.vocabulary_size, width),
        is_matrix=True,
    )
    yield _Expected(
        source="embeddings.position_embeddings.weight",
        name="position_embd.weight",
        shape=(network.context_tokens, width),
    )
    yield _Expected(
        source="embeddings.token_type_embeddings.weight",
        name="token_types.weight",
        shape=(network.token_types, width),
    )
    yield from _norm("embeddings.LayerNorm", "token_embd_norm", width)
    for layer in range(network.layers):
        yield from _layer(network, f"encoder.layer.{layer}", f"blk.{layer}")


def _layer(network: Network, source: str, name: str) -> Iterator[_Expected]:
    width, inner = network.embedding_length, network.feed_forward_length
    for role, letter in (("query", "q"), ("key", "k"), ("value", "v")):
        yield from _dense(f"{source}.attention.self.{role}", f"{name}.attn_{letter}", width, width)
    yield from _dense(f"{source}.attention.output.dense", f"{name}.attn_output", width, width)
    yield from _norm(f"{source}.attention.output.LayerNorm", f"{name}.attn_output_norm", width)
    yield from _dense(f"{source}.intermediate.dense", f"{name}.ffn_up", inner, width)
    yield from _dense(f"{source}.output.dense", f"{name}.ffn_down", width, inner)
    yield from _norm(f"{source}.output.LayerNorm", f"{name}.layer_output_norm", width)


def _dense(source: str, name: str, rows: int, columns: int) -> Iterator[_Expected]:
    yield _Expected(
        source=f"{source}.weight", name=f"{name}.weight", shape=(rows, columns), is_matrix=True
    )
    yield _Expected(source=f"{source}.bias", name=f"{name}.bias", shape=(rows,))


def _norm(source: str, name: str, width: int) -> Iterator[_Expected]:
    for part in ("weight", "bias"):
        yield _Expected(source=f"{source}.{part}", name=f"{name}.{part}", shape=(width,))
