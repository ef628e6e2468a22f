from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from artifacts.errors import StepError
from artifacts.ncnn.int8_layers import (
    DYNAMIC_TYPES,
    TABLE_TYPES,
    can_be_int8,
    quantize_by_table,
    quantize_dynamic,
    quantize_rows,
    row_scales,
    store_float16,
    to_float16,
    weight_scales,
)
from artifacts.ncnn.layer_fields import is_int8
from artifacts.ncnn.param_file import Layer, find_net, read_param
from artifacts.ncnn.runtime import Net
from artifacts.ncnn.weights_file import LayerWeights, Weight, read_weights, write_network
from artifacts.steps.rewrite_ncnn_linears import as_inner_product, is_linear
from ncnn_conversions import Array, Parts

Network = list[tuple[Layer, LayerWeights]]


def read(folder: Path) -> Network:
    param, weights = find_net(folder)
    file = read_param(param)
    own = read_weights(file, weights)
    return [(layer, own[layer.name]) for layer in file.layers]


def write(network: Network, folder: Path, out: Path) -> Net:
    out.mkdir(parents=True)
    param = write_network(network, find_net(folder)[0], out)
    return Net(param, param.with_suffix(".bin"))


def decibels(want: Array, got: Array) -> float:
    """Signal to noise: how far `got` is from `want`."""
    return float(10 * np.log10((want.astype(np.float64) ** 2).sum() / ((want - got).astype(np.float64) ** 2).sum()))


def by_table(network: Network, activations: dict[str, Array]) -> tuple[Network, Network]:
    """With int8 weights; and with float ones beside the scales, of which ncnn itself makes int8 when it loads them."""
    ours, theirs = [], []
    for layer, weights in network:
        if layer.type in TABLE_TYPES:
            scale = 127 / float(np.abs(activations[layer.inputs[0]]).max())
            marked, made = quantize_by_table(layer, weights, weight_scales(layer, weights), scale)
            ours.append((marked, made))
            theirs.append((marked, {**made, "weight": weights["weight"]}))
        else:
            ours.append((layer, weights))
            theirs.append((layer, weights))
    return ours, theirs


@pytest.fixture(scope="module")
def feeds(one_utterance: Array) -> dict[str, dict[str, np.ndarray]]:
    frame, state = one_utterance[:96, 100], one_utterance[:96, 50:52].T / 20
    return {
        "head": {"in0": one_utterance},
        "predictor": {"in0": np.array([5], np.int32), "in1": state, "in2": state},
        "joint": {"in0": frame, "in1": frame / 4},
    }


