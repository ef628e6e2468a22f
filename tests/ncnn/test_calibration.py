from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from artifacts.errors import StepError
from artifacts.ncnn.calibration import (
    FLUSH_NUMBERS,
    BlobHistogram,
    ObservedNet,
    begin_second_pass,
    best_threshold,
    kl_scale,
    require_calibrated_layers,
    split_sources,
    write_tables,
)
from artifacts.ncnn.int8_layers import weight_scales
from artifacts.ncnn.param_file import Layer, ParamFile, find_net, read_param
from artifacts.ncnn.runtime import Net
from artifacts.ncnn.tdt_transducer import NcnnEncoder, NcnnTransducer
from artifacts.ncnn.weights_file import read_weights
from artifacts.speech.decoding import read_decoding
from artifacts.speech.greedy import decode
from ncnn_conversions import Array, Parts

BINS, LEVELS, EPSILON = 2048, 128, 1e-4  # those of ncnn's own calibrators

Histogram = npt.NDArray[np.uint64]


@pytest.fixture(scope="module")
def chunks(one_utterance: Array) -> list[Array]:
    """Real features in chunks, with more numbers than are collected before they are counted."""
    found = [np.ascontiguousarray(each) for each in np.array_split(one_utterance, 3, axis=1)]
    assert sum(each.size for each in found) * 32 > FLUSH_NUMBERS
    return found


def run_twice(net: ObservedNet, first: list[Array], second: list[Array] | None = None) -> ObservedNet:
    for chunk in first:
        net.run({"in0": chunk})
    net.begin_second_pass()
    for chunk in first if second is None else second:
        net.run({"in0": chunk})
    return net


def test_the_table_has_the_scales_of_what_the_layers_read(parts: Parts, chunks: list[Array]) -> None:
    param, weights_path = find_net(parts.folder("head"))
    table = run_twice(ObservedNet(param, weights_path), chunks).table("kl")
    layers = [layer for layer in read_param(param).layers if layer.type in ("Convolution", "ConvolutionDepthWise")]
    assert list(table.activations) == [layer.name for layer in layers]
    assert len(layers) == 5
    weights = read_weights(read_param(param), weights_path)
    plain = Net(param, weights_path)
    for layer in layers:
        (blob,) = layer.inputs
        numbers = np.abs(np.concatenate([plain.run({"in0": chunk}, [blob])[blob].reshape(-1) for chunk in chunks]))
        bins = np.minimum((numbers[numbers > 0] / numbers.max() * np.float32(BINS)).astype(int), BINS - 1)
        histogram = np.bincount(bins, minlength=BINS).astype(np.uint64)
        assert table.activations[layer.name] == float(kl_scale(histogram, float(numbers.max())))
        scales = table.weight_scales(layer.name)
        assert scales is not None
        assert np.array_equal(scales, weight_scales(layer, weights[layer.name]))


def test_observing_changes_no_output(parts: Parts, chunks: list[Array]) -> None:
    observed, plain = (kind(*find_net(parts.folder("head"))) for kind in (ObservedNet, Net))
    got, want = observed.run({"in0": chunks[0]}), plain.run({"in0": chunks[0]})
    assert list(got) == list(want) == ["out0"]
    assert np.array_equal(got["out0"], want["out0"])
    assert list(observed.run({"in0": chunks[0]}, ["5"])) == ["5"]


def test_other_speech_in_the_second_pass_is_an_error_with_the_layer(parts: Parts, chunks: list[Array]) -> None:
    net = run_twice(ObservedNet(*find_net(parts.folder("head"))), chunks, [*chunks[1:], chunks[0]])
    with pytest.raises(StepError, match=r"head\.ncnn\.param: layer 'convrelu_0': blob '3': the second pass"):
        net.table("kl")


def test_numbers_that_are_not_finite_are_an_error_with_the_blob(parts: Parts, chunks: list[Array]) -> None:
    net = ObservedNet(*find_net(parts.folder("head")))
    net.run({"in0": chunks[0] * np.float32(np.nan)})
    with pytest.raises(StepError, match=r"head\.ncnn\.param: blob '3': NaN or infinity"):
        net.begin_second_pass()


def test_a_network_without_such_layers_has_no_table(parts: Parts) -> None:
    net = ObservedNet(*find_net(parts.folder("predictor")))
    assert net.layers == ()
    state = np.zeros((2, 96), np.float32)
    assert set(net.run({"in0": np.array([1], np.int32), "in1": state, "in2": state})) == {"out0", "out1", "out2"}
    assert net.table("kl").activations == {}
    with pytest.raises(StepError, match=r"^predictor: 0 convolutions and InnerProducts with float weights"):
        require_calibrated_layers({"predictor": net}, [parts.folder("predictor")])


