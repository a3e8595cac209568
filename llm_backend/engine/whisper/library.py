"""Native functions and structures of whisper.cpp, as the package `pywhispercpp` builds it.

The package's own binding hides the probability that a window holds no speech, and the bytes of
characters that are cut between tokens. So the library in its wheel is called directly. The
structures are those of the pinned version; `open_library` refuses any other.
"""

import logging
from ctypes import (
    CDLL,
    CFUNCTYPE,
    POINTER,
    Structure,
    c_bool,
    c_char_p,
    c_float,
    c_int,
    c_int64,
    c_size_t,
    c_void_p,
)
from importlib.metadata import PackageNotFoundError, files
from typing import Any

from llm_backend.engine.model import LoadError
from llm_backend.engine.native_log import NativeLog

VERSION = "1.8.5"
"""Version of whisper.cpp whose structures are below."""

_GPU_KINDS = (1, 2)  # GGML_BACKEND_DEVICE_TYPE_GPU, _IGPU
_GREEDY = 0  # WHISPER_SAMPLING_GREEDY

LogCallback = CFUNCTYPE(None, c_int, c_char_p, c_void_p)
EncoderCallback = CFUNCTYPE(c_bool, c_void_p, c_void_p, c_void_p)
AbortCallback = CFUNCTYPE(c_bool, c_void_p)


class ContextParams(Structure):
    """`whisper_context_params`."""

    _fields_ = (
        ("use_gpu", c_bool),
        ("flash_attn", c_bool),
        ("gpu_device", c_int),
        ("dtw_token_timestamps", c_bool),
        ("dtw_aheads_preset", c_int),
        ("dtw_n_top", c_int),
        ("dtw_n_heads", c_size_t),
        ("dtw_heads", c_void_p),
        ("dtw_mem_size", c_size_t),
    )


class TokenData(Structure):
    """`whisper_token_data`; times are hundredths of a second."""

    _fields_ = (
        ("id", c_int),
        ("tid", c_int),
        ("p", c_float),
        ("plog", c_float),
        ("pt", c_float),
        ("ptsum", c_float),
        ("t0", c_int64),
        ("t1", c_int64),
        ("t_dtw", c_int64),
        ("vlen", c_float),
    )


class FullParams(Structure):
    """`whisper_full_params`."""

    _fields_ = (
        ("strategy", c_int),
        ("n_threads", c_int),
        ("n_max_text_ctx", c_int),
        ("offset_ms", c_int),
        ("duration_ms", c_int),
        ("translate", c_bool),
        ("no_context", c_bool),
        ("no_timestamps", c_bool),
        ("single_segment", c_bool),
        ("print_special", c_bool),
        ("print_progress", c_bool),
        ("print_realtime", c_bool),
        ("print_timestamps", c_bool),
        ("token_timestamps", c_bool),
        ("thold_pt", c_float),
        ("thold_ptsum", c_float),
        ("max_len", c_int),
        ("split_on_word", c_bool),
        ("max_tokens", c_int),
        ("debug_mode", c_bool),
        ("audio_ctx", c_int),
        ("tdrz_enable", c_bool),
        ("suppress_regex", c_char_p),
        ("initial_prompt", c_char_p),
        ("carry_initial_prompt", c_bool),
        ("prompt_tokens", POINTER(c_int)),
        ("prompt_n_tokens", c_int),
        ("language", c_char_p),
        ("detect_language", c_bool),
        ("suppress_blank", c_bool),
        ("suppress_nst", c_bool),
        ("temperature", c_float),
        ("max_initial_ts", c_float),
        ("length_penalty", c_float),
        ("temperature_inc", c_float),
        ("entropy_thold", c_float),
        ("logprob_thold", c_float),
        ("no_speech_thold", c_float),
        ("greedy_best_of", c_int),
        ("beam_size", c_int),
        ("beam_patience", c_float),
        ("new_segment_callback", c_void_p),
        ("new_segment_user_data", c_void_p),
        ("progress_callback", c_void_p),
        ("progress_user_data", c_void_p),
        ("encoder_begin_callback", EncoderCallback),
        ("encoder_begin_user_data", c_void_p),
        ("abort_callback", AbortCallback),
        ("abort_user_data", c_void_p),
        ("logits_filter_callback", c_void_p),
        ("logits_filter_user_data", c_void_p),
        ("grammar_rules", c_void_p),
        ("n_grammar_rules", c_size_t),
        ("i_start_rule", c_size_t),
        ("grammar_penalty", c_float),
        ("vad", c_bool),
        ("vad_model_path", c_char_p),
        ("vad_threshold", c_float),
        ("vad_min_speech_ms", c_int),
        ("vad_min_silence_ms", c_int),
        ("vad_max_speech_s", c_float),
        ("vad_padding_ms", c_int),
        ("vad_overlap", c_float),
    )


