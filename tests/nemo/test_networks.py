from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from artifacts.model.network import Network
from artifacts.nemo.networks import (
    EncoderNetwork,
    JointNetwork,
    PredictorNetwork,
    fold_batch_norm,
    folded_batch_norms,
)


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        (EncoderNetwork, {"batch": 2, "frames": 24, "encoder_frames": 3}),
        (PredictorNetwork, {"batch": 2, "tokens": 5}),
        (JointNetwork, {"batch": 2, "encoder_frames": 4, "tokens": 3}),
    ],
)
def test_the_tables_say_what_goes_in_and_comes_out(kind: type[Any], sizes: dict[str, int], restored_model: Any) -> None:
    network: Network = kind(restored_model)
    inputs = network.sample(sizes, seed=0)
    for table, values in ((network.inputs, inputs), (network.outputs, network(*inputs))):
        shapes = [tuple(sizes[dim] if isinstance(dim, str) else dim for dim in dims) for dims in table.values()]
        assert [tuple(value.shape) for value in values] == shapes


def test_a_seed_gives_the_same_sample_again_and_rows_of_unequal_length(restored_model: Any) -> None:
    network = EncoderNetwork(restored_model)
    sizes = {"batch": 3, "frames": 100}
    first, again, other = (network.sample(sizes, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])
    assert first[1].tolist() == [100, 80, 64]


def test_logits_are_raw_and_the_joint_is_left_as_it_was(restored_model: Any) -> None:
    network = JointNetwork(restored_model)
    inputs = network.sample({"batch": 2, "encoder_frames": 4, "tokens": 3}, seed=0)
    before = restored_model.joint.log_softmax
    (logits,) = network(*inputs)
    assert restored_model.joint.log_softmax is before is None
    assert not torch.allclose(logits.logsumexp(-1), torch.zeros(()), atol=1e-2)
    normalized = restored_model.joint.joint(*(value.transpose(1, 2) for value in inputs))
    torch.testing.assert_close(logits.log_softmax(-1), normalized)


def test_blank_and_zeros_are_the_start_of_decoding(restored_model: Any) -> None:
    network = PredictorNetwork(restored_model)
    layers, _, hidden = network.inputs["h"]
    zeros = torch.zeros(int(layers), 1, int(hidden))
    g, h, c = network(torch.tensor([[restored_model.decoder.blank_idx]]), zeros, zeros)
    start, (start_h, start_c) = restored_model.decoder.predict(None, state=None, add_sos=False, batch_size=1)
    assert torch.equal(g, start.transpose(1, 2))
    assert torch.equal(h, start_h)
    assert torch.equal(c, start_c)


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
