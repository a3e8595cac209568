"""llama.cpp: the only package that imports llama_cpp. Only one thread may compute passes, because a
second OpenMP team would halve the speed; others may read the vocabulary.

model.py               a loaded model and its context: passes, cells, embeddings
draft_model_loader.py  loads a draft model for another one
eagle.py               EAGLE-3 drafts
weights.py             weights: mapped from their file, or read
devices.py             the devices of the native code, and their memory
huge_pages.py          weights in huge pages
header.py              metadata and kind of a model
vocabulary.py          tokenizer
native_head.py         drafts from hidden states, of a model's own head
native_batch.py        the native batch of a pass
cells.py               KV cells by slot
adapters.py            LoRA adapters
cell_memory.py         lazily allocated memory of cells
cpu_buffers.py         hook on the native code's buffers
prefill_kernels/       compiled kernels for passes of several tokens
projector.py           images and audio to embeddings
audio_windows.py       windows of audio, and the silence after them
audio_bitmap.py        bitmap of audio, and its release
convolution_end.py     the frame after the end of audio, for an encoder's first convolution
rotary_positions.py    rotary positions of an encoder, which llama.cpp does not compute
stacked_norm.py        norm of stacked positions, which llama.cpp computes otherwise
native_tensors.py      tensors of a computation: names and values
spectrogram.py         spectrogram of a window of audio in native memory
voxtral.py             rewrites projectors of Voxtral for llama.cpp
voice.py               a model of speech: the audio of a sentence
voice_codes.py         codes that such a model samples, and its languages
log.py                 the native code's log
"""

from llm_backend.engine.llama.cells import STATE_FORMAT
from llm_backend.engine.llama.draft_model_loader import (
    is_eagle,
    load_draft_model,
    load_eagle_head,
)
from llm_backend.engine.llama.log import LlamaLog, capture_log
from llm_backend.engine.llama.model import LlamaModel
from llm_backend.engine.llama.voice import LlamaVoiceModel

__all__ = [
    "STATE_FORMAT",
    "LlamaLog",
    "LlamaModel",
    "LlamaVoiceModel",
    "capture_log",
    "is_eagle",
    "load_draft_model",
    "load_eagle_head",
]
