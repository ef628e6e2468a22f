"""What a checkpoint of the LSTM transducer has to be known by: icefall's keys, and how the weights' shapes say them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from artifacts.errors import StepError

# Several times the widest of icefall's models.
MAX_WIDTH = 16_384


class Config(BaseModel):
    """icefall's keys. The defaults are those of its recipe; the rest of its keys is about training and left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    num_encoder_layers: int = Field(12, ge=1, le=200)
    encoder_dim: int = Field(512, ge=1, le=MAX_WIDTH)
    rnn_hidden_size: int = Field(1024, ge=1, le=MAX_WIDTH)
    vocab_size: int = Field(ge=3, le=200_000)
    """All tokens; `<blk>` is 0 and `<unk>` is 2."""
    context_size: int = Field(2, ge=1, le=100)
    dim_feedforward: int = Field(2048, ge=1, le=MAX_WIDTH)
    decoder_dim: int = Field(512, ge=1, le=MAX_WIDTH)
    joiner_dim: int = Field(512, ge=1, le=MAX_WIDTH)
    feature_dim: int = Field(80, ge=9, le=1024)
    subsampling_factor: Literal[4] = 4
    blank_id: Literal[0] = 0

    @model_validator(mode="after")
    def _projection_makes_smaller(self) -> Config:
        if self.rnn_hidden_size < self.encoder_dim:
            raise ValueError("rnn_hidden_size must not be below encoder_dim")
        return self


def read_config(values: Mapping[str, Any], place: str) -> Config:
    """Validate a mapping. Raises StepError, with `place` and the key, for a value that the architecture cannot have."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = f"{problem['loc'][0]}: " if problem["loc"] else ""
        raise StepError(
            f"{place}: {key}{problem['msg'].lower()}",
            "give the configuration of an lstm_transducer_stateless2 model, as its training had it",
        ) from None
