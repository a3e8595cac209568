"""Reads the configuration of a BERT model from its sentence-transformers folder.

config.json               the network: layers, heads, widths
modules.json              the modules after the network: pooling, normalization
1_Pooling/config.json     pooling of token vectors into one vector
tokenizer.json, vocab.txt the vocabulary: see vocabulary.py
model.safetensors         the weights: see safetensors.py
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llm_backend.json_types import JsonMapping
from llm_backend.model_import.errors import ConversionError

Pooling = Literal["mean", "cls"]

_ARCHITECTURES = ("BertModel", "BertForMaskedLM", "BertForPreTraining")
_ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh")
_MODULES = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True, kw_only=True)
class Network:
    """The sizes of a BERT encoder, named as its config.json explains them."""

    layers: int
    heads: int
    embedding_length: int
    feed_forward_length: int
    context_tokens: int
    vocabulary_size: int
    token_types: int
    layer_norm_epsilon: float


def read_network(folder: Path) -> Network:
    """Reads the encoder's sizes; raises `ConversionError` if the model is not a BERT encoder."""
    if not (folder / "config.json").is_file():
        raise ConversionError(f"{folder} is not a model folder: it has no config.json.")
    config = json_object(folder / "config.json")
    _refuse_other_architectures(config)
    try:
        network = Network(
            layers=int(config["num_hidden_layers"]),
            heads=int(config["num_attention_heads"]),
            embedding_length=int(config["hidden_size"]),
            feed_forward_length=int(config["intermediate_size"]),
            context_tokens=int(config["max_position_embeddings"]),
            vocabulary_size=int(config["vocab_size"]),
            token_types=int(config.get("type_vocab_size", 2)),
            layer_norm_epsilon=float(config.get("layer_norm_eps", 1e-12)),
        )
    except KeyError as error:
        raise ConversionError(f"{folder / 'config.json'} does not give {error}.") from error
    if network.heads < 1 or network.embedding_length % network.heads:
        raise ConversionError(
            f"{network.heads} heads cannot share {network.embedding_length} dimensions."
        )
    return network


def read_pooling(folder: Path) -> Pooling:
    """Reads the pooling type; the default is mean, as in sentence-transformers.

    Raises `ConversionError` for modules and pooling types that llama.cpp does not support.
    """
    path = folder / _pooling_folder(folder) / "config.json"
    if not path.is_file():
        return "mean"
    modes = _pooling_modes(json_object(path))
    if modes == {"mean"}:
        return "mean"
    if modes == {"cls"}:
        return "cls"
    named = " and ".join(sorted(modes)) or "none"
    raise ConversionError(f"Pooling by {named} is not supported, only mean or cls: {path}.")


def json_object(path: Path) -> JsonMapping:  # Any: the values of a foreign JSON document
    """Reads the JSON object in the file; empty if there is no such file."""
    if not path.is_file():
        return {}
    content = _json(path)
    if not isinstance(content, dict):
        raise ConversionError(f"{path} does not hold a JSON object.")
    return content


def _json(path: Path) -> Any:  # Any: a foreign JSON document
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConversionError(f"{path} is not valid JSON: {error}.") from error


def _refuse_other_architectures(config: JsonMapping) -> None:
    model_type = config.get("model_type", "bert")
    architecture = (config.get("architectures") or ["BertModel"])[0]
    if model_type != "bert" or architecture not in _ARCHITECTURES:
        raise ConversionError(
            f"The architecture {architecture} ({model_type}) is not supported, only BERT encoders."
        )
    if config.get("hidden_act", "gelu") not in _ACTIVATIONS:
        raise ConversionError(f"The activation {config['hidden_act']} is not supported, only gelu.")
    positions = config.get("position_embedding_type", "absolute")
    if positions != "absolute" or config.get("is_decoder"):
        raise ConversionError(
            f"Only encoders with absolute positions are supported, not a decoder or {positions}."
        )


def _pooling_folder(folder: Path) -> str:
    path = folder / "modules.json"
    modules = _json(path) if path.is_file() else []
    pooling_folder = "1_Pooling"
    for module in modules:
        kind = str(module["type"]).rpartition(".")[2]
        if kind not in _MODULES:
            raise ConversionError(f"The module {kind} of {path} is not supported by llama.cpp.")
        if kind == "Pooling":
            pooling_folder = str(module["path"])
    return pooling_folder


def _pooling_modes(config: JsonMapping) -> set[str]:
    """Returns the enabled pooling modes, from one name or flags like `pooling_mode_mean_tokens`."""
    named = config.get("pooling_mode")
    if isinstance(named, str):
        return {named}
    prefix = "pooling_mode_"
    return {
        key.removeprefix(prefix).removesuffix("_tokens").removesuffix("_token")
        for key, is_on in config.items()
        if key.startswith(prefix) and is_on is True
    }
