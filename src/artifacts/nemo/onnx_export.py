"""Write a network as ONNX with torch's TorchScript-based exporter, and compare the graph with the network.

The newer, torch.export-based exporter fixes the number of tokens of an LSTM at the size of the sample. The older one
writes hundreds of loose files when a model is large; the caller gathers them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor

from artifacts.errors import StepError
from artifacts.model.network import Network, Sizes
from artifacts.nemo.networks import folded_batch_norms
from artifacts.nemo.quiet import quiet

# Tolerance for the same float32 arithmetic in another order. Parakeet-TDT 0.6B shows 3e-6.
MAX_ABS_DIFF = 1e-4

log = logging.getLogger(__name__)


@contextmanager
def exported(network: Network, path: Path, opset: int, fixed: Sizes | None = None) -> Iterator[Path]:
    """Export the network into a temporary folder beside `path`; yield the graph's file there, of the same name.

    Loose data files lie beside it if it is too large for one file. `fixed` gives a size to each axis that could vary,
    and the graph is good for these only; None leaves them open. Inputs, outputs and axes have the network's names.
    """
    with TemporaryDirectory(dir=path.parent) as folder:
        loose = Path(folder) / path.name
        _export(network, loose, opset, fixed)
        yield loose


def _export(network: Network, path: Path, opset: int, fixed: Sizes | None) -> None:
    # any sizes do for tracing but 1, which might be taken for a dimension to broadcast
    sizes = fixed or {axis: 100 if "frames" in axis else 3 for axis in network.axes}
    sample = network.sample(sizes, seed=0)
    named = {**network.inputs, **network.outputs}
    axes = {name: {i: dim for i, dim in enumerate(dims) if isinstance(dim, str)} for name, dims in named.items()}
    log.info("exporting %s", path.stem)
    with quiet(), torch.no_grad():
        with folded_batch_norms(network):
            torch.onnx.export(
                network,
                sample,
                str(path),  # a Path is refused as soon as the model needs loose files
                input_names=list(network.inputs),
                output_names=list(network.outputs),
                dynamic_axes=None if fixed else axes,
                opset_version=opset,
                dynamo=False,
            )
        outputs = dict(zip(network.outputs, network(*sample), strict=True)) if fixed else {}
    _write_dims(path, outputs)


def _write_dims(path: Path, outputs: dict[str, Tensor]) -> None:
    """Give these outputs the dimensions of the tensors: the exporter loses some and invents names."""
    model = onnx.load(path, load_external_data=False)
    for value in model.graph.output:
        if value.name in outputs:
            del value.type.tensor_type.shape.dim[:]
            for size in outputs[value.name].shape:
                value.type.tensor_type.shape.dim.add(dim_value=size)
    path.write_bytes(model.SerializeToString(deterministic=True))


def compare_with_torch(path: Path, network: Network, cases: Sequence[Sizes]) -> dict[str, float]:
    """Run the graph in ONNX Runtime and the network in torch, on random inputs of the given sizes.

    Returns the largest absolute difference of each float output over all cases, as `<output>_max_abs_diff`.
    Raises StepError if one is above `MAX_ABS_DIFF`, or if an integer output or a shape differs at all.
    """
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    largest: dict[str, float] = {}
    for sizes in cases:
        inputs = network.sample(sizes, seed=1)
        with quiet(), torch.no_grad():
            expected = network(*inputs)
        feeds = {name: value.numpy() for name, value in zip(network.inputs, inputs, strict=True)}
        got = session.run(list(network.outputs), feeds)
        for name, want, have in zip(network.outputs, expected, got, strict=True):
            difference = _max_abs_diff(want.numpy(), have)
            if not difference <= (MAX_ABS_DIFF if want.is_floating_point() else 0):
                at = ", ".join(f"{axis} {size}" for axis, size in sizes.items())
                raise StepError(
                    f"{path.name}: '{name}' differs from torch by {difference:.3g} at {at}, {MAX_ABS_DIFF} is allowed",
                    "export with the library versions that are pinned; if you did, the exporter has a bug",
                )
            if want.is_floating_point():
                key = f"{name}_max_abs_diff"
                largest[key] = max(largest.get(key, 0.0), difference)
    return largest


def _max_abs_diff(want: np.ndarray, have: np.ndarray) -> float:
    """Return the largest absolute difference: infinite if the shapes differ, NaN if either contains one."""
    return float(np.max(np.abs(want - have))) if want.shape == have.shape else float("inf")
