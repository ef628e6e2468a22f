from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from artifacts.errors import StepError
from artifacts.ncnn.param_file import Layer, ParamFile, find_net, read_param
from artifacts.ncnn.sherpa_metadata import add_metadata, derive_metadata, read_metadata
from lstm_networks import DIM, HIDDEN, LAYERS, LstmNetworks

PLACE = "encoder.ncnn.param"


@pytest.fixture(scope="module")
def encoder(lstm: LstmNetworks) -> ParamFile:
    return read_param(find_net(lstm.converted("encoder"))[0])


@pytest.fixture(scope="module")
def tagged(encoder: ParamFile) -> ParamFile:
    return add_metadata(encoder, PLACE)


def with_params(file: ParamFile, params: dict[int, Any]) -> ParamFile:
    """The network with other parameters in its first layer, the metadata."""
    return ParamFile((replace(file.layers[0], params=params), *file.layers[1:]))


def test_the_numbers_are_those_of_the_layers(encoder: ParamFile) -> None:
    assert derive_metadata(encoder, PLACE) == (3, LAYERS, DIM, HIDDEN)


def test_without_a_projection_the_hidden_size_is_the_encoders_dimension(encoder: ParamFile) -> None:
    layers = [
        replace(layer, params={key: value for key, value in layer.params.items() if key != 3})
        if layer.type == "LSTM"
        else layer
        for layer in encoder.layers
    ]
    assert derive_metadata(ParamFile(tuple(layers)), PLACE) == (3, LAYERS, DIM, DIM)


def test_the_layer_stands_before_all_others_which_stay_as_they_are(encoder: ParamFile, tagged: ParamFile) -> None:
    assert tagged.layers[0] == Layer(
        "SherpaMetaData", "sherpa_meta_data1", (), (), {0: 3, 1: LAYERS, 2: DIM, 3: HIDDEN}
    )
    assert tagged.layers[1:] == encoder.layers
    assert tagged.blobs == encoder.blobs
    assert read_metadata(tagged, PLACE) == (3, LAYERS, DIM, HIDDEN)


@pytest.mark.parametrize(
    ("key", "value", "name"),
    [
        (0, 2, "model_type"),
        (1, LAYERS - 1, "num_encoder_layers"),
        (2, DIM // 2, "encoder_dim"),
        (3, HIDDEN + 1, "rnn_hidden_size"),
        (3, float(HIDDEN + 0.5), "rnn_hidden_size"),
        (1, None, "num_encoder_layers"),
    ],
)
def test_each_key_that_is_wrong_or_missing_is_named(tagged: ParamFile, key: int, value: Any, name: str) -> None:
    params = {**tagged.layers[0].params, key: value}
    if value is None:
        del params[key]
    with pytest.raises(StepError) as raised:
        read_metadata(with_params(tagged, params), PLACE)
    want = tagged.layers[0].params[key]
    assert raised.value.fact == f"{PLACE}: SherpaMetaData: key {key} ({name}) is {value}, the network has {want}"


def test_a_key_that_means_nothing_is_an_error(tagged: ParamFile) -> None:
    with pytest.raises(StepError, match="SherpaMetaData: key 15 means nothing to an LSTM transducer"):
        read_metadata(with_params(tagged, {**tagged.layers[0].params, 15: 1}), PLACE)


@pytest.mark.parametrize("change", ["missing", "twice", "renamed", "moved"])
def test_metadata_that_sherpa_would_not_find_is_an_error(tagged: ParamFile, change: str) -> None:
    first, *others = tagged.layers
    layers = {
        "missing": others,
        "twice": [first, first, *others],
        "renamed": [replace(first, name="sherpa_meta_data2"), *others],
        "moved": [others[0], first, *others[1:]],
    }[change]
    with pytest.raises(StepError, match="its third line is not one SherpaMetaData called 'sherpa_meta_data1'"):
        read_metadata(ParamFile(tuple(layers)), PLACE)


def test_a_network_is_tagged_once(tagged: ParamFile) -> None:
    with pytest.raises(StepError, match="contains SherpaMetaData already"):
        add_metadata(tagged, PLACE)


@pytest.mark.parametrize("part", ["predictor", "joint"])
def test_another_network_has_no_type(lstm: LstmNetworks, part: str) -> None:
    with pytest.raises(StepError, match="contains no LSTM layer, so it is not an LSTM transducer's encoder") as raised:
        add_metadata(read_param(find_net(lstm.converted(part))[0]), PLACE)
    assert raised.value.fix.startswith("sherpa-ncnn has a type for ConvEmformer, Zipformer and LSTM transducers only")


def test_a_prediction_network_of_lstms_is_no_encoder(encoder: ParamFile) -> None:
    lstm = next(layer for layer in encoder.layers if layer.type == "LSTM")
    ends = ("in0", "in1", "in2"), ("out0", "out1", "out2")
    inputs = tuple(Layer("Input", name, (), (name,), {}) for name in ends[0])
    predictor = ParamFile((*inputs, replace(lstm, inputs=ends[0], outputs=ends[1])))
    with pytest.raises(StepError, match="has the inputs in0, in1, in2 and no out3, so it is not an LSTM tr"):
        add_metadata(predictor, PLACE)


@pytest.mark.parametrize("change", [{3: HIDDEN * 2}, {2: 1}])
def test_layers_that_differ_or_run_backwards_have_no_type(encoder: ParamFile, change: dict[int, int]) -> None:
    layers = list(encoder.layers)
    number = next(number for number, layer in enumerate(layers) if layer.type == "LSTM")
    layers[number] = replace(layers[number], params={**layers[number].params, **change})
    with pytest.raises(StepError, match="its 3 LSTM layers are not all of one size and forward in time"):
        derive_metadata(ParamFile(tuple(layers)), PLACE)
