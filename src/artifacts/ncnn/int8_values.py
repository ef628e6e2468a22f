"""From float32 weights to int8 and back to what ncnn computes with: a scale for each row, or one for all.

`q = round(w * scale)`, halves away from zero, within ±127; the scale is `127 / largest magnitude`, or `31 / …` where
ncnn multiplies in a transformed domain that has room for six bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from artifacts.errors import StepError

if TYPE_CHECKING:
    from numpy.typing import NDArray

LARGEST = 127
WINOGRAD_LARGEST = 31
FLOAT16_LARGEST = 65504.0


def row_scales(matrix: NDArray[np.float32], largest: int = LARGEST) -> NDArray[np.float32]:
    """`[R]` for a matrix `[R, C]`: what makes the largest magnitude of each row `largest`; 1 for a row of zeros.

    Raises StepError if a weight is not finite.
    """
    found = np.abs(matrix).max(axis=1)
    if not np.isfinite(found).all():
        raise StepError("weights with NaN or infinity", "mend the checkpoint, then convert it again")
    scales = np.ones(len(found), np.float32)
    np.divide(np.float32(largest), found, out=scales, where=found > 0)
    return scales


def quantize_rows(matrix: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.int8]:
    """Int8 `[R, C]` of a matrix `[R, C]` by scales `[R]`, or by one `[1]`."""
    # The product is float32, as ncnn's; adding a half is exact in float64 alone.
    scaled = (matrix * scales[:, np.newaxis]).astype(np.float64)
    scaled += np.copysign(0.5, scaled)
    np.trunc(scaled, out=scaled)
    np.clip(scaled, -LARGEST, LARGEST, out=scaled)
    return scaled.astype(np.int8)


def to_float16(values: NDArray[np.float32]) -> NDArray[np.float16]:
    """The nearest float16, halves to even. Raises StepError for a number beyond ±65504 or one that is not finite."""
    if not np.abs(values).max(initial=0.0) <= FLOAT16_LARGEST:
        raise StepError(
            f"a weight is {float(np.abs(values).max()):g}, float16 ends at {FLOAT16_LARGEST:g}",
            "keep the weights that are not quantised in fp32",
        )
    return values.astype(np.float16)
