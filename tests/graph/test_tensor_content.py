"""The bytes of a tensor are the same in chunks and as an array, from a file or from the protobuf."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from artifacts.errors import StepError
from artifacts.graph.external_data import Reference, set_external_data
from artifacts.graph.model_file import load_graph, save_graph
from artifacts.graph.tensor_content import CHUNK_BYTES, FileRange, TensorReader, stored_content
from artifacts.graph.tensors import iter_tensors


def _joined(content: FileRange) -> bytes:
    return b"".join(bytes(piece) for piece in content.chunks())


@pytest.mark.parametrize("nbytes", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES + 5])
def test_a_range_of_a_file_is_read_whole_in_chunks_of_a_limited_size(tmp_path: Path, nbytes: int) -> None:
    data = np.random.default_rng(1).bytes(nbytes + 30)
    (tmp_path / "data").write_bytes(data)
    content = FileRange(tmp_path / "data", 13, nbytes)
    assert _joined(content) == data[13 : 13 + nbytes]
    assert all(len(piece) <= CHUNK_BYTES for piece in content.chunks())


def test_a_file_that_became_shorter_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"short")
    with pytest.raises(EOFError, match="'data' became shorter"):
        _joined(FileRange(tmp_path / "data", 0, 6))


def test_a_tensor_is_read_from_where_it_is_stored(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32)
    raw = numpy_helper.from_array(values, "raw")
    typed = helper.make_tensor("typed", TensorProto.FLOAT, [6], values.tolist())
    outside = numpy_helper.from_array(values, "outside")
    (tmp_path / "w.data").write_bytes(b"1234" + values.tobytes())
    set_external_data(outside, Reference("w.data", 4, values.nbytes))
    for tensor in (raw, typed, outside):
        content = stored_content(tensor, tmp_path)
        assert content.nbytes == values.nbytes
        assert b"".join(bytes(piece) for piece in content.chunks()) == values.tobytes()


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
