from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import Field, ValidationError

from artifacts.params import StepParams


class Params(StepParams):
    """Params of a step, for these tests."""

    size_bytes: int = Field(5, gt=0)
    scale: float = 1.0


@pytest.mark.parametrize("given", [{}, {"size_bytes": 1}, {"scale": 2}, {"scale": 0.5}])
def test_good_params_are_accepted(given: dict[str, float]) -> None:
    assert Params.model_validate(given).model_dump() == {"size_bytes": 5, "scale": 1.0} | given


@pytest.mark.parametrize(
    "given",
    [{"size_byte": 1}, {"size_bytes": 0}, {"size_bytes": "1"}, {"size_bytes": 1.5}, {"size_bytes": True},
     {"scale": "1"}, {"scale": float("nan")}, {"scale": float("inf")}, {"scale": None}],
)  # fmt: skip
def test_unknown_keys_wrong_types_and_values_out_of_bounds_are_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Params.model_validate(given)


def test_params_do_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Params.model_validate({}).size_bytes = 6


def test_no_plugin_of_another_package_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "meddler.py").write_text("raise SystemExit(1)\n")
    package = tmp_path / "meddler-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: meddler\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[pydantic]\nmeddler = meddler\n")
    define = "\nclass Params(BaseModel): size: int\n"
    environment = {name: value for name, value in os.environ.items() if name != "PYDANTIC_DISABLE_PLUGINS"}
    for imports, code in (("from pydantic import BaseModel", 1), ("from artifacts.params import BaseModel", 0)):
        script = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{imports}{define}"
        assert subprocess.run([sys.executable, "-c", script], env=environment).returncode == code
