"""Large tensors are found with all their consumers, and given other bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from artifacts.errors import StepError
from artifacts.graph.model_file import load_graph
from artifacts.graph.quantization.large_weights import LargeWeight, large_weights, replace_contents
from artifacts.graph.quantization.weight_grid import RoundedContent, shape_by_channel
from artifacts.graph.tensor_content import Content, FileRange, InTensor, TensorReader, stored_content
from artifacts.graph.tensor_writer import stored_tensors, write_model


def read_by(weights: list[LargeWeight]) -> dict[str, list[tuple[str, int]]]:
    return {
        weight.tensor.name: [(reader.node.op_type, reader.index) for reader in weight.consumers] for weight in weights
    }


def test_tensors_are_found_in_subgraphs_and_constants_with_their_consumers(places_model: ModelProto) -> None:
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


def test_weights_of_an_excluded_node_and_of_its_subgraphs_are_left_out(places_model: ModelProto) -> None:
    places_model.graph.node[0].name = "first"
    places_model.graph.node[-1].name = "choice"
    assert set(read_by(large_weights(places_model, 300, ("first", "choice")))) == {"typed_weight", "constant"}


def test_a_consumer_in_a_subgraph_is_the_node_in_there(places_model: ModelProto) -> None:
    branch = places_model.graph.node[-1].attribute[0].g
    branch.node.append(helper.make_node("MatMul", ["bias", "raw_weight"], ["unused"]))
    assert read_by(large_weights(places_model, 4000, ()))["raw_weight"] == [("MatMul", 1), ("MatMul", 1)]
    places_model.graph.node[-1].name = "choice"
    assert "raw_weight" not in read_by(large_weights(places_model, 4000, ("choice",)))


def test_integers_inputs_with_a_default_and_unused_tensors_stay(places_model: ModelProto) -> None:
    graph = places_model.graph
    graph.input.append(helper.make_tensor_value_info("raw_weight", TensorProto.FLOAT, [64, 64]))
    graph.initializer.append(numpy_helper.from_array(np.zeros(999, np.float32), "unread"))
    graph.initializer.append(numpy_helper.from_array(np.zeros(999, np.int64), "integers"))
    graph.node.append(helper.make_node("Neg", ["integers"], ["negative"]))
    assert set(read_by(large_weights(places_model, 900, ()))) == {"typed_weight"}


def rounded(model: ModelProto, folder: Path, min_elements: int) -> list[tuple[TensorProto, Content]]:
    tensors = [weight.tensor for weight in large_weights(model, min_elements, ())]
    shapes = [shape_by_channel(tensor.dims, None) for tensor in tensors]
    return [
        (tensor, RoundedContent(tensor.name, stored_content(tensor, folder), shape, 16))
        for tensor, shape in zip(tensors, shapes, strict=True)
    ]


@pytest.mark.parametrize("form", ["places_file", "loose_file"])
def test_the_weights_are_replaced_and_nothing_else(
    form: str, places_model: ModelProto, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """In the protobuf or in files of their own (but for the typed one), in the graph and the branches of its If."""
    path = request.getfixturevalue(form)
    model = load_graph(path)
    new = rounded(model, path.parent, 300)
    stored = replace_contents(stored_tensors(model, path.parent), new)
    assert sum(isinstance(content, RoundedContent) for _, content in stored) == (4 if form == "loose_file" else 0)
    (tmp_path / "out").mkdir()
    target = tmp_path / "out" / "model.onnx"
    write_model(model, stored, target, external=form == "loose_file")
    originals = {tensor.name: numpy_helper.to_array(tensor) for tensor in places_model.graph.initializer}
    written = load_graph(target).graph
    in_branch = next(attribute.g for attribute in written.node[-1].attribute if attribute.g.initializer).initializer[0]
    with TensorReader(target) as reader:
        after = {tensor.name: reader.array(tensor).copy() for tensor in (*written.initializer, in_branch)}
    np.testing.assert_array_equal(after["small"], originals["small"], strict=True)
    assert np.unique(after["small"]).size == 64
    for name in ("raw_weight", "typed_weight", "in_branch", "constant"):
        assert 8 < np.unique(after[name]).size <= 16
        if name in originals:
            np.testing.assert_allclose(after[name], originals[name], atol=(np.ptp(originals[name]) / 15) * 0.5001)


def test_typed_fields_do_not_outlive_the_bytes_that_replace_them(places_model: ModelProto) -> None:
    new = rounded(places_model, Path(), 4000)
    typed = places_model.graph.initializer[1]
    assert len(typed.float_data) == 4096
    contents = [content for _, content in replace_contents(stored_tensors(places_model, Path()), new)]
    assert len(typed.float_data) == 0
    assert len(typed.raw_data) == 4 * 4096
    assert not any(isinstance(content, FileRange) for content in contents)
    assert contents[1] == InTensor(typed)
