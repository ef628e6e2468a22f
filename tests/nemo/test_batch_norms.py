"""A convolution takes over the batch normalisation behind it, with numbers that are the same on every processor."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from artifacts.nemo.batch_norms import fold_batch_norm, folded_batch_norms
from artifacts.nemo.networks import EncoderNetwork


@pytest.fixture
def norm() -> nn.BatchNorm1d:
    generator = torch.Generator().manual_seed(1)
    module = nn.BatchNorm1d(6).eval().requires_grad_(False)
    for values in (module.weight, module.bias, module.running_mean, module.running_var):
        assert values is not None
        values.copy_(torch.rand(values.shape, generator=generator) + 0.1)
    return module


def statistics(norm: nn.BatchNorm1d) -> Iterator[tuple[float, ...]]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    values = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    return zip(*(value.tolist() for value in values), strict=True)


def test_each_number_is_the_exact_one_rounded_once(norm: nn.BatchNorm1d) -> None:
    generator = torch.Generator().manual_seed(2)
    weight, bias = torch.randn(6, 1, 9, generator=generator), torch.randn(6, generator=generator)
    folded, offset = fold_batch_norm(weight, bias, norm)
    assert (folded.dtype, offset.dtype) == (torch.float32, torch.float32)
    for channel, (gamma, beta, mean, variance) in enumerate(statistics(norm)):
        deviation = Fraction((Decimal(variance) + Decimal(norm.eps)).sqrt())  # 28 digits
        for place, number in enumerate(weight[channel, 0].tolist()):
            assert float(folded[channel, 0, place]) == np.float32(float(Fraction(number) * Fraction(gamma) / deviation))
        exact = (Fraction(bias[channel].item()) - Fraction(mean)) * Fraction(gamma) / deviation + Fraction(beta)
        assert float(offset[channel]) == np.float32(float(exact))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("with_bias", [True, False])
def test_a_folded_convolution_computes_what_both_did(affine: bool, with_bias: bool) -> None:
    torch.manual_seed(3)
    norm = nn.BatchNorm1d(4, affine=affine).train()
    norm(torch.randn(8, 4, 30) * 3 + 1)
    norm.eval()
    plain = nn.Conv1d(4, 4, 3, groups=2, bias=with_bias)
    folded = nn.Conv1d(4, 4, 3, groups=2)
    weight, bias = fold_batch_norm(plain.weight.data, plain.bias.data if plain.bias is not None else None, norm)
    folded.weight.data, folded.bias.data = weight, bias  # type: ignore[union-attr]
    x = torch.randn(2, 4, 50)
    assert torch.allclose(folded(x), norm(plain(x)), atol=1e-6)


def test_an_encoder_computes_the_same_while_it_is_folded_and_is_as_it_was_afterwards(restored_model: Any) -> None:
    network = EncoderNetwork(restored_model)
    inputs = network.sample({"batch": 2, "frames": 203}, seed=5)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        expected, lengths = network(*inputs)
        with folded_batch_norms(network):
            assert not any(isinstance(module, nn.BatchNorm1d) for module in network.modules())
            found, found_lengths = network(*inputs)
        again, _ = network(*inputs)
    assert torch.equal(found_lengths, lengths)
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.equal(found, expected), "nothing was folded"
    assert torch.equal(again, expected)
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_statistics_that_are_not_there_cannot_be_folded() -> None:
    with pytest.raises(ValueError, match="no statistics"):
        fold_batch_norm(torch.zeros(2, 1, 3), None, nn.BatchNorm1d(2, track_running_stats=False))
