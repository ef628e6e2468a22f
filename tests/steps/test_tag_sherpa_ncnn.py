from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.steps import tag_sherpa_ncnn
from artifacts.steps.tag_sherpa_ncnn import Params
from lstm_networks import DIM, HIDDEN, LAYERS, LstmNetworks


@pytest.mark.parametrize(
    ("params", "is_good"),
    [
        ({}, True),
        ({"num_encoder_layers": 12, "encoder_dim": 512, "rnn_hidden_size": 1024}, True),
        ({"num_encoder_layers": 0}, False),
        ({"encoder_dim": "512"}, False),
        ({"rnn_hidden_size": 0}, False),
        ({"model_type": 3}, False),
    ],
)
def test_params(params: dict[str, Any], is_good: bool) -> None:
    if is_good:
        Params.model_validate_json(json.dumps(params))
    else:
        with pytest.raises(ValidationError):
            Params.model_validate_json(json.dumps(params))


def test_a_line_is_added_and_nothing_else_changes(lstm: LstmNetworks, tmp_path: Path) -> None:
    encoder = lstm.converted("encoder")
    params = Params(num_encoder_layers=LAYERS, encoder_dim=DIM, rnn_hidden_size=HIDDEN)
    metrics = tag_sherpa_ncnn.run(tmp_path, params, encoder=encoder)
    assert metrics == {
        "model_type": 3,
        "num_encoder_layers": LAYERS,
        "encoder_dim": DIM,
        "rnn_hidden_size": HIDDEN,
    }
    before = (encoder / "encoder.ncnn.param").read_text().splitlines()
    after = (tmp_path / "encoder.ncnn.param").read_text().splitlines()
    layers, blobs = map(int, before[1].split())
    assert after[:2] == [before[0], f"{layers + 1} {blobs}"]
    assert after[2].split() == f"SherpaMetaData sherpa_meta_data1 0 0 0=3 1={LAYERS} 2={DIM} 3={HIDDEN}".split()
    assert after[3:] == before[2:]
    for name in ("encoder.ncnn.bin", "inputs.json"):
        assert (tmp_path / name).read_bytes() == (encoder / name).read_bytes()


@pytest.mark.parametrize(
    ("name", "believed", "found"),
    [("num_encoder_layers", 12, LAYERS), ("encoder_dim", DIM + 1, DIM), ("rnn_hidden_size", 999, HIDDEN)],
)
def test_an_encoder_that_is_not_the_one_meant_is_refused(
    lstm: LstmNetworks, tmp_path: Path, name: str, believed: int, found: int
) -> None:
    with pytest.raises(StepError) as raised:
        tag_sherpa_ncnn.run(tmp_path, Params(**{name: believed}), encoder=lstm.converted("encoder"))
    assert raised.value.fact == f"encoder.ncnn.param: {name} is {found}, params say {believed}"


def test_another_network_is_refused_with_the_reason(lstm: LstmNetworks, tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"joint\.ncnn\.param: contains no LSTM layer") as raised:
        tag_sherpa_ncnn.run(tmp_path, Params(), encoder=lstm.converted("joint"))
    assert "run any other model in ncnn itself" in raised.value.fix


def test_an_encoder_of_other_features_is_refused(
    lstm: LstmNetworks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tag_sherpa_ncnn, "FEATURES", 72)
    with pytest.raises(StepError, match=r"encoder\.ncnn\.param: makes \[.* of 9 frames of 72 features"):
        tag_sherpa_ncnn.run(tmp_path, Params(), encoder=lstm.converted("encoder"))
