from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from artifacts.errors import StepError
from artifacts.nemo.feature_settings import read_settings


def test_window_and_filterbank_are_the_checkpoints_own(restored_model: Any) -> None:
    featurizer = restored_model.preprocessor.featurizer
    settings = read_settings(restored_model.preprocessor, "tiny.nemo")
    assert np.array_equal(settings.window, featurizer.window.numpy())
    assert np.array_equal(settings.filterbank, featurizer.fb[0].numpy())
    assert settings.filterbank.shape == (128, settings.fft_samples // 2 + 1)


def test_numbers_are_what_nemo_makes_of_the_settings(nemo_preprocessor: Callable[..., Any]) -> None:
    settings = read_settings(nemo_preprocessor(preemph=0.9, log_zero_guard_value="eps", normalize="NA"), "a.nemo")
    assert (settings.hop_samples, settings.fft_samples, len(settings.window)) == (160, 512, 400)
    assert (settings.preemphasis, settings.squared, settings.normalize_per_feature) == (0.9, True, False)
    assert settings.log_add == np.finfo(np.float32).eps
    assert read_settings(nemo_preprocessor(), "a.nemo").log_add == 2**-24


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"exact_pad": True}, "exact_pad"),
        ({"n_fft": 401}, "n_fft"),
        ({"mag_power": 1.5}, "mag_power"),
        ({"log": False}, "log"),
        ({"log_zero_guard_type": "clamp"}, "log_zero_guard_type"),
        ({"frame_splicing": 3}, "frame_splicing"),
        ({"normalize": "all_features"}, "normalize"),
        ({"normalize": {"fixed_mean": [0.0], "fixed_std": [1.0]}}, "normalize"),
    ],
)
def test_a_setting_without_a_graph_is_refused_by_its_key(
    changed: dict[str, Any], key: str, nemo_preprocessor: Callable[..., Any]
) -> None:
    with pytest.raises(StepError, match=rf"a\.nemo: preprocessor\.{key}: .* is not supported"):
        read_settings(nemo_preprocessor(**changed), "a.nemo")
