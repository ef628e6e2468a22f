"""Quantise a model to int8 with ONNX Runtime's dynamic quantiser: activation scales are set at run time.

The result has a third of the bytes or less, needs no calibration, and is the int8 of most published models of this
family. Its price: an activation has one scale for all its frames, set by the loudest, so soft speech is lost in long
recordings. Measure it on long recordings before you ship it.

By default MatMul, LSTM and Gather are quantised. These are nearly all weights of a decoder_joint, and of an encoder all
but its convolutions. Convolutions stay float. With them quantised too, the error of the embedded encoder is ten times
as large (1 - cosine 8e-4 instead of 9e-5), and soft endings are lost. An encoder of 0.6 billion parameters would be
0.2 GB smaller.

The result is right on every processor: no sum of products saturates (see `artifacts.graph.quantization.int8_sums`).
MatMul weights are unsigned by default, and LSTM weights always.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from artifacts.errors import StepError
from artifacts.params import StepParams

if TYPE_CHECKING:
    from onnx import ModelProto

TOOLS = ("numpy", "onnx", "onnxruntime", "protobuf")
HEADLINE = ("weights", "nodes_left_float", "bytes_after")


_CANNOT = "export the model again, or use quantize_nbits"


class Params(StepParams):
    """The defaults make the file that `onnx-asr` and similar consumers load as `int8`."""

    per_channel: bool = False
    """Whether each output channel of a weight has its own scale."""
    weight_type: Literal["QUInt8", "QInt8"] = "QUInt8"
    """QUInt8 has 8 bits and a zero point. QInt8 saturates with 8 bits on processors without VNNI and needs
    `reduce_range`. LSTM weights are uint8 with a zero point of 128, regardless of this parameter."""
    op_types: tuple[Literal["Conv", "Gather", "LSTM", "MatMul"], ...] = Field(
        ("MatMul", "LSTM", "Gather"), min_length=1
    )
    """Types of nodes to quantise. A Gemm counts as a MatMul."""
    nodes_to_exclude: tuple[str, ...] = ()
    """Names of nodes that stay float."""
    reduce_range: bool = False
    """Whether weights get 7 bits, so that two products fit 16 bits. Required for QInt8, not needed for QUInt8."""

    @model_validator(mode="after")
    def _signed_weights_do_not_saturate(self) -> Params:
        if self.weight_type == "QInt8" and not self.reduce_range:
            raise ValueError(
                "weight_type: QInt8 needs reduce_range: true: 8-bit signed weights saturate on processors without VNNI"
            )
        return self


def run(out: Path, params: Params, *, model: Path) -> dict[str, float | int | str]:
    """Write the quantised model to `out` under its name, in one file below 1.5 GB, and run it once.

    Metrics: weights quantised, nodes that consume them by op, nodes of `op_types` left float, the ops whose number
    changed, bytes before and after.
    Raises StepError as `open_float_model` does, and for weights that are sparse or have NaN or infinity. Also if ONNX
    Runtime loses a value, if no node was quantised, or as `check_and_run` does for the result. Also for a
    weight without a valid scale, that became a single number, or that saturates on a processor without VNNI.
    """
    from tempfile import TemporaryDirectory

    from artifacts.graph.change_metrics import changed_bytes, changed_ops, op_counts
    from artifacts.graph.model_file import errors_of, load_graph, save_graph, strip_docs
    from artifacts.graph.nodes import topological_sort
    from artifacts.graph.quantization.float_model import open_float_model
    from artifacts.graph.quantization.int8_sums import check_sums
    from artifacts.graph.quantization.stock_quantizer import (
        check_dense,
        check_finite,
        check_quantized,
        count_consumers,
        make_lstm_weights_unsigned,
    )
    from artifacts.graph.smoke_run import check_and_run
    from artifacts.graph.tensor_content import TensorReader

    source, before = open_float_model(model, params.nodes_to_exclude)
    _prepare(before, params)
    with errors_of(source):
        check_dense(before)
    with TensorReader(source) as original:
        check_finite(before, original, {*params.op_types, "Gemm"})
    with TemporaryDirectory(dir=out) as scratch:
        quantized = _quantize(source, Path(scratch), params)
        after = load_graph(quantized)
        with TensorReader(quantized) as reader, TensorReader(source) as original:
            weights = check_quantized(after, reader, before, original)
            make_lstm_weights_unsigned(after, reader)
            check_sums(after, reader)
        consumers = count_consumers(after)
        if not consumers:
            raise StepError(
                f"{source.name}: 0 nodes quantised of the types {', '.join(params.op_types)}",
                "name types in op_types that the model has, with constant weights",
            )
        topological_sort(after.graph)  # the quantiser sorts too, but ignores what subgraphs consume
        strip_docs(after)
        del after.graph.value_info[:]  # types that values had before
        del after.metadata_props[:]  # notes of the quantiser to itself
        after.metadata_props.extend(before.metadata_props)
        ops = changed_ops(op_counts(before), op_counts(after))
        floats = set(params.op_types) - {"Gather"}  # most Gathers select from shapes
        nodes_left_float = sum(node.op_type in floats for node in after.graph.node)
        save_graph(after, out / source.name, source_folder=quantized.parent)
    smoke = check_and_run(out / source.name, source)
    counts = {f"nodes_{op_type}": count for op_type, count in sorted(consumers.items())}
    counts["nodes_left_float"] = nodes_left_float
    return {"weights": weights, **counts, **ops, **changed_bytes(model, out), **smoke}


def _prepare(model: ModelProto, params: Params) -> None:
    """Change the model, in place, to one that ONNX Runtime's quantiser converts correctly."""
    from artifacts.graph.quantization.stock_quantizer import drop_weight_inputs, separate_weights
    from artifacts.graph.quantization.weight_matmuls import matrices_to_initializers

    matrices_to_initializers(model)  # it quantises no weight that is a Constant
    separate_weights(model, params.op_types, params.nodes_to_exclude)
    drop_weight_inputs(model)


