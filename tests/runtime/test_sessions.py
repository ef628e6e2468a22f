from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save

from artifacts.errors import StepError
from artifacts.runtime.sessions import Output, open_session, require_values, run_session, zeros_of
from artifacts.sandbox.landlock import landlock_version
from confined import tell_confined


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


@pytest.mark.skipif(not landlock_version(), reason="this kernel has no Landlock")
def test_a_step_whose_input_is_one_file_opens_it_and_is_told_what_lies_beside_it(tmp_path: Path) -> None:
    write_adder(tmp_path / "adder.onnx")
    two = numpy_helper.from_array(np.full(3, 2, np.float32), "y")
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])
    graph = helper.make_graph([helper.make_node("Add", ["x", "y"], ["z"])], "g", [value], [], [two])
    graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [3]))
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    save(model, tmp_path / "split.onnx", save_as_external_data=True, location="split.data", size_threshold=0)
    (tmp_path / "staging").mkdir()
    setup = """
from artifacts.runtime.sessions import open_session
from artifacts.sandbox.confine import confine
confine([Path("adder.onnx"), Path("split.onnx")], Path("staging"))
"""
    opened = "[one.name for one in open_session(Path('{}'), 1).get_outputs()]"
    said = tell_confined(tmp_path, setup, opened.format("adder.onnx"), opened.format("split.onnx"))
    assert said == ["['z']", "PermissionError"]
    said = tell_confined(tmp_path, setup.replace('")]', '"), Path("split.data")]'), opened.format("split.onnx"))
    assert said == ["['z']"]


def test_a_model_of_types_that_no_kernel_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="does not load it"):
        open_session(write_adder(tmp_path / "adder.onnx", TensorProto.STRING), threads=1)


def test_other_names_of_inputs_or_outputs_are_an_error(tmp_path: Path) -> None:
    path = write_adder(tmp_path / "adder.onnx")
    session = open_session(path, threads=1)
    require_values(session, path, ("y", "x"), ("z",))
    with pytest.raises(StepError, match=r"adder\.onnx: has the inputs x, y; needs x"):
        require_values(session, path, ("x",), ("z",))
    with pytest.raises(StepError, match=r"adder\.onnx: has the outputs z; needs w"):
        require_values(session, path, ("x", "y"), ("w",))


def test_outputs_of_another_kind_or_other_axes_are_an_error(tmp_path: Path) -> None:
    session = open_session(write_adder(tmp_path / "adder.onnx"), threads=1)
    one = np.ones(2, np.float32)
    (z,) = run_session(session, "adder.onnx", {"z": Output("f", 1)}, {"x": one, "y": one})
    assert z.tolist() == [2, 2]
    for wanted, needs in ((Output("f", 2), "floats of 2 axes"), (Output("i", 1), "integers of 1 axes")):
        with pytest.raises(StepError, match=rf"adder\.onnx: gives the output 'z' as float32 \[2\], needs {needs}"):
            run_session(session, "adder.onnx", {"z": wanted}, {"x": one, "y": one})


@pytest.mark.parametrize(
    "feeds",
    [
        {"x": np.ones(2, np.float32)},
        {"x": np.ones(2, np.float32), "y": np.ones(3, np.float32)},
        {"x": np.ones(2, np.float32), "y": np.ones(2, np.int64)},
        {"x": np.ones(2, np.float32), "y": np.ones((2, 2, 2), np.float32)},
    ],
)
def test_a_run_that_fails_is_an_error_of_two_lines(tmp_path: Path, feeds: dict[str, np.ndarray]) -> None:
    session = open_session(write_adder(tmp_path / "adder.onnx"), threads=1)
    with pytest.raises(StepError, match=r"adder\.onnx: ONNX Runtime does not run it: "):
        run_session(session, "adder.onnx", {"z": Output("f", 1)}, feeds)


def test_a_state_has_the_size_that_is_declared_within_a_bound() -> None:
    value = SimpleNamespace(name="h")
    assert zeros_of(value, (2, "batch", 96, None, -1), "m.onnx").shape == (2, 1, 96, 1, 1)
    with pytest.raises(StepError, match=r"m\.onnx: input 'h' is declared as \[2, 1, 1000000000000\]"):
        zeros_of(value, (2, 1, 10**12), "m.onnx")
