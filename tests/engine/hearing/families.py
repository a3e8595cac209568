"""Tiny language models that hear, for comparison with their reference implementation.

Names and shapes of tensors are those of `transformers`. Their values follow from their names, so a
test without torch writes the weights that `make_reference.py` computed with.
"""

import io
import wave
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tests.audio_files import RATE_HZ
from tests.engine.gguf_models import MERGED, byte_characters
from tests.engine.hearing import gemma, glm, granite, lfm2

Weights = dict[str, NDArray[np.float32]]

TEXT_SIZE, TEXT_FORWARD, TEXT_LAYERS, TEXT_HEADS, TEXT_KV_HEADS = 64, 128, 2, 4, 2
HEAD_SIZE = TEXT_SIZE // TEXT_HEADS
EXPERTS, USED_EXPERTS, EXPERT_FORWARD = 4, 2, 64
EAR_SIZE, EAR_FORWARD, EAR_LAYERS, EAR_HEADS = 40, 160, 2, 2
MELS, EAR_POSITIONS, EAR_CHANNELS = 128, 1500, 8
EARS: Mapping[str, int] = {
    "num_mel_bins": MELS,
    "d_model": EAR_SIZE,
    "encoder_ffn_dim": EAR_FORWARD,
    "encoder_layers": EAR_LAYERS,
    "encoder_attention_heads": EAR_HEADS,
}
"""Sizes of encoders like Whisper's, under the names of `transformers`."""
ULTRAVOX_MIDDLE = 96
MERALION_WIDTHS = 5
"""The width of MERaLiON's projector, in widths of the encoder."""
NORM_EPSILON = 1e-5
ROPE_BASE = 10_000.0
ROPE_SECTIONS = [4, 2, 2]
"""Pairs by dimension of a position, if it has three; these are equal for audio."""
CONTEXT_TOKENS = 2048
EMBEDDING_SCALE, ATTENTION_SCALE, RESIDUAL_SCALE, LOGITS_SCALE = 3.0, 0.2, 0.5, 1.5
"""Numbers of Granite's text model; logits are divided by the last one."""
ATTENTION_CAP, LOGITS_CAP = 50.0, 30.0
"""Numbers of MERaLiON's text model, a Gemma 2."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of models. `control` are its tokens around audio and turns, of which `audio` stands
    for one embedding in the reference's prompts, and `end` ends an answer. llama.cpp adds the
    `added_tokens` to a prompt. `text_seed` is one whose answers vary, and whose
    tokens are chosen clearly. The projector joins `stack_factor` positions of the encoder to one
    embedding. llama.cpp adds the token `begin` to a prompt, if the family has one.
    `replaced_token` stands for an embedding where `audio` is not a token. llama.cpp has an
    embedding for each of the `end_tokens`, which the reference's prompts have around audio."""

    name: str
    architecture: str
    projector: str
    control: tuple[str, ...]
    audio: str
    added_tokens: tuple[str, ...]
    text_seed: int
    end: str = "<|im_end|>"
    has_text_bias: bool = False
    has_text_norms: bool = False
    stack_factor: int = 1
    begin: str | None = None
    replaced_token: str | None = None
    end_tokens: tuple[str, ...] = ()

    @property
    def audio_token(self) -> str:
        """The token that stands for one embedding in the reference's prompts."""
        return self.replaced_token or self.audio

    @property
    def is_granite(self) -> bool:
        """True for Granite speech and its Plus."""
        return self.architecture == "granite"

    @property
    def is_gemma(self) -> bool:
        """True for Gemma 4, with an encoder of audio and without."""
        return self.architecture == "gemma4"

    @property
    def has_qwen3_ears(self) -> bool:
        """True for families with the encoder of Qwen3-Omni."""
        return self.projector == "qwen3a"

    @property
    def has_experts(self) -> bool:
        """True for families whose text model is a mixture of experts."""
        return self.architecture.endswith("moe")

    @property
    def tokens(self) -> list[str]:
        """The vocabulary: bytes, merged pieces and control tokens."""
        return [*byte_characters(), *MERGED, *self.control]

    def bytes_of(self, token: int) -> bytes:
        """The text of a token, in bytes."""
        of_character = {character: byte for byte, character in enumerate(byte_characters())}
        return bytes(of_character[character] for character in self.tokens[token])


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A recording that `chirp` makes."""

    name: str
    seconds: float
    amplitude: float = 0.5


VOXTRAL = Family(
    name="voxtral",
    architecture="llama",
    projector="voxtral",
    control=("<s>", "</s>", "[INST]", "[/INST]", "[AUDIO]", "[BEGIN_AUDIO]", "[TRANSCRIBE]"),
    audio="[AUDIO]",
    added_tokens=("<s>", "[BEGIN_AUDIO]"),
    text_seed=74,
    end="</s>",
    stack_factor=EAR_FORWARD // EAR_SIZE,
    begin="<s>",
)
QWEN2_AUDIO = Family(
    name="qwen2_audio",
    architecture="qwen2",
    projector="qwen2a",
    control=("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|audio_bos|>", "<|AUDIO|>",
             "<|audio_eos|>"),
    audio="<|AUDIO|>",
    added_tokens=("<|audio_bos|>", "<|audio_eos|>"),
    text_seed=5,
    has_text_bias=True,
)  # fmt: skip
AUDIO_FLAMINGO = Family(
    name="audio_flamingo",
    architecture="qwen2",
    projector="musicflamingo",
    control=("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<sound>"),
    audio="<sound>",
    added_tokens=(),
    text_seed=1,
    has_text_bias=True,
)
QWEN25_OMNI = Family(
    name="qwen25_omni",
    architecture="qwen2vl",
    projector="qwen2.5o",
    control=("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|audio_bos|>", "<|AUDIO|>",
             "<|audio_eos|>"),
    audio="<|AUDIO|>",
    added_tokens=("<|audio_bos|>", "<|audio_eos|>"),
    text_seed=84,
    has_text_bias=True,
)  # fmt: skip
QWEN3_ASR = Family(
    name="qwen3_asr",
    architecture="qwen3vl",
    projector="qwen3a",
    control=("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|audio_start|>", "<|audio_pad|>",
             "<|audio_end|>", "<asr_text>"),
    audio="<|audio_pad|>",
    added_tokens=("<|audio_start|>", "<|audio_end|>"),
    text_seed=179,
    has_text_norms=True,
)  # fmt: skip
QWEN3_OMNI = Family(
    name="qwen3_omni",
    architecture="qwen3vlmoe",
    projector="qwen3a",
    control=("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|audio_start|>", "<|audio_pad|>",
             "<|audio_end|>"),
    audio="<|audio_pad|>",
    added_tokens=("<|audio_start|>", "<|audio_end|>"),
    text_seed=21,
    has_text_norms=True,
)  # fmt: skip
ULTRAVOX = Family(
    name="ultravox",
    architecture="llama",
    projector="ultravox",
    control=("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
             "<|eot_id|>"),
    audio="<|audio|>",  # the reference divides the text at it
    replaced_token="<|end_of_text|>",
    added_tokens=("<|begin_of_text|>",),
    text_seed=42,
    end="<|eot_id|>",
    stack_factor=8,
    begin="<|begin_of_text|>",
)  # fmt: skip
GLM_ASR = Family(
    name="glm_asr",
    architecture="llama",
    projector="glma",
    control=("<|endoftext|>", "<|user|>", "<|assistant|>", "<|begin_of_audio|>", "<|pad|>",
             "<|end_of_audio|>"),
    audio="<|pad|>",
    added_tokens=("<|begin_of_audio|>", "<|end_of_audio|>"),
    text_seed=76,
    end="<|endoftext|>",
    stack_factor=glm.STACKED,
    end_tokens=("<|begin_of_audio|>", "<|end_of_audio|>"),
)  # fmt: skip
GEMMA_4 = Family(
    name="gemma_4",
    architecture="gemma4",
    projector="gemma4a",
    control=("<bos>", "<eos>", "<|turn>", "<turn|>", "<|audio>", "<|audio|>", "<audio|>"),
    audio="<|audio|>",
    added_tokens=("<bos>", "<|audio>", "<audio|>"),
    text_seed=13,
    end="<turn|>",
    has_text_norms=True,
    begin="<bos>",
)
GEMMA_4_UNIFIED = replace(GEMMA_4, name="gemma_4_unified", projector="gemma4ua", text_seed=13)
LFM2_AUDIO = Family(
    name="lfm2_audio",
    architecture="lfm2",
    projector="lfm2a",
    control=("<|pad|>", "<|startoftext|>", "<|im_start|>", "<|im_end|>"),
    audio="<|audio|>",  # the reference's prompt has no token for it
    replaced_token="<|pad|>",
    added_tokens=("<|startoftext|>",),
    text_seed=1,
    begin="<|startoftext|>",
)
MERALION = Family(
    name="meralion",
    architecture="gemma2",
    projector="meralion",
    control=("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>", "<SpeechHere>"),
    audio="<SpeechHere>",
    added_tokens=("<bos>",),
    text_seed=8,
    end="<end_of_turn>",
    stack_factor=15,
    begin="<bos>",
)
GRANITE_SPEECH = Family(
    name="granite_speech",
    architecture="granite",
    projector="granite_speech",
    control=("<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>", "<|audio|>"),
    audio="<|audio|>",
    added_tokens=(),
    text_seed=109,
    end="<|end_of_text|>",
)
GRANITE_SPEECH_PLUS = replace(GRANITE_SPEECH, name="granite_speech_plus", text_seed=37)
_GRANITE_PROMPT = (
    "<|start_of_role|>user<|end_of_role|><|audio|>can you transcribe the speech into a written "
    "format?<|end_of_text|>\n<|start_of_role|>assistant<|end_of_role|>"
)
_GEMMA_PROMPT = "<bos><|turn>user\nwhat is it?\n<|audio><|audio|><audio|><turn|>\n<|turn>model\n"
_QWEN2_PROMPT = (
    "<|im_start|>user\n<|audio_bos|><|AUDIO|><|audio_eos|>what is it?<|im_end|>\n"
    "<|im_start|>assistant\n"
)
PROMPTS = {
    VOXTRAL.name: "<s>[INST][BEGIN_AUDIO][AUDIO][/INST]lang:en[TRANSCRIBE]",
    QWEN2_AUDIO.name: _QWEN2_PROMPT,
    QWEN25_OMNI.name: _QWEN2_PROMPT,
    AUDIO_FLAMINGO.name: (
        "<|im_start|>user\n<sound>what is it?<|im_end|>\n<|im_start|>assistant\n"
    ),
    QWEN3_ASR.name: (
        "<|im_start|>system\n<|im_end|>\n"
        "<|im_start|>user\n<|audio_start|><|audio_pad|><|audio_end|><|im_end|>\n"
        "<|im_start|>assistant\nlanguage English<asr_text>"
    ),
    QWEN3_OMNI.name: (
        "<|im_start|>user\n<|audio_start|><|audio_pad|><|audio_end|>what is it?<|im_end|>\n"
        "<|im_start|>assistant\n"
    ),
    ULTRAVOX.name: (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nwhat is it?\n<|audio|>"
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    GLM_ASR.name: (
        "<|user|>\n<|begin_of_audio|><|pad|><|end_of_audio|>"
        "<|user|>\nPlease transcribe this audio into text<|assistant|>\n"
    ),
    GEMMA_4.name: _GEMMA_PROMPT,
    GEMMA_4_UNIFIED.name: _GEMMA_PROMPT,
    LFM2_AUDIO.name: (
        "<|startoftext|><|im_start|>system\nPerform ASR.<|im_end|>\n"
        "<|im_start|>user\n<|audio|><|im_end|>\n<|im_start|>assistant\n"
    ),
    MERALION.name: (
        "<bos><start_of_turn>user\nInstruction: Please transcribe this speech. \n"
        "Follow the text instruction based on the following audio: <SpeechHere><end_of_turn>\n"
        "<start_of_turn>model\n"
    ),
    GRANITE_SPEECH.name: _GRANITE_PROMPT,
    GRANITE_SPEECH_PLUS.name: _GRANITE_PROMPT,
}
"""Prompts of the reference, by family."""
FAMILIES = {
    family.name: family
    for family in (
        VOXTRAL,
        QWEN2_AUDIO,
        AUDIO_FLAMINGO,
        QWEN25_OMNI,
        QWEN3_ASR,
        QWEN3_OMNI,
        ULTRAVOX,
        GLM_ASR,
        GEMMA_4,
        GEMMA_4_UNIFIED,
        LFM2_AUDIO,
        MERALION,
        GRANITE_SPEECH,
        GRANITE_SPEECH_PLUS,
    )
}
RECORDINGS = {
    VOXTRAL.name: [
        Recording(name="short", seconds=3),
        Recording(name="two windows", seconds=34),
        Recording(name="thirty seconds", seconds=30),
        Recording(name="quiet", seconds=3, amplitude=0.01),
    ],
    QWEN2_AUDIO.name: [
        Recording(name="short", seconds=3),
        Recording(name="part of an embedding", seconds=3.1),
        Recording(name="part of a position", seconds=3.11),
        Recording(name="a whole window", seconds=29.985),
        Recording(name="quiet", seconds=3, amplitude=0.01),
    ],
    AUDIO_FLAMINGO.name: [
        Recording(name="short", seconds=3),
        Recording(name="part of a position", seconds=3.11),
        Recording(name="a whole window", seconds=29.985),
        Recording(name="quiet", seconds=3, amplitude=0.01),
    ],
    QWEN25_OMNI.name: [
        Recording(name="whole embeddings", seconds=3.08),
        Recording(name="part of an embedding", seconds=3.1),
        Recording(name="part of a position", seconds=4.47),
        Recording(name="two windows", seconds=33.05),
        Recording(name="quiet", seconds=3.07, amplitude=0.01),
    ],
    QWEN3_ASR.name: [
        Recording(name="whole seconds", seconds=3),
        Recording(name="part of a second", seconds=3.4),
        Recording(name="three windows", seconds=19.3),
        Recording(name="quiet", seconds=3.4, amplitude=0.02),
    ],
    QWEN3_OMNI.name: [
        Recording(name="whole seconds", seconds=3),
        Recording(name="part of a second", seconds=3.4),
        Recording(name="three windows", seconds=19.3),
        Recording(name="quiet", seconds=3.4, amplitude=0.02),
    ],
    ULTRAVOX.name: [
        Recording(name="whole embeddings", seconds=3.2),
        Recording(name="part of an embedding", seconds=3.07),
        Recording(name="most of a window", seconds=29.9),
        Recording(name="quiet", seconds=3.07, amplitude=0.01),
    ],
    GLM_ASR.name: [
        Recording(name="whole embeddings", seconds=3.2),
        Recording(name="part of an embedding", seconds=3.07),
        Recording(name="a whole window", seconds=30),
        Recording(name="quiet", seconds=3.07, amplitude=0.01),
    ],
    GEMMA_4.name: [
        Recording(name="whole embeddings", seconds=3.2),
        Recording(name="part of an embedding", seconds=3.07),
        Recording(name="a whole window", seconds=30),
        Recording(name="quiet", seconds=3.07, amplitude=0.01),
    ],
    GEMMA_4_UNIFIED.name: [
        Recording(name="whole embeddings", seconds=3.2),
        Recording(name="part of an embedding", seconds=3.07),
        Recording(name="long", seconds=34),
        Recording(name="quiet", seconds=3.07, amplitude=0.01),
    ],
    LFM2_AUDIO.name: [
        Recording(name="whole embeddings", seconds=3.19),
        Recording(name="part of an embedding", seconds=3.07),
        Recording(name="part of a frame", seconds=3.205),
        Recording(name="long", seconds=34),
        Recording(name="quiet", seconds=3.07, amplitude=0.01),
    ],
    MERALION.name: [
        Recording(name="short", seconds=3.07),
        Recording(name="a whole window", seconds=30),
        Recording(name="two windows", seconds=34),
        Recording(name="quiet", seconds=3.07, amplitude=0.01),
    ],
    GRANITE_SPEECH.name: [
        Recording(name="whole blocks", seconds=3.2),
        Recording(name="part of a block", seconds=3.07),
        Recording(name="many blocks", seconds=34),
        Recording(name="quiet", seconds=3.2, amplitude=0.01),
    ],
    GRANITE_SPEECH_PLUS.name: [Recording(name="part of a block", seconds=3.07)],
}


def chirp(seconds: float, *, amplitude: float) -> NDArray[np.int16]:
    """A tone that rises from 100 Hz to 3 kHz in 10 s and falls again, with a pulse of 4 Hz."""
    times = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    hertz = 1550 - 1450 * np.cos(2 * np.pi * times / 20)
    phase = 2 * np.pi * np.cumsum(hertz) / RATE_HZ
    pulse = 0.6 + 0.4 * np.sin(2 * np.pi * 4 * times)
    return np.round(np.sin(phase) * pulse * amplitude * 32767).astype(np.int16)


def chirp_file(recording: Recording) -> bytes:
    """A recording as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, RATE_HZ, 0, "NONE", "not compressed"))
        samples = chirp(recording.seconds, amplitude=recording.amplitude)
        writer.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


