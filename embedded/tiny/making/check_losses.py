"""Compare the transducer losses with every path of small lattices, and value and gradient with NeMo's own.

Run it alone: `python check_losses.py`. It takes some twenty seconds, most of them for NeMo's imports.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from unittest import mock

import torch
from nemo.collections.asr.losses.rnnt_pytorch import TDTLossPytorch
from nemo.collections.asr.parts.numba.rnnt_loss import RNNTLossNumba
from rnnt_loss import rnnt_loss
from tdt_loss import tdt_loss

DURATIONS = [0, 1, 2, 3, 4]
SIGMA = 0.02
VOCABULARY = 6

Loss = Callable[..., torch.Tensor]
Paths = Callable[[torch.Tensor, list[int], int], float]
"""Logits of one row [T, U + 1, classes], its tokens and its frames → the probability of all its alignments."""


def rnnt_paths(logits: torch.Tensor, targets: list[int], frames: int, blank: int) -> float:
    """The alignments of an RNN-T, walked one by one."""
    symbols = torch.softmax(logits, -1)

    def walk(t: int, u: int) -> float:
        if t == frames:
            return float(u == len(targets))
        total = float(symbols[t, u, blank]) * walk(t + 1, u)
        if u < len(targets):
            total += float(symbols[t, u, targets[u]]) * walk(t, u + 1)
        return total

    return walk(0, 0)


def tdt_paths(logits: torch.Tensor, targets: list[int], frames: int) -> float:
    """The alignments of a TDT, walked one by one."""
    symbols = torch.softmax(logits[..., : -len(DURATIONS)], -1) * math.exp(-SIGMA)
    durations = torch.softmax(logits[..., -len(DURATIONS) :], -1)

    def walk(t: int, u: int) -> float:
        total = 0.0
        for index, step in enumerate(DURATIONS):
            arc, after = float(durations[t, u, index]), t + step
            blank = arc * float(symbols[t, u, VOCABULARY])
            if step > 0 and after == frames and u == len(targets):
                total += blank
            elif step > 0 and after < frames:
                total += blank * walk(after, u)
            if u < len(targets) and after < frames:
                total += arc * float(symbols[t, u, targets[u]]) * walk(after, u + 1)
        return total

    return walk(0, 0)


def compare(name: str, classes: int, first_token: int, ours: Loss, paths: Paths, nemo: Loss) -> None:
    """Raise AssertionError where the three differ by more than single precision allows."""
    torch.manual_seed(0)
    targets = torch.randint(first_token, first_token + VOCABULARY, (3, 4))
    frames, tokens = torch.tensor([7, 5, 6]), torch.tensor([4, 2, 0])
    logits = torch.randn(3, 7, 5, classes, requires_grad=True)
    twin = logits.detach().clone().requires_grad_(True)
    loss = ours(logits, targets, frames, tokens)
    loss.sum().backward()  # type: ignore[no-untyped-call]
    rows = zip(twin.detach(), targets.tolist(), frames.tolist(), tokens.tolist(), strict=True)
    by_paths = torch.tensor([-math.log(paths(row, said[:count], length)) for row, said, length, count in rows])
    reference = nemo(acts=twin, labels=targets, act_lens=frames, label_lens=tokens)
    reference.sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert twin.grad is not None
    path_difference = float((loss - by_paths).abs().max())
    loss_difference = float((loss - reference).abs().max())
    gradient_difference = float((logits.grad - twin.grad).abs().max())
    print(f"{name}: every path {path_difference:.1e}, NeMo {loss_difference:.1e}, gradient {gradient_difference:.1e}")
    assert path_difference < 1e-4
    assert loss_difference < 1e-4
    assert gradient_difference < 1e-5


def main() -> None:
    """Compare RNN-T with blank first and last, and TDT."""
    for blank, first_token in ((0, 1), (VOCABULARY, 0)):
        compare(
            f"RNN-T, blank {blank}",
            VOCABULARY + 1,
            first_token,
            partial(rnnt_loss, blank=blank),
            partial(rnnt_paths, blank=blank),
            RNNTLossNumba(blank, reduction="none"),
        )
    with mock.patch.object(torch.Tensor, "cuda", lambda tensor: tensor):  # the reference asks for CUDA in two places
        compare(
            "TDT",
            VOCABULARY + 1 + len(DURATIONS),
            0,
            partial(tdt_loss, durations=DURATIONS, sigma=SIGMA),
            tdt_paths,
            TDTLossPytorch(VOCABULARY, DURATIONS, "none", SIGMA),
        )


if __name__ == "__main__":
    main()
