from __future__ import annotations

from typing import Any

import pytest
import torch

from artifacts.errors import StepError
from artifacts.nemo.streaming import StreamingEncoderNetwork, StreamingOverrides, set_up_streaming
from artifacts.speech.corpus import read_corpus
from streaming_targets import restored_streaming_model, stream_with_nemo

NAME = "tiny-streaming.nemo"
LAYERS, CACHED, WIDTH, KERNEL_PAST = 5, 70, 96, 8


@pytest.fixture(scope="module")
def restored(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return restored_streaming_model(tmp_path_factory.mktemp("unpacked"))


@pytest.fixture
def model(restored: Any) -> Any:
    """The checkpoint, set up to stream as it was trained."""
    set_up_streaming(restored, StreamingOverrides(), NAME)
    return restored


@pytest.fixture
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


def test_the_checkpoints_own_schedule_is_nemos(model: Any) -> None:
    planned = set_up_streaming(model, StreamingOverrides(), NAME)
    settings = model.encoder.streaming_cfg
    assert [planned.first_chunk_frames, planned.chunk_frames] == settings.chunk_size == [105, 112]
    assert [planned.first_shift_frames, planned.shift_frames] == settings.shift_size == [105, 112]
    assert [0, planned.pre_encode_frames] == settings.pre_encode_cache_size == [0, 9]
    assert [planned.first_least_frames, planned.least_frames] == model.encoder.pre_encode.get_sampling_frames()
    assert (planned.cache_size, planned.cache_drop_size, planned.output_frames) == (70, 0, 14)
    assert planned.metadata["chunk_frames"] == "112"


def test_nemos_own_way_to_choose_a_context_gives_the_same_settings(model: Any) -> None:
    for context in ([70, 6], [70, 13]):
        model.encoder.set_default_att_context_size(context)
        wanted = model.encoder.streaming_cfg
        set_up_streaming(model, StreamingOverrides(right_context=context[1]), NAME)
        assert model.encoder.streaming_cfg == wanted
        assert model.encoder.att_context_size == context


@pytest.mark.parametrize(
    ("overrides", "chunk", "shift", "cache"),
    [
        (StreamingOverrides(right_context=6), 56, 56, 70),
        (StreamingOverrides(left_context=70, right_context=6), 56, 56, 70),
        (StreamingOverrides(right_context=6, chunk_frames=112), 112, 112, 70),
        (StreamingOverrides(cache_size=84), 112, 112, 84),
        (StreamingOverrides(experimental=True, shift_frames=56), 112, 56, 70),
        (StreamingOverrides(experimental=True, left_context=28, right_context=3), 32, 32, 28),
        (StreamingOverrides(experimental=True, chunk_frames=40), 40, 40, 70),
    ],
)
def test_overrides_are_followed(model: Any, overrides: StreamingOverrides, chunk: int, shift: int, cache: int) -> None:
    planned = set_up_streaming(model, overrides, NAME)
    assert (planned.chunk_frames, planned.shift_frames, planned.cache_size) == (chunk, shift, cache)
    assert planned.cache_drop_size == (chunk - shift) // 8
    steps = stream_with_nemo(model, [torch.zeros(1, 128, 3 * chunk)])
    assert steps[1].window.shape[2] == chunk + 9
    assert steps[0].caches[0].shape[2] == cache


@pytest.mark.parametrize(
    ("overrides", "fact"),
    [
        (StreamingOverrides(right_context=4), r"context \[70, 4\]: it was trained with \[70, 13\], \[70, 6\]"),
        (StreamingOverrides(left_context=14), r"context \[14, 13\]: it was trained with"),
        (StreamingOverrides(chunk_frames=100), "chunk_frames: must be a multiple of 8, got 100"),
        (StreamingOverrides(chunk_frames=56), "chunk_frames 56, .*not what it was trained with"),
        (StreamingOverrides(shift_frames=56), "shift_frames 56, .*not what it was trained with"),
        (StreamingOverrides(cache_size=56), "cache_size 56, .*not what it was trained with"),
        (StreamingOverrides(cache_size=71), "cache_size 71, .*not what it was trained with"),
        (StreamingOverrides(cache_drop_size=1), "cache_drop_size 1: not what it was trained with"),
        (StreamingOverrides(experimental=True, shift_frames=224), "the shift or the drop exceeds the chunk"),
        (StreamingOverrides(experimental=True, cache_drop_size=14), "the shift or the drop exceeds the chunk"),
    ],
)
def test_sizes_that_were_not_trained_are_refused(model: Any, overrides: StreamingOverrides, fact: str) -> None:
    with pytest.raises(StepError, match=fact):
        set_up_streaming(model, overrides, NAME)


def test_an_offline_checkpoint_is_refused_with_the_reasons(restored_model: Any) -> None:
    with pytest.raises(StepError, match=r"attention spans the whole recording \(att_context_size \[-1, -1\]\)"):
        set_up_streaming(restored_model, StreamingOverrides(), "tiny.nemo")


def test_each_reason_why_a_checkpoint_is_offline_is_named(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.encoder, "conv_context_size", [4, 4])
    with pytest.raises(StepError, match=r"convolutions look ahead \(conv_context_size \[4, 4\]\); it was"):
        set_up_streaming(model, StreamingOverrides(), NAME)
    monkeypatch.undo()
    monkeypatch.setattr(model.encoder, "att_context_style", "regular")
    with pytest.raises(StepError, match=r"attention is not in chunks \(att_context_style 'regular'\); it was"):
        set_up_streaming(model, StreamingOverrides(), NAME)
    monkeypatch.undo()
    monkeypatch.setitem(model.cfg.encoder, "causal_downsampling", False)
    with pytest.raises(StepError, match=r"subsampling looks ahead \(causal_downsampling false\); it was"):
        set_up_streaming(model, StreamingOverrides(), NAME)
    monkeypatch.undo()
    monkeypatch.setitem(model.cfg.preprocessor, "normalize", "per_feature")
    with pytest.raises(StepError, match=r"normalised over the whole recording \(normalize 'per_feature'\); it was"):
        set_up_streaming(model, StreamingOverrides(), NAME)