def weights_of(family: Family) -> Weights:
    """All tensors of a model: the encoder's, the projector's and the text model's."""
    if family.is_granite:
        heard = list(granite.tensors(TEXT_SIZE, is_plus=family is GRANITE_SPEECH_PLUS))
    elif family is GLM_ASR:
        heard = list(glm.tensors(TEXT_SIZE))
    elif family is GEMMA_4:
        heard = list(gemma.tensors(TEXT_SIZE))
    elif family is GEMMA_4_UNIFIED:
        heard = list(gemma.unified_tensors(TEXT_SIZE))
    elif family is LFM2_AUDIO:
        heard = list(lfm2.tensors(TEXT_SIZE))
    else:
        heard = [*_ears(family), *_projector(family)]
    return {
        **{name: _values(f"{family.name}/{name}", shape) for name, shape in heard},
        **{
            name: _values(f"{family.name}/{family.text_seed}/{name}", shape)
            for name, shape in _text(family)
        },
    }


_NORMS = ("ln_pre.weight", "ln_mid.weight", "ln_post.weight", "norm_pre_attn.weight",
          "norm_post_attn.weight", "norm_out.weight", "layer_scalar", "norm_conv.weight",
          "norm_self_att.weight", "norm_feed_forward1.weight", "norm_feed_forward2.weight",
          "audio_adapter.model.0.weight", "ln_speech.weight")  # fmt: skip


