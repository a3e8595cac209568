"""Writes a tiny random-weight voice in Qwen3-TTS's form: a language model of text and codes, and a
projector with an encoder of speakers, a predictor of the other codes, and a decoder of audio."""

from pathlib import Path

import numpy as np
from gguf import GGUFWriter, TokenType

from tests.engine.random_weights import RandomWeights
from tests.gguf_file import write_gguf

__all__ = ["FRAME_SAMPLES", "RATE_HZ", "write_qwen_voice"]

RATE_HZ = 24_000
SIZE, HEADS, WIDTH, CODES = 32, 2, 16, 16
CODEC, SUPPRESSED, BOOKS = 3072, 1024, 15  # the native code's own
END = 2150
STRIDES = (2, 2, 2, 2)
FRAME_SAMPLES = 2 * 2 * 16
SPECIAL = {
    2148: "codec_pad", 2149: "codec_bos", END: "codec_eos_token", 2154: "codec_think",
    2156: "codec_think_bos", 2157: "codec_think_eos", 2050: "codec_language_english",
    2053: "codec_language_german",
}  # fmt: skip


def write_qwen_voice(folder: Path) -> tuple[Path, Path]:
    """The model and the projector in a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    return (
        _write_model(folder / "qwen.gguf", rng),
        _write_projector(folder / "mmproj-qwen.gguf", rng),
    )


def _write_model(path: Path, rng: np.random.Generator) -> Path:
    writer = GGUFWriter(str(path), "qwen3tts")
    writer.add_name("tiny voice")
    writer.add_context_length(2048)
    writer.add_embedding_length(SIZE)
    writer.add_feed_forward_length(2 * SIZE)
    writer.add_block_count(1)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_key_length(SIZE // HEADS)
    writer.add_value_length(SIZE // HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_rope_dimension_sections([3, 3, 2, 0])
    count = _add_vocabulary(writer)
    weights = _Weights(writer, rng)
    weights.add("token_embd.weight", count, SIZE)
    weights.add("output.weight", CODEC, SIZE)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        weights.ones(f"{name}.weight", SIZE)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        weights.add(f"blk.0.{name}.weight", SIZE, SIZE)
    for name in ("attn_q_norm", "attn_k_norm"):
        weights.ones(f"blk.0.{name}.weight", SIZE // HEADS)
    for name in ("ffn_up", "ffn_gate"):
        weights.add(f"blk.0.{name}.weight", 2 * SIZE, SIZE)
    weights.add("blk.0.ffn_down.weight", SIZE, 2 * SIZE)
    return write_gguf(writer, path)


def _add_vocabulary(writer: GGUFWriter) -> int:
    """Bytes, controls of texts, and codes; gives the number of tokens."""
    letters = [chr(one) for one in range(33, 127)] + ["\u0120", "\u010a"]
    controls = ["<|im_start|>", "<|im_end|>", "<tts_pad>", "<tts_text_bos>", "<tts_text_eod>"]
    codes = [f"<|{SPECIAL.get(number, f'codec_{number}')}|>" for number in range(CODEC)]
    tokens = [*letters, "as", *controls, *codes]
    first = len(tokens) - CODEC
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    normal = len(letters) + 1
    kinds = [TokenType.NORMAL] * normal + [TokenType.CONTROL] * (len(tokens) - normal)
    writer.add_token_types(kinds)
    writer.add_token_merges(["a s"])
    writer.add_eos_token_id(first + END)
    writer.add_add_bos_token(False)
    writer.add_array(
        "tokenizer.ggml.suppress_tokens",
        [one for one in range(len(tokens) - SUPPRESSED, len(tokens)) if one != first + END],
    )
    return len(tokens)


def _write_projector(path: Path, rng: np.random.Generator) -> Path:
    writer = GGUFWriter(str(path), "clip")
    for sense, kind, blocks in (
        ("audio", "qwen3tts_spkenc", 3),
        ("gen.audio", "qwen3tts_gen", 1),
    ):
        writer.add_bool(f"clip.has_{sense.replace('.', '_')}_encoder", True)
        writer.add_string(f"clip.{sense}.projector_type", kind)
        for name, value in (
            ("projection_dim", SIZE),
            ("embedding_length", WIDTH),
            ("feed_forward_length", 2 * WIDTH),
            ("block_count", blocks),
            ("attention.head_count", HEADS),
            ("attention.head_count_kv", HEADS),
        ):
            writer.add_uint32(f"clip.{sense}.{name}", value)
        writer.add_float32(f"clip.{sense}.attention.layer_norm_epsilon", 1e-5)
    writer.add_uint32("clip.audio.num_mel_bins", 128)
    weights = _Weights(writer, rng)
    _add_speaker_encoder(weights)
    _add_code_predictor(weights)
    _add_decoder(weights)
    return write_gguf(writer, path)


def _add_speaker_encoder(weights: "_Weights") -> None:
    weights.plain("a.conv1d.0", WIDTH, 128, 5)
    for number in (1, 2, 3):
        block = f"a.blk.{number}"
        weights.plain(f"{block}.conv_pw1", WIDTH, WIDTH, 1)
        weights.plain(f"{block}.conv_pw2", WIDTH, WIDTH, 1)
        weights.plain(f"{block}.se_conv1", 4, WIDTH, 1)
        weights.plain(f"{block}.se_conv2", WIDTH, 4, 1)
        for part in range(7):
            weights.plain(f"{block}.res2.{part}", WIDTH // 8, WIDTH // 8, 3)
    weights.plain("a.conv_out", 3 * WIDTH, 3 * WIDTH, 1)
    weights.plain("a.asp_tdnn", 8, 9 * WIDTH, 1)
    weights.plain("a.asp_attn", 3 * WIDTH, 8, 1)
    weights.plain("mm.a.fc", SIZE, 6 * WIDTH, 1)


def _add_code_predictor(weights: "_Weights") -> None:
    code = "a.gen.code"
    weights.dense(f"{code}.proj_in", WIDTH, SIZE)
    weights.add(f"{code}.embd.weight", BOOKS, CODES, SIZE)
    weights.add(f"{code}.head.weight", BOOKS, CODES, WIDTH)
    weights.add(f"{code}.out_embd.weight", CODEC, SIZE)
    weights.ones(f"{code}.output_norm.weight", WIDTH)
    weights.block(f"{code}.blk.0", WIDTH, WIDTH)
    for name in ("attn_q_norm", "attn_k_norm"):
        weights.ones(f"{code}.blk.0.{name}.weight", WIDTH // HEADS)


def _add_decoder(weights: "_Weights") -> None:
    wav = "a.gen.wav"
    for name, count in (("first", 1), ("rest", BOOKS)):
        weights.add(f"{wav}.quant.{name}.in_proj.weight", 8, WIDTH)
        weights.add(f"{wav}.quant.{name}.out_proj.weight", WIDTH, 8)
        books = (count, CODES, 8) if count > 1 else (CODEC, 8)
        weights.add(f"{wav}.quant.{name}.codebook.weight", *books)
    weights.conv(f"{wav}.pre_conv", WIDTH, WIDTH, 3)
    weights.dense(f"{wav}.tfm.in_proj", WIDTH, WIDTH)
    weights.dense(f"{wav}.tfm.out_proj", WIDTH, WIDTH)
    weights.ones(f"{wav}.tfm.output_norm.weight", WIDTH)
    for number in range(8):
        block = f"{wav}.tfm.blk.{number}"
        weights.block(block, WIDTH, 2 * 16)
        weights.ones(f"{block}.ls1.weight", WIDTH)
        weights.ones(f"{block}.ls2.weight", WIDTH)
    for number in range(2):
        block = f"{wav}.up.blk.{number}"
        weights.conv(f"{block}.conv", WIDTH, WIDTH, 2)
        weights.conv(f"{block}.dwconv", WIDTH, 1, 7)
        weights.norm(f"{block}.norm", WIDTH)
        weights.dense(f"{block}.pw1", 2 * WIDTH, WIDTH)
        weights.dense(f"{block}.pw2", WIDTH, 2 * WIDTH)
        weights.ones(f"{block}.gamma", WIDTH)
    weights.conv(f"{wav}.dac.entry", WIDTH, WIDTH, 7)
    for number, stride in enumerate(STRIDES):
        block = f"{wav}.dac.blk.{number}"
        weights.snake(f"{block}.snake", WIDTH)
        weights.conv(f"{block}.conv", WIDTH, WIDTH, 2 * stride)
        for part in range(3):
            weights.snake(f"{block}.res.{part}.act1", WIDTH)
            weights.conv(f"{block}.res.{part}.conv1", WIDTH, WIDTH, 7)
            weights.snake(f"{block}.res.{part}.act2", WIDTH)
            weights.conv(f"{block}.res.{part}.conv2", WIDTH, WIDTH, 1)
    weights.snake(f"{wav}.dac.post_snake", WIDTH)
    weights.conv(f"{wav}.dac.post_conv", 1, WIDTH, 7)


class _Weights(RandomWeights):
    """Random tensors of a file, with those of this model's parts."""

    def plain(self, name: str, outside: int, inside: int, length: int) -> None:
        self.add(f"{name}.weight", outside, inside, length)
        self.add(f"{name}.bias", outside)

    def conv(self, name: str, outside: int, inside: int, length: int) -> None:
        """The native code's convolutions take 16 bits only."""
        values = self._rng.standard_normal((outside, inside, length)).astype(np.float16)
        self._writer.add_tensor(f"{name}.weight", values * np.float16(0.1))
        self.add(f"{name}.bias", outside)

    def snake(self, name: str, length: int) -> None:
        for part in ("alpha", "beta"):
            self.ones(f"{name}.{part}", length)

    def block(self, name: str, width: int, inner: int) -> None:
        for one in ("ln1", "ln2"):
            self.ones(f"{name}.{one}.weight", width)
        for one in ("attn_q", "attn_k", "attn_v"):
            self.add(f"{name}.{one}.weight", inner, width)
        self.add(f"{name}.attn_out.weight", width, inner)
        for one in ("ffn_up", "ffn_gate"):
            self.add(f"{name}.{one}.weight", 2 * width, width)
        self.add(f"{name}.ffn_down.weight", width, 2 * width)
