"""Writes the tiny models of `families` as GGUF: the text model and its projector."""

import re
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, TokenType
from numpy.typing import NDArray

from tests.engine.gguf_models import MERGED, merges
from tests.engine.hearing import gemma, glm, granite, lfm2
from tests.engine.hearing.families import (
    ATTENTION_CAP,
    ATTENTION_SCALE,
    CONTEXT_TOKENS,
    EAR_FORWARD,
    EAR_HEADS,
    EAR_LAYERS,
    EAR_POSITIONS,
    EAR_SIZE,
    EMBEDDING_SCALE,
    EXPERT_FORWARD,
    EXPERTS,
    GEMMA_4,
    GEMMA_4_UNIFIED,
    GLM_ASR,
    GRANITE_SPEECH_PLUS,
    HEAD_SIZE,
    LFM2_AUDIO,
    LOGITS_CAP,
    LOGITS_SCALE,
    MELS,
    MERALION,
    NORM_EPSILON,
    QWEN3_OMNI,
    QWEN25_OMNI,
    RESIDUAL_SCALE,
    ROPE_BASE,
    ROPE_SECTIONS,
    TEXT_FORWARD,
    TEXT_HEADS,
    TEXT_KV_HEADS,
    TEXT_LAYERS,
    TEXT_SIZE,
    USED_EXPERTS,
    Family,
    weights_of,
)
from tests.engine.hearing.granite_file import add_granite
from tests.gguf_file import write_gguf

_TEXT_NAMES = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_GEMMA_NAMES = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
    "layer_scalar": "layer_output_scale",
    "per_layer_input_gate": "inp_gate",
    "per_layer_projection": "proj",
    "post_per_layer_input_norm": "post_norm",
    "embed_tokens_per_layer": "per_layer_token_embd",
    "per_layer_model_projection": "per_layer_model_proj",
    "per_layer_projection_norm": "per_layer_proj_norm",
}
_EAR_NAMES = {
    "conv1": "conv1d.1",
    "conv2": "conv1d.2",
    "conv2d1": "conv2d.1",
    "conv2d2": "conv2d.2",
    "conv2d3": "conv2d.3",
    "conv_out": "conv_out",
    "embed_positions": "position_embd",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    "self_attn.o_proj": "attn_out",
    "self_attn_layer_norm": "ln1",
    "fc1": "ffn_up",
    "fc2": "ffn_down",
    "final_layer_norm": "ln2",
    "layer_norm": "post_ln",
    "ln_post": "post_ln",
    "input_layernorm": "ln1",
    "mlp.fc1": "ffn_up",
    "mlp.fc2": "ffn_down",
    "post_attention_layernorm": "ln2",
}
_PROJECTOR_NAMES = {
    "linear": "fc",
    "linear_1": "mlp.1",
    "linear_2": "mlp.2",
    "ln_pre": "norm_pre",
    "ln_mid": "norm_mid",
    "ln_speech": "norm_pre",
    "mlp_adapter.0": "mlp.0",
    "gate_proj": "mlp.1",
    "pool_proj": "mlp.2",
    "out_proj": "mlp.3",
}
_NAME = re.compile(r"model\.(\w+)\.(?:layers\.(\d+)\.)?(.+)\.(weight|bias)")


def write_text_model(path: Path, family: Family, *, template: str) -> Path:
    """Writes the text model with the family's vocabulary, in float32."""
    writer = GGUFWriter(str(path), family.architecture)
    writer.add_name(f"tiny {family.name}")
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(TEXT_SIZE)
    writer.add_block_count(TEXT_LAYERS)
    writer.add_feed_forward_length(TEXT_FORWARD)
    writer.add_head_count(TEXT_HEADS)
    writer.add_head_count_kv(_text_kv_heads(family))
    writer.add_layer_norm_rms_eps(NORM_EPSILON)
    _add_text_numbers(writer, family)
    writer.add_chat_template(template)
    _add_vocabulary(writer, family)
    for name, values in weights_of(family).items():
        if ".experts." in name:
            _add_experts(writer, name, values)
        elif name.startswith(("model.language_model.", "lm_head.")):
            ordered = lfm2.in_shape_of_ggml(name, _in_order_of_ggml(family, name, values))
            if family is MERALION and name.endswith("norm.weight"):
                ordered = ordered + np.float32(1)  # as Gemma 2 does while it computes
            writer.add_tensor(_text_name(family, name), ordered)
    return write_gguf(writer, path)


