"""The base of every step's `Params`: frozen, and closed to words that it does not know."""

from __future__ import annotations

import os

from pydantic import BaseModel, ConfigDict

# No plugin of another package has a say in what a recipe means; to look for one would read every package's metadata.
os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"


class StepParams(BaseModel):
    """Parameters of a step. Each field has a default and its bounds; an unknown key or a wrong type is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
