"""Convert a traced network to ncnn with pnnx, and compare its outputs with torch's.

pnnx's exit code proves nothing: it may leave torch operators in the network, or convert an LSTM into one that computes
something else. So ncnn loads the network, in a child process because it may crash, and its outputs are compared with
torch's. The inputs have both shapes of `inputs.json` and, where a length is open, a third length that neither torch nor
pnnx has seen.
"""

from __future__ import annotations

from pathlib import Path

from artifacts.params import StepParams

TOOLS = ("pnnx", "ncnn", "torch", "numpy")
HEADLINE = ("encoder_output_max_abs_diff", "g_max_abs_diff", "joint_output_max_abs_diff")


class Params(StepParams):
    """How weights are stored."""

    fp16: bool = False
    """Store weights as fp16, at half the size; biases and computation stay float32."""


def run(out: Path, params: Params, *, traced: Path) -> dict[str, float | int]:
    """Write `<part>.ncnn.param`, `<part>.ncnn.bin` and `inputs.json` with each input's batch axis.

    Metrics: the largest absolute difference from torch for each output, layers, and bytes. Raises StepError if a
    difference is above 1e-4, or with fp16 weights above 0.5 % of the output's largest value. Raises it if pnnx left a
    torch operator in the network, and if ncnn does not load it or crashes.
    """
    from artifacts.ncnn.param_file import read_param
    from artifacts.ncnn.parity import compare_with_torch
    from artifacts.ncnn.pnnx import convert
    from artifacts.ncnn.traced import read_trace, write_interface

    trace = read_trace(traced)
    axes = convert(trace.module, trace.part, out, trace.interface.inputs, fp16=params.fp16)
    inputs = [
        each.model_copy(update={"batch_axis": axis}) for each, axis in zip(trace.interface.inputs, axes, strict=True)
    ]
    interface = trace.interface.model_copy(update={"inputs": inputs})
    write_interface(interface, out)
    param, weights = out / f"{trace.part}.ncnn.param", out / f"{trace.part}.ncnn.bin"
    differences = compare_with_torch(trace.module, param, weights, interface, fp16=params.fp16)
    size = param.stat().st_size + weights.stat().st_size
    return {**differences, "layers": len(read_param(param).layers), "bytes": size}
