from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.steps.fuse_decoder_joint import Params, run
from nemo_models import nemo_around_the_kits_modules

Feeds = list[dict[str, np.ndarray]]


@pytest.fixture(scope="session")
def decoder_joint(exports: Any) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(exports.folder / "decoder_joint_fp32" / "decoder_joint-model.onnx")


@pytest.fixture(scope="session")
def step_feeds(restored_model: Any, speech: Any) -> Feeds:
    """The inputs of a decoding step: frames of speech, the last token, and the states after a sentence."""
    frames, _ = restored_model.encoder(audio_signal=speech[0], length=speech[1])
    tokens = [restored_model.decoder.blank_idx, *restored_model.tokenizer.text_to_ids("please call david")]
    layers, hidden = restored_model.decoder.pred_rnn_layers, restored_model.decoder.pred_hidden
    state = (torch.zeros(layers, 3, hidden), torch.zeros(layers, 3, hidden))
    feeds = []
    for step, token in enumerate(tokens):
        y = torch.full((3, 1), token)
        feeds.append(
            {
                "encoder_outputs": frames[:, :, 3 * step : 3 * step + 1].numpy(),
                "targets": y.to(torch.int32).numpy(),
                "target_length": np.ones(3, np.int32),
                "input_states_1": state[0].numpy(),
                "input_states_2": state[1].numpy(),
            }
        )
        _, state = restored_model.decoder.predict(y, state=state, add_sos=False)
    return feeds


@pytest.mark.parametrize(("params", "is_good"), [({}, True), ({"opset": 17}, False)])
def test_params(params: dict[str, Any], is_good: bool) -> None:
    if is_good:
        Params(**params)
    else:
        with pytest.raises(ValidationError):
            Params(**params)


def test_the_file_is_valid_and_equals_the_two_graphs(exports: Any) -> None:
    for target in ("decoder_joint_fp32", "decoder_joint_fp32_fixed_shape"):
        path = exports.folder / target / "decoder_joint-model.onnx"
        assert [file.name for file in path.parent.iterdir()] == [path.name]
        onnx.checker.check_model(str(path), full_check=True)
        metrics = exports.metrics[target]
        assert list(metrics) == [f"{name}_max_abs_diff" for name in ("outputs", "output_states_1", "output_states_2")]
        assert all(value <= 1e-6 for value in metrics.values())


def test_names_types_and_static_state_dimensions_are_those_of_onnx_asr(
    decoder_joint: onnxruntime.InferenceSession, restored_model: Any
) -> None:
    d_model, width = restored_model.encoder.d_model, restored_model.joint.num_classes_with_blank
    state = [restored_model.decoder.pred_rnn_layers, "batch", restored_model.decoder.pred_hidden]
    assert [(v.name, v.type, v.shape) for v in decoder_joint.get_inputs()] == [
        ("encoder_outputs", "tensor(float)", ["batch", d_model, "encoder_frames"]),
        ("targets", "tensor(int32)", ["batch", "tokens"]),
        ("target_length", "tensor(int32)", ["batch"]),
        ("input_states_1", "tensor(float)", state),
        ("input_states_2", "tensor(float)", state),
    ]
    assert [(v.name, v.type, v.shape) for v in decoder_joint.get_outputs()] == [
        ("outputs", "tensor(float)", ["batch", "encoder_frames", "tokens", width]),
        ("prednet_lengths", "tensor(int32)", ["batch"]),
        ("output_states_1", "tensor(float)", state),
        ("output_states_2", "tensor(float)", state),
    ]