def test_each_network_with_such_layers_gets_a_file(parts: Parts, chunks: list[Array], tmp_path: Path) -> None:
    nets = {part: ObservedNet(*find_net(parts.folder(part))) for part in ("head", "predictor")}
    require_calibrated_layers(nets, [])
    nets["head"].run({"in0": chunks[0]})
    begin_second_pass(nets)
    nets["head"].run({"in0": chunks[0]})
    assert write_tables(nets, "absmax", tmp_path) == {"head_layers": 5, "predictor_layers": 0}
    assert [path.name for path in tmp_path.iterdir()] == ["head.table"]


def test_copies_of_a_blob_are_recorded_once() -> None:
    split = [
        Layer("Split", "a", ("x",), ("x1", "x2"), {}),
        Layer("Split", "b", ("x2",), ("x3", "x4"), {}),
        Layer("ReLU", "c", ("x4",), ("y",), {}),
    ]
    assert split_sources(ParamFile(tuple(split))) == {"x1": "x", "x2": "x", "x3": "x", "x4": "x"}


@pytest.fixture(scope="module")
def frames(tdt: dict[str, Path], one_utterance: Array) -> Array:
    """Encoder frames [T', D] of real speech."""
    return NcnnEncoder(tdt["encoder"], threads=1).frames(one_utterance[np.newaxis], np.array([one_utterance.shape[1]]))


def test_an_observed_encoder_gives_the_same_frames_and_a_table_of_its_convolutions(
    tdt: dict[str, Path], one_utterance: Array, frames: Array
) -> None:
    net = ObservedNet(*find_net(tdt["encoder"]))
    encoder = NcnnEncoder(tdt["encoder"], net=net)
    assert [layer.type for layer in net.layers].count("Convolution") == 3
    for _ in range(2):
        got = encoder.frames(one_utterance[np.newaxis], np.array([one_utterance.shape[1]]))
        assert np.array_equal(got, frames)
        net.begin_second_pass()
    assert len(net.table("kl").activations) == 5


def test_an_observed_joint_decodes_the_same_tokens_and_gives_a_table(
    tdt: dict[str, Path], frames: Array, model_meta: Path
) -> None:
    decoding = read_decoding(model_meta / "model_meta.json")
    want = decode(NcnnTransducer(tdt["predictor"], tdt["joint"], decoding.blank_id), frames, decoding)
    net = ObservedNet(*find_net(tdt["joint"]))
    transducer = NcnnTransducer(tdt["predictor"], tdt["joint"], decoding.blank_id, joint_net=net)
    for _ in range(2):
        assert decode(transducer, frames, decoding) == want
        net.begin_second_pass()
    assert len(want) > 10
    table = net.table("absmax")
    first = net.layers[0]
    assert len(table.activations) == 3
    # The first linear layer reads the frames that were scored: no number is larger than the largest of all.
    assert table.activations[first.name] >= 127 / float(np.abs(frames).max()) * 0.999


def histogram_of(*passes: list[Array]) -> BlobHistogram:
    histogram = BlobHistogram("5")
    for number, arrays in enumerate(passes):
        for array in arrays:
            (histogram.count if number else histogram.find_largest)(array)
    return histogram


@pytest.fixture(scope="module")
def speech(one_utterance: Array) -> list[Array]:
    """Real features in chunks."""
    return [np.ascontiguousarray(each) for each in np.array_split(one_utterance, 7, axis=1)]


def test_magnitudes_are_counted_in_even_bins_up_to_the_largest(speech: list[Array]) -> None:
    histogram = histogram_of(speech, speech)
    everything = np.abs(np.concatenate([each.reshape(-1) for each in speech]))
    assert histogram.abs_max == everything.max()
    expected, _ = np.histogram(everything[everything > 0], BINS, (0, float(everything.max())))
    assert int(histogram.histogram.sum()) == np.count_nonzero(everything)
    # A magnitude on an edge may fall to either side, because bins are computed in float32.
    assert np.abs(histogram.histogram.astype(np.int64) - expected).sum() <= 4


def test_zeros_are_left_out_and_signs_do_not_count() -> None:
    numbers = np.array([0, 0, 1, -1, 2, -2, 0.5], np.float32)
    histogram = histogram_of([numbers], [numbers])
    assert {int(place): int(histogram.histogram[place]) for place in np.flatnonzero(histogram.histogram)} == {
        512: 1,
        1024: 2,
        2047: 2,
    }


def test_chunks_do_not_matter(speech: list[Array]) -> None:
    whole = [np.concatenate([each.reshape(-1) for each in speech])]
    assert (histogram_of(whole, whole).histogram == histogram_of(speech, speech).histogram).all()


