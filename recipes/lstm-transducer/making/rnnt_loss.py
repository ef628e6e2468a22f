"""The transducer loss by forward-backward on the CPU, with the logits' gradient made in place.

NeMo's own for the CPU (`warprnnt_numba`) works, and is what `check_training.py` compares this one with; it keeps
several arrays of the logits' size and walks the vocabulary in its loops. This one takes from the logits what an
alignment can use, blank and the next token, and leaves the vocabulary to torch.

Source: Graves, "Sequence Transduction with Recurrent Neural Networks", 2012, equations 16 to 20.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import torch

IMPOSSIBLE = -1e30


@numba.njit(inline="always")
def _add(a: float, b: float) -> float:
    """log(exp(a) + exp(b))."""
    high, low = (a, b) if a > b else (b, a)
    return high + math.log1p(math.exp(low - high))


@numba.njit(cache=True)
def _forward_backward(blank, token, frames, tokens, loss, d_blank, d_token):  # type: ignore[no-untyped-def]
    """Fill `loss` and the gradients. State (t, u): u tokens said, frame t at hand; the end is blank at (T - 1, U)."""
    for b in range(blank.shape[0]):
        last_t, last_u = frames[b], tokens[b]
        alpha = np.full((last_t + 1, last_u + 1), IMPOSSIBLE)
        beta = np.full((last_t + 1, last_u + 1), IMPOSSIBLE)
        alpha[0, 0] = 0.0
        beta[last_t, last_u] = 0.0
        for t in range(last_t):
            for u in range(last_u + 1):
                alpha[t + 1, u] = _add(alpha[t + 1, u], alpha[t, u] + blank[b, t, u])
                if u < last_u:
                    alpha[t, u + 1] = _add(alpha[t, u + 1], alpha[t, u] + token[b, t, u])
        total = alpha[last_t, last_u]
        loss[b] = -total
        for t in range(last_t - 1, -1, -1):
            for u in range(last_u, -1, -1):
                arc = blank[b, t, u] + beta[t + 1, u]
                beta[t, u] = arc
                d_blank[b, t, u] = -math.exp(alpha[t, u] + arc - total)
                if u < last_u:
                    arc = token[b, t, u] + beta[t, u + 1]
                    beta[t, u] = _add(beta[t, u], arc)
                    d_token[b, t, u] = -math.exp(alpha[t, u] + arc - total)


class _RnntLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, wanted: torch.Tensor, frames: torch.Tensor, tokens: torch.Tensor
    ) -> torch.Tensor:
        total = logits.logsumexp(-1)
        blank = (logits[..., 0] - total).numpy()
        token = (logits[:, :, :-1].gather(3, wanted).squeeze(3) - total[:, :, :-1]).numpy()
        d_blank, d_token = np.zeros_like(blank), np.zeros_like(token)
        loss = np.zeros(len(blank), np.float32)
        _forward_backward(blank, token, frames.numpy(), tokens.numpy(), loss, d_blank, d_token)  # type: ignore[call-arg]  # numba's type
        ctx.save_for_backward(logits, total, wanted, torch.from_numpy(d_blank), torch.from_numpy(d_token))
        return torch.from_numpy(loss)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        logits, total, wanted, d_blank, d_token = ctx.saved_tensors
        passing = d_blank.clone()
        passing[:, :, :-1] += d_token
        gradient = (logits - total.unsqueeze(-1)).exp_().mul_(-passing.unsqueeze(-1))
        gradient[..., 0] += d_blank
        gradient[:, :, :-1].scatter_add_(3, wanted, d_token.unsqueeze(3))
        return gradient.mul_(upstream[0].view(-1, 1, 1, 1)), None, None, None


def rnnt_loss(
    logits: torch.Tensor, targets: torch.Tensor, frames: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """Negative log-likelihood of each row, [B].

    `logits` [B, T, U + 1, V], float32; blank is id 0. `targets` [B, U]: token ids, padded with any id. `frames` [B], at
    least 1, and `tokens` [B] are the true lengths.
    """
    wanted = targets.long()[:, None, :, None].expand(-1, logits.shape[1], -1, 1)
    return _RnntLoss.apply(logits, wanted, frames.long(), tokens.long())  # type: ignore[no-any-return, no-untyped-call]
