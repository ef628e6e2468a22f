"""Single tensors are read as numpy arrays, wherever their values are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from artifacts.errors import StepError
from artifacts.graph.model_file import load_graph, save_graph
from artifacts.graph.tensor_reader import TensorReader
from artifacts.graph.tensors import iter_tensors


@pytest.mark.parametrize("external", [True, False])
def test_values_and_bytes_are_those_that_onnx_loads(places_file: Path, tmp_path: Path, external: bool) -> None:
    path = tmp_path / "model.onnx"
    save_graph(load_graph(places_file), path, external=external)
    expected = [numpy_helper.to_array(tensor) for tensor in iter_tensors(onnx.load(path))]
    with TensorReader(path) as reader:
        for tensor, values in zip(iter_tensors(load_graph(path)), expected, strict=True):
            np.testing.assert_array_equal(reader.array(tensor), values, strict=True)
            assert reader.bytes(tensor) == values.tobytes()


def test_a_view_outlives_the_reader_and_cannot_be_written(places_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save_graph(load_graph(places_file), path, external=True)
    tensor = load_graph(path).graph.initializer[0]
    with TensorReader(path) as reader:
        view = reader.array(tensor)
    assert not view.flags.owndata
    assert np.isfinite(view).all()
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0] = 0


@pytest.mark.parametrize(
    "data_type", [TensorProto.INT4, TensorProto.UINT2, TensorProto.FLOAT6E2M3, TensorProto.BFLOAT16]
)
def test_packed_and_foreign_types_are_read(tmp_path: Path, places_model: ModelProto, data_type: int) -> None:
    values = (np.arange(4001) % 2).astype(helper.tensor_dtype_to_np_dtype(data_type))
    places_model.graph.initializer.append(numpy_helper.from_array(values, "packed"))
    path = tmp_path / "model.onnx"
    save_graph(places_model, path, external=True)
    with TensorReader(path) as reader:
        found = reader.array(load_graph(path).graph.initializer[-1])
    np.testing.assert_array_equal(found, values, strict=True)


@pytest.mark.parametrize("values", [{"raw_data": bytes(8)}, {"raw_data": bytes(16)}, {"float_data": [1.0, 2.0]}])
def test_values_that_contradict_the_dims_are_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[3], **values)
    with TensorReader(tmp_path / "model.onnx") as reader, pytest.raises(StepError, match="tensor 't': "):
        reader.array(tensor)
