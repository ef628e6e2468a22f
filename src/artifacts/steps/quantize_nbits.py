"""Quantise a model's weights to 8 or 4 bits in blocks (MatMulNBits); activations need no calibration.

Take this int8 unless a consumer cannot run it: it runs in plain ONNX Runtime and loses next to nothing. Each block of
32 weights has an own scale, and so (see `accuracy_level`) has each block of 32 numbers of an activation. No loud frame
sets the scale of a soft one, which is what costs words on long recordings after `quantize_dynamic`. Published word
error rates of a 0.6b encoder, float32 / 8 bits / 4 bits: 12.85 / 12.88 / 13.67 % on FLEURS, 8.2 / 8.1 / 11.2 % on
eight long speeches. Of its 2.42 GB, 8 bits leave 0.90 and 4 bits 0.64. That is the smallest form that plain ONNX
Runtime runs, but it loses words.

Weights of MatMuls are quantised. Products of two activations, convolutions, LSTMs, Gathers and Gemms stay float (of a
decoder_joint, that is the predictor). Numbers and names are bit for bit those of ONNX Runtime's `MatMulNBitsQuantizer`.
That class holds the whole model in memory; this step reads, quantises and writes one weight at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from artifacts.errors import StepError
from artifacts.params import StepParams

TOOLS = ("numpy", "onnx", "onnxruntime", "protobuf")
HEADLINE = ("weights", "nodes_left_float", "bytes_after")


class Params(StepParams):
    """The defaults are what was published as the 8-bit form of this model family."""

    bits: Literal[4, 8] = 8
    """Bits of a weight. Each block also has a scale of 32 bits: 9 bits a weight in all, or 5."""
    block_size: Literal[16, 32, 64, 128, 256] = 32
    """Consecutive input channels that share a scale. The last block of a weight is padded."""
    symmetric: bool = True
    """Whether zero is the middle of the integers; otherwise each block also has a zero point."""
    accuracy_level: int = Field(4, ge=0, le=4)
    """The least precision of activations while the runtime multiplies: 0 unset (their own), 1 fp32, 2 fp16, 3 bf16,
    4 int8, in blocks of `block_size` like the weights. On CPUs 0 to 3 all mean fp32. Its error is a quarter of that of
    int8 on the embedded encoder (8 bits: 1 - cosine 4e-6 instead of 1.6e-5)."""
    nodes_to_exclude: tuple[str, ...] = ()
    """Names of nodes that stay float."""


def run(out: Path, params: Params, *, model: Path) -> dict[str, float | int | str]:
    """Write the quantised model to `out` under its name, in one file below 1.5 GB, and run it once.

    Metrics: nodes rewritten, weights quantised, MatMuls and Gemms left float, the ops whose number changed, bytes
    before and after.
    Raises StepError as `open_float_model` does, and for a weight with NaN or infinity or without a valid scale. Also if
    no node was quantised, or as `check_and_run` does for the result.
    """
    from tempfile import TemporaryDirectory

    from artifacts.graph.change_metrics import changed_bytes, changed_ops, op_counts
    from artifacts.graph.inline_writer import write_inline
    from artifacts.graph.model_file import INLINE_LIMIT_BYTES, errors_of
    from artifacts.graph.quantization.float_model import open_float_model
    from artifacts.graph.quantization.nbits import BlockFormat, rewrite_to_nbits
    from artifacts.graph.quantization.weight_matmuls import matrices_to_initializers
    from artifacts.graph.smoke_run import check_and_run
    from artifacts.graph.tensor_writer import write_model

    source, graph = open_float_model(model, params.nodes_to_exclude)
    matrices_to_initializers(graph)
    before = op_counts(graph)
    form = BlockFormat(params.bits, params.block_size, params.symmetric)
    changes = rewrite_to_nbits(graph, source.parent, form, params.accuracy_level, params.nodes_to_exclude)
    if not changes.nodes:
        raise StepError(
            f"{source.name}: 0 MatMuls quantised: each is excluded or has no constant float32 matrix",
            "give a model with MatMuls by weights, or exclude fewer nodes",
        )
    after = op_counts(graph)
    with TemporaryDirectory(dir=out) as scratch:
        # Checked and run with external data, which both tools map: they copy the tensors of a single file.
        folder = out if changes.nbytes > INLINE_LIMIT_BYTES else Path(scratch)
        with errors_of(source):
            write_model(graph, changes.stored, folder / source.name, external=True)
        smoke = check_and_run(folder / source.name, source)
        if folder != out:
            write_inline(graph, folder, out / source.name)
    return {
        "nodes": changes.nodes,
        "weights": changes.weights,
        "nodes_left_float": after["MatMul"] + after["Gemm"],
        **changed_ops(before, after),
        **changed_bytes(model, out),
        **smoke,
    }
