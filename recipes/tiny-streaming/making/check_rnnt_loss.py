"""Compare the RNN-T loss with every path of small lattices, and value and gradient with NeMo's `warprnnt_numba`.

Run it alone: `python check_rnnt_loss.py`. It takes a few seconds.
"""

from __future__ import annotations

import math

import torch
from nemo.collections.asr.parts.numba.rnnt_loss import RNNTLossNumba
from rnnt_loss import rnnt_loss

VOCABULARY = 6


def every_path(logits: torch.Tensor, targets: list[int], frames: int) -> float:
    """-log of the probability of all alignments, walked one by one; `logits` [T, U + 1, V + 1] of one row."""
    symbols = torch.log_softmax(logits, -1)

    def walk(t: int, u: int) -> float:
        if t == frames:
            return float(u == len(targets))
        total = math.exp(float(symbols[t, u, VOCABULARY])) * walk(t + 1, u)
        if u < len(targets):
            total += math.exp(float(symbols[t, u, targets[u]])) * walk(t, u + 1)
        return total

    return -math.log(walk(0, 0))


def main() -> None:
    """Raise AssertionError where the three differ by more than single precision allows."""
    torch.manual_seed(0)
    targets = torch.randint(0, VOCABULARY, (3, 4))
    frames, tokens = torch.tensor([7, 5, 6]), torch.tensor([4, 2, 0])
    logits = torch.randn(3, 7, 5, VOCABULARY + 1, requires_grad=True)
    loss = rnnt_loss(logits, targets, frames, tokens)
    loss.sum().backward()  # type: ignore[no-untyped-call]
    paths = [
        every_path(logits[b].detach(), targets[b, : int(tokens[b])].tolist(), int(frames[b]))
        for b in range(len(targets))
    ]
    twin = logits.detach().clone().requires_grad_(True)
    reference = RNNTLossNumba(blank=VOCABULARY, reduction="sum")(twin, targets, frames, tokens)
    reference.backward()
    assert logits.grad is not None
    assert twin.grad is not None
    print("loss of each row", loss.tolist(), "by every path", paths)
    print("sum", float(loss.detach().sum()), "by NeMo", float(reference.detach()))
    gradient_difference = float((logits.grad - twin.grad).abs().max())
    print("largest difference of the gradients", gradient_difference)
    assert torch.allclose(loss, torch.tensor(paths), atol=1e-4)
    assert torch.allclose(loss.sum(), reference, atol=1e-3)
    assert gradient_difference < 1e-5


if __name__ == "__main__":
    main()
