from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.ncnn.param_file import read_param
from artifacts.steps import convert_pnnx
from artifacts.steps.convert_pnnx import Params
from lstm_networks import LstmNetworks


@pytest.mark.parametrize(
    ("params", "is_good"),
    [
        ({}, True),
        ({"fp16": True}, True),
        ({"fp16": "yes"}, False),
        ({"fp16": 1}, False),
        ({"optlevel": 2}, False),
    ],
)
def test_params(params: dict[str, Any], is_good: bool) -> None:
    if is_good:
        assert Params.model_validate_json(json.dumps(params)).fp16 is params.get("fp16", False)
    else:
        with pytest.raises(ValidationError):
            Params.model_validate_json(json.dumps(params))


def test_an_artifact_is_a_network_and_what_it_takes(lstm: LstmNetworks) -> None:
    folder = lstm.converted("encoder")
    assert sorted(path.name for path in folder.iterdir()) == ["encoder.ncnn.bin", "encoder.ncnn.param", "inputs.json"]


def test_metrics_are_differences_layers_and_bytes(lstm: LstmNetworks, tmp_path: Path) -> None:
    metrics = convert_pnnx.run(tmp_path, Params(), traced=lstm.traced("encoder"))
    differences = [name for name in metrics if name.endswith("_max_abs_diff")]
    assert differences == ["encoder_output_max_abs_diff", "h_out_max_abs_diff", "c_out_max_abs_diff"]
    assert all(0 < metrics[name] < 1e-5 for name in differences)
    assert metrics["layers"] == len(read_param(tmp_path / "encoder.ncnn.param").layers)
    files = [tmp_path / f"encoder.ncnn.{end}" for end in ("param", "bin")]
    assert metrics["bytes"] == sum(path.stat().st_size for path in files)
    for name in ("encoder.ncnn.param", "encoder.ncnn.bin", "inputs.json"):
        assert (tmp_path / name).read_bytes() == (lstm.converted("encoder") / name).read_bytes()


def test_fp16_halves_the_weights_and_moves_the_numbers_little(lstm: LstmNetworks, tmp_path: Path) -> None:
    metrics = convert_pnnx.run(tmp_path, Params(fp16=True), traced=lstm.traced("encoder"))
    assert 1e-5 < metrics["encoder_output_max_abs_diff"] < 2e-3
    sizes = [(folder / "encoder.ncnn.bin").stat().st_size for folder in (tmp_path, lstm.converted("encoder"))]
    assert 0.49 < sizes[0] / sizes[1] < 0.52


def test_a_trace_without_its_second_shape_is_met_where_it_matters(lstm: LstmNetworks, tmp_path: Path) -> None:
    """Another shape in `inputs.json` than that of the trace: pnnx refuses, and is quoted."""
    shutil.copytree(lstm.traced("joint"), tmp_path / "traced")
    interface = json.loads((tmp_path / "traced/inputs.json").read_text())
    interface["inputs"][0]["shape"] = interface["inputs"][0]["shape2"] = [1, 65]
    (tmp_path / "traced/inputs.json").write_text(json.dumps(interface))
    (tmp_path / "out").mkdir()
    with pytest.raises(StepError, match=r"joint\.pt: pnnx does not convert it: .* but got \[1,65\]f32"):
        convert_pnnx.run(tmp_path / "out", Params(), traced=tmp_path / "traced")
