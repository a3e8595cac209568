"""Writes tiny random-weight GGUF models around a byte-level vocabulary, for tests."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, PoolingType, TokenType

from tests.gguf_file import write_gguf

MERGED = ["Ġt", "he", "in", "er", "an", "Ġa", "on", "th", "Ġthe", "re", "en", "at", "es"]
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
USER_DEFINED = ["<tool_call>", "</tool_call>"]
INFILL = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"]


def byte_characters() -> list[str]:
    """The printable character of each byte in a GPT-2 vocabulary, by byte."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(byte if byte in printable else next(spare)) for byte in range(256)]


RERANK_TEMPLATE = "<|im_start|>Query: {query}\nDocument: {document}<|im_end|>\n"


def write_llama(  # noqa: PLR0915 # one statement for each part of the file
    path: Path,
    *,
    seed: int = 0,
    layers: int = 2,
    size: int = 64,
    can_infill: bool = False,
    can_rank: bool = False,
    has_spm: bool = False,
    has_places: bool = False,
    copies: bool = False,
    says: Sequence[str] = (),
    template: str | None = None,
) -> Path:
    """A float32 llama: 274 tokens, 512 tokens of context, values that make varied greedy text.
    With `can_infill` three tokens more, for texts with a hole. With `can_rank` it is a qwen3 that
    says yes or no to a query and a document in its own template. `has_spm`: its vocabulary is
    SentencePiece's instead. With `has_places` it is a qwen2vl, for which the parts of an image
    have a row and a column. With `copies` each token is followed by the next of the vocabulary.
    It `says` these tokens in every answer: its template, unless there is another `template`, ends
    with the token before them."""
    writer = GGUFWriter(str(path), _architecture(can_rank=can_rank, has_places=has_places))
    writer.add_name("tiny random")
    _shape(writer, layers=layers, size=size)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(size // 4)
    if has_places:
        writer.add_rope_dimension_sections([size // 32, size // 32, size // 16, 0])
    if has_spm:
        tokens = _add_spm_vocabulary(writer)
    else:
        tokens = _add_gpt2_vocabulary(writer, INFILL if can_infill else [], says)
    opening = "<|im_start|>" if says else ""
    bare = "{% for m in messages %}{{ m.content }}{% endfor %}" + opening
    writer.add_chat_template(template or bare)
    if can_rank:
        _add_ranking(writer)
    rng = np.random.default_rng(seed)

    def tensor(name: str, *shape: int, scale: float = 0.2) -> None:
        writer.add_tensor(name, rng.standard_normal(shape, dtype=np.float32) * np.float32(scale))

    def ones(name: str, length: int = size) -> None:
        writer.add_tensor(name, np.ones(length, dtype=np.float32))

    copies = copies or bool(says)
    residual = 0.0 if copies else 0.2
    embedding = rng.standard_normal((tokens, size), dtype=np.float32) * np.float32(0.5)
    writer.add_tensor("token_embd.weight", embedding)
    for layer in range(layers):
        block = f"blk.{layer}."
        ones(block + "attn_norm.weight")
        ones(block + "ffn_norm.weight")
        if can_rank:
            ones(block + "attn_q_norm.weight", size // 4)
            ones(block + "attn_k_norm.weight", size // 4)
        tensor(block + "attn_q.weight", size, size)
        tensor(block + "attn_k.weight", size // 2, size)
        tensor(block + "attn_v.weight", size // 2, size)
        tensor(block + "attn_output.weight", size, size, scale=residual)
        tensor(block + "ffn_gate.weight", 2 * size, size)
        tensor(block + "ffn_up.weight", 2 * size, size)
        tensor(block + "ffn_down.weight", size, 2 * size, scale=residual)
    ones("output_norm.weight")
    if copies:
        writer.add_tensor("output.weight", np.roll(embedding, 1, axis=0))
    else:
        tensor("output.weight", tokens, size, scale=0.5)
    if can_rank:
        tensor("cls.output.weight", 2, size)
    return write_gguf(writer, path)


def _add_ranking(writer: GGUFWriter) -> None:
    writer.add_pooling_type(PoolingType.RANK)
    writer.add_classifier_output_labels(["yes", "no"])
    writer.add_chat_template([{"name": "rerank", "template": RERANK_TEMPLATE}])


def _architecture(*, can_rank: bool, has_places: bool) -> str:
    if can_rank:
        return "qwen3"
    return "qwen2vl" if has_places else "llama"


def write_adapter(
    path: Path, *, seed: int = 1, size: int = 64, architecture: str = "llama"
) -> Path:
    """A LoRA adapter of rank 2 for `write_llama`, strong enough to be heard."""
    writer = GGUFWriter(str(path), architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 2.0)
    rng = np.random.default_rng(seed)
    for layer in range(2):
        for name, width in (("attn_q", size), ("attn_v", size // 2)):
            tensor = f"blk.{layer}.{name}.weight"
            before = rng.standard_normal((2, size), dtype=np.float32)
            after = rng.standard_normal((width, 2), dtype=np.float32)
            writer.add_tensor(f"{tensor}.lora_a", before)
            writer.add_tensor(f"{tensor}.lora_b", after)
    return write_gguf(writer, path)


def bert_tokens() -> list[str]:
    """The vocabulary of the tiny BERT: markup, words, and letters that continue a word."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["the", "cat", "sat", "dog", "ran"]
    markup = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return [*markup, *("\u2581" + word for word in [*words, *letters]), *letters]


def bert_pair(query: str, document: str) -> list[int]:
    """Input tokens of the tiny BERT for two texts of words in its vocabulary."""
    index_of = bert_tokens().index
    begin, separator = [index_of("[CLS]")], [index_of("[SEP]")]
    first, second = (
        [index_of("\u2581" + word) for word in text.split()] for text in (query, document)
    )
    return begin + first + separator + second + separator


def write_bert(
    path: Path,
    *,
    seed: int = 0,
    size: int = 32,
    pooling: PoolingType | None = PoolingType.MEAN,
    labels: int = 0,
) -> Path:
    """A float32 BERT over a vocabulary of words and letters. With `labels` it has a classification
    head that gives a number for each."""
    writer = GGUFWriter(str(path), "bert")
    writer.add_name("tiny bert")
    _shape(writer, layers=1, size=size)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    if pooling is not None:
        writer.add_pooling_type(pooling)
    if labels:
        writer.add_classifier_output_labels([f"LABEL_{label}" for label in range(labels)])
    tokens = _add_bert_vocabulary(writer)
    rng = np.random.default_rng(seed)

    def tensor(name: str, *shape: int) -> None:
        writer.add_tensor(name, rng.standard_normal(shape, dtype=np.float32) * np.float32(0.3))

    def norm(name: str) -> None:
        writer.add_tensor(name + ".weight", np.ones(size, dtype=np.float32))
        writer.add_tensor(name + ".bias", np.zeros(size, dtype=np.float32))

    tensor("token_embd.weight", tokens, size)
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
    if labels:
        tensor("cls.weight", size, size)
        tensor("cls.bias", size)
        tensor("cls.output.weight", labels, size)
        tensor("cls.output.bias", labels)
    return write_gguf(writer, path)


def write_mamba(path: Path, *, seed: int = 0, layers: int = 2, size: int = 32) -> Path:
    """A float32 mamba of random weights with the vocabulary of `write_llama`: its state is one for
    all that it has read, and cannot be cut."""
    inner, state, rank, kernel = 2 * size, 8, 4, 4
    writer = GGUFWriter(str(path), "mamba")
    writer.add_name("tiny mamba")
    writer.add_context_length(512)
    writer.add_embedding_length(size)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_ssm_conv_kernel(kernel)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(rank)
    writer.add_layer_norm_rms_eps(1e-5)
    tokens = _add_gpt2_vocabulary(writer, [])
    rng = np.random.default_rng(seed)

    def tensor(name: str, *shape: int, scale: float = 0.3) -> None:
        writer.add_tensor(name, rng.standard_normal(shape, dtype=np.float32) * np.float32(scale))

    tensor("token_embd.weight", tokens, size, scale=0.5)
    for layer in range(layers):
        block = f"blk.{layer}."
        writer.add_tensor(block + "attn_norm.weight", np.ones(size, dtype=np.float32))
        tensor(block + "ssm_in.weight", 2 * inner, size)
        tensor(block + "ssm_conv1d.weight", inner, kernel)
        tensor(block + "ssm_conv1d.bias", inner)
        tensor(block + "ssm_x.weight", rank + 2 * state, inner)
        tensor(block + "ssm_dt.weight", inner, rank)
        tensor(block + "ssm_dt.bias", inner)
        decay = np.arange(1, state + 1, dtype=np.float32)
        writer.add_tensor(block + "ssm_a", -np.tile(decay, (inner, 1)))
        writer.add_tensor(block + "ssm_d", np.ones(inner, dtype=np.float32))
        tensor(block + "ssm_out.weight", size, inner)
    writer.add_tensor("output_norm.weight", np.ones(size, dtype=np.float32))
    tensor("output.weight", tokens, size, scale=0.5)
    return write_gguf(writer, path)


def write_windowed(path: Path, *, seed: int = 0, layers: int = 4, size: int = 64) -> Path:
    """A float32 cohere2 of random weights with the vocabulary of `write_llama`: three of four
    layers see the last 32 tokens only."""
    writer = GGUFWriter(str(path), "cohere2")
    writer.add_name("tiny windowed")
    _shape(writer, layers=layers, size=size)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_eps(1e-5)
    writer.add_rope_dimension_count(size // 4)
    writer.add_sliding_window(32)
    writer.add_logit_scale(1.0)
    tokens = _add_gpt2_vocabulary(writer, [])
    rng = np.random.default_rng(seed)

    def tensor(name: str, *shape: int) -> None:
        writer.add_tensor(name, rng.standard_normal(shape, dtype=np.float32) * np.float32(0.3))

    tensor("token_embd.weight", tokens, size)
    for layer in range(layers):
        block = f"blk.{layer}."
        writer.add_tensor(block + "attn_norm.weight", np.ones(size, dtype=np.float32))
        tensor(block + "attn_q.weight", size, size)
        tensor(block + "attn_k.weight", size // 2, size)
        tensor(block + "attn_v.weight", size // 2, size)
        tensor(block + "attn_output.weight", size, size)
        tensor(block + "ffn_gate.weight", 2 * size, size)
        tensor(block + "ffn_up.weight", 2 * size, size)
        tensor(block + "ffn_down.weight", size, 2 * size)
    writer.add_tensor("output_norm.weight", np.ones(size, dtype=np.float32))
    return write_gguf(writer, path)


def write_eagle(
    path: Path,
    *,
    seed: int = 0,
    size: int = 64,
    layers: tuple[int, ...] = (0, 1, 2),
    target_size: int = 64,
    copies: bool = False,
) -> Path:
    """A float32 EAGLE-3 draft of random weights for `write_llama` with three layers. With `copies`
    its first token is the one after the next, if it drafts for a model that copies."""
    writer = GGUFWriter(str(path), "eagle3")
    writer.add_name("tiny eagle")
    _shape(writer, layers=1, size=size)
    writer.add_head_count_kv(2)
    writer.add_key_length(size // 4)
    writer.add_value_length(size // 4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(size // 4)
    writer.add_array("eagle3.target_layers", list(layers))
    writer.add_uint32("eagle3.target_hidden_size", target_size)
    tokens = _add_gpt2_vocabulary(writer, [])
    rng = np.random.default_rng(seed)
    residual = 0.0 if copies else 0.2

    def tensor(name: str, *shape: int, scale: float = 0.2) -> None:
        writer.add_tensor(name, rng.standard_normal(shape, dtype=np.float32) * np.float32(scale))

    embedding = rng.standard_normal((tokens, size), dtype=np.float32) * np.float32(0.5)
    writer.add_tensor("token_embd.weight", embedding)
    writer.add_tensor("output.weight", np.roll(embedding, 2, axis=0))
    if copies:  # of the three inputs, only the first layer's
        fused = np.hstack((np.eye(size), np.zeros((size, 2 * target_size)))).astype(np.float32)
        writer.add_tensor("fc.weight", fused)
    else:
        tensor("fc.weight", size, 3 * target_size)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.attn_norm_2", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(size, dtype=np.float32))
    tensor("blk.0.attn_q.weight", size, 2 * size)
    tensor("blk.0.attn_k.weight", size // 2, 2 * size)
    tensor("blk.0.attn_v.weight", size // 2, 2 * size)
    tensor("blk.0.attn_output.weight", size, size, scale=residual)
    tensor("blk.0.ffn_gate.weight", 2 * size, size)
    tensor("blk.0.ffn_up.weight", 2 * size, size)
    tensor("blk.0.ffn_down.weight", size, 2 * size, scale=residual)
    return write_gguf(writer, path)


def write_with_head(  # noqa: PLR0915 # one statement for each part of the file
    path: Path,
    *,
    seed: int = 0,
    layers: int = 2,
    size: int = 64,
    copies: bool = False,
    has_head: bool = True,
    heads: int = 1,
    architecture: str = "glm4moe",
) -> Path:
    """A float32 mixture of random weights with the vocabulary of `write_llama`, and a draft head
    after its layers: a glm4moe, hy_v3, or deepseek2 with latent attention. With `copies` the next
    token follows from the last one alone, and the head predicts the model's. Without `has_head` its
    header says that there is one, as after a conversion that left it out."""
    writer = GGUFWriter(str(path), architecture)
    writer.add_name("tiny with a head")
    _shape(writer, layers=layers + heads, size=size)
    if architecture == "deepseek2":
        _add_latent_attention(writer, size)
    else:
        writer.add_head_count_kv(2)
        writer.add_key_length(size // 4)
        writer.add_value_length(size // 4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(size // 4)
    writer.add_expert_count(2)
    writer.add_expert_used_count(1)
    writer.add_expert_shared_count(1)
    writer.add_expert_feed_forward_length(size)
    writer.add_leading_dense_block_count(layers)
    writer.add_nextn_predict_layers(heads)
    tokens = _add_gpt2_vocabulary(writer, [])
    rng = np.random.default_rng(seed)
    residual = 0.0 if copies else 0.2

    def tensor(name: str, *shape: int, scale: float = 0.2) -> None:
        writer.add_tensor(name, rng.standard_normal(shape, dtype=np.float32) * np.float32(scale))

    def ones(name: str, length: int = size) -> None:
        writer.add_tensor(name, np.ones(length, dtype=np.float32))

    tensor("token_embd.weight", tokens, size, scale=0.5)
    for layer in range(layers + (heads if has_head else 0)):
        block = f"blk.{layer}."
        ones(block + "attn_norm.weight")
        norm = "post_attention_norm" if architecture == "glm4moe" else "ffn_norm"
        ones(f"{block}{norm}.weight")
        if architecture == "deepseek2":
            ones(block + "attn_q_a_norm.weight", size // 2)
            ones(block + "attn_kv_a_norm.weight", size // 2)
            tensor(block + "attn_q_a.weight", size // 2, size)
            tensor(block + "attn_q_b.weight", 2 * size, size // 2)
            tensor(block + "attn_kv_a_mqa.weight", size // 2 + size // 4, size)
            tensor(block + "attn_k_b.weight", 4, size // 2, size // 4)
            tensor(block + "attn_v_b.weight", 4, size // 4, size // 2)
        else:
            tensor(block + "attn_q.weight", size, size)
            tensor(block + "attn_k.weight", size // 2, size)
            tensor(block + "attn_v.weight", size // 2, size)
        if architecture == "hy_v3":
            ones(block + "attn_q_norm.weight", size // 4)
            ones(block + "attn_k_norm.weight", size // 4)
        tensor(block + "attn_output.weight", size, size, scale=residual)
        if layer < layers:
            tensor(block + "ffn_gate.weight", 2 * size, size)
            tensor(block + "ffn_up.weight", 2 * size, size)
            tensor(block + "ffn_down.weight", size, 2 * size, scale=residual)
            continue
        tensor(block + "ffn_gate_inp.weight", 2, size)
        if architecture != "hy_v3":
            writer.add_tensor(block + "exp_probs_b.bias", np.zeros(2, dtype=np.float32))
        for kind, shape in (("exps", (2, size, size)), ("shexp", (size, size))):
            tensor(f"{block}ffn_gate_{kind}.weight", *shape)
            tensor(f"{block}ffn_up_{kind}.weight", *shape)
            tensor(f"{block}ffn_down_{kind}.weight", *shape, scale=residual)
        _add_head_inputs(writer, block, size, rng, copies=copies)
    ones("output_norm.weight")
    tensor("output.weight", tokens, size, scale=0.5)
    return write_gguf(writer, path)


def write_delta_net(  # noqa: PLR0915 # one statement for each part of the file
    path: Path, *, seed: int = 0, size: int = 64, copies: bool = False, has_experts: bool = False
) -> Path:
    """A float32 qwen35 (or qwen35moe, `has_experts`) of random weights with the vocabulary of
    `write_llama`: a layer with a recurrent state, one with attention, and a draft head. With
    `copies` the next token follows from the last one alone, and the head predicts the model's."""
    writer = GGUFWriter(str(path), "qwen35moe" if has_experts else "qwen35")
    writer.add_name("tiny with a state and a head")
    state, groups, layers = 16, 2, 2
    inner, head = groups * state, size // 4
    _shape(writer, layers=layers + 1, size=size)
    writer.add_head_count_kv(2)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(head)
    writer.add_rope_dimension_sections([head // 2, 0, 0, 0])
    writer.add_ssm_conv_kernel(4)
    writer.add_ssm_inner_size(inner)
    writer.add_ssm_state_size(state)
    writer.add_ssm_time_step_rank(groups)
    writer.add_ssm_group_count(groups)
    writer.add_full_attention_interval(2)
    writer.add_nextn_predict_layers(1)
    if has_experts:
        writer.add_expert_count(2)
        writer.add_expert_used_count(1)
        writer.add_expert_feed_forward_length(size)
        writer.add_expert_shared_feed_forward_length(size)
    tokens = _add_gpt2_vocabulary(writer, [])
    rng = np.random.default_rng(seed)
    residual = 0.0 if copies else 0.2

    def tensor(name: str, *shape: int, scale: float = 0.2) -> None:
        writer.add_tensor(name, rng.standard_normal(shape, dtype=np.float32) * np.float32(scale))

    def ones(name: str, length: int = size) -> None:
        writer.add_tensor(name, np.ones(length, dtype=np.float32))

    tensor("token_embd.weight", tokens, size, scale=0.5)
    for layer in range(layers + 1):
        block = f"blk.{layer}."
        ones(block + "attn_norm.weight")
        ones(block + "post_attention_norm.weight")
        if layer == 0:
            tensor(block + "attn_qkv.weight", 3 * inner, size)
            tensor(block + "attn_gate.weight", inner, size)
            tensor(block + "ssm_conv1d.weight", 3 * inner, 4)
            tensor(block + "ssm_dt.bias", groups)
            writer.add_tensor(block + "ssm_a", -np.ones(groups, dtype=np.float32))
            tensor(block + "ssm_beta.weight", groups, size)
            tensor(block + "ssm_alpha.weight", groups, size)
            ones(block + "ssm_norm.weight", state)
            tensor(block + "ssm_out.weight", size, inner, scale=residual)
        else:
            tensor(block + "attn_q.weight", 2 * size, size)  # with a gate
            tensor(block + "attn_k.weight", 2 * head, size)
            tensor(block + "attn_v.weight", 2 * head, size)
            tensor(block + "attn_output.weight", size, size, scale=residual)
            ones(block + "attn_q_norm.weight", head)
            ones(block + "attn_k_norm.weight", head)
        if has_experts:
            tensor(block + "ffn_gate_inp.weight", 2, size)
            tensor(block + "ffn_gate_inp_shexp.weight", size)
            for kind, shape in (("exps", (2, size, size)), ("shexp", (size, size))):
                tensor(f"{block}ffn_gate_{kind}.weight", *shape)
                tensor(f"{block}ffn_up_{kind}.weight", *shape)
                tensor(f"{block}ffn_down_{kind}.weight", *shape, scale=residual)
        else:
            tensor(block + "ffn_gate.weight", 2 * size, size)
            tensor(block + "ffn_up.weight", 2 * size, size)
            tensor(block + "ffn_down.weight", size, 2 * size, scale=residual)
    _add_head_inputs(writer, f"blk.{layers}.", size, rng, copies=copies)
    ones("output_norm.weight")
    tensor("output.weight", tokens, size, scale=0.5)
    return write_gguf(writer, path)


def _add_head_inputs(
    writer: GGUFWriter, block: str, size: int, rng: np.random.Generator, *, copies: bool
) -> None:
    """Weights by which a draft head joins a token with the hidden state before it."""
    if copies:  # of the two halves of its input, only the one of the token
        both = np.hstack((np.eye(size), np.zeros((size, size)))).astype(np.float32)
    else:
        both = rng.standard_normal((size, 2 * size), dtype=np.float32) * np.float32(0.2)
    writer.add_tensor(block + "nextn.eh_proj.weight", both)
    writer.add_tensor(block + "nextn.enorm.weight", np.ones(size, dtype=np.float32))
    writer.add_tensor(block + "nextn.hnorm.weight", np.ones(size, dtype=np.float32))


def _add_latent_attention(writer: GGUFWriter, size: int) -> None:
    """Dimensions of multi-head latent attention."""
    writer.add_head_count_kv(1)
    writer.add_q_lora_rank(size // 2)
    writer.add_kv_lora_rank(size // 2)
    writer.add_key_length(size // 2 + size // 4)
    writer.add_value_length(size // 2)
    writer.add_key_length_mla(size // 2)
    writer.add_value_length_mla(size // 4)


def _add_gpt2_vocabulary(writer: GGUFWriter, infill: list[str], says: Sequence[str] = ()) -> int:
    """Gives the number of its tokens."""
    *starts, end = CONTROL
    tokens = [*byte_characters(), *MERGED, *starts, *says, end, *USER_DEFINED, *infill]
    kinds = [TokenType.NORMAL] * (256 + len(MERGED)) + [TokenType.CONTROL] * len(starts)
    kinds += [TokenType.USER_DEFINED if one.startswith("<") else TokenType.NORMAL for one in says]
    kinds += [TokenType.CONTROL] + [TokenType.USER_DEFINED] * len(USER_DEFINED)
    kinds += [TokenType.CONTROL] * len(infill)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges())
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_add_bos_token(False)
    writer.add_vocab_size(len(tokens))
    return len(tokens)


def _add_spm_vocabulary(writer: GGUFWriter) -> int:
    """Bytes, letters and words, the space a letter of its own that is written before every text.
    Gives the number of its tokens."""
    words = ["\u2581the", "the", "he", "\u2581a", "name", "age", '":', '{"', "true", "12"]
    letters = ["\u2581", *map(chr, range(33, 127)), "é"]
    markup = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL] + [TokenType.BYTE] * 256
    pieces = [*words, *letters]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*markup, *pieces])
    writer.add_token_types([*kinds, *[TokenType.NORMAL] * len(pieces)])
    writer.add_token_scores(
        [0.0] * len(markup) + [float(-index_of) for index_of in range(len(pieces))]
    )
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_vocab_size(len(markup) + len(pieces))
    return len(markup) + len(pieces)


def _add_bert_vocabulary(writer: GGUFWriter) -> int:
    """Gives the number of its tokens."""
    tokens = bert_tokens()
    kinds = [TokenType.CONTROL] * 5 + [TokenType.NORMAL] * (len(tokens) - 5)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_type_count(2)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_sep_token_id(3)
    writer.add_pad_token_id(0)
    writer.add_mask_token_id(4)
    return len(tokens)


def _shape(writer: GGUFWriter, *, layers: int, size: int) -> None:
    writer.add_context_length(512)
    writer.add_embedding_length(size)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(2 * size)
    writer.add_head_count(4)


def merges() -> list[str]:
    known = set(byte_characters())
    merges = []
    for token in MERGED:
        cut = next(
            cut for cut in range(1, len(token)) if token[:cut] in known and token[cut:] in known
        )
        merges.append(f"{token[:cut]} {token[cut:]}")
        known.add(token)
    return merges
