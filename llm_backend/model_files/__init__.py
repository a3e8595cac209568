"""Model files without the engine, of all formats: location, header, and memory footprint.

location.py   finds the file of a model or a projector
header.py     GGUF header parser
diffusion.py  families and parts of models that draw
draft_heads.py  heads that draft tokens
model_costs.py  memory costs of a model by layer
footprint.py  memory of a model
memory_plan.py  layers by device, slots and context of a model on a machine
layer_placement.py  layers on GPUs
projector.py  media and memory of a projector
onnx_voice.py  speakers and files of a voice
onnx_metadata.py  metadata of ONNX files
recognizer.py  files and tokens of an ONNX model that transcribes
diarization.py  files of a model that tells speakers apart
gguf_voice.py  speakers and files of a voice that llama.cpp computes
whisper.py    sizes and memory of a Whisper file
memory.py     total and available memory of this machine, and amounts in words
"""

from llm_backend.model_files.diarization import (
    DiarizationFiles,
    read_diarization,
)
from llm_backend.model_files.diffusion import (
    DRAWING_PARTS,
    DiffusionFile,
    is_diffusion_file,
    read_diffusion,
)
from llm_backend.model_files.draft_heads import (
    draft_head_count,
    draft_head_problem,
    snapshot_count,
)
from llm_backend.model_files.footprint import (
    ModelShape,
    footprint,
)
from llm_backend.model_files.gguf_voice import (
    VOICE_ARCHITECTURES,
    VOICE_CONTEXT_TOKENS,
    VOICE_SAMPLE_RATE_HZ,
    VOICE_SAMPLE_S,
    GgufVoiceFiles,
    read_gguf_voice,
)
from llm_backend.model_files.header import (
    GgufHeader,
    HeaderError,
    model_parts,
    read_header,
)
from llm_backend.model_files.location import (
    HUB_NAME,
    ModelFile,
    ModelFileMissing,
    find_model_file,
    find_projector_file,
    has_part,
    list_model_files,
    model_folder,
    model_name,
    read_model_file,
    remove_model,
    select_by_quant,
)
from llm_backend.model_files.memory import available_memory_bytes, format_size, machine_memory_bytes
from llm_backend.model_files.memory_plan import (
    Device,
    Machine,
    MemoryPlan,
    PlanRequest,
    plan_memory,
    plan_smaller,
)
from llm_backend.model_files.model_costs import ModelCosts, generates, model_costs
from llm_backend.model_files.onnx_voice import (
    VoiceFamily,
    VoiceFiles,
    read_voice,
)
from llm_backend.model_files.projector import (
    AUDIO_TYPE_KEYS,
    audio_projector_types,
    projector_footprint,
    projector_media,
)
from llm_backend.model_files.recognizer import (
    RecognizerFiles,
    read_recognizer,
    read_symbols,
)
from llm_backend.model_files.whisper import (
    WhisperHeader,
    is_whisper_file,
    may_be_whisper,
    read_whisper_header,
)

SpeakingFiles = VoiceFiles | GgufVoiceFiles
"""Files of a model that speaks."""

__all__ = [
    "AUDIO_TYPE_KEYS",
    "DRAWING_PARTS",
    "HUB_NAME",
    "VOICE_ARCHITECTURES",
    "VOICE_CONTEXT_TOKENS",
    "VOICE_SAMPLE_RATE_HZ",
    "VOICE_SAMPLE_S",
    "Device",
    "DiarizationFiles",
    "DiffusionFile",
    "GgufHeader",
    "GgufVoiceFiles",
    "HeaderError",
    "Machine",
    "MemoryPlan",
    "ModelCosts",
    "ModelFile",
    "ModelFileMissing",
    "ModelShape",
    "PlanRequest",
    "RecognizerFiles",
    "SpeakingFiles",
    "VoiceFamily",
    "VoiceFiles",
    "WhisperHeader",
    "audio_projector_types",
    "available_memory_bytes",
    "draft_head_count",
    "draft_head_problem",
    "find_model_file",
    "find_projector_file",
    "footprint",
    "format_size",
    "generates",
    "has_part",
    "is_diffusion_file",
    "is_whisper_file",
    "list_model_files",
    "machine_memory_bytes",
    "may_be_whisper",
    "model_costs",
    "model_folder",
    "model_name",
    "model_parts",
    "plan_memory",
    "plan_smaller",
    "projector_footprint",
    "projector_media",
    "read_diarization",
    "read_diffusion",
    "read_gguf_voice",
    "read_header",
    "read_model_file",
    "read_recognizer",
    "read_symbols",
    "read_voice",
    "read_whisper_header",
    "remove_model",
    "select_by_quant",
    "snapshot_count",
]
