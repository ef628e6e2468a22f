"""A part of a model as a torch module whose inputs and outputs have names and dimensions, ready to be traced."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

# Dimensions of each named tensor: a number is fixed by the checkpoint, a word is the name of an axis that can vary.
Dims = Mapping[str, tuple[str | int, ...]]
# The size of each axis that can vary, by its name.
Sizes = Mapping[str, int]


class Network(nn.Module):
    """A part of a model. `forward` takes the tensors of `inputs` and returns a tuple of those of `outputs`, in order.

    It is in evaluation mode from the start. torch's exporter puts the whole module back into the mode in which it found
    the outermost one; otherwise it would leave the shared parts in training mode.
    """

    inputs: Dims
    outputs: Dims

    def __init__(self, inputs: Dims, outputs: Dims) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.eval()

    @property
    def axes(self) -> list[str]:
        """Names of the axes of the inputs that can vary, in the order of their first use."""
        return list(dict.fromkeys(dim for dims in self.inputs.values() for dim in dims if isinstance(dim, str)))

    def sample(self, sizes: Sizes, seed: int) -> tuple[Tensor, ...]:
        """Return random inputs of these sizes, to trace with and to compare with. Float32 unless a subclass says."""
        generator = torch.Generator().manual_seed(seed)
        return tuple(torch.randn(shape_of(dims, sizes), generator=generator) for dims in self.inputs.values())


def shape_of(dims: tuple[str | int, ...], sizes: Sizes) -> tuple[int, ...]:
    """Return the shape of a tensor whose varying axes have these sizes."""
    return tuple(sizes[dim] if isinstance(dim, str) else dim for dim in dims)
