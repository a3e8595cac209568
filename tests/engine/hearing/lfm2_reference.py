"""Reference implementation of LFM2-Audio, which is not in `transformers`: its authors' classes.

Needs Python 3.12 and the package `liquid-audio` (1.3.0) with what it imports: `torch`,
`torchaudio`, `transformers`, `librosa`, `einops`, `accelerate` and `sentencepiece`. It is imported
where it is used, as the other families do not need it.
"""

import tempfile
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers

from tests.audio_files import RATE_HZ
from tests.engine.gguf_models import merges
from tests.engine.hearing import families, lfm2
from tests.engine.hearing.families import LFM2_AUDIO, weights_of


class Listener:
    """The authors' model, called as the models of `transformers` are."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, *, input_ids: torch.Tensor, audio_in: torch.Tensor, **_: Any) -> Any:
        """The logits of a prompt in which a token stands for each embedding of the audio."""
        from liquid_audio import LFMModality

        is_audio = input_ids == LFM2_AUDIO.tokens.index(LFM2_AUDIO.audio_token)
        embeddings = self.model._prefill(
            text=input_ids[~is_audio][None],
            audio_in=audio_in,
            audio_in_lens=torch.tensor([audio_in.shape[1]]),
            audio_out=torch.empty((lfm2.CODEBOOKS, 0), dtype=torch.long),
            modality_flag=torch.where(is_audio, LFMModality.AUDIO_IN, LFMModality.TEXT),
        )
        hidden = self.model.lfm(inputs_embeds=embeddings, use_cache=False).last_hidden_state
        logits = torch.nn.functional.linear(hidden, self.model.lfm.embed_tokens.weight)
        return SimpleNamespace(logits=logits)


def model() -> Listener:
    """The model with the weights of the tests, in evaluation mode."""
    from liquid_audio import LFM2AudioModel
    from liquid_audio.model.lfm2_audio import DepthformerConfig, LFM2AudioConfig

    text = transformers.Lfm2Config(
        vocab_size=len(LFM2_AUDIO.tokens),
        hidden_size=families.TEXT_SIZE,
        intermediate_size=families.TEXT_FORWARD,
        block_auto_adjust_ff_dim=False,
        num_hidden_layers=len(lfm2.TEXT_LAYER_TYPES),
        layer_types=list(lfm2.TEXT_LAYER_TYPES),
        num_attention_heads=families.TEXT_HEADS,
        num_key_value_heads=families.TEXT_KV_HEADS,
        max_position_embeddings=families.CONTEXT_TOKENS,
        norm_eps=families.NORM_EPSILON,
        rope_theta=families.ROPE_BASE,
        conv_L_cache=lfm2.CONVOLUTION_TOKENS,
        conv_bias=False,
    )
    assert text.rope_parameters["rope_theta"] == families.ROPE_BASE
    config = LFM2AudioConfig(
        architectures=[],
        codebooks=lfm2.CODEBOOKS,
        tie_audio_embeddings=False,
        semantic_codebook_factor=1,
        codebook_weight="log",
        interleaved_n_text=6,
        interleaved_n_audio=12,
        preprocessor=_preprocessor(),
        encoder=_encoder(),
        lfm=text,
        depthformer=DepthformerConfig(layers=1, dim=families.TEXT_SIZE, tie=False),
    )
    found = LFM2AudioModel(config)
    tensors = {
        name.replace("model.language_model.", "lfm."): torch.from_numpy(values)
        for name, values in weights_of(LFM2_AUDIO).items()
    }
    loaded = found.load_state_dict(tensors, strict=False)
    assert not loaded.unexpected_keys, loaded.unexpected_keys
    unused = ("depth", "audio_embedding.", "codebook_offsets", "audio_loss")  # to speak
    assert all(name.startswith(unused) for name in loaded.missing_keys), loaded.missing_keys
    return Listener(found.eval())


def projector(listener: Listener) -> torch.nn.Module:
    """The module whose output is the embeddings."""
    found: torch.nn.Module = listener.model.audio_adapter
    return found


def inputs(samples: np.ndarray) -> tuple[list[int], dict[str, torch.Tensor]]:
    """The prompt of a transcription as the authors' page has it, with a token for each embedding,
    and the audio."""
    from liquid_audio import ChatState, LFMModality

    chat = ChatState(_processor(), dtype=torch.float32)
    chat.new_turn("system")
    chat.add_text("Perform ASR.")
    chat.end_turn()
    chat.new_turn("user")
    chat.add_audio(torch.from_numpy(samples)[None], RATE_HZ)
    chat.end_turn()
    chat.new_turn("assistant")
    marker = LFM2_AUDIO.tokens.index(LFM2_AUDIO.audio_token)
    prompt = torch.full(chat.modality_flag.shape, marker)
    prompt[chat.modality_flag == LFMModality.TEXT] = chat.text[0]
    return prompt[0].tolist(), {"audio_in": chat.audio_in}


@cache
def _processor() -> Any:
    from liquid_audio import LFM2AudioProcessor

    pieces = {piece: index for index, piece in enumerate(LFM2_AUDIO.tokens)}
    pairs = [tuple(one.split(" ")) for one in merges()]
    found = tokenizers.Tokenizer(tokenizers.models.BPE(pieces, pairs))
    found.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.add_special_tokens(list(LFM2_AUDIO.control))
    with tempfile.TemporaryDirectory() as folder:
        transformers.PreTrainedTokenizerFast(tokenizer_object=found).save_pretrained(folder)
        return LFM2AudioProcessor(folder, _preprocessor())


def _preprocessor() -> Any:
    """The numbers of LFM2-Audio-1.5B."""
    from liquid_audio.processor import PreprocessorConfig

    return PreprocessorConfig(
        sample_rate=RATE_HZ,
        normalize="per_feature",
        window_size=0.025,
        window_stride=0.01,
        window="hann",
        features=lfm2.MELS,
        n_fft=512,
        log=True,
        frame_splicing=1,
        dither=1e-5,
        pad_to=0,
        pad_value=0.0,
    )


def _encoder() -> Any:
    """The numbers of LFM2-Audio-1.5B, with fewer channels and layers."""
    from liquid_audio.model.conformer.encoder import ConformerEncoderConfig

    return ConformerEncoderConfig(
        feat_in=lfm2.MELS,
        feat_out=-1,
        n_layers=lfm2.LAYERS,
        d_model=lfm2.SIZE,
        subsampling="dw_striding",
        subsampling_factor=8,
        subsampling_conv_channels=lfm2.CHANNELS,
        causal_downsampling=False,
        reduction=None,
        reduction_position=None,
        reduction_factor=1,
        ff_expansion_factor=lfm2.FORWARD_FACTOR,
        self_attention_model="rel_pos",
        n_heads=lfm2.HEADS,
        att_context_size=[-1, -1],
        xscaling=False,
        untie_biases=True,
        pos_emb_max_len=5000,
        conv_kernel_size=lfm2.KERNEL,
        conv_norm_type="batch_norm",
        conv_context_size=None,
        dropout=0.1,
        dropout_pre_encoder=0.1,
        dropout_emb=0.0,
        dropout_att=0.1,
    )
