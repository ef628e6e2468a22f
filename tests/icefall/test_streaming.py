from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from artifacts.icefall.streaming import TorchNetworks


def test_chunks_of_speech_go_through_as_through_the_model(model: Any, heard: npt.NDArray[np.float32]) -> None:
    networks = TorchNetworks(model)
    states = networks.zero_states()
    frames = []
    for start in (0, 4, 8):
        encoded, states = networks.encode(heard[start : start + 9], states)
        assert encoded.shape == (1, model.config.encoder_dim)
        assert encoded.dtype == np.float32
        frames.append(encoded[0])
    with torch.no_grad():
        want, h, c = model.encoder(torch.from_numpy(heard[:17])[None], *model.zero_states())
    assert np.max(np.abs(np.stack(frames) - want[0].numpy())) < 1e-5
    torch.testing.assert_close(states[0], h, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(states[1], c, rtol=1e-5, atol=1e-5)


def test_logits_are_those_of_the_model(model: Any, heard: npt.NDArray[np.float32]) -> None:
    networks = TorchNetworks(model)
    assert networks.context_size == 2
    frame = networks.encode(heard[100:109], networks.zero_states())[0][0]
    prediction = networks.predict([5, 9])
    logits = networks.join(frame, prediction)
    assert logits.shape == (128,)
    with torch.no_grad():
        want = model.joiner(torch.from_numpy(frame), model.decoder(torch.tensor([[5, 9]]))[0, 0])
    assert np.array_equal(logits, want.numpy())
