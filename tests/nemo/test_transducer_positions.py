"""The table of positions is exact to the last bit of a float32, and otherwise NeMo's."""

from __future__ import annotations

import math
from decimal import Decimal, getcontext
from typing import Any

import numpy as np
import pytest
import torch

from artifacts.nemo.transducer import replace_position_tables, sinusoids

PARAKEET = 1024


def sine(angle: float) -> Decimal:
    """Of an angle that is given exactly, to 40 digits, by its series."""
    getcontext().prec = 60
    pi = Decimal("3.14159265358979323846264338327950288419716939937510582097494")
    x = Decimal(angle) % (2 * pi)
    term, total, n = x, x, 1
    while abs(term) > Decimal("1e-50"):
        term = -term * x * x / ((n + 1) * (n + 2))
        total, n = total + term, n + 2
    return total


def test_sines_are_the_exact_ones_rounded_once() -> None:
    positions = np.array([4999, 3001, 17, 1, 0, -2500], np.float32)
    table = sinusoids(positions, PARAKEET)
    frequencies = np.exp(
        (np.arange(0, PARAKEET, 2, dtype=np.float32) * np.float32(-math.log(10_000) / PARAKEET)).astype(np.float64)
    ).astype(np.float32)
    for row, position in enumerate(positions):
        for column in (0, 1, 7, 100, 511):
            exact = sine(float(np.float32(position * frequencies[column])))
            assert table[row, 2 * column] == np.float32(float(exact))


def test_the_columns_are_sines_and_cosines_of_falling_frequencies() -> None:
    table = sinusoids(np.array([1.0], np.float32), 6)[0].astype(np.float64)
    frequencies = [1, 10_000 ** (-1 / 3), 10_000 ** (-2 / 3)]
    np.testing.assert_allclose(table[0::2], np.sin(frequencies), rtol=1e-6)
    np.testing.assert_allclose(table[1::2], np.cos(frequencies), rtol=1e-6)


def test_the_table_is_nemos_but_for_its_last_bits(restored_model: Any) -> None:
    from nemo.collections.asr.parts.submodules.multi_head_attention import RelPositionalEncoding

    ours = restored_model.encoder.pos_enc
    nemos = RelPositionalEncoding(ours.d_model, 0.0, restored_model.encoder.pos_emb_max_len)
    nemos.extend_pe(restored_model.encoder.pos_emb_max_len, torch.device("cpu"), torch.float32)
    assert ours.pe.shape == nemos.pe.shape
    assert ours.pe.dtype == torch.float32
    # a frequency of NeMo's may be one bit off, 6e-8, and is multiplied by a position
    assert float((ours.pe - nemos.pe).abs().max()) <= 1e-7 * restored_model.encoder.pos_emb_max_len + 1e-7
    middle = ours.pe.shape[1] // 2
    assert torch.equal(ours.pe[0, middle, 0::2], torch.zeros(ours.d_model // 2))


@pytest.mark.parametrize("kind", ["RelPositionalEncoding", "PositionalEncoding"])
def test_the_table_grows_with_what_it_is_given(kind: str) -> None:
    from nemo.collections.asr.parts.submodules import multi_head_attention

    class Encoder(torch.nn.Module):
        max_audio_length = 12

        def __init__(self) -> None:
            super().__init__()
            self.pos_enc = getattr(multi_head_attention, kind)(8, 0.0, 12)
            self.set_max_audio_length(12)

        def set_max_audio_length(self, length: int) -> None:
            self.pos_enc.extend_pe(length, torch.device("cpu"), torch.float32)

    encoder = Encoder()
    before = encoder.pos_enc.pe
    replace_position_tables(encoder)  # type: ignore[arg-type]
    assert torch.allclose(encoder.pos_enc.pe, before, atol=1e-5)
    encoder.set_max_audio_length(20)
    assert encoder.pos_enc.pe.shape[1] == (39 if kind == "RelPositionalEncoding" else 20)
    rows = np.arange(19, -20, -1) if kind == "RelPositionalEncoding" else np.arange(20)
    assert np.array_equal(encoder.pos_enc.pe[0].numpy(), sinusoids(rows.astype(np.float32), 8))
