"""Quantise a model's weights to 8 bits, and its activations while it runs (ONNX Runtime's dynamic quantisation).

A third of the bytes or less, no calibration, and the int8 that most published models of this family are. Its price: an
activation has one scale for all its frames, set by the loudest, so that what is soft is lost in long recordings.
Measure it on those before shipping it.

By default MatMul, LSTM and Gather are quantised: nearly all weights of a decoder_joint, and of an encoder all but its
convolutions. Those stay float: with them quantised too, the embedded encoder's output strays ten times as far
(1 - cosine 8e-4 instead of 9e-5), and soft endings are lost. An encoder of 0.6 billion parameters would be 0.2 GB
smaller.

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


_NOT_STOCK = "export the model again, or use quantize_nbits"


class Params(StepParams):
    """The defaults make what `onnx-asr` and its like load as `int8`."""

    per_channel: bool = False
    """Whether each output channel of a weight has a scale of its own."""
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

    Metrics: weights quantised, nodes that read them by op, nodes of `op_types` left float, the ops whose number
    changed, bytes before and after.
    Raises StepError for a model that cannot be read, is not fp32, is quantised already or has weights that are sparse
    or hold NaN or infinity, for a name in `nodes_to_exclude` that no node has, or if ONNX Runtime loses a value, no
    node was quantised, a weight did not survive it or would saturate on a processor without VNNI, or the result does
    not run with finite numbers.
    """
    from tempfile import TemporaryDirectory

    from artifacts.graph.model_file import check_model, find_model, load_graph, model_bytes, save_graph
    from artifacts.graph.node_order import sort_nodes
    from artifacts.graph.op_counts import changed_ops, op_counts
    from artifacts.graph.quantization.int8 import check_finite, check_quantized, count_readers
    from artifacts.graph.quantization.int8_sums import check_sums
    from artifacts.graph.quantization.quantizer_input import check_excluded, check_float_model
    from artifacts.graph.quantization.stock_quantizer_input import check_dense
    from artifacts.graph.quantization.unsigned_lstm import make_lstm_weights_unsigned
    from artifacts.graph.strip_docs import strip_docs
    from artifacts.graph.tensor_reader import TensorReader
    from artifacts.graph.trial_run import trial_run
    from artifacts.runtime.sessions import open_session

    source = find_model(model)
    target = out / source.name
    before = _load(source, params)
    check_float_model(before, source.name)
    check_excluded(params.nodes_to_exclude, before, source.name)
    check_dense(before, source.name)
    with TensorReader(source) as original:
        check_finite(before, original, {*params.op_types, "Gemm"})
    with TemporaryDirectory(dir=out) as scratch:
        quantized = _quantize(source, Path(scratch), params)
        after = load_graph(quantized)
        with TensorReader(quantized) as reader, TensorReader(source) as original:
            weights = check_quantized(after, reader, before, original)
            make_lstm_weights_unsigned(after, reader)
            check_sums(after, reader)
        readers = count_readers(after)
        if not readers:
            raise StepError(
                f"{source.name}: 0 nodes quantised of the types {', '.join(params.op_types)}",
                "name types in op_types that the model has, with constant weights",
            )
        sort_nodes(after.graph)  # the quantiser sorts too, blind to what bodies read
        strip_docs(after)
        del after.graph.value_info[:]  # types that values had before
        del after.metadata_props[:]  # notes of the quantiser to itself
        after.metadata_props.extend(before.metadata_props)
        ops = changed_ops(op_counts(before), op_counts(after))
        floats = set(params.op_types) - {"Gather"}  # most Gathers read shapes
        nodes_left_float = sum(node.op_type in floats for node in after.graph.node)
        save_graph(after, target, source_folder=quantized.parent)
    check_model(target)
    trial_run(open_session(target, threads=1), target.name, model_bytes(out))
    counts = {f"nodes_{op_type}": count for op_type, count in sorted(readers.items())}
    sizes = {"bytes_before": model_bytes(model), "bytes_after": model_bytes(out)}
    return {"weights": weights, **counts, "nodes_left_float": nodes_left_float, **ops, **sizes}


def _load(source: Path, params: Params) -> ModelProto:
    """The model as ONNX Runtime's quantiser takes it."""
    from artifacts.graph.model_file import load_graph
    from artifacts.graph.quantization.stock_quantizer_input import drop_weight_inputs, separate_weights
    from artifacts.graph.quantization.weight_matmuls import matrices_to_initializers

    model = load_graph(source)
    matrices_to_initializers(model)  # it quantises no weight that is a Constant
    separate_weights(model, params.op_types, params.nodes_to_exclude)
    drop_weight_inputs(model)
    return model


def _quantize(source: Path, scratch: Path, params: Params) -> Path:
    """Let ONNX Runtime quantise a copy of the model: it writes beside what it reads, and to the temporary folder."""
    import tempfile

    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    from artifacts.graph.model_file import save_graph
    from artifacts.untrusted.foreign_errors import foreign_errors

    copy, result = scratch / "float" / source.name, scratch / "quantized" / source.name
    copy.parent.mkdir()
    result.parent.mkdir()
    model = _load(source, params)
    add_pre_process_metadata(model)  # else it warns that shapes should be inferred first, which it then does itself
    save_graph(model, copy, source_folder=source.parent)
    before, tempfile.tempdir = tempfile.tempdir, str(scratch)
    fact = f"{source.name}: ONNX Runtime does not quantise it"
    try:
        with foreign_errors("onnxruntime", fact, _NOT_STOCK), foreign_errors("onnx", fact, _NOT_STOCK):
            quantize_dynamic(
                copy,
                result,
                op_types_to_quantize=list(params.op_types),
                per_channel=params.per_channel,
                reduce_range=params.reduce_range,
                weight_type=QuantType[params.weight_type],
                nodes_to_exclude=list(params.nodes_to_exclude),
                use_external_data_format=True,
            )
    except StepError as error:
        if "unknown initializers/tensors" not in str(error.__cause__):
            raise
        raise StepError(  # of a Gather that it quantises, what only bodies read
            f"{source.name}: ONNX Runtime loses values that it quantises: {error.__cause__}",
            "name the nodes that make them in nodes_to_exclude",
        ) from error
    finally:
        tempfile.tempdir = before
    return result
