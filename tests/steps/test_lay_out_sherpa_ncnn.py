from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.ncnn.param_file import find_net
from artifacts.steps import lay_out_sherpa_ncnn
from artifacts.steps.lay_out_sherpa_ncnn import Params
from lstm_networks import HIDDEN, TOKENS_TXT, LstmNetworks


def test_params() -> None:
    assert Params.model_validate_json("{}") == Params()
    with pytest.raises(ValidationError):
        Params.model_validate_json('{"precision": "fp16"}')


@pytest.fixture(scope="module")
def inputs(lstm: LstmNetworks, evaluation: Path) -> dict[str, Path]:
    return {
        "encoder": lstm.tagged(),
        "predictor": lstm.converted("predictor"),
        "joint": lstm.converted("joint"),
        "tokens": lstm.tokens(),
        "corpus": evaluation,
    }


def lay_out(out: Path, inputs: dict[str, Path]) -> dict[str, Any]:
    out.mkdir()
    return dict(lay_out_sherpa_ncnn.run(out, Params(), **inputs))


def test_files_have_the_names_of_sherpas_documentation(
    inputs: dict[str, Path], lstm: LstmNetworks, tmp_path: Path
) -> None:
    metrics = lay_out(tmp_path / "out", inputs)
    sources = {
        "encoder_jit_trace-pnnx.ncnn": lstm.tagged() / "encoder.ncnn",
        "decoder_jit_trace-pnnx.ncnn": lstm.converted("predictor") / "predictor.ncnn",
        "joiner_jit_trace-pnnx.ncnn": lstm.converted("joint") / "joint.ncnn",
    }
    wanted = {f"{name}.{end}": Path(f"{source}.{end}") for name, source in sources.items() for end in ("param", "bin")}
    wanted["tokens.txt"] = lstm.tokens() / "tokens.txt"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*wanted, "SHA256SUMS"}
    for name, source in wanted.items():
        assert (tmp_path / "out" / name).read_bytes() == source.read_bytes(), name
    assert metrics["files"] == 8
    assert metrics["bytes"] == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert metrics["tokens"] > 10
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=tmp_path / "out", check=True)


def test_int8_networks_have_their_own_names_and_are_run_too(
    inputs: dict[str, Path], lstm: LstmNetworks, tmp_path: Path
) -> None:
    int8 = {"encoder_int8": lstm.quantised("encoder"), "joint_int8": lstm.quantised("joint")}
    metrics = lay_out(tmp_path / "out", inputs | int8)
    names = {path.name for path in (tmp_path / "out").glob("*.int8.*")}
    assert names == {
        f"{name}_jit_trace-pnnx.ncnn.int8.{end}" for name in ("encoder", "joiner") for end in ("param", "bin")
    }
    assert metrics["files"] == 12
    assert metrics["tokens_int8"] > 10


def test_int8_of_the_encoder_alone_goes_with_the_other_joiner(
    inputs: dict[str, Path], lstm: LstmNetworks, tmp_path: Path
) -> None:
    metrics = lay_out(tmp_path / "out", inputs | {"encoder_int8": lstm.quantised("encoder")})
    assert metrics["files"] == 10
    assert metrics["tokens_int8"] > 10


def test_a_network_that_is_not_what_its_name_says_is_refused(
    inputs: dict[str, Path], lstm: LstmNetworks, tmp_path: Path
) -> None:
    with pytest.raises(StepError, match=r"^encoder\.ncnn\.param: has no int8 layers"):
        lay_out(tmp_path / "a", inputs | {"encoder_int8": lstm.tagged(fp16=True)})
    with pytest.raises(StepError, match=r"^joint\.ncnn\.param: has 3 int8 layers"):
        lay_out(tmp_path / "b", inputs | {"joint": lstm.quantised("joint")})


def test_an_encoder_that_is_not_tagged_is_refused(inputs: dict[str, Path], lstm: LstmNetworks, tmp_path: Path) -> None:
    with pytest.raises(StepError, match="its third line is not one SherpaMetaData called 'sherpa_meta_data1'"):
        lay_out(tmp_path / "out", inputs | {"encoder": lstm.converted("encoder")})


@pytest.mark.parametrize(
    ("old", "new"), [(" 0=3 1=3 ", " 0=1 1=3 "), (" 1=3 ", " 1=2 "), (f" 3={HIDDEN}\n", " 3=999\n")]
)
def test_metadata_that_is_wrong_is_refused_before_sherpa_meets_it(
    inputs: dict[str, Path], tmp_path: Path, old: str, new: str
) -> None:
    shutil.copytree(inputs["encoder"], tmp_path / "encoder")
    param, _ = find_net(tmp_path / "encoder")
    param.write_text(param.read_text().replace(old, new, 1))
    with pytest.raises(StepError, match=r"SherpaMetaData: key \d \(\w+\) is \d+, the network has \d+"):
        lay_out(tmp_path / "out", inputs | {"encoder": tmp_path / "encoder"})


def test_tokens_of_another_model_are_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "tokens.txt").write_text(TOKENS_TXT.rpartition("\n")[0].rpartition("\n")[0] + "\n", encoding="utf-8")
    with pytest.raises(StepError, match=r"tokens\.txt: contains 49 tokens, the predictor has 50"):
        lay_out(tmp_path / "out", inputs | {"tokens": tmp_path / "tokens.txt"})


def test_other_tokens_from_sherpa_ncnn_are_an_error(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("artifacts.speech.sherpa_streaming.SHIFT_FRAMES", 5)
    with pytest.raises(StepError, match=r"sherpa-ncnn decodes \d+ tokens of 'clean-000', our own streaming loop \d+;"):
        lay_out(tmp_path / "out", inputs)
