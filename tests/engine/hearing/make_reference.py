"""Writes `reference.json`: what the reference implementation makes of some recordings.

    python -m tests.engine.hearing.make_reference FAMILY...

Needs `torch`, `torchaudio` and `transformers`, which no test needs, besides `gguf`. The families
that are not in `transformers` need others (`lfm2_reference`, `meralion_reference`,
`ultravox_reference`), and are made only if they are named. Entries of other families are kept. For
each of the families and each of its `RECORDINGS`, an entry holds the prompt's tokens, a run of
audio as its number of embeddings; some rows of the embeddings, as base64 of little-endian float32;
and the greedy answer.
`logprobs` are those of its tokens, and `least_margin` is the least distance between the likeliest
logit of a step and the next one.
"""

import base64
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers

from tests.audio_files import RATE_HZ
from tests.engine.gguf_models import merges
from tests.engine.hearing import (
    families,
    gemma,
    glm,
    granite,
    lfm2_reference,
    meralion_reference,
    ultravox_reference,
)
from tests.engine.hearing.families import (
    AUDIO_FLAMINGO,
    GEMMA_4,
    GEMMA_4_UNIFIED,
    GLM_ASR,
    GRANITE_SPEECH_PLUS,
    LFM2_AUDIO,
    MERALION,
    PROMPTS,
    QWEN3_ASR,
    QWEN3_OMNI,
    QWEN25_OMNI,
    RECORDINGS,
    ULTRAVOX,
    VOXTRAL,
    Family,
    Recording,
    chirp,
    weights_of,
)

_FILLED_SAMPLES = {
    QWEN3_ASR.name: RATE_HZ,
    QWEN3_OMNI.name: RATE_HZ,
    ULTRAVOX.name: RATE_HZ * 16 // 100,
}
"""Samples to whose multiples the engine adds silence."""
_AUTHORS: dict[str, Any] = {
    LFM2_AUDIO.name: lfm2_reference,
    MERALION.name: meralion_reference,
    ULTRAVOX.name: ultravox_reference,
}
"""Modules with the classes of a family's authors, by family: each has functions for the model, its
projector, and its inputs for a recording."""
ANSWER_TOKENS = 12
ROWS = 24


def main() -> None:
    target = Path(__file__).with_name("reference.json")
    reference = json.loads(target.read_text())
    made = sys.argv[1:] or sorted(families.FAMILIES.keys() - _AUTHORS.keys())
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    reference["made_with"] |= dict.fromkeys(made, versions)
    entries = []
    for name, family in families.FAMILIES.items():
        if name in made:
            entries += [_entry(family, recording) for recording in RECORDINGS[name]]
        else:
            entries += [one for one in reference["entries"] if one["family"] == name]
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    made_with = json.dumps(reference["made_with"])
    target.write_text(f'{{"made_with": {made_with}, "entries": [\n{lines}\n]}}\n')


def _entry(family: Family, recording: Recording) -> dict[str, Any]:
    model = _model(family)
    samples = chirp(recording.seconds, amplitude=recording.amplitude) / np.float32(32768)
    if family.name in _FILLED_SAMPLES:
        samples = np.pad(samples, (0, -len(samples) % _FILLED_SAMPLES[family.name]))
    rows: list[torch.Tensor] = []
    hook = _projector(family, model).register_forward_hook(
        lambda _module, _inputs, output: rows.append(output.reshape(-1, families.TEXT_SIZE))
    )
    if family.name in _AUTHORS:
        prompt, audio = _AUTHORS[family.name].inputs(samples)
        count = prompt.count(family.tokens.index(family.audio_token))
    else:
        audio = _features(family, samples)
        count = _count(family, audio)
        prompt = _prompt(family, count)
    answer, logprobs, margins = _answer(model, prompt, audio)
    hook.remove()
    embeddings = rows[0][:count].numpy()
    assert len(embeddings) == count, "every token has an embedding"
    if family.end_tokens:
        ends = [family.tokens.index(one) for one in family.end_tokens]
        first, last = model.get_input_embeddings().weight[ends].detach().numpy()
        embeddings = np.vstack([first, embeddings, last])
        count = len(embeddings)
    picked = np.linspace(0, count - 1, ROWS).round().astype(int)
    return {
        "family": family.name,
        "recording": recording.name,
        "prompt": [one if one >= 0 else [count] for one in _runs(family, prompt)],
        "rows": picked.tolist(),
        "embeddings": base64.b64encode(embeddings[picked].astype("<f4").tobytes()).decode(),
        "answer": answer,
        "logprobs": [round(one, 4) for one in logprobs],
        "least_margin": round(min(margins), 3),
    }


