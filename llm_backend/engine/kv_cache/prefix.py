"""A saved prefix: tokens, and the state of their cells."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Prefix:
    """Tokens, and the state of their cells: [bytes] uint8."""

    tokens: list[int]
    state: NDArray[np.uint8]