_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "ggml_backend_dev_by_type": (c_void_p, (c_int,)),
    "whisper_version": (c_char_p, ()),
    "whisper_log_set": (None, (LogCallback, c_void_p)),
    "whisper_context_default_params_by_ref": (POINTER(ContextParams), ()),
    "whisper_free_context_params": (None, (POINTER(ContextParams),)),
    "whisper_full_default_params_by_ref": (POINTER(FullParams), (c_int,)),
    "whisper_free_params": (None, (POINTER(FullParams),)),
    "whisper_init_from_file_with_params": (c_void_p, (c_char_p, ContextParams)),
    "whisper_full": (c_int, (c_void_p, FullParams, c_void_p, c_int)),
    "whisper_full_lang_id": (c_int, (c_void_p,)),
    "whisper_full_n_segments": (c_int, (c_void_p,)),
    "whisper_full_n_tokens": (c_int, (c_void_p, c_int)),
    "whisper_full_get_segment_t0": (c_int64, (c_void_p, c_int)),
    "whisper_full_get_segment_t1": (c_int64, (c_void_p, c_int)),
    "whisper_full_get_segment_text": (c_char_p, (c_void_p, c_int)),
    "whisper_full_get_segment_no_speech_prob": (c_float, (c_void_p, c_int)),
    "whisper_full_get_token_data": (TokenData, (c_void_p, c_int, c_int)),
    "whisper_is_multilingual": (c_int, (c_void_p,)),
    "whisper_lang_id": (c_int, (c_char_p,)),
    "whisper_lang_str": (c_char_p, (c_int,)),
    "whisper_lang_str_full": (c_char_p, (c_int,)),
    "whisper_model_n_audio_state": (c_int, (c_void_p,)),
    "whisper_model_n_text_ctx": (c_int, (c_void_p,)),
    "whisper_model_n_vocab": (c_int, (c_void_p,)),
    "whisper_model_type_readable": (c_char_p, (c_void_p,)),
    "whisper_print_system_info": (c_char_p, ()),
    "whisper_token_eot": (c_int, (c_void_p,)),
    "whisper_token_to_str": (c_char_p, (c_void_p, c_int)),
    "whisper_tokenize": (c_int, (c_void_p, c_char_p, POINTER(c_int), c_int)),
}


def open_library() -> CDLL:
    """Returns the library with typed functions. Raises `LoadError` if it is missing, or another
    version than `VERSION`."""
    library = CDLL(_path())
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    version = library.whisper_version().decode()
    if version != VERSION:
        raise LoadError(f"whisper.cpp has the version {version}; this server needs {VERSION}.")
    return library


def has_gpu(library: CDLL) -> bool:
    """True if the library computes on a GPU of this machine."""
    return any(library.ggml_backend_dev_by_type(kind) for kind in _GPU_KINDS)


def default_context(library: CDLL) -> ContextParams:
    """Returns the library's default parameters of a context."""
    reference = library.whisper_context_default_params_by_ref()
    params = ContextParams.from_buffer_copy(reference.contents)
    library.whisper_free_context_params(reference)
    return params


def default_params(library: CDLL) -> FullParams:
    """Returns the library's default parameters of a transcript by the likeliest tokens, without
    output to the terminal."""
    reference = library.whisper_full_default_params_by_ref(_GREEDY)
    params = FullParams.from_buffer_copy(reference.contents)
    library.whisper_free_params(reference)
    params.print_progress = params.print_timestamps = False
    params.progress_callback = None
    return params


def capture_log(library: CDLL) -> NativeLog:
    """Redirects the native log to the returned object."""
    log = NativeLog(logging.getLogger("llm_backend.engine.whisper"), LogCallback)
    log.redirect(library.whisper_log_set)
    return log


def _path() -> str:
    """Returns the library's file. A wheel has two copies; only the copy in the deeper folder finds
    its dependencies."""
    try:
        found = [one for one in files("pywhispercpp") or () if one.name.startswith("libwhisper")]
    except PackageNotFoundError as error:
        raise LoadError("The package `pywhispercpp` is not installed.") from error
    if not found:
        raise LoadError("The package `pywhispercpp` holds no `libwhisper`.")
    return str(max(found, key=lambda one: len(one.parts)).locate())
