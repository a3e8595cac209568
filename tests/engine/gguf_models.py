"""Writes tiny random-weight GGUF models around a byte-level vocabulary, for tests."""

from pathlib import Path

import numpy as np
from gguf import GGUFWriter, PoolingType, TokenType

MERGED = ["Ġt", "he", "in", "er", "an", "Ġa", "on", "th", "Ġthe", "re", "en", "at", "es"]
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
USER_DEFINED = ["<tool_call>", "</tool_call>"]
INFILL = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"]


def byte_characters() -> list[str]:
    """The printable stand-in of each byte in a GPT-2 vocabulary, by byte."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


def write_llama(
    path: Path, *, seed: int = 0, layers: int = 2, size: int = 64, can_infill: bool = False
) -> Path:
    """A float32 llama: 274 tokens, 512 tokens of context, values that make varied greedy text.
    With `can_infill` three tokens more, for texts with a hole."""
    writer = GGUFWriter(str(path), "llama")
    infill = INFILL if can_infill else []
    tokens = [*byte_characters(), *MERGED, *CONTROL, *USER_DEFINED, *infill]
    kinds = [TokenType.NORMAL] * (256 + len(MERGED))
    kinds += [TokenType.CONTROL] * len(CONTROL) + [TokenType.USER_DEFINED] * len(USER_DEFINED)
    kinds += [TokenType.CONTROL] * len(infill)
    writer.add_name("tiny random")
    _shape(writer, layers=layers, size=size)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(size // 4)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(_merges())
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template("{% for m in messages %}{{ m.content }}{% endfor %}")
    writer.add_vocab_size(len(tokens))
    rng = np.random.default_rng(seed)

    def tensor(name: str, *shape: int, scale: float = 0.2) -> None:
        writer.add_tensor(name, rng.standard_normal(shape, dtype=np.float32) * np.float32(scale))

    def ones(name: str) -> None:
        writer.add_tensor(name, np.ones(size, dtype=np.float32))

    tensor("token_embd.weight", len(tokens), size, scale=0.5)
    for layer in range(layers):
        block = f"blk.{layer}."
        ones(block + "attn_norm.weight")
        ones(block + "ffn_norm.weight")
        tensor(block + "attn_q.weight", size, size)
        tensor(block + "attn_k.weight", size // 2, size)
        tensor(block + "attn_v.weight", size // 2, size)
        tensor(block + "attn_output.weight", size, size)
        tensor(block + "ffn_gate.weight", 2 * size, size)
        tensor(block + "ffn_up.weight", 2 * size, size)
        tensor(block + "ffn_down.weight", size, 2 * size)
    ones("output_norm.weight")
    tensor("output.weight", len(tokens), size, scale=0.5)
    return _written(writer, path)


def write_bert(path: Path, *, seed: int = 0, size: int = 32) -> Path:
    """A float32 BERT with mean pooling over a vocabulary of words and letters."""
    writer = GGUFWriter(str(path), "bert")
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["the", "cat", "sat", "dog", "ran"]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens += ["\u2581" + word for word in [*words, *letters]] + letters
    kinds = [TokenType.CONTROL] * 5 + [TokenType.NORMAL] * (len(tokens) - 5)
    writer.add_name("tiny bert")
    _shape(writer, layers=1, size=size)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(PoolingType.MEAN)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_type_count(2)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_sep_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_mask_token_id(4)
    rng = np.random.default_rng(seed)

    def tensor(name: str, *shape: int) -> None:
        writer.add_tensor(name, rng.standard_normal(shape, dtype=np.float32) * np.float32(0.3))

    def norm(name: str) -> None:
        writer.add_tensor(name + ".weight", np.ones(size, dtype=np.float32))
        writer.add_tensor(name + ".bias", np.zeros(size, dtype=np.float32))

    tensor("token_embd.weight", len(tokens), size)
    tensor("position_embd.weight", 512, size)
    tensor("token_types.weight", 2, size)
    norm("token_embd_norm")
    block = "blk.0."
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        tensor(f"{block}{name}.weight", size, size)
        tensor(f"{block}{name}.bias", size)
    norm(block + "attn_output_norm")
    tensor(block + "ffn_up.weight", 2 * size, size)
    tensor(block + "ffn_up.bias", 2 * size)
    tensor(block + "ffn_down.weight", size, 2 * size)
    tensor(block + "ffn_down.bias", size)
    norm(block + "layer_output_norm")
    return _written(writer, path)


def _shape(writer: GGUFWriter, *, layers: int, size: int) -> None:
    writer.add_context_length(512)
    writer.add_embedding_length(size)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(2 * size)
    writer.add_head_count(4)


def _merges() -> list[str]:
    known = set(byte_characters())
    merges = []
    for token in MERGED:
        cut = next(
            cut for cut in range(1, len(token)) if token[:cut] in known and token[cut:] in known
        )
        merges.append(f"{token[:cut]} {token[cut:]}")
        known.add(token)
    return merges


def _written(writer: GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
