from __future__ import annotations

from typing import Any

import pytest
import torch

from artifacts.model.network import Network
from artifacts.nemo.networks import EncoderNetwork, JointNetwork, PredictorNetwork


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