def _values(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    bound = name.rpartition(".")[2]
    if bound in gemma.CLIPS:
        return np.array(gemma.CLIPS[bound], dtype=np.float32)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    values = rng.standard_normal(shape, dtype=np.float32)
    if name.endswith(("norm.weight", "LayerNorm.weight", "running_var", *_NORMS)):
        return np.float32(1) + np.float32(0.2) * values
    if len(shape) == 1:
        return np.float32(0.1) * values
    if name.startswith(MERALION.name) and name.endswith("embed_tokens.weight"):
        return np.float32(0.1) * values  # else a token is followed by itself
    if name.endswith(("embed_tokens.weight", "embed_positions.weight")):
        return np.float32(0.5) * values
    if name.endswith("lm_head.weight"):
        return np.float32(0.5) * values
    inputs = shape[-1] if ".experts." in name else np.prod(shape[1:])
    return values * np.float32(1.5 / np.sqrt(inputs))


def _text(family: Family) -> Iterator[tuple[str, tuple[int, ...]]]:
    vocabulary, kv_size = len(family.tokens), TEXT_SIZE // TEXT_HEADS * TEXT_KV_HEADS
    if family is LFM2_AUDIO:
        yield from lfm2.text_tensors(
            TEXT_SIZE,
            forward=TEXT_FORWARD,
            vocabulary=vocabulary,
            head_size=HEAD_SIZE,
            kv_size=kv_size,
        )
        return
    yield "model.language_model.embed_tokens.weight", (vocabulary, TEXT_SIZE)
    for layer in range(TEXT_LAYERS):
        block = f"model.language_model.layers.{layer}."
        for name, rows in (("q", TEXT_SIZE), ("k", kv_size), ("v", kv_size)):
            yield f"{block}self_attn.{name}_proj.weight", (rows, TEXT_SIZE)
            if family.has_text_bias:
                yield f"{block}self_attn.{name}_proj.bias", (rows,)
        if family.has_text_norms:
            yield f"{block}self_attn.q_norm.weight", (TEXT_SIZE // TEXT_HEADS,)
            yield f"{block}self_attn.k_norm.weight", (TEXT_SIZE // TEXT_HEADS,)
        yield f"{block}self_attn.o_proj.weight", (TEXT_SIZE, TEXT_SIZE)
        yield from _experts(f"{block}mlp.") if family.has_experts else _dense(f"{block}mlp.")
        yield f"{block}input_layernorm.weight", (TEXT_SIZE,)
        yield f"{block}post_attention_layernorm.weight", (TEXT_SIZE,)
    if family.is_gemma or family is MERALION:
        has_scalars = family.is_gemma
        yield from gemma.text_tensors(TEXT_SIZE, TEXT_LAYERS, has_scalars=has_scalars)
    if family is GEMMA_4:
        yield from gemma.layer_input_tensors(TEXT_SIZE, vocabulary, TEXT_LAYERS)
    yield "model.language_model.norm.weight", (TEXT_SIZE,)
    if family is not MERALION:
        yield "lm_head.weight", (vocabulary, TEXT_SIZE)


def _dense(block: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{block}gate_proj.weight", (TEXT_FORWARD, TEXT_SIZE)
    yield f"{block}up_proj.weight", (TEXT_FORWARD, TEXT_SIZE)
    yield f"{block}down_proj.weight", (TEXT_SIZE, TEXT_FORWARD)


def _experts(block: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{block}gate.weight", (EXPERTS, TEXT_SIZE)
    yield f"{block}experts.gate_up_proj", (EXPERTS, 2 * EXPERT_FORWARD, TEXT_SIZE)
    yield f"{block}experts.down_proj", (EXPERTS, TEXT_SIZE, EXPERT_FORWARD)


def _ears(family: Family) -> Iterator[tuple[str, tuple[int, ...]]]:
    tower = "model.audio_tower."
    is_whisper = not family.has_qwen3_ears
    yield from _whisper_inputs(tower, family) if is_whisper else _qwen_inputs(tower)
    for layer in range(EAR_LAYERS):
        block = f"{tower}layers.{layer}."
        for name in ("q", "v", "out"):
            yield from _with_bias(f"{block}self_attn.{name}_proj", (EAR_SIZE, EAR_SIZE))
        yield f"{block}self_attn.k_proj.weight", (EAR_SIZE, EAR_SIZE)
        if not is_whisper:
            yield f"{block}self_attn.k_proj.bias", (EAR_SIZE,)
        yield from _with_bias(f"{block}fc1", (EAR_FORWARD, EAR_SIZE))
        yield from _with_bias(f"{block}fc2", (EAR_SIZE, EAR_FORWARD))
        yield from _with_bias(f"{block}self_attn_layer_norm", (EAR_SIZE,))
        yield from _with_bias(f"{block}final_layer_norm", (EAR_SIZE,))
    yield from _with_bias(f"{tower}{'layer_norm' if is_whisper else 'ln_post'}", (EAR_SIZE,))


def _whisper_inputs(tower: str, family: Family) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _with_bias(f"{tower}conv1", (EAR_SIZE, MELS, 3))
    yield from _with_bias(f"{tower}conv2", (EAR_SIZE, EAR_SIZE, 3))
    if family is not QWEN25_OMNI:
        yield f"{tower}embed_positions.weight", (EAR_POSITIONS, EAR_SIZE)


def _qwen_inputs(tower: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    for number, inputs in ((1, 1), (2, EAR_CHANNELS), (3, EAR_CHANNELS)):
        yield from _with_bias(f"{tower}conv2d{number}", (EAR_CHANNELS, inputs, 3, 3))
    yield f"{tower}conv_out.weight", (EAR_SIZE, EAR_CHANNELS * MELS // 8)


def _projector(family: Family) -> Iterator[tuple[str, tuple[int, ...]]]:
    name = "model.multi_modal_projector.linear"
    stacked = family.stack_factor * EAR_SIZE
    if family.name == ULTRAVOX.name:
        yield "model.multi_modal_projector.ln_pre.weight", (stacked,)
        yield f"{name}_1.weight", (2 * ULTRAVOX_MIDDLE, stacked)
        yield "model.multi_modal_projector.ln_mid.weight", (ULTRAVOX_MIDDLE,)
        yield f"{name}_2.weight", (TEXT_SIZE, ULTRAVOX_MIDDLE)
    elif family is MERALION:
        inner = MERALION_WIDTHS * EAR_SIZE
        yield from _with_bias("model.multi_modal_projector.ln_speech", (EAR_SIZE,))
        yield from _with_bias("model.multi_modal_projector.mlp_adapter.0", (inner, stacked))
        yield from _with_bias("model.multi_modal_projector.gate_proj", (inner, inner))
        yield from _with_bias("model.multi_modal_projector.pool_proj", (inner, inner))
        yield from _with_bias("model.multi_modal_projector.out_proj", (TEXT_SIZE, inner))
    elif family.name == VOXTRAL.name:
        yield f"{name}_1.weight", (TEXT_SIZE, stacked)
        yield f"{name}_2.weight", (TEXT_SIZE, TEXT_SIZE)
    elif family is AUDIO_FLAMINGO:
        yield from _with_bias(f"{name}_1", (TEXT_SIZE, EAR_SIZE))
        yield from _with_bias(f"{name}_2", (TEXT_SIZE, TEXT_SIZE))
    elif family.has_qwen3_ears:
        yield from _with_bias(f"{name}_1", (EAR_SIZE, EAR_SIZE))
        yield from _with_bias(f"{name}_2", (TEXT_SIZE, EAR_SIZE))
    else:
        yield from _with_bias(name, (TEXT_SIZE, EAR_SIZE))


def _with_bias(name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]
