"""Convert a traced network to ncnn with pnnx, and compare it with torch.

pnnx's exit code proves nothing: it may leave torch's operators in the network, or convert an LSTM into other numbers.
So the network is loaded by ncnn, in a process of its own because ncnn may crash, and run beside torch on inputs of both
shapes of `inputs.json` and, where a length is open, of a third one that neither torch nor pnnx was shown.
"""

from __future__ import annotations

from pathlib import Path

from artifacts.params import StepParams

TOOLS = ("pnnx", "ncnn", "torch", "numpy")


class Params(StepParams):
    """`fp16`: weights are stored as fp16, at half the size; biases, and what is computed, stay float32."""

    fp16: bool = False


def run(out: Path, params: Params, *, traced: Path) -> dict[str, float | int]:
    """Write `<part>.ncnn.param`, `<part>.ncnn.bin` and `inputs.json` with each input's batch axis.

    Returns the largest absolute difference to torch of each output, and the numbers of layers and bytes. Raises
    StepError if that is above 1e-4 (with fp16 weights 0.5 % of the output's largest value), if ncnn does not load or
    survive the network, and if pnnx left an operator of torch in it.
    """
    from artifacts.ncnn.param_file import read_param
    from artifacts.ncnn.parity import compare
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
    metrics: dict[str, float | int] = {**compare(trace.module, param, weights, interface, fp16=params.fp16)}
    metrics["layers"] = len(read_param(param).layers)
    metrics["bytes"] = param.stat().st_size + weights.stat().st_size
    return metrics
