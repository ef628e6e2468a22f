"""Both calibrations for ncnn take the same params, with the same bounds."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from artifacts.ncnn.calibration_params import CalibrationParams
from artifacts.steps import calibrate_ncnn, calibrate_sherpa_ncnn


def test_both_steps_take_them() -> None:
    assert calibrate_ncnn.Params().model_dump() == calibrate_sherpa_ncnn.Params().model_dump()
    assert calibrate_ncnn.Params().model_dump() == {"activations": "kl", "slices": None, "min_seconds": 60.0}


@pytest.mark.parametrize("bad", [{"activations": "max"}, {"slices": ()}, {"min_seconds": -1.0}])
def test_values_out_of_bounds_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        CalibrationParams.model_validate(bad)
