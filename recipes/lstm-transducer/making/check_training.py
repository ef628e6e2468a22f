"""Check what training is built on: the loss against every path and NeMo's, the LSTM against torch's, the features
against Kaldi's.

`python check_training.py` prints the differences, and fails if one is too large.
"""

from __future__ import annotations

import copy
import itertools

import beside
import numpy as np
import soundfile
import torch
from filterbank import features
from nemo.collections.asr.parts.numba.rnnt_loss import RNNTLossNumba
from quick_lstm import quicken
from rnnt_loss import rnnt_loss

from artifacts.asr import kaldi_features


def every_path(logits: torch.Tensor, targets: list[int]) -> float:
    """The loss by the sum over all alignments of one lattice [T, U + 1, V]."""
    log = logits.log_softmax(-1)
    frames, said = logits.shape[0], len(targets)
    total = torch.tensor(float("-inf"))
    for places in itertools.combinations_with_replacement(range(frames), said):
        score, u = torch.tensor(0.0), 0
        for t in range(frames):
            while u < said and places[u] == t:
                score, u = score + log[t, u, targets[u]], u + 1
            score = score + log[t, u, 0]
        total = torch.logaddexp(total, score)
    return -float(total)


def main() -> None:
    """Print one line a comparison."""
    torch.manual_seed(0)
    small = torch.randn(1, 4, 4, 6)
    ours = rnnt_loss(small, torch.tensor([[3, 1, 5]]), torch.tensor([4]), torch.tensor([3]))
    path_diff = abs(float(ours) - every_path(small[0], [3, 1, 5]))
    print(f"loss, every path: {path_diff:.2e}")

    logits = torch.randn(3, 30, 9, 20)
    targets, frames, tokens = torch.randint(1, 20, (3, 8)), torch.tensor([30, 22, 17]), torch.tensor([8, 5, 3])
    rows, gradients = [], []
    for loss in (rnnt_loss, RNNTLossNumba(blank=0, reduction="none")):
        leaf = logits.clone().requires_grad_()
        value = loss(leaf, targets, frames, tokens)
        value.sum().backward()
        rows.append(value.detach())
        gradients.append(leaf.grad)
    loss_diff, gradient_diff = (float((a - b).abs().max()) for a, b in (rows, gradients))
    print(f"loss, NeMo: {loss_diff:.2e}; gradient: {gradient_diff:.2e}")

    torchs = torch.nn.LSTM(12, 24, batch_first=True, proj_size=12)
    quick = copy.deepcopy(torchs)
    quicken(quick)
    heard, states = torch.randn(3, 40, 12), (torch.zeros(1, 3, 12), torch.zeros(1, 3, 24))
    answers = [lstm(heard, states)[0] for lstm in (torchs, quick)]
    for answer in answers:
        (answer**2).sum().backward()
    lstm_diff = max(
        float((a.grad - b.grad).abs().max()) for a, b in zip(torchs.parameters(), quick.parameters(), strict=True)
    )
    lstm_diff = max(lstm_diff, float((answers[0] - answers[1]).detach().abs().max()))
    print(f"LSTM, torch: {lstm_diff:.2e}")

    clip = beside.TINY / "evaluation" / "clips" / "soft_endings-000.flac"
    wave, _ = soundfile.read(clip, dtype="float32")
    feature_diff = float(np.abs(features(wave).numpy() - kaldi_features.features(wave)).max())
    print(f"features, Kaldi: {feature_diff:.2e}")
    assert path_diff < 1e-5
    assert loss_diff < 1e-4
    assert gradient_diff < 1e-4
    assert lstm_diff < 1e-4
    assert feature_diff < 1e-2


if __name__ == "__main__":
    main()
