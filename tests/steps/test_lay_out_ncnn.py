from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.graph.model_file import consolidate, find_model
from artifacts.ncnn.tdt_transducer import NcnnEncoder, NcnnTransducer
from artifacts.speech.corpus import read_corpus
from artifacts.speech.decoding import read_decoding
from artifacts.speech.frontend import Preprocessor
from artifacts.speech.greedy import decode
from artifacts.steps import lay_out_ncnn, quantize_ncnn_int8
from artifacts.steps.lay_out_ncnn import Params


def test_params() -> None:
    assert Params.model_validate_json("{}") == Params()
    with pytest.raises(ValidationError):
        Params.model_validate_json('{"precision": "fp16"}')


@pytest.fixture(scope="module")
def inputs(tdt: dict[str, Path], preprocessor: Path, tokens: Path, model_meta: Path) -> dict[str, Path]:
    return {**tdt, "preprocessor": preprocessor, "tokens": tokens, "model_meta": model_meta}


def lay_out(out: Path, inputs: dict[str, Path]) -> dict[str, Any]:
    out.mkdir()
    return dict(lay_out_ncnn.run(out, Params(), **inputs))


def test_a_folder_contains_all_files_and_a_readme_on_their_use(inputs: dict[str, Path], tmp_path: Path) -> None:
    metrics = lay_out(tmp_path / "out", inputs)
    networks = {f"{part}.ncnn.{end}" for part in ("encoder", "predictor", "joint") for end in ("param", "bin")}
    others = {"preprocessor.onnx", "tokens.txt", "model_meta.json", "README.md", "SHA256SUMS"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == networks | others
    assert metrics["files"] == 11
    assert metrics["bytes"] == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    for part in ("encoder", "predictor", "joint"):
        source = inputs[part] / f"{part}.ncnn.bin"
        assert (tmp_path / "out" / source.name).read_bytes() == source.read_bytes()
    readme = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "sherpa-ncnn does not load them: it has no type for a FastConformer-TDT." in readme
    meta = json.loads((inputs["model_meta"] / "model_meta.json").read_text(encoding="utf-8"))
    assert f"`out0` [{meta['joint_vocab_size']}]" in readme
    assert "{" not in readme
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=tmp_path / "out", check=True)


def test_speech_is_transcribed_from_the_folder_alone(inputs: dict[str, Path], tmp_path: Path, evaluation: Path) -> None:
    out = tmp_path / "out"
    lay_out(out, inputs)
    parts = {}
    for part in ("encoder", "predictor", "joint"):
        parts[part] = tmp_path / part
        parts[part].mkdir()
        for end in ("param", "bin"):
            (out / f"{part}.ncnn.{end}").rename(parts[part] / f"{part}.ncnn.{end}")
    decoding = read_decoding(out / "model_meta.json")
    corpus = read_corpus(evaluation, ("clean",))
    features = Preprocessor(out / "preprocessor.onnx", 1).features(corpus.waveform(corpus.utterances[0]))
    transducer = NcnnTransducer(parts["predictor"], parts["joint"], decoding.blank_id)
    ids = decode(transducer, NcnnEncoder(parts["encoder"], 1).frames(*features), decoding)
    lines = (out / "tokens.txt").read_text(encoding="utf-8").splitlines()
    pieces = [line.rpartition(" ")[0] for line in lines]
    assert "".join(pieces[token] for token in ids).replace("▁", " ").strip() == corpus.utterances[0].text


def test_a_preprocessor_with_external_data_is_laid_out_as_one_file(inputs: dict[str, Path], tmp_path: Path) -> None:
    source = find_model(inputs["preprocessor"])
    (tmp_path / "split").mkdir()
    consolidate(source, tmp_path / "split" / "model.onnx", external=True)
    assert (tmp_path / "split" / "model.onnx.data").is_file()
    lay_out(tmp_path / "out", inputs | {"preprocessor": tmp_path / "split"})
    lay_out(tmp_path / "usual", inputs)
    written = {(tmp_path / name / "preprocessor.onnx").read_bytes() for name in ("out", "usual")}
    assert written == {source.read_bytes()}


def test_int8_networks_have_their_own_names(inputs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "int8").mkdir()
    quantize_ncnn_int8.run(tmp_path / "int8", quantize_ncnn_int8.Params(), model=inputs["encoder"])
    metrics = lay_out(tmp_path / "out", inputs | {"encoder_int8": tmp_path / "int8"})
    assert {path.name for path in (tmp_path / "out").glob("*.int8.*")} == {
        "encoder.ncnn.int8.param",
        "encoder.ncnn.int8.bin",
    }
    assert metrics["files"] == 13


def test_a_network_that_is_not_what_its_name_says_is_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"^joint\.ncnn\.param: has no int8 layers"):
        lay_out(tmp_path / "out", inputs | {"joint_int8": inputs["joint"]})


def test_networks_in_each_others_places_are_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"joint\.ncnn\.param: "):
        lay_out(tmp_path / "out", inputs | {"encoder": inputs["joint"]})


def test_sizes_of_another_checkpoint_are_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    meta = json.loads((inputs["model_meta"] / "model_meta.json").read_text(encoding="utf-8"))
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "model_meta.json").write_text(json.dumps(meta | {"joint_vocab_size": 7}), encoding="utf-8")
    with pytest.raises(StepError, match=r"joint\.ncnn\.param: makes \[.*\], model_meta\.json says \[\(7,\)\]"):
        lay_out(tmp_path / "out", inputs | {"model_meta": tmp_path / "meta"})


def test_a_model_without_durations_is_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    meta = json.loads((inputs["model_meta"] / "model_meta.json").read_text(encoding="utf-8"))
    (tmp_path / "rnnt").mkdir()
    (tmp_path / "rnnt" / "model_meta.json").write_text(json.dumps(meta | {"duration_values": []}))
    with pytest.raises(StepError, match=r"model_meta\.json: duration_values: is empty"):
        lay_out(tmp_path / "out", {**inputs, "model_meta": tmp_path / "rnnt"})
