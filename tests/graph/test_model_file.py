"""Models are found, loaded without their weights, checked before a byte is used, and written with them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from artifacts.errors import StepError
from artifacts.graph.model_file import (
    check_model,
    consolidate,
    errors_of,
    find_model,
    load_graph,
    model_bytes,
    model_files,
    save_graph,
    strip_docs,
)
from artifacts.graph.tensors import is_external, iter_tensors


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def values(path: Path) -> list[bytes]:
    model = onnx.load(path)
    return [numpy_helper.to_array(tensor).tobytes() for tensor in iter_tensors(model)]


def session_outputs(path: Path) -> list[bytes]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    inputs = np.random.default_rng(7).standard_normal((5, 64), dtype=np.float32)
    return [session.run(None, {"x": inputs + shift})[0].tobytes() for shift in (np.float32(1), np.float32(-1))]


def test_the_only_model_of_a_folder_is_found(places_file: Path) -> None:
    (places_file.parent / "vocab.txt").touch()
    assert find_model(places_file.parent) == places_file


@pytest.mark.parametrize(("names", "found"), [((), "found none"), (("b.onnx", "a.onnx"), "'a.onnx', 'b.onnx'")])
def test_none_or_several_models_are_refused(tmp_path: Path, names: tuple[str, ...], found: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(StepError, match=found):
        find_model(tmp_path)


def test_a_truncated_file_is_refused(places_file: Path) -> None:
    whole = places_file.read_bytes()
    cuts = [*range(100), *range(100, len(whole), 997), len(whole) - 1]
    for length in cuts:
        places_file.write_bytes(whole[:length])
        with pytest.raises(StepError, match=r"^model\.onnx: not an ONNX file, or truncated"):
            load_graph(places_file)


def test_a_file_that_is_not_onnx_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(StepError, match="not an ONNX file"):
        load_graph(path)
    with pytest.raises(StepError, match=r"absent\.onnx: no such file"):
        load_graph(tmp_path / "absent.onnx")
    os.truncate(path, 2**31)
    with pytest.raises(StepError, match="2147483648 bytes are too many"):
        load_graph(path)


def shorten(data: Path) -> None:
    os.truncate(data, data.stat().st_size - 1)


def link_symbolically(data: Path) -> None:
    data.rename(data.with_name("elsewhere"))
    data.symlink_to("elsewhere")


def link_twice(data: Path) -> None:
    data.with_name("second name").hardlink_to(data)


@pytest.mark.parametrize(
    ("damage", "fact"),
    [
        (Path.unlink, r"^model\.onnx: tensor 'raw_weight': external data 'model\.onnx\.data' is missing\n"),
        (
            shorten,
            r"^model\.onnx: external data 'model\.onnx\.data' ends at byte 36607, "
            r"attribute 'value' of Constant 'in_else' needs 36608\n",
        ),
        (link_symbolically, "'model.onnx.data' is a symbolic link"),
        (link_twice, "'model.onnx.data' has 2 hard links"),
    ],
)
def test_damaged_external_data_are_refused(
    places_file: Path, tmp_path: Path, damage: Callable[[Path], None], fact: str
) -> None:
    path = tmp_path / "model.onnx"
    consolidate(places_file, path, external=True)
    load_graph(path)
    damage(path.with_name("model.onnx.data"))
    with pytest.raises(StepError, match=fact):
        load_graph(path)


@pytest.mark.parametrize("external", [True, False, None])
def test_saving_keeps_every_value_and_every_output(places_file: Path, tmp_path: Path, external: bool | None) -> None:
    path = tmp_path / "model.onnx"
    save_graph(load_graph(places_file), path, external=external)
    check_model(path)
    assert values(path) == values(places_file)
    assert session_outputs(path) == session_outputs(places_file)


def test_all_tensors_from_1024_bytes_on_go_into_one_aligned_file(places_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save_graph(load_graph(places_file), path, external=True)
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == ["model.onnx", "model.onnx.data"]
    tensors = list(iter_tensors(load_graph(path)))
    assert [is_external(tensor) for tensor in tensors] == [len(value) >= 1024 for value in values(places_file)]
    offsets = [int(entry.value) for tensor in tensors for entry in tensor.external_data if entry.key == "offset"]
    assert len(offsets) == 5
    assert all(offset % 64 == 0 for offset in offsets)


def test_a_model_is_in_one_file_up_to_the_limit(places_file: Path, tmp_path: Path) -> None:
    total = sum(len(value) for value in values(places_file))
    for name, limit, files in (("at", total, 1), ("below", total - 1, 2)):
        folder = tmp_path / name
        folder.mkdir()
        save_graph(load_graph(places_file), folder / "model.onnx", inline_limit_bytes=limit)
        assert len(contents(folder)) == files


def test_loose_files_become_one_and_notes_are_dropped(loose_file: Path, places_file: Path, tmp_path: Path) -> None:
    assert len(contents(loose_file.parent)) == 5
    path = tmp_path / "renamed.onnx"
    consolidate(loose_file, path, external=True)
    assert values(path) == values(places_file)
    assert session_outputs(path) == session_outputs(places_file)
    assert b"/somewhere/else" in loose_file.read_bytes()
    assert b"/somewhere/else" not in path.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == ["renamed.onnx", "renamed.onnx.data"]


def test_the_same_model_gives_the_same_bytes_from_wherever_it_comes(
    places_file: Path, loose_file: Path, tmp_path: Path
) -> None:
    results = []
    for index, source in enumerate((places_file, loose_file)):
        folder = tmp_path / str(index)
        folder.mkdir()
        consolidate(source, folder / "model.onnx", external=True)
        results.append(contents(folder))
    again = tmp_path / "again"
    again.mkdir()
    consolidate(tmp_path / "0" / "model.onnx", again / "model.onnx", external=True)
    assert results[0] == results[1] == contents(again)


def test_nothing_is_overwritten(places_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.with_name("model.onnx.data").touch()
    with pytest.raises(FileExistsError):
        save_graph(load_graph(places_file), path, external=True)
    with pytest.raises(FileExistsError):
        save_graph(load_graph(places_file), places_file)


def test_external_tensors_without_their_folder_are_a_bug(loose_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="in which folder"):
        save_graph(load_graph(loose_file), tmp_path / "model.onnx")


def test_tensors_beyond_the_end_of_a_protobuf_are_refused_before_they_are_read(
    loose_file: Path, tmp_path: Path
) -> None:
    model = onnx.load(loose_file, load_external_data=False)
    large = model.graph.initializer.add(name="large", data_type=TensorProto.UINT8, dims=[2**31])
    large.data_location = TensorProto.EXTERNAL
    large.external_data.add(key="location", value="large")
    loose_file.write_bytes(model.SerializeToString())
    loose_file.with_name("large").touch()
    os.truncate(loose_file.with_name("large"), 2**31)
    with pytest.raises(StepError, match="do not fit into one protobuf"):
        consolidate(loose_file, tmp_path / "model.onnx", external=False)


def test_an_error_of_the_checker_is_quoted(places_model: ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    places_model.graph.node[0].op_type = "MatMull"
    save_graph(places_model, path)
    with pytest.raises(StepError, match=r"^model\.onnx: not valid ONNX: .*MatMull"):
        check_model(path)


def test_the_bytes_of_a_model_are_those_of_its_subfolders_too(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "model.onnx").write_bytes(bytes(10))
    (tmp_path / "data" / "weights").write_bytes(bytes(7))
    assert model_bytes(tmp_path) == 17


def test_a_model_that_is_a_link_out_of_its_folder_is_refused(places_file: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "model.onnx").symlink_to(places_file)
    with pytest.raises(StepError, match=r"model\.onnx: is a symbolic link that leads out of 'linked'"):
        find_model(tmp_path / "linked")


def test_notes_are_dropped_everywhere_and_nothing_else_changes(places_model: ModelProto) -> None:
    places_model.functions.append(helper.make_function("own", "f", [], [], [helper.make_node("Neg", ["a"], ["b"])], []))
    places_model.metadata_props.add(key="vocab_size", value="8192")
    clean = places_model.SerializeToString(deterministic=True)
    body = places_model.graph.node[-1].attribute[0].g
    function = places_model.functions[0]
    noted = [
        places_model.graph,
        places_model.graph.input[0],
        places_model.graph.output[0],
        body,
        body.output[0],
        function,
    ]
    noted += [*places_model.graph.node, *body.node, *function.node]
    for item in noted:
        item.doc_string = "/somewhere/else/encoder.py(17)"
        item.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="/somewhere/else")
    for tensor in iter_tensors(places_model):
        tensor.doc_string = "/somewhere/else"
    places_model.doc_string = "made on a Tuesday"
    places_model.graph.node[0].attribute.append(helper.make_attribute("unused", 1, doc_string="/somewhere/else"))
    assert places_model.SerializeToString().count(b"/somewhere/else") > 20
    strip_docs(places_model)
    del places_model.graph.node[0].attribute[:]
    assert places_model.SerializeToString(deterministic=True) == clean


def test_errors_are_named_after_the_file_once() -> None:
    for fact in ("is wrong", "model.onnx: is wrong"):
        with pytest.raises(StepError) as raised, errors_of(Path("folder/model.onnx")):
            raise StepError(fact, "export it again")
        assert str(raised.value) == "model.onnx: is wrong\n  fix: export it again"


def test_one_onnx_file_is_a_model_too_with_the_bytes_of_its_external_data(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.zeros((64, 64), np.float32), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, 64]) for name in ("x", "y")]
    model = helper.make_model(helper.make_graph([node], "g", values[:1], values[1:], [weight]))
    onnx.save(model, tmp_path / "a.onnx", save_as_external_data=True, location="a.data", size_threshold=1)
    (tmp_path / "notes.txt").write_text("notes")
    assert find_model(tmp_path / "a.onnx") == find_model(tmp_path) == tmp_path / "a.onnx"
    parts = [(tmp_path / name).stat().st_size for name in ("a.onnx", "a.data", "notes.txt")]
    assert model_bytes(tmp_path / "a.onnx") == sum(parts[:2])
    assert model_bytes(tmp_path) == sum(parts)
    assert model_files(tmp_path / "a.onnx") == [tmp_path / "a.onnx", tmp_path / "a.data"]
    assert model_files(tmp_path) == [tmp_path / name for name in ("a.data", "a.onnx", "notes.txt")]
    with pytest.raises(StepError, match=r"notes\.txt: must contain one \.onnx file, found none"):
        find_model(tmp_path / "notes.txt")
