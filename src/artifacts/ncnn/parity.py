"""Compare a converted network in ncnn with the trace that it comes from in torch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from artifacts.errors import StepError
from artifacts.ncnn.param_file import ParamFile, read_param
from artifacts.ncnn.runtime import run_isolated
from artifacts.ncnn.traced import Input, Interface

# The same float32 arithmetic in another order may differ by this much, as for the ONNX exports.
MAX_ABS_DIFF = 1e-4

# With fp16 weights, relative to the largest value of an output, or to 1. A weight is off by up to 2**-11, 5e-4, of
# itself, and layers add that up: 1.4e-3 was seen in an LSTM encoder, 2.2e-3 in a FastConformer of 17 layers.
MAX_REL_DIFF_FP16 = 5e-3

Sizes = Sequence[Sequence[int]]


def compare_with_torch(
    traced: Path, param: Path, weights: Path, interface: Interface, *, fp16: bool
) -> dict[str, float]:
    """Run both on random inputs of both shapes of the interface and, where a length is open, of a third length.

    The third length is the sum of the two, which neither torch nor pnnx has seen. Returns the largest absolute
    difference of each float output, as `<output>_max_abs_diff`. Raises StepError if it is too large or NaN, if shapes
    differ, or if ncnn crashes. Integer outputs are not compared: ncnn has none, divides lengths without rounding, and
    they have no consumer.
    """
    file = read_param(param)
    cases = _cases(interface)
    samples = [_sample(interface, sizes, file) for sizes in cases]
    outputs = [f"out{number}" for number in range(len(interface.outputs))]
    results = run_isolated(param, weights, [_feeds(interface, each, file) for each in samples], outputs)
    largest: dict[str, float] = {}
    for sizes, expected, result in zip(cases, _run_torch(traced, samples), results, strict=True):
        for name, blob, want in zip(interface.outputs, outputs, expected, strict=True):
            if not want.is_floating_point():
                continue
            have, bound = result[blob], MAX_ABS_DIFF
            if fp16:
                bound = MAX_REL_DIFF_FP16 * max(1.0, float(want.abs().max()))
            worst = _max_abs_diff(want.numpy(), have)
            if not worst <= bound:
                at = ", ".join(f"{each.name} {list(size)}" for each, size in zip(interface.inputs, sizes, strict=True))
                raise StepError(
                    f"{param.name}: '{name}' differs from torch by {worst:.3g} at {at}, at most {bound:.3g} is allowed",
                    "trace the network in a form that pnnx knows, with two shapes for each open length",
                )
            key = f"{name}_max_abs_diff"
            largest[key] = max(largest.get(key, 0.0), worst)
    return largest


def embedding_rows(file: ParamFile, blob: str) -> int | None:
    """Return the number of tokens if `blob` is the input of an Embed layer, else None."""
    return next((layer.integer(1) for layer in file.layers if layer.type == "Embed" and blob in layer.inputs), None)


def _run_torch(traced: Path, samples: Sequence[Sequence[torch.Tensor]]) -> list[Sequence[torch.Tensor]]:
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript, the only format that pnnx reads
        warnings.filterwarnings("ignore", "LSTM with projections is not supported with oneDNN")
        network = torch.jit.load(str(traced), map_location="cpu")  # type: ignore[no-untyped-call]
        answers = [network(*sample) for sample in samples]
    return [answer if isinstance(answer, tuple) else (answer,) for answer in answers]


def _cases(interface: Interface) -> list[Sizes]:
    first = [each.shape for each in interface.inputs]
    second = [each.shape2 for each in interface.inputs]
    if first == second:
        return [first]
    third = [
        [a if a == b else a + b for a, b in zip(each.shape, each.shape2, strict=True)] for each in interface.inputs
    ]
    return [first, second, third]


def _sample(interface: Interface, sizes: Sizes, file: ParamFile) -> list[torch.Tensor]:
    """Return a random value for each input: floats, tokens, or the length of the open axis for another integer."""
    generator = torch.Generator().manual_seed(1)
    length = next(
        (
            size
            for each, shape in zip(interface.inputs, sizes, strict=True)
            for size, a, b in zip(shape, each.shape, each.shape2, strict=True)
            if a != b
        ),
        1,
    )
    sample = []
    for number, (each, shape) in enumerate(zip(interface.inputs, sizes, strict=True)):
        if each.dtype == "float32":
            sample.append(torch.randn(tuple(shape), generator=generator))
            continue
        tokens = embedding_rows(file, f"in{number}")
        dtype: torch.dtype = getattr(torch, each.dtype)
        if tokens is None:
            sample.append(torch.full(tuple(shape), length, dtype=dtype))
        else:
            sample.append(torch.randint(tokens, tuple(shape), generator=generator, dtype=dtype))
    return sample


def _feeds(interface: Interface, sample: Sequence[torch.Tensor], file: ParamFile) -> Mapping[str, npt.NDArray[Any]]:
    return {
        f"in{number}": matrix(each, value.numpy(), embedding_rows(file, f"in{number}") is not None)
        for number, (each, value) in enumerate(zip(interface.inputs, sample, strict=True))
    }


def matrix(described: Input, value: npt.NDArray[Any], is_token: bool) -> npt.NDArray[Any]:
    """Return a value in ncnn's form: without the batch axis, int32 for tokens, else float32."""
    if described.batch_axis is not None:
        value = value.squeeze(described.batch_axis)
    return value.astype(np.int32 if is_token else np.float32)


def _max_abs_diff(want: npt.NDArray[Any], have: npt.NDArray[Any]) -> float:
    """Return the largest absolute difference; infinity if shapes differ in more than axes of 1; NaN if there is one."""
    want, have = want.squeeze(), have.squeeze()
    return float(np.max(np.abs(want - have))) if want.shape == have.shape else float("inf")
