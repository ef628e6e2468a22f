from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from artifacts.icefall.checkpoint import load
from artifacts.icefall.networks import NETWORKS, EncoderNetwork, JointNetwork, PredictorNetwork
from artifacts.model.network import shape_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@pytest.mark.parametrize(
    ("part", "sizes"),
    [("encoder", {"frames": 39, "encoder_frames": 8}), ("encoder", {"frames": 9, "encoder_frames": 1}),
     ("predictor", {}), ("joint", {})],
)  # fmt: skip
def test_the_tables_say_what_goes_in_and_comes_out(part: str, sizes: dict[str, int], lstm_checkpoint: Any) -> None:
    network = NETWORKS[part](load(lstm_checkpoint))
    inputs = network.sample(sizes, seed=0)
    for table, values in ((network.inputs, inputs), (network.outputs, network(*inputs))):
        assert [tuple(value.shape) for value in values] == [shape_of(dims, sizes) for dims in table.values()]


def test_a_seed_gives_the_same_sample_again(lstm_checkpoint: Any) -> None:
    network = EncoderNetwork(load(lstm_checkpoint))
    first, again, other = (network.sample({"frames": 39}, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])
    assert first[1].tolist() == [39]


@torch.no_grad()
def test_the_networks_encode_speech_as_the_model_does(
    model: Any, lstm_checkpoint: Any, speech: npt.NDArray[np.float32]
) -> None:
    features = torch.from_numpy(speech)[None]
    want, want_h, want_c = model.encoder(features, *model.zero_states())
    out, length, h, c = EncoderNetwork(load(lstm_checkpoint))(
        features, torch.tensor([len(speech)]), *model.zero_states()
    )
    assert length.tolist() == [want.shape[1]]
    # the norms' eps has become a number on the way
    for have, wanted in ((out, want), (h, want_h), (c, want_c)):
        torch.testing.assert_close(have, wanted, rtol=1e-5, atol=1e-5)
    (g,) = PredictorNetwork(model)(torch.tensor([[0, 7]]))
    assert torch.equal(g, model.decoder(torch.tensor([[0, 7]])))
    (logits,) = JointNetwork(model)(out[0, 9:10], g[0])
    assert torch.equal(logits, model.joiner(out[0, 9:10], g[0]))


def test_no_norm_computes_an_exponential_any_more(lstm_checkpoint: Any) -> None:
    network = EncoderNetwork(load(lstm_checkpoint))
    ballasts = [module.ballast for module in network.modules() if hasattr(module, "ballast")]
    assert len(ballasts) == 1 + network.inputs["h"][0]
    assert all(ballast is not None and ballast > 0 for ballast in ballasts)
