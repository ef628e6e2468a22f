"""The transducer loss, by forward-backward on the CPU, for logits on any device, their gradient made in place.

NeMo's own (`warprnnt_numba`) walks lattice and vocabulary in plain Python on a CPU, minutes a batch, and keeps several
arrays of the logits' size. This one takes from the logits what an alignment can use, blank and the next token, and
leaves the vocabulary to torch.

Source: Graves, "Sequence Transduction with Recurrent Neural Networks", 2012, equations 16 to 20; the gradient is the
posterior of each arc. `check_losses.py` compares it with every path of small lattices, and with NeMo's.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import torch
from lattice import both_ends, log_add


@numba.njit  # not cached: numba would not notice a change of lattice.py
def _forward_backward(blank, token, frames, tokens, loss, d_blank, d_token):  # type: ignore[no-untyped-def]
    """Fill `loss` and the gradients. A token keeps the frame and a blank goes to the next: only a blank ends a row."""
    for b in range(blank.shape[0]):
        last_t, last_u = frames[b], tokens[b]
        alpha, beta = both_ends(last_t, last_u)
        for t in range(last_t):
            for u in range(last_u + 1):
                alpha[t + 1, u] = alpha[t, u] + blank[b, t, u]
                if u < last_u:
                    alpha[t, u + 1] = log_add(alpha[t, u + 1], alpha[t, u] + token[b, t, u])
        total = alpha[last_t, last_u]
        loss[b] = -total
        for t in range(last_t - 1, -1, -1):
            for u in range(last_u, -1, -1):
                arc = blank[b, t, u] + beta[t + 1, u]
                beta[t, u] = arc
                d_blank[b, t, u] = -math.exp(alpha[t, u] + arc - total)
                if u < last_u:
                    arc = token[b, t, u] + beta[t, u + 1]
                    beta[t, u] = log_add(beta[t, u], arc)
                    d_token[b, t, u] = -math.exp(alpha[t, u] + arc - total)


class _RnntLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, wanted: torch.Tensor, frames: torch.Tensor, tokens: torch.Tensor, blank: int
    ) -> torch.Tensor:
        total = logits.logsumexp(-1)
        token_arcs = logits[:, :, :-1].gather(3, wanted).squeeze(3) - total[:, :, :-1]
        arcs = [x.cpu().numpy() for x in (logits[..., blank] - total, token_arcs)]
        gradients = [np.zeros_like(x) for x in arcs]
        loss = np.zeros(len(logits), np.float32)
        lengths = [x.cpu().numpy() for x in (frames, tokens)]
        _forward_backward(*arcs, *lengths, loss, *gradients)
        ctx.blank = blank
        ctx.save_for_backward(logits, total, wanted, *(torch.from_numpy(x).to(logits) for x in gradients))
        return torch.from_numpy(loss).to(logits)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        logits, total, wanted, d_blank, d_token = ctx.saved_tensors
        passing = d_blank.clone()
        passing[:, :, :-1] += d_token
        gradient = (logits - total.unsqueeze(-1)).exp_().mul_(-passing.unsqueeze(-1))
        gradient[..., ctx.blank] += d_blank
        gradient[:, :, :-1].scatter_add_(3, wanted, d_token.unsqueeze(3))
        return gradient.mul_(upstream[0].view(-1, 1, 1, 1)), None, None, None, None


def rnnt_loss(
    logits: torch.Tensor, targets: torch.Tensor, frames: torch.Tensor, tokens: torch.Tensor, blank: int
) -> torch.Tensor:
    """Negative log-likelihood of each row, float32 [B].

    `logits` [B, T, U + 1, V], raw; blank is one of the V, -1 the last. `targets` [B, U]: token ids, padded with any id.
    `frames` [B], at least 1, and `tokens` [B] are the true lengths.
    """
    wanted = targets.long()[:, None, :, None].expand(-1, logits.shape[1], -1, 1)
    return _RnntLoss.apply(logits.float(), wanted, frames.long(), tokens.long(), blank)  # type: ignore[no-any-return, no-untyped-call]