def _add_text_numbers(writer: GGUFWriter, family: Family) -> None:
    """Adds the numbers of the text model that not every family has."""
    if not family.is_gemma:
        writer.add_rope_freq_base(ROPE_BASE)
    writer.add_rope_dimension_count(HEAD_SIZE)
    if "vl" in family.architecture:
        writer.add_rope_dimension_sections([*ROPE_SECTIONS, 0])
    if family.has_qwen3_ears:
        writer.add_num_deepstack_layers(0)
    if family.has_experts:
        writer.add_expert_count(EXPERTS)
        writer.add_expert_used_count(USED_EXPERTS)
        writer.add_expert_feed_forward_length(EXPERT_FORWARD)
    if family.is_granite:
        writer.add_embedding_scale(EMBEDDING_SCALE)
        writer.add_attention_scale(ATTENTION_SCALE)
        writer.add_residual_scale(RESIDUAL_SCALE)
        writer.add_logit_scale(LOGITS_SCALE)
    if family.is_gemma:
        _add_gemma_text(writer, inputs=gemma.LAYER_INPUTS if family is GEMMA_4 else 0)
    if family is MERALION:
        writer.add_key_length(HEAD_SIZE)
        writer.add_value_length(HEAD_SIZE)
        writer.add_attn_logit_softcapping(ATTENTION_CAP)
        writer.add_final_logit_softcapping(LOGITS_CAP)
    if family is LFM2_AUDIO:
        writer.add_shortconv_l_cache(lfm2.CONVOLUTION_TOKENS)


def write_projector(path: Path, family: Family) -> Path:
    """Writes the encoder of audio and its projector, in float32."""
    if family is GEMMA_4_UNIFIED:
        return _write_unified_projector(path)
    if family is LFM2_AUDIO:
        return _write_lfm2_projector(path)
    return _write_encoder(path, family)


def _text_kv_heads(family: Family) -> int | list[int]:
    """The number of heads of keys and values, for each layer if some have none."""
    if family is not LFM2_AUDIO:
        return TEXT_KV_HEADS
    return [0 if kind == "conv" else TEXT_KV_HEADS for kind in lfm2.TEXT_LAYER_TYPES]


def _write_encoder(path: Path, family: Family) -> Path:
    is_plus = family is GRANITE_SPEECH_PLUS
    writer = GGUFWriter(str(path), "clip")
    writer.add_bool("clip.has_audio_encoder", True)
    key = "clip.audio.projector_type" if family is QWEN3_OMNI else "clip.projector_type"
    writer.add_string(key, family.projector)
    for name, value in (
        ("embedding_length", EAR_SIZE),
        ("feed_forward_length", EAR_FORWARD),
        ("block_count", granite.PLUS_LAYERS if is_plus else EAR_LAYERS),
        ("projection_dim", TEXT_SIZE),
        ("attention.head_count", EAR_HEADS),
        ("num_mel_bins", granite.MELS if family.is_granite else MELS),
    ):
        writer.add_uint32(f"clip.audio.{name}", value)
    if family.stack_factor > 1:
        writer.add_uint32("clip.audio.projector.stack_factor", family.stack_factor)
    writer.add_float32("clip.audio.attention.layer_norm_epsilon", NORM_EPSILON)
    weights = weights_of(family)
    if family.is_granite:
        add_granite(writer, weights)
    if family is GEMMA_4:
        gemma.add_gemma(writer, weights)
        return write_gguf(writer, path)
    if is_plus:
        writer.add_array("clip.audio.feature_layer", granite.PLUS_JOINED)
    for name, values in weights.items():
        if name.startswith(("model.audio_tower.", "model.multi_modal_projector.")):
            ordered = glm.in_order_of_ggml(name, values) if family is GLM_ASR else values
            writer.add_tensor(_projector_name(name), _in_shape_of_ggml(name, ordered))
    # Files of GLM-ASR contain positions, too, which the model does not use.
    if family.has_qwen3_ears or family in (QWEN25_OMNI, GLM_ASR):
        writer.add_tensor("a.position_embd.weight", _sinusoids())
    for kind, token in zip(("boi", "eoi"), family.end_tokens, strict=False):
        embeddings = weights["model.language_model.embed_tokens.weight"]
        writer.add_tensor(f"v.{kind}", embeddings[family.tokens.index(token)])
    return write_gguf(writer, path)


def _write_unified_projector(path: Path) -> Path:
    """Writes the projector of a model without an encoder, whose numbers are 0."""
    writer = GGUFWriter(str(path), "clip")
    writer.add_bool("clip.has_audio_encoder", True)
    writer.add_string("clip.audio.projector_type", GEMMA_4_UNIFIED.projector)
    for name, value in (
        ("embedding_length", gemma.FRAME_SAMPLES),
        ("feed_forward_length", 0),
        ("block_count", 0),
        ("projection_dim", TEXT_SIZE),
        ("attention.head_count", 0),
        ("num_mel_bins", MELS),
    ):
        writer.add_uint32(f"clip.audio.{name}", value)
    writer.add_float32("clip.audio.attention.layer_norm_epsilon", NORM_EPSILON)
    gemma.add_gemma(writer, weights_of(GEMMA_4_UNIFIED))
    return write_gguf(writer, path)


def _write_lfm2_projector(path: Path) -> Path:
    """Writes the conformer of LFM2-Audio."""
    writer = GGUFWriter(str(path), "clip")
    writer.add_bool("clip.has_audio_encoder", True)
    writer.add_string("clip.projector_type", LFM2_AUDIO.projector)
    for name, value in (
        ("embedding_length", lfm2.SIZE),
        ("feed_forward_length", lfm2.SIZE),
        ("block_count", lfm2.LAYERS),
        ("projection_dim", TEXT_SIZE),
        ("attention.head_count", lfm2.HEADS),
        ("num_mel_bins", lfm2.MELS),
    ):
        writer.add_uint32(f"clip.audio.{name}", value)
    writer.add_float32("clip.audio.attention.layer_norm_epsilon", NORM_EPSILON)
    lfm2.add_encoder(writer, weights_of(LFM2_AUDIO))
    return write_gguf(writer, path)


