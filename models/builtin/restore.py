"""Turns the packaged GGUF back into a state to train on: `python -m models.builtin.restore`."""

import argparse
from pathlib import Path

import gguf
import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from models.builtin.export import SHARPNESS, tensor_name
from models.builtin.network import Network, Shape
from models.builtin.tokenizer import CONTROL, MARKS
from models.builtin.train import save


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("llm_backend/builtin/builtin.gguf"))
    parser.add_argument("--folder", type=Path, default=Path("build/builtin"))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    reader = gguf.GGUFReader(options.model)
    read_tokenizer(reader).save(str(options.folder / "tokenizer.json"))
    save(read_network(reader), options.folder / "network.pt")


def read_network(reader: gguf.GGUFReader) -> Network:
    """The network with the dequantized weights of the file."""
    network = Network(Shape(vocabulary=_field(reader, "llama.vocab_size")))
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    weights = {}
    for name in network.state_dict():
        tensor = tensors[tensor_name(name)]
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        weights[name] = torch.from_numpy(np.array(values, np.float32))
    weights["norm.weight"] /= SHARPNESS
    network.load_state_dict(weights)
    return network


def read_tokenizer(reader: gguf.GGUFReader) -> Tokenizer:
    """The tokenizer as `train.py` made it."""
    tokens = _field(reader, "tokenizer.ggml.tokens")
    added = {*CONTROL, *MARKS}
    vocabulary = {token: index for index, token in enumerate(tokens) if token not in added}
    merges = [tuple(merge.split(" ")) for merge in _field(reader, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in CONTROL]
    )
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in MARKS])
    return tokenizer


def _field(reader: gguf.GGUFReader, name: str) -> object:
    return reader.get_field(name).contents()


if __name__ == "__main__":
    main()