def test_on_the_states_of_speech_it_equals_nemos_own_export(
    decoder_joint: onnxruntime.InferenceSession,
    step_feeds: Feeds,
    tiny_checkpoint: Path,
    tmp_path: Path,
) -> None:
    from artifacts.nemo.quiet import quiet

    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    model = nemo_around_the_kits_modules(
        tiny_checkpoint, unpacked
    )  # one of its own: NeMo's export leaves marks on the model
    with quiet():
        model.export(str(tmp_path / "model.onnx"))
    nemos = onnxruntime.InferenceSession(tmp_path / "decoder_joint-model.onnx")
    assert [(v.name, v.type) for v in decoder_joint.get_inputs()] == [(v.name, v.type) for v in nemos.get_inputs()]
    assert [(v.name, v.type) for v in decoder_joint.get_outputs()] == [(v.name, v.type) for v in nemos.get_outputs()]
    for feeds in step_feeds:
        for have, want in zip(decoder_joint.run(None, feeds), nemos.run(None, feeds), strict=True):
            assert have.dtype == want.dtype
            assert have.shape == want.shape
            assert np.max(np.abs(have - want)) <= 1e-6


def test_the_lengths_are_returned(decoder_joint: onnxruntime.InferenceSession, step_feeds: Feeds) -> None:
    (lengths,) = decoder_joint.run(
        ["prednet_lengths"], {**step_feeds[0], "target_length": np.array([1, 0, 5], np.int32)}
    )
    assert lengths.tolist() == [1, 0, 5]


def test_fixed_shapes_are_kept(exports: Any, restored_model: Any) -> None:
    path = exports.folder / "decoder_joint_fp32_fixed_shape" / "decoder_joint-model.onnx"
    inputs = {value.name: value.shape for value in onnxruntime.InferenceSession(path).get_inputs()}
    assert inputs["encoder_outputs"] == [1, restored_model.encoder.d_model, 1]
    assert (inputs["targets"], inputs["target_length"], inputs["input_states_1"][1]) == ([1, 1], [1], 1)


def _changed(source: Path, folder: Path, change: Any) -> Path:
    folder.mkdir()
    (path,) = source.iterdir()
    model = onnx.load(path)
    change(model)
    onnx.save(model, folder / path.name)
    return folder


def _other_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 18


def _wider(model: onnx.ModelProto) -> None:
    model.graph.input[1].type.tensor_type.shape.dim[1].dim_value += 1


def _other_names(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = "enc"


def _open_features(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "features"


def _flat_frames(model: onnx.ModelProto) -> None:
    del model.graph.input[0].type.tensor_type.shape.dim[2]


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (_other_opset, r"the predictor and the joint use different opsets: 17 and 18 of ai\.onnx\n"),
        (
            _wider,
            r"the predictor gives 'g' \['batch', 96, 'tokens'\], the joint takes 'predictor_output' \['batch', 97,",
        ),
        (_other_names, r"joint-model\.onnx: inputs and outputs are \['enc', 'joint_output', 'predictor_output'\]"),
        (
            _open_features,
            r"'encoder_outputs' would be \['batch', 'features', 'encoder_frames'\], it must be \[B, D, T\] with",
        ),
        (_flat_frames, r"'encoder_outputs' would be \['batch', \d+\], it must be \[B, D, T\]"),
    ],
)
def test_two_graphs_that_do_not_fit_are_refused(exports: Any, tmp_path: Path, change: Any, fact: str) -> None:
    joint = _changed(exports.folder / "joint_fp32", tmp_path / "joint", change)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(StepError, match=fact):
        run(out, Params(), predictor=exports.folder / "predictor_fp32", joint=joint)


def _fused(exports: Any, tmp_path: Path, change: Any) -> onnx.ModelProto:
    """The fused graph of the predictor and the joint after this change to both."""
    parts = {
        name: _changed(exports.folder / f"{name}_fp32", tmp_path / name, change) for name in ("predictor", "joint")
    }
    out = tmp_path / "out"
    out.mkdir()
    metrics = run(out, Params(), **parts)
    assert all(value <= 1e-6 for value in metrics.values())
    return onnx.load(out / "decoder_joint-model.onnx")


