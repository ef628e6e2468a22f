from __future__ import annotations

from typing import Any

import pytest

from artifacts.errors import StepError
from artifacts.icefall.checkpoint import read_config
from artifacts.icefall.lstm_transducer import Config

SMALL = {"num_encoder_layers": 4, "encoder_dim": 128, "rnn_hidden_size": 256, "vocab_size": 128, "context_size": 2}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, None),
        ({"rnn_hidden_size": 128}, None),
        ({"subsampling_factor": 4, "blank_id": 0}, None),
        ({"best_train_loss": 0.1, "exp_dir": "somewhere", "lr_epochs": 10}, None),  # what training keeps there
        ({"num_encoder_layers": 0}, "num_encoder_layers"),
        ({"num_encoder_layers": "4"}, "num_encoder_layers"),
        ({"encoder_dim": 512}, "rnn_hidden_size must not be below encoder_dim"),
        ({"vocab_size": 2}, "vocab_size"),
        ({"vocab_size": None}, "vocab_size"),
        ({"context_size": 0}, "context_size"),
        ({"feature_dim": 8}, "feature_dim"),
        ({"subsampling_factor": 2}, "subsampling_factor"),
        ({"blank_id": 1}, "blank_id"),
        *(
            ({key: value}, key)
            for key in [*SMALL, "dim_feedforward", "decoder_dim", "joiner_dim", "feature_dim"]
            for value in (10**9, 10**400, -1, float("nan"), "a" * 1000, [1], True)
        ),
    ],
)
def test_keys(changed: dict[str, Any], told: str | None) -> None:
    values = {**SMALL, **changed}
    if told is None:
        assert read_config(values, "here").num_encoder_layers == 4
        return
    with pytest.raises(StepError) as raised:
        read_config(values, "here")
    assert raised.value.fact.startswith("here: ")
    assert told in raised.value.fact
    assert "should" not in raised.value.fact


def test_what_is_not_said_is_as_in_icefalls_recipe() -> None:
    said = {key: value for key, value in Config(vocab_size=500).model_dump().items() if key != "vocab_size"}
    assert said == {
        "num_encoder_layers": 12, "encoder_dim": 512, "rnn_hidden_size": 1024, "context_size": 2,
        "dim_feedforward": 2048, "decoder_dim": 512, "joiner_dim": 512, "feature_dim": 80, "subsampling_factor": 4,
        "blank_id": 0,
    }  # fmt: skip
