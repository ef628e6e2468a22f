"""Some tensors of a model get other bytes, wherever they are, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from artifacts.graph.content import Content, FileRange, InTensor, stored_content
from artifacts.graph.model_file import TensorReader, load_graph
from artifacts.graph.quantization.large_weights import large_weights
from artifacts.graph.quantization.levelled_content import RoundedContent
from artifacts.graph.quantization.replaced_weights import replace_contents
from artifacts.graph.quantization.weight_blocks import shape_by_channel
from artifacts.graph.tensor_writer import stored_tensors, write_model


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
