"""What a checkpoint's preprocessor does in evaluation, as numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from artifacts.errors import StepError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class FeatureSettings:
    """The settings, in the order in which they are used.

    `window` [W] and `filterbank` [features, fft_samples / 2 + 1] are float32. With `preemphasis` None the samples
    beyond a row's length are not cleared either. `squared` tells the power spectrum from the magnitude. `log_add` is
    added before the logarithm. `pad_value` is what frames beyond a row's length hold.
    """

    preemphasis: float | None
    window: NDArray[np.float32]
    hop_samples: int
    fft_samples: int
    squared: bool
    filterbank: NDArray[np.float32]
    log_add: float
    normalize_per_feature: bool
    pad_value: float


def read_settings(preprocessor: Any, name: str) -> FeatureSettings:
    """The settings of a restored AudioToMelSpectrogramPreprocessor of the checkpoint `name`.

    Window and filterbank are the checkpoint's own, not computed anew. What only training uses is left out: dither, and
    `pad_to`, which NeMo too sets to 0 when it transcribes. Raises StepError for a setting that has no graph here.
    """
    featurizer = preprocessor.featurizer
    normalize = featurizer.normalize
    supported = {
        "exact_pad": (featurizer.exact_pad, not featurizer.exact_pad),
        "n_fft": (featurizer.n_fft, featurizer.n_fft % 2 == 0 and featurizer.n_fft >= featurizer.win_length),
        "mag_power": (featurizer.mag_power, featurizer.mag_power in (1.0, 2.0)),
        "log": (featurizer.log, featurizer.log),
        "log_zero_guard_type": (featurizer.log_zero_guard_type, featurizer.log_zero_guard_type == "add"),
        "frame_splicing": (featurizer.frame_splicing, featurizer.frame_splicing == 1),
        "normalize": (normalize, normalize is None or (isinstance(normalize, str) and normalize != "all_features")),
    }
    for key, (value, is_supported) in supported.items():
        if not is_supported:
            raise StepError(
                f"{name}: preprocessor.{key}: {value!r} is not supported",
                "compute the features outside of ONNX, or leave the preprocessor out of the recipe",
            )
    return FeatureSettings(
        preemphasis=featurizer.preemph,
        window=featurizer.window.numpy(),
        hop_samples=featurizer.hop_length,
        fft_samples=featurizer.n_fft,
        squared=featurizer.mag_power == 2.0,
        filterbank=featurizer.fb[0].numpy(),
        log_add=float(featurizer.log_zero_guard_value_fn(featurizer.fb)),
        normalize_per_feature=normalize == "per_feature",
        pad_value=featurizer.pad_value,
    )
