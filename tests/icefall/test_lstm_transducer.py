from __future__ import annotations

import math
from decimal import Decimal, getcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from artifacts.icefall.lstm_transducer import (
    CHUNK_FRAMES,
    SHIFT_FRAMES,
    BasicNorm,
    Config,
    DoubleSwish,
    LstmTransducer,
    exponential,
)

Features = npt.NDArray[np.float32]


def _batch(speech: Features) -> torch.Tensor:
    return torch.from_numpy(speech)[None]


def test_exponentials_are_rounded_once() -> None:
    getcontext().prec = 40
    for number in np.random.default_rng(3).uniform(-8, 8, 200).astype(np.float32):
        assert exponential(float(number)) == np.float32(float(Decimal(float(number)).exp()))


def test_at_full_size_the_networks_have_as_many_parameters_as_icefalls() -> None:
    with torch.device("meta"):
        model = LstmTransducer(Config(vocab_size=500))
    counts = [sum(p.numel() for p in part.parameters()) for part in (model.encoder, model.decoder, model.joiner)]
    # The log of the published export, where the norms' learned eps, one a layer, had become numbers.
    assert counts == [83_137_520 + 12, 257_024, 781_812]


@torch.no_grad()
def test_chunk_by_chunk_is_the_same_as_all_at_once(model: Any, speech: Features) -> None:
    features = _batch(speech)
    whole, h_whole, c_whole = model.encoder(features, *model.zero_states())
    frames = ((len(speech) - 3) // 2 - 1) // 2
    assert whole.shape == (1, frames, model.config.encoder_dim)
    assert frames > 50
    (h, c), parts = model.zero_states(), []
    for start in range(0, frames * SHIFT_FRAMES, SHIFT_FRAMES):
        out, h, c = model.encoder(features[:, start : start + CHUNK_FRAMES], h, c)
        assert out.shape[1] == 1
        parts.append(out)
    for have, want in ((torch.cat(parts, 1), whole), (h, h_whole), (c, c_whole)):
        torch.testing.assert_close(have, want, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_frame_depends_on_no_feature_after_its_nine(model: Any, speech: Features) -> None:
    features = _batch(speech)
    changed = features.clone()
    changed[:, 40 * SHIFT_FRAMES + CHUNK_FRAMES :] = 0.0
    whole, other = (model.encoder(each, *model.zero_states())[0] for each in (features, changed))
    assert torch.equal(whole[:, :41], other[:, :41])
    assert not torch.equal(whole[:, 41], other[:, 41])


@torch.no_grad()
def test_the_states_matter(model: Any, speech: Features) -> None:
    chunk = _batch(speech)[:, 60 : 60 + CHUNK_FRAMES]
    fresh, h, c = model.encoder(chunk, *model.zero_states())
    assert float((model.encoder(chunk, h, c)[0] - fresh).abs().max()) > 0.05


@torch.no_grad()
def test_the_decoder_sees_the_last_tokens_only(model: Any) -> None:
    tokens = torch.tensor([[5, 9, 17, 23]])
    rows = model.decoder(tokens)
    assert rows.shape == (1, 3, model.config.decoder_dim)
    for row in range(3):
        assert float((model.decoder(tokens[:, row : row + 2])[0, 0] - rows[0, row]).abs().max()) < 1e-6
    assert float(rows.min()) == 0.0


def test_the_activation_and_the_norm_are_as_defined() -> None:
    x = torch.tensor([[-2.0, 0.5, 3.0]])
    want = [value / (1 + math.exp(1 - value)) for value in x[0].tolist()]
    assert DoubleSwish()(x)[0].tolist() == pytest.approx(want, rel=1e-6)
    norm = BasicNorm(learned=True)
    root = math.sqrt((4 + 0.25 + 9) / 3 + 0.25)
    assert norm(x)[0].tolist() == pytest.approx([value / root for value in x[0].tolist()], rel=1e-6)
    norm.fix()
    assert norm(x)[0].tolist() == pytest.approx([value / root for value in x[0].tolist()], rel=1e-6)


def test_a_hidden_size_that_is_the_encoders_needs_no_projection() -> None:
    config = Config(num_encoder_layers=1, encoder_dim=16, rnn_hidden_size=16, vocab_size=5, dim_feedforward=8)
    model = LstmTransducer(config)
    out, h, c = model.encoder(torch.zeros(1, 9, 80), *model.zero_states())
    assert (out.shape, h.shape, c.shape) == ((1, 1, 16), (1, 1, 16), (1, 1, 16))
    assert "encoder.encoder.layers.0.lstm.weight_hr_l0" not in model.state_dict()
