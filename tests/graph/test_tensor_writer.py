"""Tensors are spread over files within a budget, in order, whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, numpy_helper

from artifacts.graph.external_data import reference_of
from artifacts.graph.model_file import load_graph
from artifacts.graph.tensor_writer import stored_tensors, write_data_files
from artifacts.graph.tensors import is_external


def model_of(*sizes: int) -> ModelProto:
    model = ModelProto()
    for index, size in enumerate(sizes):
        values = np.full(size, index + 1, np.uint8)
        model.graph.initializer.append(numpy_helper.from_array(values, str(index)))
    return model


def files_of(model: ModelProto, folder: Path, budget: int | None) -> dict[str, list[str]]:
    """Which tensors are in which file, after checking that each is whole in its place."""
    summaries = write_data_files(stored_tensors(model, folder), folder, lambda index: f"data.{index}", budget)
    files: dict[str, list[str]] = {summary.name: [] for summary in summaries}
    for index, tensor in enumerate(model.graph.initializer):
        if is_external(tensor):
            reference = reference_of(tensor)
            data = (folder / reference.location).read_bytes()[reference.offset_bytes :]
            assert data[: reference.length_bytes] == bytes([index + 1]) * tensor.dims[0]
            files[reference.location].append(tensor.name)
    assert [(s.tensors, s.nbytes) for s in summaries] == [
        (len(names), (folder / name).stat().st_size) for name, names in files.items()
    ]
    assert sorted(path.name for path in folder.iterdir()) == sorted(files)
    return files


@pytest.mark.parametrize(
    ("sizes", "budget", "groups"),
    [
        ((2000, 2000, 2000), None, ["012"]),
        ((2048, 2048, 2048), 4096, ["01", "2"]),
        ((2000, 2048, 2048), 4095, ["0", "1", "2"]),  # 2000 bytes end in a gap of 48
        ((2000, 5000, 2000, 2000), 4096, ["0", "1", "23"]),  # larger than the budget: alone
        ((5000, 2000), 4096, ["0", "1"]),
        ((1024, 1023, 1024), 2048, ["02"]),  # small ones stay inline
        ((1024, 1024), 1, ["0", "1"]),
        ((1023,), 1, []),
        ((), 1, []),
    ],
)
def test_files_are_filled_in_order_up_to_the_budget(
    tmp_path: Path, sizes: tuple[int, ...], budget: int | None, groups: list[str]
) -> None:
    files = files_of(model_of(*sizes), tmp_path, budget)
    assert files == {f"data.{index}": list(group) for index, group in enumerate(groups)}


def test_no_file_but_that_of_a_single_tensor_exceeds_the_budget(tmp_path: Path) -> None:
    sizes = np.random.default_rng(0).integers(1, 9000, 200).tolist()
    files = files_of(model_of(*sizes), tmp_path, 8192)
    assert len(files) > 20
    for name, tensors in files.items():
        assert len(tensors) == 1 or (tmp_path / name).stat().st_size <= 8192
    assert sum(map(len, files.values())) == sum(size >= 1024 for size in sizes)


def test_external_tensors_that_are_small_or_cannot_move_come_back_inline(places_file: Path, tmp_path: Path) -> None:
    model = load_graph(places_file)
    (places_file.parent / "loose").write_bytes(bytes(range(256)) * 8)
    small = model.graph.initializer.add(name="small external", data_type=TensorProto.UINT8, dims=[256])
    fixed = model.graph.sparse_initializer.add().values
    fixed.CopyFrom(TensorProto(name="fixed external", data_type=TensorProto.UINT8, dims=[2048]))
    for tensor in (small, fixed):
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="loose")
    write_data_files(stored_tensors(model, places_file.parent), tmp_path, "data.{}".format)
    assert small == numpy_helper.from_array(np.arange(256, dtype=np.uint8), "small external")
    assert fixed == numpy_helper.from_array(np.tile(np.arange(256, dtype=np.uint8), 8), "fixed external")
