"""Reference implementation of Ultravox, which is not in `transformers`: its authors' own classes.

Needs the repository `fixie-ai/ultravox` (commit 648efe7) in `PYTHONPATH`, and the versions of its
lock file: `transformers` 4.51.3, `peft` and `accelerate`. They are imported where they are used, as
the other families need newer versions.
"""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers

from tests.audio_files import RATE_HZ
from tests.engine.gguf_models import merges
from tests.engine.hearing import families
from tests.engine.hearing.families import PROMPTS, ULTRAVOX, weights_of


def model() -> Any:
    """The model with the weights of the tests, in evaluation mode."""
    from ultravox.model.ultravox_config import UltravoxConfig
    from ultravox.model.ultravox_model import UltravoxModel

    ears = {
        "model_type": "whisper",
        "_name_or_path": "whisper of the tests",
        **families.EARS,
    }
    text = {
        "model_type": "llama",
        "vocab_size": len(ULTRAVOX.tokens),
        "hidden_size": families.TEXT_SIZE,
        "intermediate_size": families.TEXT_FORWARD,
        "num_hidden_layers": families.TEXT_LAYERS,
        "num_attention_heads": families.TEXT_HEADS,
        "num_key_value_heads": families.TEXT_KV_HEADS,
        "rms_norm_eps": families.NORM_EPSILON,
        "rope_theta": families.ROPE_BASE,
        "max_position_embeddings": families.CONTEXT_TOKENS,
        "tie_word_embeddings": False,
    }
    config = UltravoxConfig(
        audio_config=ears,
        text_config=text,
        hidden_size=2 * families.ULTRAVOX_MIDDLE,
        stack_factor=ULTRAVOX.stack_factor,
        projector_act="swiglu",
        projector_ln_mid=True,
        torch_dtype="float32",
    )
    found = UltravoxModel(config)
    tensors = {_name(name): torch.from_numpy(one) for name, one in weights_of(ULTRAVOX).items()}
    found.load_state_dict(tensors, strict=True, assign=True)
    return found.eval()


def projector(model: Any) -> torch.nn.Module:
    """The module whose output is the embeddings: the projector's last one, as the reference calls
    the projector's `forward`, which calls no hook."""
    last: torch.nn.Module = model.multi_modal_projector.ln_post
    return last


def inputs(samples: np.ndarray) -> tuple[list[int], dict[str, torch.Tensor]]:
    """The prompt, with a token for each embedding, and the audio, as the reference's processor
    prepares them."""
    found = dict(_processor()(text=PROMPTS[ULTRAVOX.name], audio=samples, sampling_rate=RATE_HZ))
    del found["attention_mask"]
    prompt: list[int] = found.pop("input_ids")[0].tolist()
    return prompt, found


@cache
def _processor() -> Any:
    from ultravox.model.ultravox_processing import UltravoxProcessor

    return UltravoxProcessor(
        audio_processor=transformers.WhisperProcessor(
            transformers.WhisperFeatureExtractor(feature_size=families.MELS), _unused_tokenizer()
        ),
        tokenizer=_tokenizer(),
        stack_factor=ULTRAVOX.stack_factor,
    )


def _tokenizer() -> Any:
    pieces = {piece: index for index, piece in enumerate(ULTRAVOX.tokens)}
    pairs = [tuple(one.split(" ")) for one in merges()]
    found = tokenizers.Tokenizer(tokenizers.models.BPE(pieces, pairs))
    found.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.add_special_tokens(list(ULTRAVOX.control))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=found, eos_token=ULTRAVOX.audio_token
    )


def _unused_tokenizer() -> Any:
    """A tokenizer of Whisper, without which its processor cannot be made."""
    with tempfile.TemporaryDirectory() as folder:
        vocabulary, pairs = Path(folder) / "vocab.json", Path(folder) / "merges.txt"
        vocabulary.write_text('{"<|endoftext|>": 0}')
        pairs.write_text("#version: 0.2\n")
        return transformers.WhisperTokenizer(str(vocabulary), str(pairs))


def _name(name: str) -> str:
    """The reference's name of a tensor."""
    if name.startswith("model.language_model."):
        return name.replace("model.language_model.", "language_model.model.")
    return f"language_model.{name}" if name == "lm_head.weight" else name.removeprefix("model.")
