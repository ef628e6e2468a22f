from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.ncnn.param_file import Value, find_net, read_param
from artifacts.ncnn.runtime import Net
from artifacts.ncnn.weights_file import read_weights, write_network
from artifacts.steps import rewrite_ncnn_linears
from artifacts.steps.rewrite_ncnn_linears import Params, as_inner_product, is_linear
from ncnn_conversions import Array, Parts


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("{}", True),
        ('{"layers_to_exclude": ["gemm_0"]}', True),
        ('{"layers_to_exclude": "gemm_0"}', False),
        ('{"types": ["Gemm"]}', False),
    ],
)
def test_params(text: str, good: bool) -> None:
    if good:
        Params.model_validate_json(text)
    else:
        with pytest.raises(ValidationError):
            Params.model_validate_json(text)


def test_every_linear_layer_is_an_inner_product_that_computes_the_same(
    parts: Parts, one_utterance: Array, tmp_path: Path
) -> None:
    metrics = rewrite_ncnn_linears.run(tmp_path, Params(), model=parts.folder("head"))
    assert (metrics["layers_rewritten"], metrics["gemms_left"]) == (3, 0)
    before, after = (Net(*find_net(folder)).run({"in0": one_utterance}) for folder in (parts.folder("head"), tmp_path))
    assert np.abs(before["out0"] - after["out0"]).max() < 1e-5 * np.abs(before["out0"]).max()
    types = [layer.type for layer in read_param(find_net(tmp_path)[0]).layers]
    assert (types.count("InnerProduct"), types.count("Gemm")) == (3, 0)
    assert metrics["bytes_after"] == sum(path.stat().st_size for path in tmp_path.iterdir())


def test_what_is_excluded_stays_as_it_is_and_must_be_there(parts: Parts, tmp_path: Path) -> None:
    metrics = rewrite_ncnn_linears.run(tmp_path, Params(layers_to_exclude=("gemm_1",)), model=parts.folder("head"))
    assert (metrics["layers_rewritten"], metrics["gemms_left"]) == (2, 1)
    with pytest.raises(StepError, match=r"head\.ncnn\.param: layers_to_exclude: no layer is called 'gemm_7'"):
        rewrite_ncnn_linears.run(tmp_path, Params(layers_to_exclude=("gemm_7",)), model=parts.folder("head"))


def test_a_model_without_linear_gemms_is_refused(parts: Parts, tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"joint\.ncnn\.param: 0 layers rewritten"):
        rewrite_ncnn_linears.run(tmp_path, Params(), model=parts.folder("joint"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fp16", [False, True])
def test_an_inner_product_computes_what_the_gemm_did(
    parts: Parts, one_utterance: Array, fp16: bool, tmp_path: Path
) -> None:
    param, weights_path = find_net(parts.folder("head", fp16=fp16))
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
def test_what_is_no_linear_layer_is_left_alone(parts: Parts, change: dict[int, Value]) -> None:
    file = read_param(find_net(parts.folder("head"))[0])
    linear = next(layer for layer in file.layers if is_linear(layer))
    assert not is_linear(replace(linear, params={**linear.params, **change}))
    assert not is_linear(replace(linear, type="InnerProduct"))
    assert not is_linear(replace(linear, inputs=("a", "b")))
