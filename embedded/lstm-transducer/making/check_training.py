"""Check what training is built on: the LSTM against torch's, the features against Kaldi's.

`python check_training.py` prints the differences, and fails if one is too large. The loss has a check of its own,
`check_losses.py` of `embedded/tiny/making`.
"""

from __future__ import annotations

import copy

import beside
import numpy as np
import soundfile
import torch
from filterbank import features
from quick_lstm import quicken

from artifacts.speech import sherpa_streaming


def main() -> None:
    """Print one line a comparison."""
    torch.manual_seed(0)
    torchs = torch.nn.LSTM(12, 24, batch_first=True, proj_size=12)
    quick = copy.deepcopy(torchs)
    quicken(quick)
    inputs, states = torch.randn(3, 40, 12), (torch.zeros(1, 3, 12), torch.zeros(1, 3, 24))
    answers = [lstm(inputs, states)[0] for lstm in (torchs, quick)]
    for answer in answers:
        (answer**2).sum().backward()
    lstm_diff = max(
        float((a.grad - b.grad).abs().max()) for a, b in zip(torchs.parameters(), quick.parameters(), strict=True)
    )
    lstm_diff = max(lstm_diff, float((answers[0] - answers[1]).detach().abs().max()))
    print(f"LSTM, torch: {lstm_diff:.2e}")

    clip = beside.TINY / "evaluation" / "clips" / "soft_endings-000.flac"
    wave, _ = soundfile.read(clip, dtype="float32")
    feature_diff = float(np.abs(features(wave).numpy() - sherpa_streaming.features(wave)).max())
    print(f"features, Kaldi: {feature_diff:.2e}")
    assert lstm_diff < 1e-4
    assert feature_diff < 1e-2


if __name__ == "__main__":
    main()
