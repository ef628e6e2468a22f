"""A model with tensors in every place and every kind of field, small enough to look at."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, parser

GRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
places (float[5, 64] x) => (float[5, 64] y)
{
  a = MatMul(x, raw_weight)
  b = MatMul(a, typed_weight)
  constant = Constant()
  c = Add(b, constant)
  bias = Add(c, small)
  sum = ReduceSum<keepdims: int = 0>(x)
  positive = Greater(sum, zero)
  y = If(positive) <
    then_branch = yes () => (float[5, 64] then_out) { then_out = Add(bias, in_branch) },
    else_branch = no () => (float[5, 64] else_out) {
      in_else = Constant()
      else_out = Mul(bias, in_else)
    }
  >
}
"""


def random(*dims: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(dims, dtype=np.float32)


@pytest.fixture
def places_model() -> ModelProto:
    """Initializers in raw and typed fields, one too small to move, Constants and an initializer in bodies of an If."""
    model = parser.parse_model(GRAPH)
    model.graph.initializer.append(numpy_helper.from_array(random(64, 64, seed=1), "raw_weight"))
    typed = helper.make_tensor("typed_weight", TensorProto.FLOAT, [64, 64], random(64, 64, seed=2).ravel().tolist())
    model.graph.initializer.append(typed)
    model.graph.initializer.append(numpy_helper.from_array(random(64, seed=3), "small"))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), "zero"))
    give_value(model.graph.node[2], random(5, 64, seed=4))
    branches = {attribute.name: attribute.g for attribute in model.graph.node[-1].attribute}
    branches["then_branch"].initializer.append(numpy_helper.from_array(random(5, 64, seed=5), "in_branch"))
    give_value(branches["else_branch"].node[0], random(5, 64, seed=6))
    return model


def give_value(node: NodeProto, values: npt.NDArray[np.float32]) -> None:
    node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(values)))


@pytest.fixture
def places_file(places_model: ModelProto, tmp_path: Path) -> Path:
    """The model in one file, alone in its folder."""
    path = tmp_path / "source" / "model.onnx"
    path.parent.mkdir()
    onnx.save(places_model, path)
    return path


@pytest.fixture
def loose_file(places_model: ModelProto, tmp_path: Path) -> Path:
    """The model as an exporter leaves a large one: every tensor in a file of its own, notes in the nodes."""
    path = tmp_path / "loose" / "model.onnx"
    path.parent.mkdir()
    model = deepcopy(places_model)
    model.graph.node[0].doc_string = "/somewhere/else/encoder.py(17): forward"
    onnx.save(
        model,
        path,
        save_as_external_data=True,
        all_tensors_to_one_file=False,
        size_threshold=1024,
        convert_attribute=True,
    )
    return path
