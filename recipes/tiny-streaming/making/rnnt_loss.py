"""The transducer loss, by forward-backward on the CPU, for tensors on any device.

The checkpoint names NeMo's `warprnnt_numba`, which on a CPU walks the lattice in plain Python: minutes a batch. This is
the same loss, compiled, on the log-probabilities that an alignment can use: blank and the next token.

Source: Graves, "Sequence Transduction with Recurrent Neural Networks", 2012, equations 16 to 20; the gradient is the
posterior of each arc. `check_rnnt_loss.py` compares it with every path of small lattices, and with NeMo's.
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
    """Fill `loss` and the gradients. State (t, u): u tokens said, frame t next; the end is (frames, tokens), which
    only a blank reaches: a token keeps the frame, a blank goes to the next."""
    for b in range(blank.shape[0]):
        last_t, last_u = frames[b], tokens[b]
        alpha = np.full((last_t + 1, last_u + 1), IMPOSSIBLE)
        beta = np.full((last_t + 1, last_u + 1), IMPOSSIBLE)
        alpha[0, 0] = 0.0
        beta[last_t, last_u] = 0.0
        for t in range(last_t):
            for u in range(last_u + 1):
                alpha[t + 1, u] = alpha[t, u] + blank[b, t, u]
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
        ctx: Any, blank: torch.Tensor, token: torch.Tensor, frames: torch.Tensor, tokens: torch.Tensor
    ) -> torch.Tensor:
        inputs = [x.detach().double().cpu().contiguous().numpy() for x in (blank, token)]
        gradients = [np.zeros_like(x) for x in inputs]
        loss = np.zeros(len(inputs[0]))
        lengths = [x.detach().long().cpu().numpy() for x in (frames, tokens)]
        _forward_backward(*inputs, *lengths, loss, *gradients)  # type: ignore[call-arg]  # numba's type
        ctx.save_for_backward(*(torch.from_numpy(x).to(blank) for x in gradients))
        return torch.from_numpy(loss).to(blank)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        d_blank, d_token = ctx.saved_tensors
        scale = upstream[0].view(-1, 1, 1)
        return d_blank * scale, d_token * scale, None, None


def rnnt_loss(logits: torch.Tensor, targets: torch.Tensor, frames: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of each row, [B].

    `logits` [B, T, U + 1, V + 1], raw: V tokens, then blank. `targets` [B, U]: token ids, padded with any id. `frames`
    [B] and `tokens` [B] are the true lengths, at least one frame each.
    """
    symbols = torch.log_softmax(logits.float(), -1)
    wanted = targets.long()[:, None, :, None].expand(-1, symbols.shape[1], -1, 1)
    token = symbols[:, :, :-1].gather(3, wanted).squeeze(3)
    return _RnntLoss.apply(symbols[..., -1], token, frames, tokens)  # type: ignore[no-any-return, no-untyped-call]
