"""Voices of the speakers of a block, and of those heard before it. Pure.

A voice is a vector. Its direction is the speaker's embedding, and its norm is the time for which
the speaker was heard. The sum of two voices is therefore their mean, weighted by time.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Voice = NDArray[np.float64]
"""[dimensions]; zeros if the speaker was not heard long enough."""


def scale_voice(vector: Sequence[float], seconds: float) -> Voice:
    """Returns the voice of a speaker heard for `seconds`, from an embedding of any norm."""
    voice = np.asarray(vector, dtype=np.float64)
    length = float(np.linalg.norm(voice))
    if not np.isfinite(length) or length == 0:
        return np.zeros_like(voice)
    return voice * (seconds / length)


def join_voices(
    heard: Sequence[Voice], known: Sequence[Voice], *, threshold: float
) -> tuple[list[int], list[Voice]]:
    """Returns the position of each heard voice among all voices, and all voices: the `known` ones,
    with the heard voices added to them, then new ones.

    Voices that were heard together belong to different speakers, so each of them matches at most
    one known voice. The nearest pair is joined first, then the next, while their cosine distance
    is below `threshold`.
    """
    voices, found = list(known), dict[int, int]()
    pairs = [
        (_distance(one, other), at, position)
        for at, one in enumerate(heard)
        for position, other in enumerate(known)
    ]
    for distance, at, position in sorted(pairs):
        if distance >= threshold:
            break
        if at not in found and position not in found.values():
            found[at] = position
            voices[position] = voices[position] + heard[at]
    for at, one in enumerate(heard):
        if at not in found:
            found[at] = len(voices)
            voices.append(one)
    return [found[at] for at in range(len(heard))], voices


def _distance(one: Voice, other: Voice) -> float:
    """Cosine distance, from 0 to 2; that to zeros is 2."""
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return 1 - float(one @ other) / lengths if lengths > 0 else 2.0
