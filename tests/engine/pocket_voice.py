"""Writes a tiny random-weight voice in Pocket TTS's form: a language model without a head, and a
projector with an encoder of samples, a flow that makes frames, and a decoder of their audio."""

from pathlib import Path

import numpy as np
from gguf import GGUFWriter, TokenType

from tests.engine.random_weights import RandomWeights
from tests.gguf_file import write_gguf

__all__ = ["FRAME_SAMPLES", "RATE_HZ", "write_pocket_voice"]

RATE_HZ = 24_000
SIZE, HEADS, LATENT, WIDTH, FLOW, TIMES = 32, 2, 4, 16, 16, 4
RATIOS, FRAME_STEPS = (4, 5, 6), 16  # the native code's own
FRAME_SAMPLES = 4 * 5 * 6 * FRAME_STEPS


def write_pocket_voice(folder: Path, *, ends: bool = True) -> tuple[Path, Path]:
    """The model and the projector in a folder, which is made. A part of a text has three frames, or
    if it never `ends` as many as a part may have."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    return (
        _write_model(folder / "pocket.gguf", rng),
        _write_projector(folder / "mmproj-pocket.gguf", rng, ends=ends),
    )


def _write_model(path: Path, rng: np.random.Generator) -> Path:
    writer = GGUFWriter(str(path), "pockettts")
    writer.add_name("tiny voice")
    writer.add_context_length(512)
    writer.add_embedding_length(SIZE)
    writer.add_feed_forward_length(2 * SIZE)
    writer.add_block_count(1)
    writer.add_head_count(HEADS)
    writer.add_layer_norm_eps(1e-5)
    writer.add_rope_dimension_count(SIZE // HEADS)
    count = _add_vocabulary(writer)
    weights = _Weights(writer, rng)
    weights.add("token_embd.weight", count, SIZE)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        weights.norm(name, SIZE)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        weights.add(f"blk.0.{name}.weight", SIZE, SIZE)
    weights.add("blk.0.ffn_up.weight", 2 * SIZE, SIZE)
    weights.add("blk.0.ffn_down.weight", SIZE, 2 * SIZE)
    return write_gguf(writer, path)


def _add_vocabulary(writer: GGUFWriter) -> int:
    """A unigram vocabulary of printable ASCII; gives the number of its tokens."""
    letters = ["\u2581", *map(chr, range(33, 127))]
    controls = ["<|pad|>", "<|bos_before_voice|>", "<|audio_bos|>"]
    tokens = ["<unk>", *letters, *controls]
    kinds = [TokenType.UNKNOWN, *[TokenType.NORMAL] * len(letters), *[TokenType.CONTROL] * 3]
    writer.add_tokenizer_model("t5")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0, *[-2.0] * len(letters), *[-1000.0] * 3])
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_add_space_prefix(True)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_vocab_size(len(tokens))
    return len(tokens)


def _write_projector(path: Path, rng: np.random.Generator, *, ends: bool) -> Path:
    writer = GGUFWriter(str(path), "clip")
    for sense, kind in (("audio", "pockettts_spkenc"), ("gen.audio", "pockettts_gen")):
        writer.add_bool(f"clip.has_{sense.replace('.', '_')}_encoder", True)
        writer.add_string(f"clip.{sense}.projector_type", kind)
        for name, value in (
            ("projection_dim", SIZE),
            ("embedding_length", WIDTH),
            ("feed_forward_length", 2 * WIDTH),
            ("block_count", 1),
            ("attention.head_count", HEADS),
        ):
            writer.add_uint32(f"clip.{sense}.{name}", value)
        writer.add_float32(f"clip.{sense}.attention.layer_norm_epsilon", 1e-5)
    writer.add_uint32("clip.audio.num_mel_bins", 1)
    writer.add_string("clip.gen.audio.model_variant", "english")
    weights = _Weights(writer, rng)
    _add_encoder(weights)
    _add_flow(weights)
    end = np.array([0.0 if ends else -9.0], np.float32)  # it ends above -4
    writer.add_tensor("a.gen.out_eos.weight", np.zeros((1, SIZE), np.float32))
    writer.add_tensor("a.gen.out_eos.bias", end)
    _add_decoder(weights)
    return write_gguf(writer, path)


def _add_encoder(weights: "_Weights") -> None:
    weights.seanet("a.seanet", 1, WIDTH, RATIOS)
    weights.block("a.blk.0")
    weights.kernel("a.downsample.conv.weight", LATENT, WIDTH, 2 * FRAME_STEPS)
    weights.add("a.speaker_proj.weight", SIZE, LATENT)


def _add_flow(weights: "_Weights") -> None:
    flow = "a.gen.flow"
    weights.dense(f"{flow}.input_proj", FLOW, LATENT)
    weights.dense(f"{flow}.cond_embd", FLOW, SIZE)
    weights.dense(f"{flow}.final.ada", 2 * FLOW, FLOW)
    weights.dense(f"{flow}.final.proj", LATENT, FLOW)
    for at in range(2):
        weights.add(f"{flow}.time.{at}.freqs", TIMES)
        weights.dense(f"{flow}.time.{at}.up", FLOW, 2 * TIMES)
        weights.dense(f"{flow}.time.{at}.down", FLOW, FLOW)
        weights.ones(f"{flow}.time.{at}.norm", FLOW)
    weights.norm(f"{flow}.blk.0.norm", FLOW)
    weights.dense(f"{flow}.blk.0.up", FLOW, FLOW)
    weights.dense(f"{flow}.blk.0.down", FLOW, FLOW)
    weights.dense(f"{flow}.blk.0.ada", 3 * FLOW, FLOW)


def _add_decoder(weights: "_Weights") -> None:
    weights.add("a.gen.input_linear.weight", SIZE, LATENT)
    weights.add("a.gen.emb_mean", LATENT)
    weights.ones("a.gen.emb_std", LATENT)
    weights.add("a.gen.wav.quant_out.weight", WIDTH, LATENT)
    weights.kernel("a.gen.wav.upsample.weight", WIDTH, 1, 2 * FRAME_STEPS)
    weights.block("a.gen.wav.tfm.blk.0")
    weights.seanet("a.gen.wav.seanet", WIDTH, 1, RATIOS[::-1])


class _Weights(RandomWeights):
    """Random tensors of a file, with those of this model's parts."""

    def kernel(self, name: str, *shape: int) -> None:
        """The native code's convolutions take 16 bits only."""
        values = self._rng.standard_normal(shape).astype(np.float16) * np.float16(0.3)
        self._writer.add_tensor(name, values)

    def block(self, name: str) -> None:
        for one in ("ln1", "ln2"):
            self.norm(f"{name}.{one}", WIDTH)
        for one in ("attn_q", "attn_k", "attn_v", "attn_out"):
            self.add(f"{name}.{one}.weight", WIDTH, WIDTH)
        self.add(f"{name}.ffn_up.weight", 2 * WIDTH, WIDTH)
        self.add(f"{name}.ffn_down.weight", WIDTH, 2 * WIDTH)
        self.ones(f"{name}.ls1.weight", WIDTH)
        self.ones(f"{name}.ls2.weight", WIDTH)

    def seanet(self, name: str, inside: int, outside: int, ratios: tuple[int, ...]) -> None:
        """Convolutions; the decoder's are transposed where they scale, which squares do not
        show."""
        self._convolution(f"{name}.conv_in", 4, inside, 3)
        for at, ratio in enumerate(ratios):
            self._convolution(f"{name}.blk.{at}.scale_conv", 4, 4, 2 * ratio)
            self._convolution(f"{name}.blk.{at}.res_conv1", 2, 4, 3)
            self._convolution(f"{name}.blk.{at}.res_conv2", 4, 2, 1)
        self._convolution(f"{name}.conv_out", outside, 4, 3)

    def _convolution(self, name: str, outside: int, inside: int, length: int) -> None:
        self.kernel(f"{name}.weight", outside, inside, length)
        self.add(f"{name}.bias", outside)
