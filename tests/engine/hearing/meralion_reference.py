"""Reference implementation of MERaLiON, which is not in `transformers`: its authors' classes.

Needs the package `vllm-plugin-meralion2` (0.3.0) in `PYTHONPATH`, and `transformers` 4.51.3, whose
Gemma 2 scales the embeddings of audio as well as those of tokens, as the authors' vLLM does. The
package is imported where it is used, as the other families do not need it. Its class for the whole
model needs vLLM: the parts are put together here as there.
"""

from functools import cache
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers

from tests.audio_files import RATE_HZ
from tests.engine.gguf_models import merges
from tests.engine.hearing import families
from tests.engine.hearing.families import MERALION, PROMPTS, weights_of


class Listener(torch.nn.Module):
    """The parts of the authors' model, called as the models of `transformers` are."""

    def __init__(self) -> None:
        from vllm_plugin_meralion2.transformers_utils.modules import MERaLiON2SpeechAudioAdaper

        super().__init__()
        encoder = transformers.WhisperConfig(
            num_mel_bins=families.MELS,
            d_model=families.EAR_SIZE,
            encoder_ffn_dim=families.EAR_FORWARD,
            encoder_layers=families.EAR_LAYERS,
            encoder_attention_heads=families.EAR_HEADS,
        )
        self.speech_encoder = transformers.models.whisper.modeling_whisper.WhisperEncoder(encoder)
        self.ln_speech = torch.nn.LayerNorm(families.EAR_SIZE)
        self.speech_audio_adapter = MERaLiON2SpeechAudioAdaper(
            audio_hidden_size=families.EAR_SIZE,
            text_hidden_size=families.TEXT_SIZE,
            speech_mlp_scale_factor=MERALION.stack_factor,
            speech_mlp_use_projection=True,
        )
        self.text_decoder = transformers.Gemma2ForCausalLM(_text())

    def forward(
        self, *, input_ids: torch.Tensor, attention_mask: torch.Tensor, features: torch.Tensor
    ) -> Any:
        """The logits of a prompt in which a token stands for each embedding of the audio."""
        heard = self.ln_speech(self.speech_encoder(features).last_hidden_state)
        rows = self.speech_audio_adapter(heard).reshape(-1, families.TEXT_SIZE)
        embeddings = self.text_decoder.get_input_embeddings()(input_ids)
        embeddings[input_ids == MERALION.tokens.index(MERALION.audio)] = rows
        return self.text_decoder(
            inputs_embeds=embeddings, attention_mask=attention_mask, use_cache=False
        )


def model() -> Listener:
    """The model with the weights of the tests, in evaluation mode."""
    found = Listener()
    tensors = {_name(name): torch.from_numpy(one) for name, one in weights_of(MERALION).items()}
    tensors["text_decoder.lm_head.weight"] = tensors["text_decoder.model.embed_tokens.weight"]
    found.load_state_dict(tensors, strict=True)
    return found.eval()


def projector(listener: Listener) -> torch.nn.Module:
    """The module whose output is the embeddings."""
    return listener.speech_audio_adapter


def inputs(samples: np.ndarray) -> tuple[list[int], dict[str, torch.Tensor]]:
    """The prompt of a transcription, with a token for each embedding, and the audio, as the
    authors' processor prepares them."""
    found = _processor()(text=PROMPTS[MERALION.name], audios=samples, sampling_rate=RATE_HZ)
    return found["input_ids"][0].tolist(), {"features": found["input_features"]}


@cache
def _processor() -> Any:
    from vllm_plugin_meralion2.transformers_utils.processing_meralion2 import MERaLiON2Processor

    pieces = {piece: index for index, piece in enumerate(MERALION.tokens)}
    pairs = [tuple(one.split(" ")) for one in merges()]
    found = tokenizers.Tokenizer(tokenizers.models.BPE(pieces, pairs))
    found.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.add_special_tokens(list(MERALION.control))
    return MERaLiON2Processor(
        transformers.WhisperFeatureExtractor(feature_size=families.MELS),
        transformers.PreTrainedTokenizerFast(tokenizer_object=found, pad_token="<pad>"),
        fixed_speech_embeds_length=families.EAR_POSITIONS // MERALION.stack_factor,
        speech_token_index=MERALION.tokens.index(MERALION.audio),
    )


def _text() -> Any:
    return transformers.Gemma2Config(
        vocab_size=len(MERALION.tokens),
        hidden_size=families.TEXT_SIZE,
        intermediate_size=families.TEXT_FORWARD,
        num_hidden_layers=families.TEXT_LAYERS,
        num_attention_heads=families.TEXT_HEADS,
        num_key_value_heads=families.TEXT_KV_HEADS,
        head_dim=families.HEAD_SIZE,
        query_pre_attn_scalar=families.HEAD_SIZE,
        max_position_embeddings=families.CONTEXT_TOKENS,
        rms_norm_eps=families.NORM_EPSILON,
        rope_theta=families.ROPE_BASE,
        attn_logit_softcapping=families.ATTENTION_CAP,
        final_logit_softcapping=families.LOGITS_CAP,
        attn_implementation="eager",  # others leave out the cap of attention
    )


def _name(name: str) -> str:
    """The reference's name of a tensor."""
    for ours, theirs in (
        ("model.language_model.", "text_decoder.model."),
        ("model.audio_tower.", "speech_encoder."),
        ("model.multi_modal_projector.ln_speech.", "ln_speech."),
        ("model.multi_modal_projector.", "speech_audio_adapter."),
    ):
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise ValueError(f"{name} is no tensor of the model")
