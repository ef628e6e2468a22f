from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from artifacts.graph.model_file import find_model, load_graph
from artifacts.graph.precision import weight_precision


@pytest.mark.parametrize(
    ("target", "precision"),
    [("encoder_fp32", "fp32"), ("decoder_joint_fp32", "fp32"), ("preprocessor", "fp32"), ("encoder_rounded", "fp32"),
     ("encoder_fp16_fixed", "fp16"), ("decoder_joint_fp16_fixed", "fp16"), ("encoder_int8", "int8"),
     ("encoder_int8_dynamic", "int8"), ("encoder_int8_weights", "int8"), ("encoder_int4", "int8"),
     ("decoder_joint_int8_dynamic", "int8"), ("shard_fp16", "fp16")],
)  # fmt: skip
def test_every_artifact_is_what_it_is_called(whole_recipe: Path, target: str, precision: str) -> None:
    assert weight_precision(load_graph(find_model(whole_recipe / target))) == precision


def model_of(*tensors: TensorProto) -> ModelProto:
    return helper.make_model(helper.make_graph([], "g", [], [], initializer=tensors))


def test_masks_shapes_strings_and_small_tensors_are_not_weights() -> None:
    few, many = np.zeros(1023, np.uint8), np.zeros(1024, np.uint8)
    rest = [numpy_helper.from_array(values, str(values.dtype)) for values in (few, many.astype(bool), np.arange(500))]
    rest.append(helper.make_tensor("s", TensorProto.STRING, [1], [b"text"]))
    assert weight_precision(model_of()) == weight_precision(model_of(*rest)) == "fp32"
    assert weight_precision(model_of(*rest, numpy_helper.from_array(many, "w"))) == "int8"


def test_weights_in_a_subgraph_of_an_if_count() -> None:
    body = helper.make_graph(
        [helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(np.zeros(512, np.float16)))], "b", [], []
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    assert weight_precision(helper.make_model(helper.make_graph([node], "g", [], []))) == "fp16"
