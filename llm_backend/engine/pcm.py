"""Samples of voices as signed 16 bits. Pure."""

import numpy as np
from numpy.typing import ArrayLike

from llm_backend.engine.model import DecodeError

_GREATEST = 32767


def pcm_of(samples: ArrayLike) -> bytes:
    """Returns samples from -1 to 1 as signed 16 bits, little-endian. Raises `DecodeError` for
    samples that are NaN or infinite."""
    values = np.asarray(samples, np.float32)
    if not np.isfinite(values).all():
        raise DecodeError("The voice computed samples that are NaN or infinite.")
    return np.rint(np.clip(values, -1, 1) * _GREATEST).astype("<i2").tobytes()