def test_int8_by_a_table_is_bit_for_bit_what_ncnns_own_quantiser_makes_of_the_same_scales(
    parts: Parts, feeds: dict[str, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    for part, layers in (("head", 8), ("joint", 3)):
        network = read(parts.folder(part))
        network = [as_inner_product(*each) if is_linear(each[0]) else each for each in network]
        before = write(network, parts.folder(part), tmp_path / part / "float")
        blobs = [layer.inputs[0] for layer, _ in network if layer.type in TABLE_TYPES]
        assert len(blobs) == layers
        ours, theirs = by_table(network, before.run(feeds[part], blobs))
        got, same, want = (
            write(ours, parts.folder(part), tmp_path / part / "ours").run(feeds[part])["out0"],
            write(theirs, parts.folder(part), tmp_path / part / "theirs").run(feeds[part])["out0"],
            before.run(feeds[part])["out0"],
        )
        assert np.array_equal(got, same)
        assert 20 < decibels(want, got) < 60


@pytest.mark.parametrize(("part", "types"), [("head", {"Gemm": 3}), ("predictor", {"LSTM": 2, "Embed": 1})])
def test_int8_without_a_table_is_near_on_real_speech(
    parts: Parts, feeds: dict[str, dict[str, np.ndarray]], part: str, types: dict[str, int], tmp_path: Path
) -> None:
    network = read(parts.folder(part))
    made = [
        quantize_dynamic(*each) if each[0].type in DYNAMIC_TYPES and can_be_int8(*each) else each for each in network
    ]
    assert {kind: sum(is_int8(layer) and layer.type == kind for layer, _ in made) for kind in types} == types
    want = Net(*find_net(parts.folder(part))).run(feeds[part])
    got = write(made, parts.folder(part), tmp_path / "int8").run(feeds[part])
    for name, values in want.items():
        assert 25 < decibels(values, got[name]) < 70, name
    before = find_net(parts.folder(part))[1].stat().st_size
    assert (tmp_path / "int8" / f"{part}.ncnn.bin").stat().st_size < 0.55 * before


def test_a_transposed_matrix_gives_the_same_int8_layer(parts: Parts, tmp_path: Path, one_utterance: Array) -> None:
    network = read(parts.folder("head"))
    turned: Network = []
    for layer, weights in network:
        if layer.type == "Gemm":
            matrix = weights["b"]
            other = replace(matrix, values=np.ascontiguousarray(matrix.values.T))
            turned.append((replace(layer, params={**layer.params, 3: 0}), {**weights, "b": other}))
        else:
            turned.append((layer, weights))
    results = []
    for number, version in enumerate((network, turned)):
        made = [quantize_dynamic(*each) if each[0].type == "Gemm" else each for each in version]
        results.append(write(made, parts.folder("head"), tmp_path / str(number)).run({"in0": one_utterance})["out0"])
    assert np.array_equal(*results)


def test_an_lstms_rows_have_scales_of_their_own_and_a_gemm_has_one(parts: Parts) -> None:
    layer, weights = next(each for each in read(parts.folder("predictor")) if each[0].type == "LSTM")
    marked, made = quantize_dynamic(layer, weights)
    assert marked.params[8] == 2
    rows = weights["weight_xc"].as_float32()
    assert np.array_equal(made["weight_xc_scales"].values, np.float32(127) / np.abs(rows).max(axis=1))
    assert (np.abs(made["weight_hc"].values).max(axis=1) == 127).all()
    assert made["bias_c"] is weights["bias_c"]
    layer, weights = next(each for each in read(parts.folder("head")) if each[0].type == "Gemm")
    marked, made = quantize_dynamic(layer, weights)
    assert marked.params[18] == 2
    assert list(made) == ["b", "c", "b_scale"]
    assert made["b_scale"].values.tolist() == [float(np.float32(127) / np.abs(weights["b"].as_float32()).max())]


def test_convolutions_for_winograd_have_six_bits_and_depthwise_ones_a_scale_for_each_group() -> None:
    values = np.arange(1, 1 + 4 * 9, dtype=np.float32).reshape(4, 9)
    weights = {"weight": Weight("weight", values, tagged=True)}
    shape = {0: 4, 1: 3, 6: 36}
    assert weight_scales(Layer("Convolution", "it", ("a",), ("b",), shape), weights)[3] == np.float32(31) / 36
    for other in ({3: 2}, {2: 2}, {13: 2}, {12: 2}, {11: 1}):
        layer = Layer("Convolution", "it", ("a",), ("b",), {**shape, **other})
        assert weight_scales(layer, weights)[3] == np.float32(127) / 36
    grouped = Layer("ConvolutionDepthWise", "it", ("a",), ("b",), {**shape, 7: 2})
    assert weight_scales(grouped, weights).tolist() == pytest.approx([127 / 18, 127 / 36])
    marked, made = quantize_by_table(grouped, weights, weight_scales(grouped, weights), 3.0)
    assert marked.params[8] == 1
    assert made["weight"].values.reshape(2, 18).max(axis=1).tolist() == [127, 127]
    assert made["bottom_scale"].values.tolist() == [3]


def test_a_table_of_another_size_is_refused(parts: Parts) -> None:
    layer, weights = next(each for each in read(parts.folder("joint")) if each[0].type == "InnerProduct")
    with pytest.raises(StepError, match=r"\(InnerProduct\): the table has 5 scales, it has 96 channels"):
        quantize_by_table(layer, weights, np.ones(5, np.float32), 1.0)


def test_layers_that_ncnn_cannot_compute_in_int8_stay_float(parts: Parts) -> None:
    network = [*read(parts.folder("head")), *read(parts.folder("predictor"))]
    able = {layer.type for layer, weights in network if can_be_int8(layer, weights)}
    assert able == {"Convolution", "ConvolutionDepthWise", "Gemm", "LSTM", "Embed"}
    layer, weights = next(each for each in network if each[0].type == "LSTM")
    assert not can_be_int8(*quantize_dynamic(layer, weights))
    assert not can_be_int8(Layer("Gemm", "it", ("a", "b"), ("c",), {}), {})


def test_what_stays_float_can_be_float16_but_for_what_has_no_tag(parts: Parts) -> None:
    for layer, weights in read(parts.folder("joint")):
        halved = store_float16(layer, weights)
        for name, weight in halved.items():
            assert weight.values.dtype == (np.float16 if name == "weight" else np.float32)
            np.testing.assert_allclose(weight.as_float32(), weights[name].as_float32(), rtol=1e-3, atol=1e-7)
    loud = {"weight": Weight("weight", np.full((1, 4), 1e5, np.float32), tagged=True)}
    with pytest.raises(StepError, match=r"layer 'it' \(InnerProduct\): a weight is 100000, float16 ends at 65504"):
        store_float16(Layer("InnerProduct", "it", (), (), {}), loud)


def test_the_largest_magnitude_of_each_row_becomes_127() -> None:
    matrix = np.array([[0.5, -2, 1], [0, 0, 0], [1e-6, 0, -1e-6]], np.float32)
    scales = row_scales(matrix)
    assert scales.dtype == np.float32
    assert scales.tolist() == [63.5, 1, float(np.float32(127) / np.float32(1e-6))]
    assert quantize_rows(matrix, scales).tolist() == [[32, -127, 64], [0, 0, 0], [127, 0, -127]]


def test_six_bits_end_at_31() -> None:
    matrix = np.array([[0.5, -2, 1]], np.float32)
    assert row_scales(matrix, 31).tolist() == [15.5]
    assert quantize_rows(matrix, row_scales(matrix, 31)).tolist() == [[8, -31, 16]]


def test_halves_are_rounded_away_from_zero_and_what_is_nearly_a_half_is_not() -> None:
    below = float(np.nextafter(np.float32(0.5), np.float32(0)))  # in float32, half more would be 1
    matrix = np.array([[0.5, -0.5, 1.5, -2.5, below, -below]], np.float32)
    assert quantize_rows(matrix, np.ones(1, np.float32)).tolist() == [[1, -1, 2, -3, 0, 0]]


def test_what_exceeds_a_given_scale_is_cut_at_127_on_both_sides() -> None:
    matrix = np.array([[200, -200, 127.4, -127.6]], np.float32)
    assert quantize_rows(matrix, np.ones(1, np.float32)).tolist() == [[127, -127, 127, -127]]


def test_one_scale_may_be_that_of_all_rows() -> None:
    matrix = np.array([[1, 2], [3, 4]], np.float32)
    scale = row_scales(matrix.reshape(1, -1))
    assert quantize_rows(matrix, scale).tolist() == [[32, 64], [95, 127]]


def test_weights_that_are_not_finite_are_refused() -> None:
    for bad in (np.nan, np.inf):
        with pytest.raises(StepError, match="weights with NaN or infinity"):
            row_scales(np.array([[1, bad]], np.float32))
        with pytest.raises(StepError, match="float16 ends at 65504"):
            to_float16(np.array([1, bad], np.float32))


def test_float16_is_the_nearest_and_has_an_end() -> None:
    values = np.array([1 + 2**-11, 1 + 3 * 2**-11, 1e-7, 65504], np.float32)
    assert to_float16(values).astype(np.float64).tolist() == [1, 1 + 2**-9, pytest.approx(1e-7, rel=0.2), 65504]
    with pytest.raises(StepError, match="a weight is 70000, float16 ends at 65504"):
        to_float16(np.array([0, -70000], np.float32))
