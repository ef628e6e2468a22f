from __future__ import annotations

from pathlib import Path

import pytest
from onnx import TensorProto, helper, save

from artifacts.asr.sessions import open_session, require_values
from artifacts.errors import StepError


def write_adder(path: Path, dtype: int = TensorProto.FLOAT) -> Path:
    values = [helper.make_tensor_value_info(name, dtype, ["n"]) for name in "xyz"]
    graph = helper.make_graph([helper.make_node("Add", ["x", "y"], ["z"])], "adder", values[:2], values[2:])
    save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def test_a_session_runs_on_the_cpu_with_the_threads_that_it_was_given(tmp_path: Path) -> None:
    session = open_session(write_adder(tmp_path / "adder.onnx"), threads=2)
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert session.get_session_options().intra_op_num_threads == 2
    assert session.get_session_options().use_deterministic_compute


@pytest.mark.parametrize("content", [b"", b"not a model"])
def test_a_damaged_model_is_refused_in_one_short_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "broken.onnx").write_bytes(content)
    with pytest.raises(StepError) as raised:
        open_session(tmp_path / "broken.onnx", threads=1)
    assert raised.value.fact.startswith("broken.onnx: ONNX Runtime does not load it: ")
    assert "\n" not in raised.value.fact
    assert len(raised.value.fact) < 400


def test_a_model_of_types_that_no_kernel_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="does not load it"):
        open_session(write_adder(tmp_path / "adder.onnx", TensorProto.STRING), threads=1)


def test_the_names_of_inputs_and_outputs_are_asked_for(tmp_path: Path) -> None:
    path = write_adder(tmp_path / "adder.onnx")
    session = open_session(path, threads=1)
    require_values(session, path, ("y", "x"), ("z",))
    with pytest.raises(StepError, match=r"adder\.onnx: has the inputs x, y; needs x"):
        require_values(session, path, ("x",), ("z",))
    with pytest.raises(StepError, match=r"adder\.onnx: has the outputs z; needs w"):
        require_values(session, path, ("x", "y"), ("w",))
