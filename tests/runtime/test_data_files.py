"""External data are found wherever a tensor can be, and nowhere but in the model's folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from artifacts.runtime.data_files import data_files


def external(location: str) -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), location)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def model_of(*locations: str) -> ModelProto:
    return helper.make_model(helper.make_graph([], "g", [], [], [external(location) for location in locations]))


def test_initializers_constants_and_subgraphs_are_searched(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    names = ["a.data", "below/b.data", "c.data", "d.data"]
    for name in names:
        (tmp_path / name).touch()
    model = model_of("a.data", "below/b.data")
    constant = helper.make_node("Constant", [], ["c"], value=external("c.data"))
    branch = helper.make_graph([], "branch", [], [], [external("d.data")])
    model.graph.node.extend([constant, helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)])
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "other").touch()
    assert data_files(tmp_path / "model.onnx") == [tmp_path / name for name in names]


@pytest.mark.parametrize("location", ["../outside", "/etc/passwd", "below/../../outside", "missing", "", "nul\0"])
def test_what_is_not_in_the_folder_is_left_out(tmp_path: Path, location: str) -> None:
    (tmp_path / "outside").touch()
    (tmp_path / "folder" / "below").mkdir(parents=True)
    model = tmp_path / "folder" / "model.onnx"
    model.write_bytes(model_of(location).SerializeToString())
    assert data_files(model) == []


def test_a_file_that_is_not_onnx_has_none(tmp_path: Path) -> None:
    for content in (b"", b"not a model"):
        (tmp_path / "model.onnx").write_bytes(content)
        assert data_files(tmp_path / "model.onnx") == []
