"""Convert a float32 model to float16: weights and values, not its inputs and outputs.

The result has half the bytes, in the type that GPUs compute fastest. There are two converters. Our own streams each
weight from file to file, and keeps arithmetic on lengths in float32. onnxconverter-common made many published models,
and holds the whole model in memory. It leaves the Casts inside the graph as they are, so that its output alone may not
load: `fix_fp16_casts` must follow. `artifacts.graph.fp16_graph` lists the differences.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from artifacts.errors import StepError
from artifacts.params import StepParams

TOOLS = ("numpy", "onnx", "onnxconverter-common", "onnxruntime", "protobuf")
HEADLINE = ("tensors", "casts_inserted")

# Ops that runtimes lack in float16: the list of onnxconverter-common 1.16.
FLOAT32_OPS = (
    "ArrayFeatureExtractor", "Binarizer", "CastMap", "CategoryMapper", "CumSum", "DictVectorizer", "FeatureVectorizer",
    "Imputer", "LabelEncoder", "LinearClassifier", "LinearRegressor", "Max", "Min", "NonMaxSuppression", "Normalizer",
    "OneHotEncoder", "RandomUniformLike", "Range", "Resize", "RoiAlign", "SVMClassifier", "SVMRegressor", "Scaler",
    "TopK", "TreeEnsembleClassifier", "TreeEnsembleRegressor", "Upsample", "ZipMap",
)  # fmt: skip


class Params(StepParams):
    """The defaults are those of onnxconverter-common."""

    converter: Literal["streaming", "onnxconverter-common"] = "streaming"
    """`streaming` is ours and holds no model in memory; `onnxconverter-common` is the library, for comparison."""
    min_positive_val: float = Field(default=1e-7, ge=0, lt=1)
    """Numbers closer to zero, but not zero, are moved to it."""
    max_finite_val: float = Field(default=1e4, ge=1, le=65504)
    """Finite numbers beyond it are moved to it; float16 ends at 65504."""
    keep_fp32_ops: tuple[str, ...] = ()
    """Types of nodes that stay in float32, beside those that runtimes lack in float16 (FLOAT32_OPS)."""
    keep_fp32_nodes: tuple[str, ...] = ()
    """Names of nodes that stay in float32."""
    keep_io_types: bool = True
    """Whether float32 inputs and outputs of the model stay float32."""

    @model_validator(mode="after")
    def _bounds_differ(self) -> Params:
        if struct.pack("e", self.min_positive_val) == struct.pack("e", self.max_finite_val):
            raise ValueError("min_positive_val and max_finite_val are the same number in float16: choose others")
        return self

    @model_validator(mode="after")
    def _conversion_ends(self) -> Params:
        if self.converter == "onnxconverter-common" and "Cast" in self.keep_fp32_ops:
            raise ValueError("onnxconverter-common never ends when keep_fp32_ops contains 'Cast'; use 'streaming'")
        return self


def run(out: Path, params: Params, *, model: Path) -> dict[str, float | int | str]:
    """Write the model to `out` under its name, with external data if it has them now.

    Metrics: tensors converted. From 'streaming' also: Casts inserted, removed, and changed to float16; Casts to float32
    that stayed; nodes that compute on lengths or positions; values moved to the bounds.
    Raises StepError for a model that cannot be read, that has float16 already, or that has nothing to convert.
    """
    from artifacts.graph.model_file import errors_of, find_model

    convert = _stream if params.converter == "streaming" else _convert_in_memory
    path = find_model(model)
    with errors_of(path):
        return convert(path, out / path.name, params)


def _stream(source: Path, target: Path, params: Params) -> dict[str, float | int | str]:
    from artifacts.graph.fp16_graph import Fp16Options, rewrite_to_fp16
    from artifacts.graph.fp16_values import Fp16Content, Fp16Rounding
    from artifacts.graph.model_file import load_graph
    from artifacts.graph.tensor_content import FileRange
    from artifacts.graph.tensor_writer import any_external, stored_tensors, write_model
    from artifacts.graph.tensors import tensor_nbytes

    model = load_graph(source)
    stored = stored_tensors(model, source.parent)
    rounding = Fp16Rounding(params.min_positive_val, params.max_finite_val)
    blocked = frozenset((*FLOAT32_OPS, *params.keep_fp32_ops)), frozenset(params.keep_fp32_nodes)
    changes = rewrite_to_fp16(model, Fp16Options(*blocked, params.keep_io_types), rounding)
    external = any_external(stored)
    # A rewritten external tensor needs half of its stored bytes: they are converted when they are written.
    contents = [
        (located, Fp16Content(content, rounding))
        if isinstance(content, FileRange) and content.nbytes != tensor_nbytes(located.tensor)
        else (located, content)
        for located, content in stored
    ]
    write_model(model, contents, target, external=external)
    return {
        "tensors": changes.tensors,
        "casts_inserted": changes.types.casts_inserted,
        "casts_removed": changes.types.casts_removed,
        "casts_changed": changes.types.casts_changed,
        "casts_kept": changes.types.casts_kept,
        "length_nodes": changes.types.length_nodes,
        "values_raised": rounding.raised,
        "values_lowered": rounding.lowered,
    }


def _convert_in_memory(source: Path, target: Path, params: Params) -> dict[str, float | int | str]:
    import warnings

    import onnx
    from onnxconverter_common.float16 import convert_float_to_float16

    from artifacts.graph.fp16_graph import check_convertible
    from artifacts.graph.model_file import load_graph, save_graph
    from artifacts.graph.tensors import is_external, iter_tensors
    from artifacts.untrusted.foreign_errors import foreign_errors

    checked = load_graph(source)
    check_convertible(checked)
    external = any(is_external(tensor) for tensor in iter_tensors(checked))
    with (
        warnings.catch_warnings(),
        foreign_errors("onnxconverter_common", "onnxconverter-common does not convert it", "use converter: streaming"),
        foreign_errors("onnx", "onnx does not read it", "export the model again"),
    ):
        warnings.simplefilter("ignore", UserWarning)  # it warns of each tensor with a value moved to a bound
        model = convert_float_to_float16(
            onnx.load(source),
            min_positive_val=params.min_positive_val,
            max_finite_val=params.max_finite_val,
            keep_io_types=params.keep_io_types,
            disable_shape_infer=True,  # with it, a model beyond 2 GB cannot be converted
            op_block_list=(*FLOAT32_OPS, *params.keep_fp32_ops),
            node_block_list=params.keep_fp32_nodes,
        )
    tensors = sum(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in iter_tensors(model))
    if not tensors:
        raise StepError("0 tensors converted to float16", "give a float32 model, and keep fewer nodes in float32")
    save_graph(model, target, external=external)
    return {"tensors": tensors}
