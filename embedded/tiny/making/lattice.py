"""What the transducer losses share: a lattice of log-probabilities, to be walked from either end, compiled.

State (t, u): u tokens said, frame t next. An alignment leads from (0, 0) to (frames, tokens).
"""

from __future__ import annotations

import math

import numba
import numpy as np

IMPOSSIBLE = -1e30
"""The log-probability of a state that no arc has reached; finite, so that none becomes NaN."""


@numba.njit(inline="always")
def log_add(a: float, b: float) -> float:
    """log(exp(a) + exp(b))."""
    high, low = (a, b) if a > b else (b, a)
    return high + math.log1p(math.exp(low - high))


@numba.njit(inline="always")
def both_ends(frames: int, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """The lattices `alpha` and `beta` of one row, float64 [frames + 1, tokens + 1], before they are walked: certain at
    (0, 0) and at (frames, tokens), impossible elsewhere."""
    alpha = np.full((frames + 1, tokens + 1), IMPOSSIBLE)
    beta = np.full((frames + 1, tokens + 1), IMPOSSIBLE)
    alpha[0, 0] = 0.0
    beta[frames, tokens] = 0.0
    return alpha, beta
