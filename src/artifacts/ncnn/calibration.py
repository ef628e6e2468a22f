"""Calibrate an int8 network: record what its layers read over a corpus, and choose a scale for each activation.

The corpus runs twice. The first pass finds the largest magnitude of each blob. The second pass counts the magnitudes in
2048 bins up to it, without zeros, as ncnn's calibrators do. Memory does not grow with the corpus: 16 KiB a blob. Both
passes must bring the same numbers in the same order.

The `kl` threshold is the method of Migacz, "8-bit inference with TensorRT" (2017), with the rules of ncnn's and
sherpa-ncnn's calibrators, which decide its outcome:

* the thresholds from 128 to 2047 bins are tried;
* magnitudes beyond the threshold count in its last bin;
* the others are requantised to 128 levels, and each level is spread evenly over its bins, by their shares;
* 1e-4 is added to every bin of both;
* the first threshold of the smallest Kullback-Leibler divergence wins, at the middle of its last bin.

The calibrators compute in float32, bin by bin. Here the sums over levels are differences of one cumulative sum in
float64: the 1920 thresholds of a layer take a tenth of a second.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from artifacts.errors import StepError
from artifacts.ncnn.int8_layers import TABLE_TYPES, can_be_int8, weight_scales
from artifacts.ncnn.param_file import Layer, ParamFile, read_param
from artifacts.ncnn.runtime import Array, Blob, Net
from artifacts.ncnn.scale_table import SUFFIX, WEIGHT_MARK, ScaleTable, write_table
from artifacts.ncnn.weights_file import LayerWeights, read_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

BINS = 2048
LEVELS = 128
EPSILON = 1e-4
# An activation that never exceeds 127e-6 is always zero, up to rounding.
SCALE_LIMIT = 1e6
# A blob of a streaming network has a few hundred numbers a run: this many are collected before they are counted.
FLUSH_NUMBERS = 1 << 18


class ObservedNet(Net):
    """A network that records the magnitudes of what its quantisable layers read, each time it runs.

    Run it over the whole corpus, call `begin_second_pass`, run it over the same corpus again, then ask for the `table`.
    """

    def __init__(self, param: Path, weights: Path, *, threads: int = 1) -> None:
        """Open the files as `Net` does."""
        super().__init__(param, weights, threads=threads)
        file = read_param(param)
        self._place = param.name
        self._weights = read_weights(file, weights)
        # The layers of the table; there may be none.
        self.layers = calibrated_layers(file, self._weights)
        sources = split_sources(file)
        self._inputs = {layer.name: sources.get(layer.inputs[0], layer.inputs[0]) for layer in self.layers}
        self._histograms = {blob: BlobHistogram(blob) for blob in self._inputs.values()}
        self._collected: dict[str, list[Blob]] = {blob: [] for blob in self._histograms}
        self._numbers = 0
        self._is_second_pass = False

    def run(self, feeds: Mapping[str, Array], outputs: Iterable[str] | None = None) -> dict[str, Blob]:
        """Run as `Net.run` does, and record the observed blobs. They are returned only if `outputs` names them."""
        wanted = self.outputs if outputs is None else tuple(outputs)
        # In the order in which they are computed: ncnn frees a blob after its last consumer.
        results = super().run(feeds, dict.fromkeys((*self._histograms, *wanted)))
        for blob, collected in self._collected.items():
            collected.append(results[blob].reshape(-1))
            self._numbers += collected[-1].size
        if self._numbers >= FLUSH_NUMBERS:
            self._flush()
        return {name: results[name] for name in wanted}

    def begin_second_pass(self) -> None:
        """End the first pass: from here on the network counts the same runs again."""
        self._flush()
        self._is_second_pass = True

    def table(self, method: str) -> ScaleTable:
        """Return the scales of all `layers`, those of activations by `kl` or `absmax`. Call it after both passes.

        Raises StepError, with the layer, if the passes differed, or if a layer read nothing but zeros.
        """
        self._flush()
        weights, activations = {}, {}
        scales: dict[str, float] = {}
        for layer in self.layers:
            blob = self._inputs[layer.name]
            try:
                scales[blob] = scales.get(blob) or self._histograms[blob].scale(method)
                activations[layer.name] = scales[blob]
                weights[f"{layer.name}{WEIGHT_MARK}0"] = weight_scales(layer, self._weights[layer.name])
            except StepError as error:
                raise StepError(f"{self._place}: layer '{layer.name}': {error.fact}", error.fix) from None
        return ScaleTable(weights, activations)

    def _flush(self) -> None:
        for blob, collected in self._collected.items():
            if not collected:
                continue
            histogram, numbers = self._histograms[blob], np.concatenate(collected)
            collected.clear()
            try:
                (histogram.count if self._is_second_pass else histogram.find_largest)(numbers)
            except StepError as error:
                raise StepError(f"{self._place}: {error.fact}", error.fix) from None
        self._numbers = 0


def require_calibrated_layers(nets: Mapping[str, ObservedNet], folders: Iterable[Path]) -> None:
    """Raise StepError, with the names of the `folders`, if none of the networks has a layer for a table."""
    if not any(net.layers for net in nets.values()):
        raise StepError(
            f"{', '.join(folder.name for folder in folders)}: 0 convolutions and InnerProducts with float weights",
            "give the networks in fp32; Gemm layers need no table, or rewrite_ncnn_linears first",
        )


def begin_second_pass(nets: Mapping[str, ObservedNet]) -> None:
    """End the first pass of all networks."""
    for net in nets.values():
        net.begin_second_pass()


def write_tables(nets: Mapping[str, ObservedNet], method: str, out: Path) -> dict[str, int]:
    """Write `<part>.table` for each network that has layers for it; return `<part>_layers` for each network."""
    for part, net in nets.items():
        if net.layers:
            write_table(net.table(method), out / f"{part}{SUFFIX}")
    return {f"{part}_layers": len(net.layers) for part, net in nets.items()}


def calibrated_layers(file: ParamFile, weights: Mapping[str, LayerWeights]) -> tuple[Layer, ...]:
    """Return the layers that need scales in a table: convolutions and InnerProducts with float weights of their own."""
    return tuple(
        layer
        for layer in file.layers
        if layer.type in TABLE_TYPES and len(layer.inputs) == 1 and can_be_int8(layer, weights[layer.name])
    )


def split_sources(file: ParamFile) -> dict[str, str]:
    """Map each output of a Split to the blob that it copies: a blob with several consumers is recorded once."""
    sources: dict[str, str] = {}
    for layer in file.layers:
        if layer.type == "Split":
            source = sources.get(layer.inputs[0], layer.inputs[0])
            sources |= dict.fromkeys(layer.outputs, source)
    return sources


class BlobHistogram:
    """Histogram of one blob's magnitudes: `find_largest` of all its numbers, `count` all of them, then `scale`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.abs_max = np.float32(0)
        self.histogram = np.zeros(BINS, np.uint64)
        self._digests = [0, 0]
        self._sizes = [0, 0]

    def find_largest(self, numbers: NDArray[np.float32]) -> None:
        """Take float32 numbers of the first pass. Raises StepError for NaN or infinity."""
        self._add(0, numbers)
        largest = np.abs(numbers).max(initial=np.float32(0))
        if not np.isfinite(largest):
            raise StepError(f"blob '{self.name}': NaN or infinity", "repair the model, or leave the recording out")
        self.abs_max = max(self.abs_max, np.float32(largest))

    def count(self, numbers: NDArray[np.float32]) -> None:
        """Take float32 numbers of the second pass."""
        self._add(1, numbers)
        magnitudes = np.abs(numbers[numbers != 0])
        if magnitudes.size and self.abs_max:
            bins = (magnitudes / self.abs_max * np.float32(BINS)).astype(np.int64)
            self.histogram += np.bincount(np.minimum(bins, BINS - 1), minlength=BINS).astype(np.uint64)

    def scale(self, method: str) -> float:
        """Return 127 / threshold: the `kl` threshold, or the largest magnitude for `absmax`.

        Raises StepError if the passes brought different numbers, or if all magnitudes are zero up to rounding.
        """
        if self._sizes[0] != self._sizes[1] or self._digests[0] != self._digests[1]:
            raise StepError(
                f"blob '{self.name}': the second pass over the corpus brought other numbers than the first",
                "do not change the corpus during calibration; with one thread and the same files the passes are equal",
            )
        largest = self.abs_max
        if largest * np.float32(SCALE_LIMIT) < np.float32(127):
            raise StepError(
                f"blob '{self.name}': is zero throughout the corpus (largest magnitude {largest:g})",
                "give a corpus of speech, or leave the layers that read it out of the table",
            )
        return float(kl_scale(self.histogram, float(largest)) if method == "kl" else np.float32(127) / largest)

    def _add(self, number: int, values: NDArray[Any]) -> None:
        self._sizes[number] += values.size
        self._digests[number] = zlib.crc32(np.ascontiguousarray(values).data, self._digests[number])


