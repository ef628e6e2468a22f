from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.steps import measure_drift
from artifacts.steps.measure_drift import Params

pytestmark = pytest.mark.slow

SHORT = Params(slices=("clean", "long_20s"), utterances_per_slice=2)


@pytest.mark.parametrize("params", [{}, {"slices": ["clean"]}, {"utterances_per_slice": 1, "threads": 2}])
def test_good_params(params: dict[str, Any]) -> None:
    Params.model_validate_json(json.dumps(params))


@pytest.mark.parametrize(
    "params", [{"slices": []}, {"utterances_per_slice": 0}, {"threads": 0}, {"max_symbols": 10}, {"utterances": 3}]
)
def test_bad_params(params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Params.model_validate_json(json.dumps(params))


@pytest.fixture(scope="module")
def speech(preprocessor: Path, evaluation: Path) -> dict[str, Path]:
    return {"preprocessor": preprocessor, "corpus": evaluation}


def measure(out: Path, params: Params = SHORT, **inputs: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The step's metrics.json and what it returns."""
    out.mkdir(exist_ok=True)
    flat = dict(measure_drift.run(out, params, **inputs))
    return json.loads((out / "metrics.json").read_text(encoding="utf-8")), flat


def change(source: Path, target: Path, edit: Any) -> Path:
    """A copy of a model with each of its float initializers edited."""
    model = onnx.load(next(source.glob("*.onnx")))
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(edit(numpy_helper.to_array(tensor)), tensor.name))
    target.mkdir()
    onnx.save(model, target / next(source.glob("*.onnx")).name)
    return target


def test_a_model_does_not_drift_from_itself(encoder_fp32: Path, speech: dict[str, Path], tmp_path: Path) -> None:
    record, flat = measure(tmp_path / "out", model=encoder_fp32, reference=encoder_fp32, **speech)
    assert record["outputs"]["encoder_output"]["max_abs"] == 0
    assert flat == {
        "utterances": 4,
        "utterances_with_other_lengths": 0,
        "max_abs_encoder_output": 0.0,
        "cosine_min_encoder_output": 1.0,
        "nonfinite_values": 0,
    }


def test_an_encoders_drift_is_that_of_its_outputs_on_the_corpus(
    encoder_fp32: Path, encoder_int8: Path, speech: dict[str, Path], tmp_path: Path
) -> None:
    """Against the same figures from plain onnxruntime calls."""
    import onnxruntime
    import soundfile

    params = Params(slices=("clean",), utterances_per_slice=1)
    record, _ = measure(tmp_path / "out", params, model=encoder_int8, reference=encoder_fp32, **speech)
    row = json.loads((speech["corpus"] / "utterances.jsonl").read_text(encoding="utf-8").splitlines()[0])
    waveform = soundfile.read(speech["corpus"] / row["audio_filepath"], dtype="float32")[0]

    def session(folder: Path) -> Any:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(next(folder.glob("*.onnx")), options, providers=["CPUExecutionProvider"])

    features, lengths = session(speech["preprocessor"]).run(
        None, {"waveforms": waveform[np.newaxis], "waveforms_lens": np.array([len(waveform)])}
    )
    ours, theirs = (
        session(folder).run(None, {"audio_signal": features, "length": lengths})[0].astype(np.float64)
        for folder in (encoder_int8, encoder_fp32)
    )
    figures = record["outputs"]["encoder_output"]
    assert figures["max_abs"] == pytest.approx(np.abs(ours - theirs).max(), rel=1e-4)
    assert figures["mean_abs"] == pytest.approx(np.abs(ours - theirs).mean(), rel=1e-4)
    cosine = (ours * theirs).sum() / math.sqrt((ours**2).sum() * (theirs**2).sum())
    assert figures["cosine_min"] == pytest.approx(cosine, abs=1e-6)
    assert figures["values"] == ours.size


def test_fp16_drifts_less_than_int8(
    encoder_fp32: Path, encoder_fp16_fixed: Path, encoder_int8: Path, speech: dict[str, Path], tmp_path: Path
) -> None:
    fp16, int8 = (
        measure(tmp_path / model.name, model=model, reference=encoder_fp32, **speech)[1]
        for model in (encoder_fp16_fixed, encoder_int8)
    )
    assert 0 < fp16["max_abs_encoder_output"] < int8["max_abs_encoder_output"]
    assert int8["cosine_min_encoder_output"] < fp16["cosine_min_encoder_output"] < 1
    assert fp16["cosine_min_encoder_output"] > 0.999
    assert fp16["utterances_with_other_lengths"] == int8["utterances_with_other_lengths"] == 0


def test_each_slice_has_figures_of_its_own_and_the_total_the_worst_of_them(
    encoder_fp32: Path, encoder_int8: Path, speech: dict[str, Path], tmp_path: Path
) -> None:
    record, _ = measure(tmp_path / "out", model=encoder_int8, reference=encoder_fp32, **speech)
    parts = [record["slices"][name]["encoder_output"] for name in ("clean", "long_20s")]
    total = record["outputs"]["encoder_output"]
    assert total["max_abs"] == max(part["max_abs"] for part in parts)
    assert total["cosine_min"] == min(part["cosine_min"] for part in parts)
    assert total["values"] == sum(part["values"] for part in parts)


def test_a_model_that_gives_no_numbers_has_no_good_figure(
    encoder_fp32: Path, speech: dict[str, Path], tmp_path: Path
) -> None:
    broken = change(encoder_fp32, tmp_path / "broken", lambda values: np.full_like(values, np.nan))
    record, flat = measure(tmp_path / "out", model=broken, reference=encoder_fp32, **speech)
    assert flat["nonfinite_values"] == record["outputs"]["encoder_output"]["nonfinite_values"] > 0
    assert (flat["max_abs_encoder_output"], flat["cosine_min_encoder_output"]) == (3.40282e38, 0.0)
    with pytest.raises(StepError, match="output 'encoder_output' of the reference is not finite"):
        measure(tmp_path / "other", model=encoder_fp32, reference=broken, **speech)


def test_a_decoder_joint_is_compared_along_the_path_of_the_reference(
    encoder_fp32: Path,
    decoder_joint_fp32: Path,
    decoder_joint_int8_dynamic: Path,
    model_meta: Path,
    speech: dict[str, Path],
    tmp_path: Path,
) -> None:
    path = {"encoder": encoder_fp32, "model_meta": model_meta, **speech}
    _, same = measure(tmp_path / "same", model=decoder_joint_fp32, reference=decoder_joint_fp32, **path)
    assert same["steps"] > 50
    assert same["max_abs_outputs"] == same["max_abs_output_states_1"] == same["max_abs_output_states_2"] == 0
    assert same["steps_with_other_choice"] == 0
    record, int8 = measure(tmp_path / "int8", model=decoder_joint_int8_dynamic, reference=decoder_joint_fp32, **path)
    assert int8["steps"] == same["steps"]
    assert int8["max_abs_outputs"] > 0
    assert int8["cosine_min_outputs"] > 0.99
    assert record["outputs"]["outputs"]["values"] % int8["steps"] == 0


def test_another_choice_of_token_is_counted(
    encoder_fp32: Path, decoder_joint_fp32: Path, model_meta: Path, speech: dict[str, Path], tmp_path: Path
) -> None:
    other = change(decoder_joint_fp32, tmp_path / "other", lambda values: -values)
    path = {"encoder": encoder_fp32, "model_meta": model_meta, **speech}
    _, flat = measure(tmp_path / "out", model=other, reference=decoder_joint_fp32, **path)
    assert 0 < flat["steps_with_other_choice"] <= flat["steps"]


def test_a_decoder_joint_needs_an_encoder(decoder_joint_fp32: Path, speech: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(StepError) as raised:
        measure(tmp_path / "out", model=decoder_joint_fp32, reference=decoder_joint_fp32, **speech)
    assert raised.value.fix == "give the inputs encoder and model_meta as well"


def test_models_of_another_kind_are_refused(
    encoder_fp32: Path, decoder_joint_fp32: Path, joint_fp32: Path, speech: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(StepError, match="has other inputs or outputs than the reference"):
        measure(tmp_path / "out", model=encoder_fp32, reference=decoder_joint_fp32, **speech)
    with pytest.raises(StepError, match="is neither an encoder nor a decoder_joint"):
        measure(tmp_path / "out", model=joint_fp32, reference=joint_fp32, **speech)


def test_the_same_inputs_give_the_same_bytes(
    encoder_fp32: Path, encoder_int8: Path, speech: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = {"model": encoder_int8, "reference": encoder_fp32, **speech}
    measure(tmp_path / "a", **inputs)
    monkeypatch.chdir(tmp_path)
    measure(tmp_path / "b", **inputs)
    assert (tmp_path / "a/metrics.json").read_bytes() == (tmp_path / "b/metrics.json").read_bytes()
