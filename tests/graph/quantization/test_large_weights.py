"""Large tensors are found wherever they are, with all that read them."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from artifacts.errors import StepError
from artifacts.graph.quantization.large_weights import LargeWeight, large_weights


def read_by(weights: list[LargeWeight]) -> dict[str, list[tuple[str, int]]]:
    return {
        weight.tensor.name: [(reader.node.op_type, reader.index) for reader in weight.readers] for weight in weights
    }


def test_tensors_are_found_in_bodies_and_constants_and_each_knows_its_readers(places_model: ModelProto) -> None:
    found = large_weights(places_model, 300, ())
    assert read_by(found) == {
        "raw_weight": [("MatMul", 1)],
        "typed_weight": [("MatMul", 1)],
        "constant": [("Add", 1)],
        "in_branch": [("Add", 1)],
        "in_else": [("Mul", 1)],
    }
    assert [weight.graph.name for weight in found] == ["places"] * 3 + ["yes", "no"]


def test_a_constant_becomes_an_initializer_with_its_values(places_model: ModelProto) -> None:
    before = numpy_helper.to_array(places_model.graph.node[2].attribute[0].t)
    found = {weight.tensor.name: weight for weight in large_weights(places_model, 300, ())}
    np.testing.assert_array_equal(numpy_helper.to_array(found["constant"].tensor), before, strict=True)
    assert found["constant"].tensor is places_model.graph.initializer[-1]
    assert "Constant" not in {node.op_type for node in places_model.graph.node}


def test_only_tensors_of_more_elements_are_large(places_model: ModelProto) -> None:
    assert set(read_by(large_weights(places_model, 320, ()))) == {"raw_weight", "typed_weight"}
    assert "Constant" in {node.op_type for node in places_model.graph.node}
    with pytest.raises(StepError, match="0 float32 tensors of more than 4096 elements"):
        large_weights(places_model, 4096, ())


def test_what_an_excluded_node_or_its_bodies_read_is_left_out(places_model: ModelProto) -> None:
    places_model.graph.node[0].name = "first"
    places_model.graph.node[-1].name = "choice"
    assert set(read_by(large_weights(places_model, 300, ("first", "choice")))) == {"typed_weight", "constant"}


def test_a_weight_that_a_body_reads_knows_the_node_in_there(places_model: ModelProto) -> None:
    branch = places_model.graph.node[-1].attribute[0].g
    branch.node.append(helper.make_node("MatMul", ["bias", "raw_weight"], ["unused"]))
    assert read_by(large_weights(places_model, 4000, ()))["raw_weight"] == [("MatMul", 1), ("MatMul", 1)]
    places_model.graph.node[-1].name = "choice"
    assert "raw_weight" not in read_by(large_weights(places_model, 4000, ("choice",)))


def test_integers_inputs_with_a_default_and_what_nobody_reads_stay(places_model: ModelProto) -> None:
    graph = places_model.graph
    graph.input.append(helper.make_tensor_value_info("raw_weight", TensorProto.FLOAT, [64, 64]))
    graph.initializer.append(numpy_helper.from_array(np.zeros(999, np.float32), "unread"))
    graph.initializer.append(numpy_helper.from_array(np.zeros(999, np.int64), "integers"))
    graph.node.append(helper.make_node("Neg", ["integers"], ["negative"]))
    assert set(read_by(large_weights(places_model, 900, ()))) == {"typed_weight"}