def _quantize(source: Path, scratch: Path, params: Params) -> Path:
    """Quantise a copy of the model with ONNX Runtime, which writes beside its input and to the temporary folder."""
    import tempfile

    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    from artifacts.graph.model_file import load_graph, save_graph
    from artifacts.untrusted.foreign_errors import foreign_errors

    copy, result = scratch / "float" / source.name, scratch / "quantized" / source.name
    copy.parent.mkdir()
    result.parent.mkdir()
    model = load_graph(source)
    _prepare(model, params)
    # The quantiser turns a Gemm into a MatMul of this name, and then looks which nodes are excluded.
    gemms = [node.name for node in model.graph.node if node.op_type == "Gemm"]
    as_matmuls = [f"{name}_MatMul" for name in gemms if name in params.nodes_to_exclude]
    add_pre_process_metadata(model)  # without it the quantiser warns that shapes are not inferred, and infers them
    save_graph(model, copy, source_folder=source.parent)
    before, tempfile.tempdir = tempfile.tempdir, str(scratch)
    fact = f"{source.name}: ONNX Runtime does not quantise it"
    try:
        with foreign_errors("onnxruntime", fact, _CANNOT), foreign_errors("onnx", fact, _CANNOT):
            quantize_dynamic(
                copy,
                result,
                op_types_to_quantize=list(params.op_types),
                per_channel=params.per_channel,
                reduce_range=params.reduce_range,
                weight_type=QuantType[params.weight_type],
                nodes_to_exclude=[*params.nodes_to_exclude, *as_matmuls],
                use_external_data_format=True,
            )
    except StepError as error:
        if "unknown initializers/tensors" not in str(error.__cause__):
            raise
        raise StepError(  # the output of a quantised Gather that only subgraphs consume
            f"{source.name}: ONNX Runtime loses values that it quantises: {error.__cause__}",
            "name the nodes that produce them in nodes_to_exclude",
        ) from error
    finally:
        tempfile.tempdir = before
    return result
