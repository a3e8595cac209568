"""Stand-in for the binding of stable-diffusion.cpp where that is not installed: the functions and
structures of it that this project uses. It draws by a hash of all that it is given.

A prompt with the word `crash` ends the process as native code does, `fail` draws nothing.
"""

import ctypes
import hashlib
import os
import time
from types import SimpleNamespace

__version__ = "stand-in"
SAMPLE_METHOD_MAP = {"dpm++2m": 5}
SCHEDULER_MAP = {"karras": 1}
STEP_S = 0.03
TILES = 3
_FILES = ("model", "diffusion_model", "vae", "taesd", "clip_l", "clip_g", "t5xxl", "llm")
_BYTE = ctypes.POINTER(ctypes.c_uint8)
_malloc = ctypes.CDLL(None).malloc
_malloc.argtypes, _malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
_callbacks = SimpleNamespace(log=None, step=None, preview=None, previews=0)


class sd_image_t(ctypes.Structure):  # noqa: N801 # the library's name
    _fields_ = (
        ("width", ctypes.c_uint32), ("height", ctypes.c_uint32), ("channel", ctypes.c_uint32),
        ("data", _BYTE),
    )  # fmt: skip


class _Guidance(ctypes.Structure):
    _fields_ = (("txt_cfg", ctypes.c_float), ("distilled_guidance", ctypes.c_float))


class _Sample(ctypes.Structure):
    _fields_ = (
        ("guidance", _Guidance), ("scheduler", ctypes.c_int), ("sample_method", ctypes.c_int),
        ("sample_steps", ctypes.c_int),
    )  # fmt: skip


class _Tiling(ctypes.Structure):
    _fields_ = (("enabled", ctypes.c_bool),)


class sd_img_gen_params_t(ctypes.Structure):  # noqa: N801 # the library's name
    _fields_ = (
        ("prompt", ctypes.c_char_p), ("negative_prompt", ctypes.c_char_p),
        ("width", ctypes.c_int), ("height", ctypes.c_int), ("seed", ctypes.c_int64),
        ("strength", ctypes.c_float), ("init_image", sd_image_t), ("mask_image", sd_image_t),
        ("sample_params", _Sample), ("vae_tiling_params", _Tiling),
    )  # fmt: skip


class sd_ctx_params_t(ctypes.Structure):  # noqa: N801 # the library's name
    _fields_ = (
        *((f"{name}_path", ctypes.c_char_p) for name in _FILES),
        ("vae_decode_only", ctypes.c_bool), ("free_params_immediately", ctypes.c_bool),
        ("n_threads", ctypes.c_int),
    )  # fmt: skip


def sd_log_callback(function):
    return function


sd_progress_callback = sd_preview_callback = sd_log_callback


def sd_set_log_callback(function, _data):
    _callbacks.log = function


def sd_set_progress_callback(function, _data):
    _callbacks.step = function


def sd_set_preview_callback(function, mode, _interval, _denoised, _noisy, _data):
    _callbacks.preview, _callbacks.previews = function, mode


def sd_get_system_info():
    return b"System Info: \n    AVX = 1 |     AVX2 = 0 | "


def new_sd_ctx(params):
    given = params._obj
    paths = [getattr(given, name) for name, kind in given._fields_ if kind is ctypes.c_char_p]
    if any(path and not os.path.exists(path) for path in paths):
        _callbacks.log(3, b"a file is missing", None)
        return None
    return object()


def generate_image(_context, params):
    given = params._obj
    sample, size = given.sample_params, given.width * given.height
    if given.vae_tiling_params.enabled and given.init_image.data:
        _count_tiles()
    for step in range(1, sample.sample_steps + 1):
        time.sleep(STEP_S)
        if b"crash" in given.prompt:
            os.abort()
        if _callbacks.previews:
            frame = _image(given.width // 8, given.height // 8, repr((given.seed, step)).encode())
            _callbacks.preview(step, 1, [frame], False, None)
        _callbacks.step(step, sample.sample_steps, STEP_S, None)
    if given.vae_tiling_params.enabled:
        _count_tiles()
    if b"fail" in given.prompt:
        _callbacks.log(3, b"generate_image failed", None)
        return None
    numbers = (given.seed, sample.sample_steps, sample.guidance.txt_cfg, given.strength)
    source = ctypes.string_at(given.init_image.data, 3 * size) if given.init_image.data else b""
    mask = ctypes.string_at(given.mask_image.data, size) if given.mask_image.data else b""
    parts = (given.prompt, given.negative_prompt, repr(numbers).encode(), source, mask)
    image = _image(given.width, given.height, b"|".join(parts))
    data = _malloc(3 * size)
    ctypes.memmove(data, image.data, 3 * size)
    image.data = ctypes.cast(data, _BYTE)
    images = ctypes.cast(_malloc(ctypes.sizeof(sd_image_t)), ctypes.POINTER(sd_image_t))
    images[0] = image
    return images  # its owner is the caller, as that of the library's


def _count_tiles():
    for tile in range(TILES + 1):
        _callbacks.step(tile, TILES, 0, None)


def _image(width, height, key):
    data = hashlib.shake_256(key).digest(width * height * 3)
    buffer = (ctypes.c_uint8 * len(data)).from_buffer_copy(data)
    return sd_image_t(width=width, height=height, channel=3, data=ctypes.cast(buffer, _BYTE))
