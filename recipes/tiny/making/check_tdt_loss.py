"""Compare the TDT loss with every path of small lattices, and value and gradient with NeMo's reference implementation.

Run it alone: `python check_tdt_loss.py`. It takes a few seconds.
"""

from __future__ import annotations

import math
from unittest import mock

import torch
from nemo.collections.asr.losses.rnnt_pytorch import TDTLossPytorch
from tdt_loss import tdt_loss

DURATIONS = [0, 1, 2, 3, 4]
SIGMA = 0.02
VOCABULARY = 6


def every_path(logits: torch.Tensor, targets: list[int], frames: int) -> float:
    """-log of the probability of all alignments, walked one by one; `logits` [T, U + 1, V + 1 + D] of one row."""
    symbols = torch.log_softmax(logits[..., : -len(DURATIONS)], -1) - SIGMA
    durations = torch.log_softmax(logits[..., -len(DURATIONS) :], -1)

    def walk(t: int, u: int) -> float:
        total = 0.0
        for index, step in enumerate(DURATIONS):
            arc = float(durations[t, u, index])
            blank, after = math.exp(arc + float(symbols[t, u, VOCABULARY])), t + step
            if step > 0 and after == frames and u == len(targets):
                total += blank
            elif step > 0 and after < frames:
                total += blank * walk(after, u)
            if u < len(targets) and after < frames:
                total += math.exp(arc + float(symbols[t, u, targets[u]])) * walk(after, u + 1)
        return total

    return -math.log(walk(0, 0))


def main() -> None:
    """Raise AssertionError where the three differ by more than single precision allows."""
    torch.manual_seed(0)
    targets = torch.randint(0, VOCABULARY, (3, 4))
    frames, tokens = torch.tensor([7, 5, 6]), torch.tensor([4, 2, 0])
    logits = torch.randn(3, 7, 5, VOCABULARY + 1 + len(DURATIONS), requires_grad=True)
    loss = tdt_loss(logits, targets, frames, tokens, DURATIONS, SIGMA)
    loss.sum().backward()  # type: ignore[no-untyped-call]
    paths = [
        every_path(logits[b].detach(), targets[b, : int(tokens[b])].tolist(), int(frames[b]))
        for b in range(len(targets))
    ]
    twin = logits.detach().clone().requires_grad_(True)
    with mock.patch.object(torch.Tensor, "cuda", lambda tensor: tensor):  # the reference asks for CUDA in two places
        reference = TDTLossPytorch(VOCABULARY, DURATIONS, "sum", SIGMA)(
            acts=twin, labels=targets, act_lens=frames, label_lens=tokens
        )
    reference.backward()
    assert logits.grad is not None
    assert twin.grad is not None
    print("loss of each row", loss.tolist(), "by every path", paths)
    print("sum", float(loss.detach().sum()), "by NeMo's reference", float(reference.detach()))
    gradient_difference = float((logits.grad - twin.grad).abs().max())
    print("largest difference of the gradients", gradient_difference)
    assert torch.allclose(loss, torch.tensor(paths), atol=1e-4)
    assert torch.allclose(loss.sum(), reference, atol=1e-3)
    assert gradient_difference < 1e-5


if __name__ == "__main__":
    main()