def kl_scale(histogram: NDArray[np.uint64], abs_max: float) -> np.float32:
    """Return the factor that maps the `kl` threshold to 127; the last bin of the histogram ends at `abs_max`."""
    threshold = np.float32(best_threshold(histogram) + 0.5) * np.float32(abs_max) / np.float32(BINS)
    return np.float32(127) / np.float32(threshold)


def best_threshold(histogram: NDArray[np.uint64]) -> int:
    """Return the threshold, from 128 to 2047 bins, for a histogram `[2048]` that counts at least one magnitude."""
    counts = histogram.astype(np.float64)
    shares = (counts / counts.sum()).astype(np.float32).astype(np.float64)
    cumulative = np.concatenate([[0.0], np.cumsum(shares)])
    bins = np.arange(BINS + 1, dtype=np.float64)
    divergences = [_divergence(shares, cumulative, bins, threshold) for threshold in range(LEVELS, BINS)]
    return LEVELS + int(np.argmin(divergences))


def _divergence(
    shares: NDArray[np.float64], cumulative: NDArray[np.float64], bins: NDArray[np.float64], threshold: int
) -> float:
    """Return the Kullback-Leibler divergence of the clipped shares from the same shares at 128 levels."""
    clipped = shares[:threshold] + EPSILON
    clipped[-1] += cumulative[-1] - cumulative[threshold]
    edges = np.arange(LEVELS + 1) * (threshold / LEVELS)
    # The mean of a level: the sum between its edges, where an edge divides a bin in proportion. Then each bin's share
    # of the means. Both are differences of a cumulative sum that is linear within a bin or a level.
    below = np.interp(edges, bins[: threshold + 1], cumulative[: threshold + 1])
    levels = np.diff(np.interp(bins[: threshold + 1], edges, below))
    return float(np.sum(clipped * np.log(clipped / (levels + EPSILON))))