def _add_experts(writer: GGUFWriter, name: str, values: NDArray[np.float32]) -> None:
    """Adds the experts of a layer, gates and inputs apart."""
    layer = name.split(".")[3]
    if name.endswith("down_proj"):
        writer.add_tensor(f"blk.{layer}.ffn_down_exps.weight", values)
        return
    for kind, part in zip(("gate", "up"), np.split(values, 2, axis=1), strict=True):
        writer.add_tensor(f"blk.{layer}.ffn_{kind}_exps.weight", np.ascontiguousarray(part))


def _add_gemma_text(writer: GGUFWriter, *, inputs: int) -> None:
    """Adds the numbers of Gemma's text model, whose heads have one size in all layers, and whose
    tokens have an embedding of `inputs` numbers for each layer."""
    writer.add_rope_freq_base(gemma.FULL_ROPE_BASE)
    writer.add_rope_freq_base_swa(ROPE_BASE)
    writer.add_rope_dimension_count_swa(HEAD_SIZE)
    for add in (writer.add_key_length, writer.add_value_length,
                writer.add_key_length_swa, writer.add_value_length_swa):  # fmt: skip
        add(HEAD_SIZE)
    writer.add_sliding_window(gemma.SLIDING_WINDOW)
    writer.add_sliding_window_pattern([one == "sliding_attention" for one in gemma.LAYER_TYPES])
    writer.add_shared_kv_layers(0)
    writer.add_embedding_length_per_layer_input(inputs)
    writer.add_final_logit_softcapping(gemma.LOGITS_CAP)
    writer.add_tensor("rope_freqs.weight", gemma.rotary_divisors(HEAD_SIZE))


def _in_shape_of_ggml(name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The biases of convolutions have a row for each channel."""
    if re.search(r"conv\d\.bias$", name):
        return values[:, np.newaxis]
    return values[:, np.newaxis, np.newaxis] if re.search(r"conv2d\d\.bias$", name) else values


def _sinusoids() -> NDArray[np.float32]:
    """Positions of Qwen's later encoders, which their own weights do not contain."""
    half = EAR_SIZE // 2
    speeds = np.exp(-np.log(10_000) / (half - 1) * np.arange(half))
    angles = np.arange(EAR_POSITIONS)[:, np.newaxis] * speeds
    return np.hstack([np.sin(angles), np.cos(angles)]).astype(np.float32)


def _text_name(family: Family, name: str) -> str:
    if name == "lm_head.weight":
        return "output.weight"
    is_gemma = family.is_gemma or family is MERALION
    other = _GEMMA_NAMES if is_gemma else lfm2.TEXT_NAMES if family is LFM2_AUDIO else {}
    names = {**_TEXT_NAMES, **other}
    _, layer, inner, kind = _split(f"{name}.weight" if name.endswith("layer_scalar") else name)
    return f"{'' if layer is None else f'blk.{layer}.'}{names[inner]}.{kind}"


def _projector_name(name: str) -> str:
    part, layer, inner, kind = _split(name)
    if (part, inner) == ("audio_tower", "norm"):
        return f"mm.a.norm_pre.{kind}"
    if part == "multi_modal_projector":
        return f"mm.a.{_PROJECTOR_NAMES[inner]}.{kind}"
    return f"a.{'' if layer is None else f'blk.{layer}.'}{_EAR_NAMES[inner]}.{kind}"


def _split(name: str) -> tuple[str, str | None, str, str]:
    found = _NAME.fullmatch(name)
    assert found is not None, name
    part, layer, inner, kind = found.groups()
    return part, layer, inner, kind


def _in_order_of_ggml(
    family: Family, name: str, values: NDArray[np.float32]
) -> NDArray[np.float32]:
    """In ggml's llama and granite, rotary dimensions that belong together are neighbours; in
    `transformers` they are half a head apart."""
    if family.architecture not in ("llama", "granite") or not re.search(
        r"[qk]_proj\.weight$", name
    ):
        return values
    heads = TEXT_HEADS if "q_proj" in name else TEXT_KV_HEADS
    halves = values.reshape(heads, 2, -1, values.shape[1])
    return halves.swapaxes(1, 2).reshape(values.shape)


def _add_vocabulary(writer: GGUFWriter, family: Family) -> None:
    tokens = family.tokens
    text_tokens = len(tokens) - len(family.control)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [TokenType.NORMAL] * text_tokens + [TokenType.CONTROL] * len(family.control)
    )
    writer.add_token_merges(merges())
    if family.begin is not None:
        writer.add_bos_token_id(tokens.index(family.begin))
    writer.add_eos_token_id(tokens.index(family.end))
    writer.add_add_bos_token(family.begin is not None)
    writer.add_vocab_size(len(tokens))
    assert len(MERGED) == len(merges()), "each merged piece has one merge"
