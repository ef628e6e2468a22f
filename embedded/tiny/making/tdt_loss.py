"""The token-and-duration transducer loss, by forward-backward on the CPU, for tensors on any device.

NeMo's own loss needs CUDA, and its reference in Python takes minutes a batch. This one works on the log-probabilities
that an alignment can use (blank, the next token, the five durations), so that only those leave the device.

Source: Xu et al., "Efficient Sequence Transduction by Jointly Predicting Tokens and Durations", 2023, equations 5 to 7;
the gradient is the posterior of each arc, as in Graves, "Sequence Transduction with Recurrent Neural Networks", 2012.

`check_losses.py` compares it with every path of small lattices, and with NeMo's reference.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from lattice import IMPOSSIBLE, both_ends, log_add


@numba.njit  # not cached: numba would not notice a change of lattice.py
def _forward_backward(blank, token, duration, steps, frames, tokens, loss, d_blank, d_token, d_duration):  # type: ignore[no-untyped-def]
    """Fill `loss` and the gradients. Only a blank moves to the end; it always takes time."""
    for b in range(blank.shape[0]):
        last_t, last_u = frames[b], tokens[b]
        alpha, beta = both_ends(last_t, last_u)
        for t in range(last_t):
            for u in range(last_u + 1):
                if alpha[t, u] == IMPOSSIBLE:
                    continue
                for n in range(steps.shape[0]):
                    after = t + steps[n]
                    arc = alpha[t, u] + duration[b, t, u, n]
                    if steps[n] > 0 and after <= last_t:
                        alpha[after, u] = log_add(alpha[after, u], arc + blank[b, t, u])
                    if u < last_u and after < last_t:
                        alpha[after, u + 1] = log_add(alpha[after, u + 1], arc + token[b, t, u])
        total = alpha[last_t, last_u]
        loss[b] = -total
        if total == IMPOSSIBLE:
            continue
        for t in range(last_t - 1, -1, -1):
            for u in range(last_u, -1, -1):
                for n in range(steps.shape[0]):
                    after = t + steps[n]
                    if steps[n] > 0 and after <= last_t and beta[after, u] > IMPOSSIBLE:
                        arc = duration[b, t, u, n] + blank[b, t, u] + beta[after, u]
                        beta[t, u] = log_add(beta[t, u], arc)
                        posterior = np.exp(alpha[t, u] + arc - total)
                        d_blank[b, t, u] -= posterior
                        d_duration[b, t, u, n] -= posterior
                    if u < last_u and after < last_t and beta[after, u + 1] > IMPOSSIBLE:
                        arc = duration[b, t, u, n] + token[b, t, u] + beta[after, u + 1]
                        beta[t, u] = log_add(beta[t, u], arc)
                        posterior = np.exp(alpha[t, u] + arc - total)
                        d_token[b, t, u] -= posterior
                        d_duration[b, t, u, n] -= posterior


class _TdtLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        blank: torch.Tensor,
        token: torch.Tensor,
        duration: torch.Tensor,
        frames: torch.Tensor,
        tokens: torch.Tensor,
        steps: list[int],
    ) -> torch.Tensor:
        inputs = [x.detach().double().cpu().contiguous().numpy() for x in (blank, token, duration)]
        gradients = [np.zeros_like(x) for x in inputs]
        loss = np.zeros(len(inputs[0]))
        lengths = [x.detach().long().cpu().numpy() for x in (frames, tokens)]
        _forward_backward(*inputs, np.asarray(steps), *lengths, loss, *gradients)
        ctx.save_for_backward(*(torch.from_numpy(x).to(blank) for x in gradients))
        return torch.from_numpy(loss).to(blank)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        d_blank, d_token, d_duration = ctx.saved_tensors
        scale = upstream[0].view(-1, 1, 1)
        return d_blank * scale, d_token * scale, d_duration * scale.unsqueeze(-1), None, None, None


def tdt_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    frames: torch.Tensor,
    tokens: torch.Tensor,
    durations: list[int],
    sigma: float = 0.0,
) -> torch.Tensor:
    """Negative log-likelihood of each row, [B]; 1e30 where no path exists.

    `logits` [B, T, U + 1, V + 1 + D], raw: V tokens, blank, D durations. `targets` [B, U]: token ids, padded with any
    id. `frames` [B] and `tokens` [B] are the true lengths. `sigma` is taken off the log-probability of each token and
    blank, which favours long durations.
    """
    symbols = torch.log_softmax(logits[..., : -len(durations)].float(), -1) - sigma
    duration = torch.log_softmax(logits[..., -len(durations) :].float(), -1)
    blank = symbols[..., -1]
    wanted = targets.long()[:, None, :, None].expand(-1, symbols.shape[1], -1, 1)
    token = symbols[:, :, :-1].gather(3, wanted).squeeze(3)
    return _TdtLoss.apply(blank, token, duration, frames, tokens, durations)  # type: ignore[no-any-return, no-untyped-call]