def _unnamed(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        node.name = ""


def test_nodes_without_names_stay_without(exports: Any, tmp_path: Path) -> None:
    fused = _fused(exports, tmp_path, _unnamed)
    assert {node.name for node in fused.graph.node} == {"Cast", "Identity", ""}


@pytest.mark.parametrize("name", ["other_{}", ""])
def test_open_dimensions_may_have_other_names_or_none(exports: Any, tmp_path: Path, name: str) -> None:
    def rename(model: onnx.ModelProto) -> None:
        del model.graph.value_info[:]
        for value in (*model.graph.input, *model.graph.output):
            for dim in value.type.tensor_type.shape.dim:
                if dim.dim_param and name:
                    dim.dim_param = name.format(dim.dim_param)
                elif dim.dim_param:
                    dim.ClearField("dim_param")

    inputs = {value.name: value.type.tensor_type.shape.dim for value in _fused(exports, tmp_path, rename).graph.input}
    assert [dim.dim_param for dim in inputs["targets"]] == [name.format("batch"), name.format("tokens")]
    assert not any(dim.HasField("dim_value") for dim in inputs["targets"])
    assert inputs["encoder_outputs"][2].dim_param == name.format("encoder_frames")


def test_sparse_weights_are_kept(exports: Any, tmp_path: Path) -> None:
    def sparsen(model: onnx.ModelProto) -> None:
        weights = [each for each in model.graph.initializer if each.data_type == 1 and len(each.dims) == 2]
        for weight in weights:
            values = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight).reshape(-1), weight.name)
            places = onnx.numpy_helper.from_array(np.arange(values.dims[0]))
            model.graph.sparse_initializer.append(onnx.helper.make_sparse_tensor(values, places, weight.dims))
            model.graph.initializer.remove(weight)

    names = [sparse.values.name for sparse in _fused(exports, tmp_path, sparsen).graph.sparse_initializer]
    assert {name.split("/")[0] for name in names} == {"predictor", "joint"}


def test_imports_and_functions_of_both_graphs_are_kept(exports: Any, tmp_path: Path) -> None:
    opset = onnx.helper.make_opsetid
    shared = [opset("ai.onnx.ml", 3), opset("com.microsoft", 1)]

    def import_more(model: onnx.ModelProto) -> None:
        if len(model.graph.output) > 1:
            model.opset_import.extend(shared)
            return
        joint, onnx_own = model, model.opset_import[0]
        same = onnx.helper.make_node("Identity", ["x"], ["y"])
        function = onnx.helper.make_function("own", "Same", ["x"], ["y"], [same], [opset("", onnx_own.version)])
        joint.functions.append(function)
        joint.graph.node[-1].output[0] = "before"
        joint.graph.node.append(onnx.helper.make_node("Same", ["before"], ["joint_output"], domain="own"))
        onnx_own.domain = "ai.onnx"  # its long name
        joint.opset_import.extend([opset("own", 1), *shared])
        joint.opset_import.reverse()

    fused = _fused(exports, tmp_path, import_more)
    assert [each.domain for each in fused.opset_import] == ["", "ai.onnx.ml", "com.microsoft", "own"]
    assert [function.name for function in fused.functions] == ["Same"]


def test_a_predictor_with_external_data_gives_the_same_file(exports: Any, tmp_path: Path) -> None:
    out, predictor = tmp_path / "out", tmp_path / "predictor"
    out.mkdir()
    predictor.mkdir()
    model = onnx.load(exports.folder / "predictor_fp32" / "predictor-model.onnx")
    onnx.save(
        model, predictor / "predictor-model.onnx", save_as_external_data=True, location="predictor-model.onnx.data"
    )
    run(out, Params(), predictor=predictor, joint=exports.folder / "joint_fp32")
    want = exports.folder / "decoder_joint_fp32" / "decoder_joint-model.onnx"
    assert [file.name for file in out.iterdir()] == [want.name]
    assert (out / want.name).read_bytes() == want.read_bytes()
    shutil.rmtree(predictor)
    onnxruntime.InferenceSession(out / want.name)