def _projector(family: Family, model: Any) -> torch.nn.Module:
    """The module whose output is the embeddings of audio."""
    if family.name in _AUTHORS:
        return _AUTHORS[family.name].projector(model)
    inner = model.model
    if family is QWEN25_OMNI:
        return inner.audio_tower.proj
    if family is QWEN3_OMNI:
        return inner.audio_tower.proj2
    if family.is_gemma:
        return inner.embed_audio.embedding_projection
    return inner.projector if family.is_granite else inner.multi_modal_projector


def _model(family: Family) -> Any:
    if family.name in _AUTHORS:
        return _AUTHORS[family.name].model()
    if family is QWEN25_OMNI:
        return _omni()
    if family is QWEN3_OMNI:
        return _omni_with_experts()
    ears, text = dict(families.EARS), _text(family)
    marker = family.tokens.index(family.audio_token)
    if family.name == VOXTRAL.name:
        audio_config = transformers.VoxtralEncoderConfig(
            num_mel_bins=families.MELS,
            hidden_size=families.EAR_SIZE,
            intermediate_size=families.EAR_FORWARD,
            num_hidden_layers=families.EAR_LAYERS,
            num_attention_heads=families.EAR_HEADS,
        )
        model: Any = transformers.VoxtralForConditionalGeneration(
            transformers.VoxtralConfig(
                audio_config=audio_config.to_dict(), text_config=text, audio_token_id=marker
            )
        )
    elif family.name == QWEN3_ASR.name:
        model = transformers.Qwen3ASRForConditionalGeneration(
            transformers.Qwen3ASRConfig(
                audio_config={
                    **ears,
                    "downsample_hidden_size": families.EAR_CHANNELS,
                    "output_dim": families.TEXT_SIZE,
                },
                text_config=text,
                audio_token_id=marker,
                tie_word_embeddings=False,
            )
        )
    elif family.is_granite:
        model = _granite(family, text, marker)
    elif family is GLM_ASR:
        model = _glm(text, marker)
    elif family.is_gemma:
        model = _gemma(family, text, marker)
    elif family is AUDIO_FLAMINGO:
        model = transformers.AudioFlamingo3ForConditionalGeneration(
            transformers.AudioFlamingo3Config(
                audio_config=ears,
                text_config=text,
                audio_token_id=marker,
                tie_word_embeddings=False,
            )
        )
    else:
        model = transformers.Qwen2AudioForConditionalGeneration(
            transformers.Qwen2AudioConfig(
                audio_config=ears, text_config=text, audio_token_index=marker
            )
        )
    tensors = {name: torch.from_numpy(values) for name, values in weights_of(family).items()}
    model.load_state_dict(tensors, strict=True)
    rope = model.config.text_config.rope_parameters
    assert rope.get("sliding_attention", rope)["rope_theta"] == families.ROPE_BASE
    return model.float().eval()


def _text(family: Family) -> dict[str, Any]:
    return {
        "model_type": family.architecture.removesuffix("vl"),
        "vocab_size": len(family.tokens),
        "hidden_size": families.TEXT_SIZE,
        "intermediate_size": families.TEXT_FORWARD,
        "num_hidden_layers": families.TEXT_LAYERS,
        "num_attention_heads": families.TEXT_HEADS,
        "num_key_value_heads": families.TEXT_KV_HEADS,
        "head_dim": families.TEXT_SIZE // families.TEXT_HEADS,
        "rms_norm_eps": families.NORM_EPSILON,
        "rope_theta": families.ROPE_BASE,
        "max_position_embeddings": families.CONTEXT_TOKENS,
        "tie_word_embeddings": False,
    }


