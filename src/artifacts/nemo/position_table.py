"""The encoder's table of relative positions, the same on every processor.

A checkpoint does not store the table: NeMo computes it when a model is made, with torch's float32 `exp`, `sin` and
`cos`. Their last bit depends on the processor, and one bit of a frequency moves the sine of position 5000 by 3e-4.
"""

from __future__ import annotations

import math
from types import MethodType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from nemo.collections.asr.modules import ConformerEncoder
    from numpy.typing import NDArray

# Vaswani et al. 2017, "Attention Is All You Need", section 3.5.
LONGEST_WAVELENGTH = 10_000.0


def sinusoids(positions: NDArray[np.float32], d_model: int) -> NDArray[np.float32]:
    """Return the sinusoidal encoding [N, d_model] of `positions` [N]: sines in even columns, cosines in odd ones.

    The angles are float32, as in NeMo. Functions are evaluated in extended precision and rounded once: 64 bits of
    mantissa leave two libraries no room to round one of ten million values differently (chance 2e-5 for all of them).
    """
    exponents = np.arange(0, d_model, 2, dtype=np.float32) * np.float32(-math.log(LONGEST_WAVELENGTH) / d_model)
    frequencies = np.exp(exponents.astype(np.longdouble)).astype(np.float32)
    angles = (positions[:, np.newaxis] * frequencies).astype(np.longdouble)
    table = np.empty((len(positions), d_model), np.float32)
    table[:, 0::2], table[:, 1::2] = np.sin(angles), np.cos(angles)
    return table


def replace_position_tables(encoder: ConformerEncoder) -> None:
    """Replace NeMo's position table, in place, also when NeMo extends it."""
    from nemo.collections.asr.parts.submodules.multi_head_attention import PositionalEncoding

    for module in encoder.modules():
        if isinstance(module, PositionalEncoding):
            module.create_pe = MethodType(_create_pe, module)
            del module.pe  # NeMo keeps a table that is long enough
    encoder.set_max_audio_length(encoder.max_audio_length)


def _create_pe(self: Any, positions: Tensor, dtype: torch.dtype) -> None:
    """Set the buffer `pe` [1, N, d_model] from `positions` [N, 1], as NeMo's `PositionalEncoding.create_pe` does."""
    table = torch.from_numpy(sinusoids(positions[:, 0].numpy(), self.d_model))
    self.register_buffer("pe", table.unsqueeze(0).to(dtype), persistent=False)
