"""Base class of every step's `Params`: frozen, and without unknown keys."""

from __future__ import annotations

import os

from pydantic import BaseModel, ConfigDict

# No plugin of another package changes what a recipe means. A search for plugins would read every package's metadata.
os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"


class StepParams(BaseModel):
    """Parameters of a step. Each field has a default and its bounds; an unknown key or a wrong type is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
