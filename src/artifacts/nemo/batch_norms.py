"""Fold batch normalisation into the preceding convolution, in float64.

torch's exporter folds too, in float32 with the instructions of the processor at hand, so that the last bits of the
weights are those of one machine. Here each weight is computed in float64 and rounded once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def folded_batch_norms(network: nn.Module) -> Iterator[None]:
    """Fold the batch normalisation of each Conformer convolution of `network`; restore it afterwards.

    Memory: one more copy of each depthwise weight.
    """
    from nemo.collections.asr.parts.submodules.conformer_modules import ConformerConvolution

    modules = [module for module in network.modules() if isinstance(module, ConformerConvolution)]
    before = [
        (module, module.batch_norm, module.depthwise_conv.weight, module.depthwise_conv.bias)
        for module in modules
        if isinstance(module.batch_norm, nn.BatchNorm1d)
    ]
    try:
        for module, norm, weight, bias in before:
            folded_weight, folded_bias = fold_batch_norm(weight, bias, norm)
            module.depthwise_conv.weight = nn.Parameter(folded_weight, requires_grad=False)
            module.depthwise_conv.bias = nn.Parameter(folded_bias, requires_grad=False)
            module.batch_norm = nn.Identity()
        yield
    finally:
        for module, norm, weight, bias in before:
            module.batch_norm = norm
            module.depthwise_conv.weight, module.depthwise_conv.bias = weight, bias


def fold_batch_norm(weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Return weight [C, ...] and bias [C], float32, of a convolution that also does what `norm` does in evaluation.

    Ioffe and Szegedy 2015, "Batch Normalization", algorithm 2: y = (x - mean) * gamma / sqrt(variance + eps) + beta.
    """
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise ValueError("the normalisation has no statistics to fold")
    gamma = norm.weight.double() if norm.affine else 1.0
    scale = gamma / (variance.double() + norm.eps).sqrt()
    offset = (torch.zeros_like(mean) if bias is None else bias).double() - mean.double()
    beta = norm.bias.double() if norm.affine else 0.0
    by_channel = scale.reshape(-1, *[1] * (weight.dim() - 1))
    return (weight.double() * by_channel).float(), (offset * scale + beta).float()
