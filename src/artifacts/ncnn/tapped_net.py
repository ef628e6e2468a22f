"""A network that measures, each time it is run, what its quantisable layers read; twice over a corpus gives a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from artifacts.errors import StepError
from artifacts.ncnn.blob_histogram import BlobHistogram
from artifacts.ncnn.int8_layers import TABLE_TYPES, can_be_int8, weight_scales
from artifacts.ncnn.param_file import Layer, ParamFile, read_param
from artifacts.ncnn.runtime import Array, Blob, Net
from artifacts.ncnn.scale_table import WEIGHT_MARK, ScaleTable
from artifacts.ncnn.weights_file import LayerWeights, read_weights

FLUSH_NUMBERS = 1 << 18
"""Of a streaming network a blob has a few hundred numbers: so many are gathered before they are counted."""


class TappedNet(Net):
    """`Net`, run over all of a corpus, `begin_second_pass`, over the same again, `table`.

    Only the histograms are kept, 16 KiB for each blob that is measured.
    """

    def __init__(self, param: Path, weights: Path, *, threads: int = 1) -> None:
        """Open the files as `Net` does."""
        super().__init__(param, weights, threads=threads)
        file = read_param(param)
        self._place = param.name
        self._weights = read_weights(file, weights)
        self.layers = calibrated_layers(file, self._weights)
        """What the table will be of: may be empty."""
        sources = split_sources(file)
        self._reads = {layer.name: sources.get(layer.inputs[0], layer.inputs[0]) for layer in self.layers}
        self._histograms = {blob: BlobHistogram(blob) for blob in self._reads.values()}
        self._gathered: dict[str, list[Blob]] = {blob: [] for blob in self._histograms}
        self._numbers = 0
        self._second = False

    def run(self, feeds: Mapping[str, Array], outputs: Iterable[str] | None = None) -> dict[str, Blob]:
        """As `Net.run`; what is measured stays within."""
        wanted = self.outputs if outputs is None else tuple(outputs)
        # In the order in which they are made: ncnn forgets a blob when its last reader has run.
        results = super().run(feeds, dict.fromkeys((*self._histograms, *wanted)))
        for blob, gathered in self._gathered.items():
            gathered.append(results[blob].reshape(-1))
            self._numbers += gathered[-1].size
        if self._numbers >= FLUSH_NUMBERS:
            self._flush()
        return {name: results[name] for name in wanted}

    def begin_second_pass(self) -> None:
        """From here on the same runs are expected again."""
        self._flush()
        self._second = True

    def table(self, method: str) -> ScaleTable:
        """The scales of all `layers`, those of activations by `kl` or `absmax`; after both passes.

        Raises StepError, with the layer, if the passes differed, or a layer read nothing but zeros.
        """
        self._flush()
        weights, activations = {}, {}
        scales: dict[str, float] = {}
        for layer in self.layers:
            blob = self._reads[layer.name]
            try:
                scales[blob] = scales.get(blob) or self._histograms[blob].scale(method)
                activations[layer.name] = scales[blob]
                weights[f"{layer.name}{WEIGHT_MARK}0"] = weight_scales(layer, self._weights[layer.name])
            except StepError as error:
                raise StepError(f"{self._place}: layer '{layer.name}': {error.fact}", error.fix) from None
        return ScaleTable(weights, activations)

    def _flush(self) -> None:
        for blob, gathered in self._gathered.items():
            if not gathered:
                continue
            histogram, numbers = self._histograms[blob], np.concatenate(gathered)
            gathered.clear()
            try:
                (histogram.count if self._second else histogram.look)(numbers)
            except StepError as error:
                raise StepError(f"{self._place}: {error.fact}", error.fix) from None
        self._numbers = 0


def calibrated_layers(file: ParamFile, weights: Mapping[str, LayerWeights]) -> tuple[Layer, ...]:
    """The layers that a table has scales for: convolutions and InnerProducts with float weights of their own."""
    return tuple(
        layer
        for layer in file.layers
        if layer.type in TABLE_TYPES and len(layer.inputs) == 1 and can_be_int8(layer, weights[layer.name])
    )


def split_sources(file: ParamFile) -> dict[str, str]:
    """For each blob that a Split makes, the one that it is a copy of: what several layers read is measured once."""
    sources: dict[str, str] = {}
    for layer in file.layers:
        if layer.type == "Split":
            source = sources.get(layer.inputs[0], layer.inputs[0])
            sources |= dict.fromkeys(layer.outputs, source)
    return sources
