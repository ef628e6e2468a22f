"""A model with external data becomes the very file that Protobuf would make of it, and is never held."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from artifacts.errors import StepError
from artifacts.graph import inline_writer
from artifacts.graph.inline_writer import write_inline
from artifacts.graph.model_file import consolidate, iter_tensors, load_graph

MIB = 1 << 20


def loaded_inline(path: Path) -> bytes:
    """What Protobuf makes of the model with its tensors."""
    model = onnx.load(path)
    for tensor in iter_tensors(model):
        tensor.ClearField("data_location")  # where the bytes were is noted even when they are loaded
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def test_the_file_is_byte_for_byte_what_protobuf_makes_of_the_model(loose_file: Path, tmp_path: Path) -> None:
    model = load_graph(loose_file)
    assert any(tensor.data_location == TensorProto.EXTERNAL for tensor in model.graph.initializer)
    write_inline(model, loose_file.parent, tmp_path / "one.onnx")
    assert (tmp_path / "one.onnx").read_bytes() == loaded_inline(loose_file)


def test_fields_behind_the_graph_and_the_tensors_are_kept(loose_file: Path, tmp_path: Path) -> None:
    model = load_graph(loose_file)
    helper.set_model_props(model, {"vocab_size": "64"})
    model.graph.value_info.add(name="a")
    model.graph.initializer[0].metadata_props.add(key="note", value="kept")
    model.graph.initializer[0].doc_string = "kept"
    loose_file.write_bytes(model.SerializeToString())
    write_inline(load_graph(loose_file), loose_file.parent, tmp_path / "one.onnx")
    found = onnx.load(tmp_path / "one.onnx")
    assert (tmp_path / "one.onnx").read_bytes() == loaded_inline(loose_file)
    assert found.metadata_props[0].value == "64"
    assert found.graph.initializer[0].doc_string == "kept"
    assert found.opset_import == model.opset_import


def test_a_whole_encoder_is_written_so(encoder_fp32: Path, tmp_path: Path) -> None:
    (source,) = encoder_fp32.glob("*.onnx")
    (tmp_path / "external").mkdir()
    consolidate(source, tmp_path / "external" / source.name, external=True)
    write_inline(load_graph(tmp_path / "external" / source.name), tmp_path / "external", tmp_path / source.name)
    assert (tmp_path / source.name).read_bytes() == loaded_inline(tmp_path / "external" / source.name)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 300, 16383, 16384, 2**31 - 1, 2**32])
def test_lengths_are_written_as_protobuf_writes_them(size: int) -> None:
    expected = helper.make_tensor_value_info("", 1, [size]).type.tensor_type.shape.dim[0].SerializeToString()
    assert expected == b"\x08" + inline_writer._varint(size)


def test_a_model_too_large_for_a_protobuf_is_refused(
    loose_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inline_writer, "PROTOBUF_LIMIT_BYTES", 20_000)
    with pytest.raises(StepError, match=r"one\.onnx: \d+ bytes do not fit into one protobuf, which ends at 20000"):
        write_inline(load_graph(loose_file), loose_file.parent, tmp_path / "one.onnx")
    assert not (tmp_path / "one.onnx").exists()


def test_a_file_that_exists_is_not_overwritten(loose_file: Path, tmp_path: Path) -> None:
    (tmp_path / "one.onnx").write_text("mine")
    with pytest.raises(FileExistsError):
        write_inline(load_graph(loose_file), loose_file.parent, tmp_path / "one.onnx")
    assert (tmp_path / "one.onnx").read_text() == "mine"


def test_tensors_are_streamed(tmp_path: Path) -> None:
    """200 MiB in a hole of a sparse file."""
    model = ModelProto(ir_version=8, opset_import=[helper.make_opsetid("", 17)])
    model.graph.name = "g"
    tensor = model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[200 * MIB // 4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="data")
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with (tmp_path / "data").open("wb") as file:
        file.truncate(200 * MIB)
    program = """
import pathlib, sys
from artifacts.graph.inline_writer import write_inline
from artifacts.graph.model_file import load_graph
folder = pathlib.Path(sys.argv[1])
write_inline(load_graph(folder / "model.onnx"), folder, folder / "one.onnx")
print(next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    written = tmp_path / "one.onnx"
    assert written.stat().st_size > 200 * MIB
    written.unlink()  # pytest would keep it
    assert int(done.stdout) < 150 * MIB
