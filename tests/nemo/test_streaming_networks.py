from __future__ import annotations

from typing import Any

import pytest
import torch

from artifacts.nemo.streaming_networks import StreamingEncoderNetwork
from artifacts.nemo.streaming_schedule import Wishes, schedule
from artifacts.speech.corpus import read_corpus
from streaming_targets import restored_streaming_model, stream_with_nemo

LAYERS, CACHED, WIDTH, KERNEL_PAST = 5, 70, 96, 8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    restored = restored_streaming_model(tmp_path_factory.mktemp("unpacked"))
    schedule(restored, Wishes(), "tiny-streaming.nemo")
    return restored


@pytest.fixture(scope="module")
def features(model: Any, evaluation: Any) -> Any:
    """A sentence of five seconds as NeMo's features, float32 [1, 128, T]."""
    corpus = read_corpus(evaluation, ("clean",))
    longest = max(corpus.utterances, key=lambda utterance: utterance.duration)
    waveform = torch.from_numpy(corpus.waveform(longest))[None]
    signal, lengths = model.preprocessor(input_signal=waveform, length=torch.tensor([waveform.shape[1]]))
    return signal[:, :, : int(lengths[0])]


@pytest.mark.parametrize("layout", ["layer_first", "batch_first"])
@pytest.mark.parametrize("cached", [0, 5, CACHED])
def test_the_tables_say_what_goes_in_and_comes_out(model: Any, layout: Any, cached: int) -> None:
    network = StreamingEncoderNetwork(model, layout)
    sizes = {"batch": 2, "frames": 121, "cached": cached, "encoder_frames": 14 if cached else 16}
    inputs = network.sample(sizes, seed=0)
    for table, values in ((network.inputs, inputs), (network.outputs, network(*inputs))):
        shapes = [tuple(sizes[dim] if isinstance(dim, str) else dim for dim in dims) for dims in table.values()]
        assert [tuple(value.shape) for value in values] == shapes
    channel = (LAYERS, "batch", CACHED, WIDTH) if layout == "layer_first" else ("batch", LAYERS, CACHED, WIDTH)
    assert network.inputs["cache_last_channel"] == channel
    assert network.inputs["cache_last_time"][2:] == (WIDTH, KERNEL_PAST)


def test_a_sample_begins_a_stream_or_is_in_the_middle_of_one(model: Any) -> None:
    network = StreamingEncoderNetwork(model, "layer_first")
    begun = network.sample({"batch": 3, "frames": 105, "cached": 0}, seed=0)
    going_on = network.sample({"batch": 3, "frames": 121}, seed=0)
    assert begun[1].tolist() == [105, 84, 67]
    assert not begun[2].any()
    assert not begun[3].any()
    assert begun[4].tolist() == [0, 0, 0]
    assert going_on[2].all()
    assert going_on[4].tolist() == [70, 69, 68]


@pytest.mark.parametrize("layout", ["layer_first", "batch_first"])
def test_a_sentence_is_streamed_exactly_as_nemo_does(model: Any, features: Any, layout: Any) -> None:
    network = StreamingEncoderNetwork(model, layout)
    caches = list(network.first_caches(1).values())
    steps = stream_with_nemo(model, [features])
    assert len(steps) >= 4
    for step in steps:
        output, length, *caches = network(step.window, step.length, *caches)
        channel, time = (cache if layout == "layer_first" else cache.transpose(0, 1) for cache in caches[:2])
        assert torch.equal(length, step.output_length)
        torch.testing.assert_close(output, step.output, atol=1e-5, rtol=0)
        torch.testing.assert_close(channel, step.caches[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(time, step.caches[1], atol=1e-5, rtol=0)
        assert torch.equal(caches[2], step.caches[2])


def test_the_chunks_of_a_sentence_are_those_of_the_whole(model: Any, features: Any) -> None:
    whole, _ = model.encoder(audio_signal=features, length=torch.tensor([features.shape[2]]))
    network = StreamingEncoderNetwork(model, "layer_first")
    caches = list(network.first_caches(1).values())
    outputs = []
    for step in stream_with_nemo(model, [features]):
        output, _, *caches = network(step.window, step.length, *caches)
        outputs.append(output)
    streamed = torch.cat(outputs, dim=2)
    assert streamed.shape[2] >= whole.shape[2] - 1  # a rest of fewer than eight features is not encoded
    torch.testing.assert_close(streamed, whole[:, :, : streamed.shape[2]], atol=1e-4, rtol=0)


def test_only_a_window_behind_empty_caches_keeps_its_first_frames(model: Any, features: Any) -> None:
    network = StreamingEncoderNetwork(model, "layer_first")
    window, length = features[:, :, :121], torch.tensor([121])
    first, first_length, *caches = network(window, length, *network.first_caches(1).values())
    later, later_length, *_ = network(window, length, *caches)
    assert (first.shape[2], first_length.tolist()) == (16, [16])
    assert (later.shape[2], later_length.tolist()) == (14, [14])


def test_a_row_that_joins_streams_that_have_begun_loses_frames_and_changes_nothing_for_them(
    model: Any, features: Any
) -> None:
    network = StreamingEncoderNetwork(model, "layer_first")
    window, length = features[:, :, :121], torch.tensor([121])
    _, _, *caches = network(window, length, *network.first_caches(1).values())
    alone, *_ = network(window, length, *caches)
    fresh = list(network.first_caches(1).values())
    mixed = [torch.cat(pair, dim=dim) for pair, dim in zip(zip(caches, fresh, strict=True), (1, 1, 0), strict=True)]
    both, lengths, *_ = network(torch.cat([window, window]), torch.tensor([121, 121]), *mixed)
    assert lengths.tolist() == [14, 14]
    torch.testing.assert_close(both[:1], alone, atol=1e-5, rtol=0)
