"""Matrices are scaled and turned to integers on their way, block by block, as numpy does it in one go."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from artifacts.graph.model_file import load_graph, save_graph
from artifacts.graph.quantization.matrix_content import (
    ScaledContent,
    SymmetricInt8Content,
    matrix_sizes,
    row_blocks,
    write_replaced,
)
from artifacts.graph.quantization.weight_matmuls import weight_matmuls
from artifacts.graph.tensor_content import CHUNK_BYTES, FileRange, InTensor, TensorReader, stored_content

Array = np.ndarray


def in_file(matrix: Array, folder: Path) -> FileRange:
    path = folder / "matrix"
    path.write_bytes(bytes(64) + matrix.tobytes())
    return FileRange(path, 64, matrix.nbytes)


def joined(content: ScaledContent | SymmetricInt8Content) -> bytes:
    return b"".join(bytes(piece) for piece in content.chunks())


@pytest.fixture(scope="module")
def weight(encoder_fp32: Path) -> Array:
    """A real weight, repeated to more rows than a piece holds."""
    path = encoder_fp32 / "encoder-model.onnx"
    model = load_graph(path)
    with TensorReader(path) as reader:
        found = reader.array(max((matmul.weight for matmul in weight_matmuls(model)), key=lambda one: one.dims[0]))
    matrix = np.tile(found, (10, 1))
    assert matrix.nbytes > CHUNK_BYTES
    return np.ascontiguousarray(matrix)


@pytest.mark.parametrize(
    ("dims", "sizes"), [([], (1, 1)), ([5], (5, 1)), ([5, 3], (5, 3)), ([5, 3, 2], (5, 6)), ([1, 1, 7], (1, 7))]
)
def test_every_tensor_is_a_matrix(dims: list[int], sizes: tuple[int, int]) -> None:
    assert matrix_sizes(TensorProto(dims=dims, data_type=TensorProto.FLOAT)) == sizes


@pytest.mark.parametrize("columns", [1, 7, 96, 1 << 19])
def test_blocks_are_whole_rows_of_a_bounded_size_in_order(tmp_path: Path, columns: int) -> None:
    rows = max(3, 2 * CHUNK_BYTES // (4 * columns) + 1)
    matrix = np.arange(rows * columns, dtype=np.float32).reshape(rows, columns)
    content = in_file(matrix, tmp_path)
    ends = 0
    for first, block in row_blocks(content, columns):
        assert first == ends
        assert block.nbytes <= max(CHUNK_BYTES, 4 * columns)
        np.testing.assert_array_equal(block, matrix[first : first + len(block)])
        ends += len(block)
    assert ends == rows


def test_rows_and_columns_are_multiplied(weight: Array, tmp_path: Path) -> None:
    rows = np.linspace(0.5, 2, len(weight), dtype=np.float32)
    columns = np.linspace(3, 1, weight.shape[1], dtype=np.float32)
    content = ScaledContent(in_file(weight, tmp_path), rows, columns)
    found = joined(content)
    assert len(found) == content.nbytes
    expected = weight * rows[:, np.newaxis] * columns
    np.testing.assert_array_equal(np.frombuffer(found, np.float32).reshape(weight.shape), expected)


def test_integers_are_rounded_half_to_even_within_the_limit(tmp_path: Path) -> None:
    matrix = np.array([[0.5, 3.0], [1.5, -3.0], [-2.5, 1.0], [70.0, 0.4]], np.float32)
    content = SymmetricInt8Content(in_file(matrix, tmp_path), np.array([1, 2], np.float32), limit=64)
    found = np.frombuffer(joined(content), np.int8).reshape(matrix.shape)
    np.testing.assert_array_equal(found, [[0, 2], [2, -2], [-2, 0], [64, 0]])
    assert content.nbytes == found.size


def test_a_real_weight_as_integers_is_as_near_as_its_scales_allow(weight: Array, tmp_path: Path) -> None:
    scales = (np.abs(weight).max(axis=0) / 64).astype(np.float32)
    found = np.frombuffer(joined(SymmetricInt8Content(in_file(weight, tmp_path), scales, 64)), np.int8).reshape(
        weight.shape
    )
    assert np.abs(found).max(axis=0).tolist() == [64] * weight.shape[1]
    assert (np.abs(found * scales - weight) <= scales * 0.5000001).all()


def small_model(values: TensorProto) -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["x", values.name], ["y"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", None]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [values])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("typed", [False, True])
def test_replaced_values_are_written_where_the_old_ones_were(tmp_path: Path, external: bool, typed: bool) -> None:
    matrix = np.arange(600, dtype=np.float32).reshape(30, 20)
    values = numpy_helper.from_array(matrix, "w")
    if typed:
        values = helper.make_tensor("w", TensorProto.FLOAT, matrix.shape, matrix.ravel().tolist())
    save_graph(small_model(values), tmp_path / "old.onnx", external=external)
    model = load_graph(tmp_path / "old.onnx")
    content = stored_content(model.graph.initializer[0], tmp_path)
    assert isinstance(content, FileRange if external else InTensor)
    (tmp_path / "new").mkdir()
    scaled = ScaledContent(content, np.full(30, 2, np.float32), np.ones(20, np.float32))
    write_replaced(model, tmp_path, {"w": scaled}, tmp_path / "new" / "model.onnx")
    assert (tmp_path / "new" / "model.onnx.data").exists() == external
    found = onnx.load(tmp_path / "new" / "model.onnx").graph.initializer[0]
    np.testing.assert_array_equal(numpy_helper.to_array(found), 2 * matrix)
    onnx.checker.check_model(tmp_path / "new" / "model.onnx")


def test_an_inline_tensor_beside_external_ones_is_scaled_once(tmp_path: Path) -> None:
    matrix = np.arange(600, dtype=np.float32).reshape(30, 20)
    model = small_model(numpy_helper.from_array(matrix, "w"))
    model.graph.initializer.append(numpy_helper.from_array(matrix, "other"))
    save_graph(model, tmp_path / "old.onnx", external=True)
    model = load_graph(tmp_path / "old.onnx")
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(matrix, "w"))
    content = stored_content(model.graph.initializer[0], tmp_path)
    (tmp_path / "new").mkdir()
    scaled = ScaledContent(content, np.full(30, 2, np.float32), np.ones(20, np.float32))
    write_replaced(model, tmp_path, {"w": scaled}, tmp_path / "new" / "model.onnx")
    found = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "new" / "model.onnx").graph.initializer}
    np.testing.assert_array_equal(found["w"], 2 * matrix)
    np.testing.assert_array_equal(found["other"], matrix)