def test_the_scale_comes_from_the_threshold_or_the_largest_magnitude(speech: list[Array]) -> None:
    histogram = histogram_of(speech, speech)
    assert histogram.scale("absmax") == pytest.approx(127 / float(histogram.abs_max))
    assert histogram.scale("kl") == float(kl_scale(histogram.histogram, float(histogram.abs_max)))
    assert histogram.scale("kl") >= histogram.scale("absmax") * 0.99


def test_passes_that_differ_are_an_error(speech: list[Array]) -> None:
    other = [*speech[:-1], speech[-1] * np.float32(0.5)]
    for second in (speech[:-1], [*speech, speech[0]], other, speech[::-1]):
        with pytest.raises(StepError, match="blob '5': the second pass over the corpus brought other numbers"):
            histogram_of(speech, second).scale("kl")


def test_numbers_that_are_not_finite_or_all_zero_are_an_error() -> None:
    with pytest.raises(StepError, match="blob '5': NaN or infinity"):
        histogram_of([np.array([1, np.nan], np.float32)])
    with pytest.raises(StepError, match="blob '5': NaN or infinity"):
        histogram_of([np.array([1, np.inf], np.float32)])
    zeros = [np.zeros(9, np.float32)]
    with pytest.raises(StepError, match=r"blob '5': is zero throughout the corpus \(largest magnitude 0\)"):
        histogram_of(zeros, zeros).scale("kl")


@pytest.fixture(scope="module")
def histograms(parts: Parts, one_utterance: Array) -> list[Histogram]:
    """Histograms of inputs of the encoder's layers on real speech: features, rectified, normalised and gated values."""
    net = Net(*find_net(parts.folder("head")))
    found = []
    for blob in ("3", "5", "9", "14", "15"):
        magnitudes = np.abs(net.run({"in0": one_utterance}, [blob])[blob])
        magnitudes = magnitudes[magnitudes > 0]
        found.append(np.histogram(magnitudes, BINS, (0, magnitudes.max()))[0].astype(np.uint64))
    return found


def divergence_by_definition(histogram: Histogram, threshold: int) -> float:
    """Divide every bin into 128 equal parts; a level has as many parts as the threshold has bins."""
    shares = (histogram / histogram.sum()).astype(np.float32).astype(np.float64)
    kept = shares[:threshold] + EPSILON
    kept[-1] += shares[threshold:].sum()
    parts = np.repeat(shares[:threshold] / LEVELS, LEVELS).reshape(LEVELS, threshold)
    means = parts.sum(axis=1) / (threshold / LEVELS)
    spread = np.repeat(means, threshold).reshape(threshold, LEVELS).mean(axis=1) + EPSILON
    return float((kept * np.log(kept / spread)).sum())


def test_the_threshold_is_the_one_that_the_definition_gives(histograms: list[Histogram]) -> None:
    for histogram in histograms[:2]:
        by_definition = [divergence_by_definition(histogram, threshold) for threshold in range(LEVELS, BINS)]
        assert best_threshold(histogram) == LEVELS + int(np.argmin(by_definition))


def test_no_other_threshold_is_better_by_the_definition(histograms: list[Histogram]) -> None:
    found = [best_threshold(histogram) for histogram in histograms]
    for histogram, threshold in zip(histograms, found, strict=True):
        best = divergence_by_definition(histogram, threshold)
        others = [divergence_by_definition(histogram, other) for other in range(LEVELS, BINS, 37)]
        assert all(best <= other for other in others)
    assert len(set(found)) > 2  # real activations differ


@pytest.mark.parametrize(
    ("make", "threshold"),
    [
        (lambda counts: counts[:100], 128),  # nothing is clipped below the first that is tried
        (lambda counts: counts[:500], 500),  # an even spread has no tail to give up
    ],
)
def test_a_histogram_without_a_tail_is_clipped_where_it_ends(
    make: Callable[[Histogram], Histogram], threshold: int
) -> None:
    histogram = np.zeros(BINS, np.uint64)
    make(histogram)[:] = 1000
    assert best_threshold(histogram) == threshold


def test_the_scale_makes_the_middle_of_the_last_bin_127(histograms: list[Histogram]) -> None:
    threshold = best_threshold(histograms[0])
    scale = kl_scale(histograms[0], 16.0)
    assert scale.dtype == np.float32
    assert scale * (threshold + 0.5) * 16 / 2048 == pytest.approx(127, rel=1e-6)
    assert kl_scale(histograms[0], 32.0) == pytest.approx(float(scale) / 2, rel=1e-6)
