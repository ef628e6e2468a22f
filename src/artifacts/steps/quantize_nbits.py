"""Quantise a model's weights alone, to 8 or 4 bits in blocks (MatMulNBits): holds its words on long recordings.

The int8 to take unless a consumer cannot run it: no calibration, plain ONNX Runtime, and next to nothing is lost. Each
block of 32 weights has a scale of its own, and so (see `accuracy_level`) have each 32 numbers of an activation: no loud
frame sets the scale of a soft one, which is what costs words on long recordings after `quantize_dynamic`. Published
word error rates of a 0.6b encoder, float32 / 8 bits / 4 bits: 12.85 / 12.88 / 13.67 % on FLEURS, 8.2 / 8.1 / 11.2 % on
eight long speeches. Of its 2.42 GB, 8 bits leave 0.90 and 4 bits 0.64: the smallest that plain ONNX Runtime runs, but
what is lost is heard.

Weights of MatMuls are quantised; products of two activations, convolutions, LSTMs, Gathers and Gemms stay float (of a
decoder_joint, that is the predictor). Numbers and names are bit for bit those of ONNX Runtime's `MatMulNBitsQuantizer`;
but that holds the whole model, whereas here one weight at a time is read, quantised and written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from artifacts.errors import StepError
from artifacts.params import StepParams

TOOLS = ("numpy", "onnx", "onnxruntime", "protobuf")


class Params(StepParams):
    """The defaults are what was published as the 8-bit form of this model family."""

    bits: Literal[4, 8] = 8
    """Bits of a weight. Beside them each block has a scale of 32 bits: 9 bits a weight in all, or 5."""
    block_size: Literal[16, 32, 64, 128, 256] = 32
    """Consecutive input channels that share a scale. The last block of a weight is padded where they do not fit."""
    symmetric: bool = True
    """Whether zero is the middle of the integers; else each block has a zero point too."""
    accuracy_level: int = Field(4, ge=0, le=4)
    """The least precision that the runtime may turn activations to while it multiplies: 0 unset (as they are), 1 fp32,
    2 fp16, 3 bf16, 4 int8, in blocks of `block_size` like the weights. On CPUs 0 to 3 all mean fp32, which strays a
    quarter as far on the embedded encoder (8 bits: 1 - cosine 4e-6 instead of 1.6e-5)."""
    nodes_to_exclude: tuple[str, ...] = ()
    """Names of nodes that stay float."""


def run(out: Path, params: Params, *, model: Path) -> dict[str, float | int | str]:
    """Write the quantised model to `out` under its name, in one file below 1.5 GB, and run it once.

    Metrics: nodes rewritten, weights quantised, MatMuls and Gemms left float, the ops whose number changed, bytes
    before and after.
    Raises StepError for a model that cannot be read, is not fp32, is quantised already or has weights with NaN or
    infinity, for a name in `nodes_to_exclude` that no node has, or if no node was quantised, a weight did not survive
    it, or the result does not run with finite numbers.
    """
    from tempfile import TemporaryDirectory

    from artifacts.graph.inline_writer import write_inline
    from artifacts.graph.model_file import INLINE_LIMIT_BYTES, check_model, find_model, load_graph, model_bytes
    from artifacts.graph.op_counts import changed_ops, op_counts
    from artifacts.graph.quantization.nbits_graph import rewrite_to_nbits
    from artifacts.graph.quantization.nbits_values import BlockFormat
    from artifacts.graph.quantization.quantizer_input import check_excluded, check_float_model
    from artifacts.graph.quantization.weight_matmuls import matrices_to_initializers
    from artifacts.graph.tensor_writer import write_model
    from artifacts.graph.trial_run import trial_run
    from artifacts.runtime.sessions import open_session

    source = find_model(model)
    graph = load_graph(source)
    check_float_model(graph, source.name)
    check_excluded(params.nodes_to_exclude, graph, source.name)
    matrices_to_initializers(graph)
    before = op_counts(graph)
    form = BlockFormat(params.bits, params.block_size, params.symmetric)
    changes = rewrite_to_nbits(graph, model, form, params.accuracy_level, params.nodes_to_exclude)
    if not changes.nodes:
        raise StepError(
            f"{source.name}: 0 MatMuls quantised: none that is not excluded has a constant float32 matrix",
            "give a model whose weights are read by MatMuls, or exclude fewer nodes",
        )
    after = op_counts(graph)
    with TemporaryDirectory(dir=out) as scratch:
        # Checked and run with external data, which both tools map: of one file each makes copies in memory.
        folder = out if changes.nbytes > INLINE_LIMIT_BYTES else Path(scratch)
        written = folder / source.name
        try:
            write_model(graph, changes.stored, written, external=True)
        except StepError as error:
            raise StepError(f"{source.name}: {error.fact}", error.fix) from None
        check_model(written)
        trial_run(open_session(written, threads=1), source.name, model_bytes(folder))
        if folder != out:
            write_inline(graph, folder, out / source.name)
    return {
        "nodes": changes.nodes,
        "weights": changes.weights,
        "nodes_left_float": after["MatMul"] + after["Gemm"],
        **changed_ops(before, after),
        "bytes_before": model_bytes(model),
        "bytes_after": model_bytes(out),
    }
