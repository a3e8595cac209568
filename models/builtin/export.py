"""Writes the trained network as GGUF: `python -m models.builtin.export --folder build/builtin`."""

import argparse
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from tokenizers import Tokenizer

from models.builtin.chat import TEMPLATE
from models.builtin.network import Shape
from models.builtin.tokenizer import CONTROL, MARKS, load_tokenizer, merges_of

NAME = "llm-backend builtin"
DESCRIPTION = (
    "A tiny demonstration model that the llm-backend project trained on texts of its own, so that "
    "the first minute works without a download and the tests have a model. It knows this server, "
    "small talk and small sums, and is often wrong beyond that. Load a real model for real work."
)
SHARPNESS = 3.0
"""The last norm's gain, and so every logit, is multiplied by this: at temperature 1, which clients
send without thinking, the model then samples as it would at a third. Greedy answers stay the same.
"""

ROWS = {"embedding": "token_embd", "norm": "output_norm"}
PARTS = {
    "attention_norm": "attn_norm",
    "attention.q": "attn_q",
    "attention.k": "attn_k",
    "attention.v": "attn_v",
    "attention.output": "attn_output",
    "hidden_norm": "ffn_norm",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("build/builtin"))
    parser.add_argument("--output", type=Path, default=Path("llm_backend/builtin/builtin.gguf"))
    parser.add_argument("--kind", choices=("Q8_0", "F16", "F32"), default="Q8_0")
    options = parser.parse_args()
    saved = torch.load(options.folder / "network.pt", weights_only=True)
    tokenizer = load_tokenizer(options.folder / "tokenizer.json")
    write_gguf(
        options.output, Shape(**saved["shape"]), saved["weights"], tokenizer, Kind[options.kind]
    )
    print(f"{options.output}: {options.output.stat().st_size / 1e6:.2f} MB")


def write_gguf(
    path: Path, shape: Shape, weights: dict[str, torch.Tensor], tokenizer: Tokenizer, kind: Kind
) -> None:
    """The model in one file: matrices of the given kind, norms in F32, tokenizer, template."""
    writer = gguf.GGUFWriter(path, "llama")
    _describe(writer, kind, sum(weight.numel() for weight in weights.values()))
    _add_shape(writer, shape)
    _add_tokenizer(writer, tokenizer)
    for name, weight in weights.items():
        sharpened = weight * SHARPNESS if name == "norm.weight" else weight
        _add_tensor(writer, tensor_name(name), sharpened.numpy(), kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tensor_name(name: str) -> str:
    """`layers.3.attention.q.weight` -> `blk.3.attn_q.weight`."""
    if not name.startswith("layers."):
        return f"{ROWS[name.removesuffix('.weight')]}.weight"
    _, layer, part = name.removesuffix(".weight").split(".", 2)
    return f"blk.{layer}.{PARTS[part]}.weight"


def _describe(writer: gguf.GGUFWriter, kind: Kind, parameters: int) -> None:
    writer.add_name(NAME)
    writer.add_description(DESCRIPTION)
    writer.add_author("the llm-backend project")
    writer.add_organization("llm-backend")
    writer.add_license("MIT")
    writer.add_languages(["en"])
    writer.add_tags(["demonstration", "test"])
    writer.add_size_label(f"{parameters / 1e6:.1f}M")
    writer.add_file_type(
        getattr(gguf.LlamaFileType, f"MOSTLY_{kind.name}", gguf.LlamaFileType.ALL_F32)
    )
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _add_shape(writer: gguf.GGUFWriter, shape: Shape) -> None:
    writer.add_vocab_size(shape.vocabulary)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_rope_dimension_count(shape.head_width)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    tokens = [tokenizer.id_to_token(index) for index in range(tokenizer.get_vocab_size())]
    kinds = dict.fromkeys(CONTROL, gguf.TokenType.CONTROL) | dict.fromkeys(
        MARKS, gguf.TokenType.USER_DEFINED
    )
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([kinds.get(token, gguf.TokenType.NORMAL) for token in tokens])
    writer.add_token_merges(merges_of(tokenizer))
    writer.add_bos_token_id(tokens.index("<|endoftext|>"))
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_pad_token_id(tokens.index("<|endoftext|>"))
    writer.add_add_bos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(TEMPLATE.read_text("utf-8"))


def _add_tensor(writer: gguf.GGUFWriter, name: str, weight: np.ndarray, kind: Kind) -> None:
    weight = np.ascontiguousarray(weight, np.float32)
    if weight.ndim == 1:
        kind = Kind.F32
    writer.add_tensor(name, gguf.quants.quantize(weight, kind), raw_dtype=kind)


if __name__ == "__main__":
    main()
