"""Convert a float32 model to float16: weights and values, not its inputs and outputs.

Half the bytes, in the type that GPUs compute fastest. There are two converters: our own, which streams each weight from
file to file, and onnxconverter-common, which many published models were made with and which holds the whole model in
memory. Both leave the Casts inside the graph as they were, so that their output alone may not load:
`fix_fp16_casts` is to follow. Where the two differ is said in `artifacts.graph.fp16_graph`.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from artifacts.errors import StepError
from artifacts.params import StepParams

TOOLS = ("numpy", "onnx", "onnxconverter-common", "onnxruntime", "protobuf")

FLOAT32_OPS = (
    "ArrayFeatureExtractor", "Binarizer", "CastMap", "CategoryMapper", "CumSum", "DictVectorizer", "FeatureVectorizer",
    "Imputer", "LabelEncoder", "LinearClassifier", "LinearRegressor", "Max", "Min", "NonMaxSuppression", "Normalizer",
    "OneHotEncoder", "RandomUniformLike", "Range", "Resize", "RoiAlign", "SVMClassifier", "SVMRegressor", "Scaler",
    "TopK", "TreeEnsembleClassifier", "TreeEnsembleRegressor", "Upsample", "ZipMap",
)  # fmt: skip
"""Ops that runtimes lack in float16: the list of onnxconverter-common 1.16."""


class Params(StepParams):
    """The defaults are those of onnxconverter-common."""

    converter: Literal["streaming", "onnxconverter-common"] = "streaming"
    min_positive_val: float = Field(default=1e-7, ge=0, lt=1)
    """What is nearer to zero, but not zero, is moved out to it."""
    max_finite_val: float = Field(default=1e4, ge=1, le=65504)
    """What is finite and beyond it is moved in to it; float16 ends at 65504."""
    op_block_list: tuple[str, ...] = FLOAT32_OPS
    """Types of nodes that stay in float32."""
    node_block_list: tuple[str, ...] = ()
    """Names of nodes that stay in float32."""
    keep_io_types: bool = True
    """Whether float32 inputs and outputs of the model stay float32."""

    @model_validator(mode="after")
    def _apart(self) -> Params:
        if struct.pack("e", self.min_positive_val) == struct.pack("e", self.max_finite_val):
            raise ValueError("min_positive_val and max_finite_val are one number in float16: move them apart")
        return self

    @model_validator(mode="after")
    def _not_for_ever(self) -> Params:
        if self.converter == "onnxconverter-common" and "Cast" in self.op_block_list:
            raise ValueError("onnxconverter-common runs for ever when op_block_list has 'Cast'; 'streaming' does not")
        return self


def run(out: Path, params: Params, *, model: Path) -> dict[str, float | int | str]:
    """Write the model to `out` under its name, with external data if it has them now.

    Metrics: tensors that are float16 now; from 'streaming' also the Casts inserted and the values moved to the bounds.
    Raises StepError for a model that cannot be read, that holds float16 already, or in which nothing is to convert.
    """
    from artifacts.graph.model_file import find_model

    convert = _stream if params.converter == "streaming" else _convert_in_memory
    path = find_model(model)
    try:
        return convert(path, out / path.name, params)
    except StepError as error:
        named = error.fact if error.fact.startswith(path.name) else f"{path.name}: {error.fact}"
        raise StepError(named, error.fix) from None


def _stream(source: Path, target: Path, params: Params) -> dict[str, float | int | str]:
    from artifacts.graph.content import FileRange
    from artifacts.graph.fp16_graph import Fp16Options, rewrite_to_fp16
    from artifacts.graph.fp16_values import Fp16Content, Fp16Rounding
    from artifacts.graph.model_file import load_graph
    from artifacts.graph.tensor_writer import stored_tensors, write_model
    from artifacts.graph.tensors import is_external, tensor_nbytes

    model = load_graph(source)
    stored = stored_tensors(model, source.parent)
    rounding = Fp16Rounding(params.min_positive_val, params.max_finite_val)
    blocked = frozenset(params.op_block_list), frozenset(params.node_block_list)
    changes = rewrite_to_fp16(model, Fp16Options(*blocked, params.keep_io_types), rounding)
    # A rewritten external tensor needs half of the bytes that it has: those are converted on their way.
    contents = [
        (place, Fp16Content(content, rounding))
        if isinstance(content, FileRange) and content.nbytes != tensor_nbytes(place.tensor)
        else (place, content)
        for place, content in stored
    ]
    write_model(model, contents, target, external=any(is_external(place.tensor) for place, _ in stored))
    return {
        "tensors": changes.tensors,
        "casts_inserted": changes.casts,
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
        warnings.simplefilter("ignore", UserWarning)  # one for each tensor with a value moved to a bound
        model = convert_float_to_float16(
            onnx.load(source),
            min_positive_val=params.min_positive_val,
            max_finite_val=params.max_finite_val,
            keep_io_types=params.keep_io_types,
            disable_shape_infer=True,  # with it, a model beyond 2 GB cannot be converted
            op_block_list=params.op_block_list,
            node_block_list=params.node_block_list,
        )
    tensors = sum(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in iter_tensors(model))
    if not tensors:
        raise StepError(f"{source.name}: 0 tensors turned to float16", "give a float32 model, and shorter block lists")
    save_graph(model, target, external=external)
    return {"tensors": tensors}
