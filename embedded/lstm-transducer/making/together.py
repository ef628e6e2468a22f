"""AdamW in several processes that each have a batch of their own and take the mean of their gradients.

All keep the same weights, since all take the same step. The update is that of Loshchilov and Hutter, "Decoupled Weight
Decay Regularization", 2019, algorithm 2.

Not waiting for one another ("Hogwild!") was tried: with Adam's moments this model then learned nothing from what it
heard, in 1,400 steps.
"""

from __future__ import annotations

import multiprocessing

import torch
from torch import nn

BETAS = (0.9, 0.98)
EPSILON = 1e-8
WEIGHT_DECAY = 1e-3
MAX_GRADIENT_NORM = 1.0


class Meeting:
    """Where the processes leave their gradients, and wait for one another; made before they part."""

    def __init__(self, workers: int, size: int) -> None:
        self.gradients = torch.zeros(workers, size).share_memory_()
        self.progress = torch.zeros(1, dtype=torch.float64).share_memory_()
        """The part of the time that is over, as the first process has it: what all go by."""
        self.barrier = multiprocessing.get_context("fork").Barrier(workers)


class Adam:
    """One process's own optimiser."""

    def __init__(self, model: nn.Module, meeting: Meeting, rank: int) -> None:
        self._parameters = list(model.parameters())
        self._meeting, self._rank = meeting, rank
        self._first, self._second = (torch.zeros(meeting.gradients.shape[1]) for _ in range(2))
        self.steps = 0

    def step(self, learning_rate: float) -> None:
        """Take the mean of all processes' gradients, shortened to a norm of 1, and forget them."""
        own = [torch.zeros(each.numel()) if each.grad is None else each.grad.flatten() for each in self._parameters]
        torch.cat(own, out=self._meeting.gradients[self._rank])
        self._meeting.barrier.wait()
        gradient = self._meeting.gradients.mean(0)
        self._meeting.barrier.wait()
        gradient *= torch.clamp(MAX_GRADIENT_NORM / (gradient.norm() + 1e-6), max=1.0)
        self.steps += 1
        self._first.lerp_(gradient, 1 - BETAS[0])
        self._second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        change = self._first / (self._second / (1 - BETAS[1] ** self.steps)).sqrt_().add_(EPSILON)
        change *= learning_rate / (1 - BETAS[0] ** self.steps)
        start = 0
        with torch.no_grad():
            for each in self._parameters:
                each.mul_(1 - learning_rate * WEIGHT_DECAY).sub_(change[start : start + each.numel()].view_as(each))
                each.grad = None
                start += each.numel()