def _omni() -> Any:
    """The part of Qwen2.5-Omni that hears and writes, with the smallest eyes."""
    marker = QWEN25_OMNI.tokens.index(QWEN25_OMNI.audio_token)
    rope = {
        "rope_type": "default",
        "rope_theta": families.ROPE_BASE,
        "mrope_section": families.ROPE_SECTIONS,
    }
    model = transformers.Qwen2_5OmniThinkerForConditionalGeneration(
        transformers.Qwen2_5OmniThinkerConfig(
            audio_config={**families.EARS, "output_dim": families.TEXT_SIZE},
            vision_config={
                "depth": 1,
                "hidden_size": 8,
                "intermediate_size": 8,
                "num_heads": 1,
                "out_hidden_size": families.TEXT_SIZE,
            },
            text_config={
                **_text(QWEN25_OMNI),
                "model_type": "qwen2_5_omni_text",
                "rope_parameters": rope,
            },
            audio_token_id=marker,
            vision_start_token_id=0,
        )
    )
    names = {
        "model.audio_tower.layer_norm.": "model.audio_tower.ln_post.",
        "model.multi_modal_projector.linear.": "model.audio_tower.proj.",
    }
    return _with_weights(model, QWEN25_OMNI, names)


def _omni_with_experts() -> Any:
    """The part of Qwen3-Omni that hears and writes, with the smallest eyes."""
    marker = QWEN3_OMNI.tokens.index(QWEN3_OMNI.audio_token)
    ears = {
        "downsample_hidden_size": families.EAR_CHANNELS,
        "output_dim": families.TEXT_SIZE,
        "n_window": 50,
        "n_window_infer": 800,
    }
    text = {
        **_text(QWEN3_OMNI),
        "model_type": "qwen3_omni_moe_text",
        "num_experts": families.EXPERTS,
        "num_experts_per_tok": families.USED_EXPERTS,
        "moe_intermediate_size": families.EXPERT_FORWARD,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": families.ROPE_BASE,
            "mrope_section": families.ROPE_SECTIONS,
        },
    }
    eyes = {
        "depth": 1,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_heads": 1,
        "out_hidden_size": families.TEXT_SIZE,
        "deepstack_visual_indexes": [],
    }
    model = transformers.Qwen3OmniMoeThinkerForConditionalGeneration(
        transformers.Qwen3OmniMoeThinkerConfig(
            audio_config={**families.EARS, **ears},
            vision_config=eyes,
            text_config=text,
            audio_token_id=marker,
            vision_start_token_id=0,
        )
    )
    names = {"model.multi_modal_projector.linear_": "model.audio_tower.proj"}
    return _with_weights(model, QWEN3_OMNI, names)


def _with_weights(model: Any, family: Family, names: dict[str, str]) -> Any:
    """The model with the family's weights, whose names begin otherwise, and with unused eyes."""
    tensors = {}
    for name, values in weights_of(family).items():
        old = next((one for one in names if name.startswith(one)), "")
        tensors[names.get(old, "") + name.removeprefix(old)] = torch.from_numpy(values)
    found = model.load_state_dict(tensors, strict=False)
    assert not found.unexpected_keys, found.unexpected_keys
    unused = ("visual.", "audio_bos_eos_token.")
    assert all(any(one in name for one in unused) for name in found.missing_keys), found
    return model.float().eval()


