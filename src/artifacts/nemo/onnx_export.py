"""Writes a network as ONNX with torch's TorchScript-based exporter.

The newer, torch.export-based one fixes the number of tokens of an LSTM at the size that it was shown. The older one
writes hundreds of loose files when a model is large; the caller gathers them.
"""

from __future__ import annotations

import logging
from pathlib import Path

import onnx
import torch
from torch import Tensor

from artifacts.model.network import Network, Sizes
from artifacts.nemo.batch_norms import folded_batch_norms
from artifacts.nemo.quiet import quiet

log = logging.getLogger(__name__)


def export_network(network: Network, path: Path, opset: int, fixed: Sizes | None) -> None:
    """Trace the network and write it to `path`, with loose data files beside it if it is too large for one file.

    `fixed` gives a size to each axis that could vary, and the graph is good for these only; None leaves them open.
    The names of inputs, outputs and axes are those of the network's tables.
    """
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
    """Give each of these outputs the dimensions of the tensor: the exporter loses sight of some and invents names."""
    model = onnx.load(path, load_external_data=False)
    for value in model.graph.output:
        if value.name in outputs:
            del value.type.tensor_type.shape.dim[:]
            for size in outputs[value.name].shape:
                value.type.tensor_type.shape.dim.add(dim_value=size)
    path.write_bytes(model.SerializeToString(deterministic=True))
