"""Numbers of few significant bits, for what measured numbers decide.

The last bits of an activation are those of the processor that it was measured on: they differ by some 1e-6 of the
number between two kinds. A scale of few bits takes the same value on both, unless the number lies that near to the
boundary between two values: for a step of one part in 8 to 16 that is one number in a hundred thousand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def rounded(numbers: NDArray[np.float64], bits: int) -> NDArray[np.float64]:
    """Return the nearest numbers of `bits` significant bits (ties to even), in the shape of `numbers`."""
    mantissas, exponents = np.frexp(numbers)
    nearest: NDArray[np.float64] = np.ldexp(np.rint(mantissas * 2.0**bits), exponents - bits)
    return nearest


def rounded_outwards(number: float, bits: int) -> float:
    """Return the nearest number of `bits` significant bits that is not nearer to zero."""
    mantissa, exponent = np.frexp(abs(number))
    return float(np.copysign(np.ldexp(np.ceil(mantissa * 2.0**bits), exponent - bits), number))