def _granite(family: Family, text: dict[str, Any], marker: int) -> Any:
    is_plus = family is GRANITE_SPEECH_PLUS
    encoder: dict[str, Any] = {
        "input_dim": granite.MELS,
        "hidden_dim": granite.SIZE,
        "feedforward_mult": granite.FORWARD // granite.SIZE,
        "num_layers": granite.PLUS_LAYERS if is_plus else granite.LAYERS,
        "num_heads": granite.HEADS,
        "output_dim": granite.CTC_TOKENS,
        "context_size": granite.BLOCK_FRAMES,
        "max_pos_emb": granite.POSITIONS,
        "conv_kernel_size": granite.KERNEL,
        "conv_expansion_factor": granite.EXPANSION,
    }
    projector = {
        "model_type": "blip_2_qformer",
        "hidden_size": granite.SIZE,
        "encoder_hidden_size": granite.frame_size(is_plus=is_plus),
        "intermediate_size": granite.QUERY_FORWARD,
        "num_hidden_layers": granite.LAYERS,
        "num_attention_heads": granite.HEADS,
        "cross_attention_frequency": 1,
    }
    scales = {
        "embedding_multiplier": families.EMBEDDING_SCALE,
        "attention_multiplier": families.ATTENTION_SCALE,
        "residual_multiplier": families.RESIDUAL_SCALE,
        "logits_scaling": families.LOGITS_SCALE,
    }
    config = {
        "encoder_config": encoder,
        "projector_config": projector,
        "text_config": {**text, **scales},
        "window_size": granite.WINDOW_FRAMES,
        "downsample_rate": granite.FRAMES_PER_EMBEDDING,
        "audio_token_index": marker,
        "has_lora_adapter": False,
        "tie_word_embeddings": False,
    }
    if is_plus:
        encoder["cat_hidden_layers"] = granite.PLUS_JOINED
        model: Any = transformers.GraniteSpeechPlusForConditionalGeneration(
            transformers.GraniteSpeechPlusConfig(**config)
        )
    else:
        model = transformers.GraniteSpeechForConditionalGeneration(
            transformers.GraniteSpeechConfig(**config)
        )
    model.lm_head.register_forward_hook(  # as `GraniteForCausalLM` does, which this class does not
        lambda _module, _inputs, logits: logits / families.LOGITS_SCALE
    )
    return model


def _glm(text: dict[str, Any], marker: int) -> Any:
    audio = {
        "model_type": "glmasr_encoder",
        "hidden_size": glm.SIZE,
        "intermediate_size": glm.FORWARD,
        "num_hidden_layers": glm.LAYERS,
        "num_attention_heads": glm.HEADS,
        "num_mel_bins": glm.MELS,
    }
    return transformers.GlmAsrForConditionalGeneration(
        transformers.GlmAsrConfig(
            audio_config=audio,
            text_config={**text, "eos_token_id": None},
            audio_token_id=marker,
            tie_word_embeddings=False,
        )
    )


def _gemma(family: Family, text: dict[str, Any], marker: int) -> Any:
    full_rope = {
        "rope_type": "proportional",
        "partial_rotary_factor": gemma.PARTIAL_ROTARY,
        "rope_theta": gemma.FULL_ROPE_BASE,
    }
    text = {
        **text,
        "global_head_dim": families.HEAD_SIZE,
        "layer_types": list(gemma.LAYER_TYPES),
        "sliding_window": gemma.SLIDING_WINDOW,
        "final_logit_softcapping": gemma.LOGITS_CAP,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": families.ROPE_BASE},
            "full_attention": full_rope,
        },
    }
    del text["rope_theta"]
    rest = {"vision_config": None, "audio_token_id": marker, "tie_word_embeddings": False}
    if family is GEMMA_4_UNIFIED:
        text["model_type"] = "gemma4_unified_text"
        unified = transformers.Gemma4UnifiedConfig(
            text_config=text, audio_config={"audio_embed_dim": gemma.FRAME_SAMPLES}, **rest
        )
        return transformers.Gemma4UnifiedForConditionalGeneration(unified)
    text |= {
        "model_type": "gemma4_text",
        "hidden_size_per_layer_input": gemma.LAYER_INPUTS,
        "vocab_size_per_layer_input": len(GEMMA_4.tokens),
    }
    audio = {
        "model_type": "gemma4_audio",
        "hidden_size": gemma.SIZE,
        "num_hidden_layers": gemma.LAYERS,
        "num_attention_heads": gemma.HEADS,
        "subsampling_conv_channels": list(gemma.CHANNELS),
        "output_proj_dims": gemma.OUTPUTS,
    }
    return transformers.Gemma4ForConditionalGeneration(
        transformers.Gemma4Config(text_config=text, audio_config=audio, **rest)
    )


