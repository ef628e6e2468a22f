from __future__ import annotations

from typing import Any

import pytest
import torch

from artifacts.errors import StepError
from artifacts.model.network import Network
from artifacts.nemo.networks import JointNetwork, PredictorNetwork
from artifacts.nemo.unbatched_networks import (
    UnbatchedEncoder,
    UnbatchedJoint,
    UnbatchedPredictor,
    relative_shift,
)


@pytest.fixture(scope="module")
def encoder(restored_model: Any) -> UnbatchedEncoder:
    return UnbatchedEncoder(restored_model)


@pytest.fixture(scope="module")
def speech(speech_features: Any) -> torch.Tensor:
    """Features [1, 128, T] of the longest utterance of the fixture, a minute of speech: only the valid frames."""
    features, lengths = max(speech_features, key=lambda one: int(one[1][0]))
    return torch.from_numpy(features[:, :, : int(lengths[0])])


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        (UnbatchedEncoder, {"frames": 24, "encoder_frames": 3}),
        (UnbatchedPredictor, {}),
        (UnbatchedJoint, {}),
    ],
)
def test_the_tables_say_what_goes_in_and_comes_out(kind: type[Any], sizes: dict[str, int], restored_model: Any) -> None:
    network: Network = kind(restored_model)
    inputs = network.sample(sizes, seed=0)
    for table, values in ((network.inputs, inputs), (network.outputs, network(*inputs))):
        shapes = [tuple(sizes[dim] if isinstance(dim, str) else dim for dim in dims) for dims in table.values()]
        assert [tuple(value.shape) for value in values] == shapes


@pytest.mark.parametrize("frames", [1, 7, 8, 9, 64, 101, 1003, 1600, 5001, None])
def test_speech_of_any_number_of_frames_is_encoded_as_nemo_does(
    frames: int | None, encoder: UnbatchedEncoder, restored_model: Any, speech: torch.Tensor
) -> None:
    features = speech[:, :, :frames]
    want, lengths = restored_model.encoder(audio_signal=features, length=torch.tensor([features.shape[2]]))
    (output,) = encoder(features)
    assert output.shape == want.shape
    assert output.shape[2] == int(lengths[0]) == -(-features.shape[2] // 8)
    assert float((output - want).abs().max()) <= 1e-5


def test_the_relative_shift_is_nemos_bit_for_bit(
    restored_model: Any, speech: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = type(restored_model.encoder.layers[0].self_attn)
    nemos = kind.rel_shift
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def watched(self: Any, scores: torch.Tensor) -> torch.Tensor:
        seen.append((scores, nemos(self, scores)))
        return seen[-1][1]

    monkeypatch.setattr(kind, "rel_shift", watched)
    for frames in (8, 100, 403):
        restored_model.encoder(audio_signal=speech[:, :, :frames], length=torch.tensor([frames]))
    assert len(seen) == 3 * len(restored_model.encoder.layers)
    for scores, shifted in seen:
        assert torch.equal(relative_shift(scores), shifted)
        assert scores.shape[2] == 1 or not torch.equal(scores, shifted)


def test_the_model_is_left_as_it_was(restored_model: Any, speech: torch.Tensor) -> None:
    features, length = speech[:, :, :300], torch.tensor([300])
    before, _ = restored_model.encoder(audio_signal=features, length=length)
    UnbatchedEncoder(restored_model, max_seconds=10)(features)
    with pytest.raises(RuntimeError):
        UnbatchedEncoder(restored_model)(features[:, :5])
    for layer in restored_model.encoder.layers:
        assert "rel_shift" not in vars(layer.self_attn)
        assert "forward" not in vars(layer.conv)
    after, _ = restored_model.encoder(audio_signal=features, length=length)
    assert torch.equal(before, after)


def test_a_shorter_table_has_fewer_rows_and_gives_the_same_bits(
    encoder: UnbatchedEncoder, restored_model: Any, speech: torch.Tensor
) -> None:
    short = UnbatchedEncoder(restored_model, max_seconds=10)
    assert (encoder.max_encoder_frames, short.max_encoder_frames) == (5000, 125)
    assert short.positions.shape == (1, 249, encoder.positions.shape[2])
    features = speech[:, :, :1000]
    assert torch.equal(short(features)[0], encoder(features)[0])
    assert UnbatchedEncoder(restored_model, max_seconds=400).max_encoder_frames == 5000


def test_a_longer_table_than_the_checkpoint_has_is_refused(restored_model: Any) -> None:
    with pytest.raises(StepError, match="max_seconds: the checkpoint's table of positions ends at 400 s, got 401"):
        UnbatchedEncoder(restored_model, max_seconds=401)


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("att_context_size", [70, 13], r"attends 'rel_pos' within \[70, 13\]"),
        ("self_attention_model", "rel_pos_local_attn", "attends 'rel_pos_local_attn'"),
        ("reduction_position", 3, "second subsampling"),
        ("out_proj", torch.nn.Identity(), "output layer"),
        ("pre_encode", torch.nn.Identity(), "does not begin with convolutions"),
    ],
)
def test_an_encoder_that_needs_masks_is_refused(
    attribute: str, value: Any, message: str, restored_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = restored_model.encoder._modules
    if attribute in modules:  # setattr would take it away again, for it is not in the object's own dictionary
        monkeypatch.setitem(modules, attribute, value)
    else:
        monkeypatch.setattr(restored_model.encoder, attribute, value)
    with pytest.raises(StepError, match=message):
        UnbatchedEncoder(restored_model)


def test_predictor_and_joint_compute_what_the_batched_ones_do(
    encoder: UnbatchedEncoder, restored_model: Any, speech: torch.Tensor
) -> None:
    frames = encoder(speech[:, :, :400])[0]
    predictor, joint = UnbatchedPredictor(restored_model), UnbatchedJoint(restored_model)
    theirs, their_joint = PredictorNetwork(restored_model), JointNetwork(restored_model)
    layers, _, hidden = predictor.inputs["h"]
    state = their_state = [torch.zeros(int(layers), 1, int(hidden))] * 2
    blank = restored_model.decoder.blank_idx
    for position, token in enumerate([blank, 3, 17, 17, 100]):
        y = torch.tensor([[token]])
        g, *state = predictor(y, *state)
        their_g, *their_state = theirs(y, *their_state)
        (scores,) = joint(frames[:, :, position], g[:, 0])
        (their_scores,) = their_joint(frames[:, :, position : position + 1], their_g)
        assert scores.shape == (1, blank + 1 + 5)
        torch.testing.assert_close(g, their_g.transpose(1, 2), rtol=0, atol=1e-6)
        torch.testing.assert_close(scores, their_scores[0, 0], rtol=0, atol=1e-5)
        for ours, other in zip(state, their_state, strict=True):
            torch.testing.assert_close(ours, other, rtol=0, atol=1e-6)


def test_a_predictor_that_is_not_a_plain_lstm_is_refused(restored_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(restored_model.decoder.prediction._modules, "dec_rnn", torch.nn.Identity())
    with pytest.raises(StepError, match="the predictor is a Identity, only plain LSTM layers convert"):
        UnbatchedPredictor(restored_model)
