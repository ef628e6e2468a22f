from __future__ import annotations

import numpy as np
import pytest

from artifacts.errors import StepError
from artifacts.ncnn.int8_layers import weight_scales
from artifacts.ncnn.kl_threshold import BINS, kl_scale
from artifacts.ncnn.param_file import Layer, ParamFile, read_param
from artifacts.ncnn.runtime import Net, find_net
from artifacts.ncnn.tapped_net import FLUSH_NUMBERS, TappedNet, split_sources
from artifacts.ncnn.weights_file import read_weights
from ncnn_conversions import Array, Pieces


@pytest.fixture(scope="module")
def chunks(one_utterance: Array) -> list[Array]:
    """Real features, in pieces: more numbers than are gathered before they are counted."""
    found = [np.ascontiguousarray(each) for each in np.array_split(one_utterance, 3, axis=1)]
    assert sum(each.size for each in found) * 32 > FLUSH_NUMBERS
    return found


def hear_twice(net: TappedNet, first: list[Array], second: list[Array] | None = None) -> TappedNet:
    for chunk in first:
        net.run({"in0": chunk})
    net.begin_second_pass()
    for chunk in first if second is None else second:
        net.run({"in0": chunk})
    return net


def test_the_table_is_that_of_what_the_layers_read(pieces: Pieces, chunks: list[Array]) -> None:
    param, weights_path = find_net(pieces.folder("head"))
    table = hear_twice(TappedNet(param, weights_path), chunks).table("kl")
    layers = [layer for layer in read_param(param).layers if layer.type in ("Convolution", "ConvolutionDepthWise")]
    assert list(table.activations) == [layer.name for layer in layers]
    assert len(layers) == 5
    weights = read_weights(read_param(param), weights_path)
    plain = Net(param, weights_path)
    for layer in layers:
        (blob,) = layer.inputs
        numbers = np.abs(np.concatenate([plain.run({"in0": chunk}, [blob])[blob].reshape(-1) for chunk in chunks]))
        places = np.minimum((numbers[numbers > 0] / numbers.max() * np.float32(BINS)).astype(int), BINS - 1)
        histogram = np.bincount(places, minlength=BINS).astype(np.uint64)
        assert table.activations[layer.name] == float(kl_scale(histogram, float(numbers.max())))
        scales = table.weight_scales(layer.name)
        assert scales is not None
        assert np.array_equal(scales, weight_scales(layer, weights[layer.name]))


def test_what_it_computes_is_what_it_would_unmeasured(pieces: Pieces, chunks: list[Array]) -> None:
    tapped, plain = (kind(*find_net(pieces.folder("head"))) for kind in (TappedNet, Net))
    got, want = tapped.run({"in0": chunks[0]}), plain.run({"in0": chunks[0]})
    assert list(got) == list(want) == ["out0"]
    assert np.array_equal(got["out0"], want["out0"])
    assert list(tapped.run({"in0": chunks[0]}, ["5"])) == ["5"]


def test_other_speech_in_the_second_pass_is_refused_with_the_layer(pieces: Pieces, chunks: list[Array]) -> None:
    net = hear_twice(TappedNet(*find_net(pieces.folder("head"))), chunks, [*chunks[1:], chunks[0]])
    with pytest.raises(StepError, match=r"head\.ncnn\.param: layer 'convrelu_0': blob '3': the second pass"):
        net.table("kl")


def test_speech_that_is_not_finite_is_refused_with_the_blob(pieces: Pieces, chunks: list[Array]) -> None:
    net = TappedNet(*find_net(pieces.folder("head")))
    net.run({"in0": chunks[0] * np.float32(np.nan)})
    with pytest.raises(StepError, match=r"head\.ncnn\.param: blob '3': NaN or infinity"):
        net.begin_second_pass()


def test_a_network_without_such_layers_measures_nothing(pieces: Pieces) -> None:
    net = TappedNet(*find_net(pieces.folder("predictor")))
    assert net.layers == ()
    state = np.zeros((2, 96), np.float32)
    assert set(net.run({"in0": np.array([1], np.int32), "in1": state, "in2": state})) == {"out0", "out1", "out2"}
    assert net.table("kl").activations == {}


def test_copies_of_a_blob_are_one() -> None:
    split = [
        Layer("Split", "a", ("x",), ("x1", "x2"), {}),
        Layer("Split", "b", ("x2",), ("x3", "x4"), {}),
        Layer("ReLU", "c", ("x4",), ("y",), {}),
    ]
    assert split_sources(ParamFile(tuple(split))) == {"x1": "x", "x2": "x", "x3": "x", "x4": "x"}
