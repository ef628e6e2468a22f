from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from artifacts.ncnn.linear_layers import as_inner_product, is_linear
from artifacts.ncnn.network_writer import write_network
from artifacts.ncnn.param_file import Value, read_param
from artifacts.ncnn.runtime import Net, find_net
from artifacts.ncnn.weights_file import read_weights
from ncnn_conversions import Array, Pieces


@pytest.mark.parametrize("fp16", [False, True])
def test_an_inner_product_computes_what_the_gemm_did(
    pieces: Pieces, one_utterance: Array, fp16: bool, tmp_path: Path
) -> None:
    param, weights_path = find_net(pieces.folder("head", fp16=fp16))
    file = read_param(param)
    weights = read_weights(file, weights_path)
    linear = [layer for layer in file.layers if is_linear(layer)]
    assert [layer.integer(10) for layer in linear] == [4, -1, -1]  # with a bias, and without
    made = [
        as_inner_product(layer, weights[layer.name]) if layer in linear else (layer, weights[layer.name])
        for layer in file.layers
    ]
    written = write_network(made, param, tmp_path)
    before, after = Net(param, weights_path), Net(written, written.with_suffix(".bin"))
    want, got = (net.run({"in0": one_utterance})["out0"] for net in (before, after))
    assert np.abs(want - got).max() < 1e-5 * np.abs(want).max()
    for layer in linear:  # the numbers are the same ones
        new = next(own for each, own in made if each.name == layer.name)
        assert np.shares_memory(weights[layer.name]["b"].values, new["weight"].values)


@pytest.mark.parametrize(
    "change", [{2: 1}, {3: 0}, {4: 1}, {5: 0}, {0: 0.5}, {1: 2.0}, {14: 1}, {18: 2}, {10: 3}, {10: 0}]
)
def test_what_is_no_linear_layer_is_left_alone(pieces: Pieces, change: dict[int, Value]) -> None:
    file = read_param(find_net(pieces.folder("head"))[0])
    linear = next(layer for layer in file.layers if is_linear(layer))
    assert not is_linear(replace(linear, params={**linear.params, **change}))
    assert not is_linear(replace(linear, type="InnerProduct"))
    assert not is_linear(replace(linear, inputs=("a", "b")))