def _features(family: Family, samples: np.ndarray) -> dict[str, torch.Tensor]:
    """The audio as the family's processor prepares it."""
    if family.name == QWEN3_ASR.name:
        found = transformers.Qwen3ASRFeatureExtractor(feature_size=families.MELS)(
            samples, sampling_rate=RATE_HZ, padding=True, return_attention_mask=True,
            return_tensors="pt",
        )  # fmt: skip
        return {
            "input_features": found.input_features,
            "input_features_mask": found.attention_mask,
        }
    if family.is_granite:
        found = transformers.GraniteSpeechFeatureExtractor()(samples)
        return {
            "input_features": found.input_features,
            "input_features_mask": found.input_features_mask,
        }
    if family.is_gemma:
        extract = (
            transformers.Gemma4UnifiedAudioFeatureExtractor()
            if family is GEMMA_4_UNIFIED
            else transformers.Gemma4AudioFeatureExtractor()
        )
        found = extract([samples], return_tensors="pt")
        return {
            "input_features": found.input_features,
            "input_features_mask": found.input_features_mask,
        }
    extract = transformers.WhisperFeatureExtractor(feature_size=families.MELS)
    if family.name == VOXTRAL.name:
        found = extract(
            samples, sampling_rate=RATE_HZ, padding=True, truncation=False,
            pad_to_multiple_of=30 * RATE_HZ, return_tensors="pt",
        )  # fmt: skip
        windows = found.input_features.reshape(families.MELS, -1, 2 * families.EAR_POSITIONS)
        return {"input_features": windows.transpose(0, 1)}
    if family in (QWEN25_OMNI, QWEN3_OMNI):
        extract = transformers.WhisperFeatureExtractor(feature_size=families.MELS, chunk_length=300)
    found = extract(
        samples, sampling_rate=RATE_HZ, padding="max_length", return_attention_mask=True,
        return_tensors="pt",
    )  # fmt: skip
    mask = (
        "input_features_mask" if family in (GLM_ASR, AUDIO_FLAMINGO) else "feature_attention_mask"
    )
    return {"input_features": found.input_features, mask: found.attention_mask}


def _count(family: Family, audio: dict[str, torch.Tensor]) -> int:
    """The number of embeddings of the audio."""
    if family.name == VOXTRAL.name:
        return len(audio["input_features"]) * families.EAR_POSITIONS // family.stack_factor
    if family.name == QWEN3_ASR.name:
        whole, rest = divmod(int(audio["input_features_mask"].sum()), 100)
        return 13 * whole + -(-rest // 8)
    if family.is_granite or family is GEMMA_4_UNIFIED:
        return int(audio["input_features_mask"].sum())
    if family is GEMMA_4:
        return int(audio["input_features_mask"][:, ::2][:, ::2].sum())
    if family is GLM_ASR:
        positions = (int(audio["input_features_mask"].sum()) - 1) // 2 + 1
        return positions // family.stack_factor
    if family is AUDIO_FLAMINGO:
        frames = int(audio["input_features_mask"].sum())
    else:
        frames = int(audio["feature_attention_mask"].sum())
    if family is QWEN3_OMNI:
        return 13 * (frames // 100)
    return ((frames - 1) // 2 + 1 - 2) // 2 + 1


def _prompt(family: Family, count: int) -> list[int]:
    before, after = PROMPTS[family.name].split(family.audio)
    marker = family.tokens.index(family.audio_token)
    return [*_tokenize(family, before), *[marker] * count, *_tokenize(family, after)]


def _tokenize(family: Family, text: str) -> list[int]:
    pieces = {piece: index for index, piece in enumerate(family.tokens)}
    pairs = [tuple(one.split(" ")) for one in merges()]
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(pieces, pairs))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(list(family.control))
    return tokenizer.encode(text, add_special_tokens=False).ids


def _runs(family: Family, prompt: list[int]) -> list[int]:
    """The prompt with one -1 for the run of audio."""
    marker = family.tokens.index(family.audio_token)
    start = prompt.index(marker)
    end = start + prompt.count(marker)
    if family.end_tokens:
        start, end = start - 1, end + 1
    return [*prompt[:start], -1, *prompt[end:]]


@torch.no_grad()
def _answer(
    model: Any, prompt: list[int], audio: dict[str, torch.Tensor]
) -> tuple[list[int], list[float], list[float]]:
    """Greedy tokens, each computed from the whole text, their logprobs, and how clearly each was
    chosen."""
    answer: list[int] = []
    logprobs, margins = [], []
    for _ in range(ANSWER_TOKENS):
        ids = torch.tensor([prompt + answer])
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), **audio).logits[0, -1]
        first, second = logits.topk(2).values.tolist()
        margins.append(first - second)
        logprobs.append(float(logits.log_softmax(-1).max()))
        answer.append(int(logits.argmax()))
    return answer, logprobs, margins


if __name__ == "__main__":
    main()
