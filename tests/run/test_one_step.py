"""A step runs on files from anywhere, and what it writes is the user's; a failure leaves nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

from artifacts.errors import StepError
from artifacts.run.one_step import run_one_step


def run(model: Path, out: Path, step: str = "shard_weights") -> dict[str, tuple[int, str]]:
    return run_one_step(step, {}, {"model": model}, out, lambda *_: None).files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model of two files, and a file that is none of its."""
    weight = np.random.default_rng(0).standard_normal((256, 256), np.float32)
    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[N,256] x) => (float[N,256] y) { y = MatMul(x, w) }'
    model = onnx.parser.parse_model(text)
    model.graph.node[0].name = "product"
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    (tmp_path / "model").mkdir()
    onnx.save(model, tmp_path / "model" / "a.onnx", save_as_external_data=True, location="a.data", size_threshold=1)
    (tmp_path / "model" / "notes.txt").write_text("notes")
    return tmp_path / "model"


@pytest.mark.parametrize(
    "step", ["shard_weights", "convert_fp16", "quantize_nbits", "quantize_weights", "quantize_dynamic", "round_weights"]
)
def test_a_file_and_its_folder_give_the_same_files(folder: Path, tmp_path: Path, step: str) -> None:
    assert run(folder / "a.onnx", tmp_path / "one", step) == run(folder, tmp_path / "two", step)


def test_the_weights_of_a_file_are_found_beside_it(folder: Path, tmp_path: Path) -> None:
    run(folder / "a.onnx", tmp_path / "one")
    assert {path.name for path in (tmp_path / "one").iterdir()} == {"a.onnx", "a.onnx.data.000"}
    before, after = (onnx.load(path / "a.onnx") for path in (folder, tmp_path / "one"))
    for old, new in zip(before.graph.initializer, after.graph.initializer, strict=True):
        np.testing.assert_array_equal(numpy_helper.to_array(old), numpy_helper.to_array(new), strict=True)


def test_what_it_writes_can_be_changed_and_removed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    run(folder, tmp_path / "out")
    assert all(path.stat().st_mode & 0o200 for path in (tmp_path / "out", *(tmp_path / "out").iterdir()))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out"]


def test_a_failure_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    (folder / "a.onnx").write_bytes(b"not a model")
    with pytest.raises(StepError, match=r"a\.onnx: not an ONNX file"):
        run(folder, tmp_path / "deep" / "out")
    assert list((tmp_path / "deep").iterdir()) == []


@pytest.mark.parametrize("there", ["file", "folder with a file"])
def test_an_out_that_holds_something_is_refused_and_stays(folder: Path, tmp_path: Path, there: str) -> None:
    out = tmp_path / "out"
    if there == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "mine").write_text("mine")
    with pytest.raises(StepError, match=r"--out: '.*out' is not an empty folder"):
        run(folder, out)
    assert (out if there == "file" else out / "mine").read_text() == "mine"


def test_an_input_that_is_missing_is_told_by_its_option(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"--model: no file or folder at '.*none.onnx'"):
        run(tmp_path / "none.onnx", tmp_path / "out")


@pytest.mark.parametrize("step", ["quantize_nbits", "quantize_weights", "quantize_dynamic", "round_weights"])
def test_a_file_that_no_dummy_input_fits_is_compared_with_its_result_in_the_sandbox(
    folder: Path, tmp_path: Path, step: str
) -> None:
    model = onnx.load(folder / "a.onnx")
    pads = numpy_helper.from_array(np.array([5, 0, 0, 0], np.int64), "pads")  # 5 rows more than a reflection has
    model.graph.initializer.append(pads)
    model.graph.node.insert(0, onnx.helper.make_node("Pad", ["x", "pads"], ["padded"], mode="reflect"))
    model.graph.node[1].input[0] = "padded"
    onnx.save(model, folder / "a.onnx")
    metrics = run_one_step(step, {}, {"model": folder / "a.onnx"}, tmp_path / "out", lambda *_: None).metrics
    assert str(metrics["smoke_run"]).startswith("not run: a.onnx: ONNX Runtime does not run it: ")
