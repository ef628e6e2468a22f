from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from artifacts.errors import StepError
from artifacts.speech.buffered import BufferedFrontend, Buffering, FrameSize, Window, read_frame_size
from artifacts.speech.corpus import read_corpus
from artifacts.speech.decoding import read_decoding
from artifacts.speech.frontend import OnnxEncoder, Preprocessor
from artifacts.speech.greedy import decode
from artifacts.speech.transducer import FusedTransducer

if TYPE_CHECKING:
    from numpy.typing import NDArray

FRAME = FrameSize(hop_samples=160, subsampling_factor=8)


def buffering(chunk: int, left: int, right: int) -> Buffering:
    return Buffering(FRAME, chunk=chunk, left=left, right=right)


def halved_thrice(samples: int) -> int:
    """The frames of a whole recording: each convolution of the subsampling halves the features and rounds up."""
    features = samples // 160
    for _ in range(3):
        features = (features + 1) // 2
    return max(1, features)


LENGTHS = [
    *(frames * 1280 + more for frames in (0, 1, 7, 8, 12, 13, 50) for more in (0, 1, 159, 160, 161, 1120, 1279)),
    1_234_567,
]


@pytest.mark.parametrize(
    ("chunk", "left", "right"), [(1, 0, 0), (1, 3, 2), (4, 0, 1), (4, 9, 4), (5, 2, 0), (60, 9, 9)]
)
def test_each_frame_is_kept_once_and_in_order_whatever_the_length(chunk: int, left: int, right: int) -> None:
    for samples in LENGTHS:
        kept: list[int] = []
        windows = list(buffering(chunk, left, right).windows(samples))
        for window in windows:
            assert window.samples.start % 1280 == 0
            assert 0 <= window.samples.start <= window.samples.stop <= samples
            assert window.frames == halved_thrice(window.samples.stop - window.samples.start)
            assert 0 <= window.kept.start < window.kept.stop <= window.frames
            assert window.kept.start == min(left, len(kept)), "no less context, and no more"
            begin = window.samples.start // 1280
            kept += range(begin + window.kept.start, begin + window.kept.stop)
        assert kept == list(range(halved_thrice(samples))), samples
        for window in windows[:-1]:
            assert window.kept.stop - window.kept.start == chunk
            assert window.frames - window.kept.stop == right
        assert windows[-1].samples.stop == samples
        assert windows[-1].kept.stop == windows[-1].frames


def test_the_windows_of_a_recording_of_thirty_frames() -> None:
    frames = 1280
    assert list(buffering(chunk=10, left=5, right=3).windows(30 * frames)) == [
        Window(slice(0, 13 * frames), 13, slice(0, 10)),
        Window(slice(5 * frames, 23 * frames), 18, slice(5, 15)),
        Window(slice(15 * frames, 30 * frames), 15, slice(5, 15)),
    ]
    # The frames behind the last whole chunk need no window of their own: the one before sees all of them.
    assert [window.kept for window in buffering(10, 5, 3).windows(23 * frames)] == [slice(0, 10), slice(5, 18)]
    assert len(list(buffering(10, 5, 3).windows(23 * frames + 159))) == 2
    assert len(list(buffering(10, 5, 3).windows(23 * frames + 160))) == 3


def test_latency_is_chunk_and_right_context_and_left_context_is_computing() -> None:
    assert buffering(chunk=25, left=125, right=25).latency_seconds == 4.0
    assert buffering(chunk=4, left=50, right=8).latency_seconds == 0.96
    assert buffering(chunk=25, left=125, right=25).encoded_times == 7.0
    assert buffering(chunk=4, left=50, right=8).encoded_times == 15.5


@pytest.fixture(scope="module")
def preprocess(preprocessor: Path) -> Preprocessor:
    return Preprocessor(preprocessor / "preprocessor.onnx", threads=1)


@pytest.fixture(scope="module")
def encode(encoder_fp32: Path) -> OnnxEncoder:
    return OnnxEncoder(encoder_fp32 / "encoder-model.onnx", threads=1)


@pytest.fixture(scope="module")
def speech(evaluation: Path) -> list[NDArray[np.float32]]:
    """One recording of each slice, up to 30 seconds."""
    corpus = read_corpus(evaluation)
    return [corpus.waveform(utterance) for utterance in corpus.evenly_spread(1) if utterance.duration < 30]


def test_a_chunk_as_long_as_the_recording_gives_the_whole_recording(
    preprocess: Preprocessor, encode: OnnxEncoder, speech: list[NDArray[np.float32]]
) -> None:
    one_window = BufferedFrontend(preprocess, encode, buffering(chunk=400, left=0, right=0))
    for waveform in speech:
        np.testing.assert_array_equal(one_window.frames(waveform), encode.frames(*preprocess.features(waveform)))


@pytest.mark.parametrize("more", [0, 1, 159, 160, 640, 1279])
def test_chunks_have_together_as_many_frames_as_the_whole(
    preprocess: Preprocessor, encode: OnnxEncoder, speech: list[NDArray[np.float32]], more: int
) -> None:
    for frames in (1, 12, 24, 25):
        waveform = speech[0][: frames * 1280 + more]
        whole = encode.frames(*preprocess.features(waveform))
        for cut in (buffering(6, 10, 3), buffering(6, 0, 0), buffering(1, 4, 1)):
            chunks = list(BufferedFrontend(preprocess, encode, cut).chunks(waveform))
            assert sum(map(len, chunks)) == len(whole)
            assert all(len(chunk) == cut.chunk for chunk in chunks[:-1])
            assert 0 < len(chunks[-1]) <= cut.chunk + cut.right


def test_frames_of_a_stream_stand_where_those_of_the_whole_recording_do(
    preprocess: Preprocessor, encode: OnnxEncoder, speech: list[NDArray[np.float32]]
) -> None:
    """Each is more like the frame at its own place than like the one before or after it: nothing is shifted."""
    stream = BufferedFrontend(preprocess, encode, buffering(chunk=12, left=50, right=12))
    own = either_side = 0
    for waveform in speech:
        whole = encode.frames(*preprocess.features(waveform))
        frames = stream.frames(waveform)
        distances = [
            np.linalg.norm(frames[1:-1] - whole[1 + shift : len(whole) - 1 + shift], axis=1) for shift in (-1, 0, 1)
        ]
        own += int((np.argmin(distances, axis=0) == 1).sum())
        either_side += int((np.argmin(distances, axis=0) != 1).sum())
    assert own / (own + either_side) > 0.98


def test_a_chunk_is_what_the_encoder_gives_for_its_window_alone(
    preprocess: Preprocessor, encode: OnnxEncoder, speech: list[NDArray[np.float32]]
) -> None:
    waveform = speech[-1]
    chunks = list(BufferedFrontend(preprocess, encode, buffering(chunk=10, left=20, right=5)).chunks(waveform))
    window = waveform[10 * 1280 : 45 * 1280]
    np.testing.assert_array_equal(chunks[3], encode.frames(*preprocess.features(window))[20:30])


def decode_chunks_with_nemo(
    model: Any, chunks: list[NDArray[np.float32]], max_symbols: int
) -> tuple[list[int], list[int]]:
    """NeMo's own decoding, chunk by chunk with its state: the tokens, and the frames that each chunk leaves to skip."""
    import torch

    computer = model.decoding.decoding.decoding_computer
    computer.max_symbols = max_symbols
    state = None
    tokens: list[int] = []
    skipped: list[int] = []
    with torch.inference_mode():
        for chunk in chunks:
            hypotheses, state = computer(
                x=torch.from_numpy(chunk[np.newaxis].copy()),
                out_len=torch.tensor([len(chunk)]),
                prev_batched_state=state,
            )
            tokens += hypotheses.transcript[0, : int(hypotheses.current_lengths[0])].tolist()
            skipped.append(int(state.time_jumps[0]))
    return tokens, skipped


def test_chunks_joined_are_decoded_as_nemo_decodes_them_one_by_one_with_its_state(
    nemo_model: Any,
    preprocess: Preprocessor,
    encode: OnnxEncoder,
    speech: list[NDArray[np.float32]],
    decoder_joint_fp32: Path,
    model_meta: Path,
) -> None:
    decoding = read_decoding(model_meta / "model_meta.json")
    transducer = FusedTransducer(decoder_joint_fp32 / "decoder_joint-model.onnx", 1, decoding.blank_id)
    stream = BufferedFrontend(preprocess, encode, buffering(chunk=3, left=50, right=6))
    jumps: list[int] = []
    for waveform in speech[:5]:
        chunks = list(stream.chunks(waveform))
        tokens, skipped = decode_chunks_with_nemo(nemo_model, chunks, decoding.max_symbols)
        assert decode(transducer, np.concatenate(chunks), decoding) == tokens
        assert [token for chunk in chunks for token in decode(transducer, chunk, decoding)] != tokens, "begun afresh"
        jumps += skipped[:-1]
    assert sum(jump > 0 for jump in jumps) > 10, "durations that reach into the next chunk"


@pytest.mark.parametrize(
    ("seconds", "frames"), [(0.08, 1), (0.56, 7), (2.0, 25), (10.08, 126), (0, 0), (0.24, 3), (4, 50)]
)
def test_seconds_are_counted_in_frames(seconds: float, frames: int) -> None:
    assert FRAME.count("chunk", seconds) == frames


@pytest.mark.parametrize(
    ("seconds", "fix"), [(0.1, "give 0.08 or 0.16"), (0.05, "give 0.08"), (1, "give 0.96 or 1.04"), (0.0801, "0.08 or")]
)
def test_seconds_between_frames_are_refused(seconds: float, fix: str) -> None:
    with pytest.raises(StepError) as raised:
        FRAME.count("chunk", seconds)
    fact = f"chunk: {seconds:g} s is not a whole number of encoder frames, which are 0.08 s apart"
    assert raised.value.fact == fact
    assert fix in raised.value.fix


def test_the_size_of_frames_is_read_from_the_checkpoints_own_description(model_meta: Path) -> None:
    assert read_frame_size(model_meta / "model_meta.json") == FRAME
    assert FRAME.seconds == 0.08


@pytest.mark.parametrize(
    ("meta", "fact"),
    [
        ({"subsampling_factor": 8}, "features.hop_length: is missing"),
        ({"subsampling_factor": 8, "features": {"hop_length": 0}}, "features.hop_length: expected a number above 0, "),
        ({"features": {"hop_length": 160}}, "subsampling_factor: is missing"),
    ],
)
def test_a_description_without_the_size_of_frames_is_refused(tmp_path: Path, meta: dict[str, Any], fact: str) -> None:
    (tmp_path / "model_meta.json").write_text(json.dumps(meta), encoding="utf-8")
    with pytest.raises(StepError, match=re.escape(f"model_meta.json: {fact}")):
        read_frame_size(tmp_path / "model_meta.json")


def test_an_encoder_with_other_frames_than_its_description_is_refused(
    preprocess: Preprocessor, encode: OnnxEncoder, speech: list[NDArray[np.float32]]
) -> None:
    stream = BufferedFrontend(preprocess, encode, Buffering(FrameSize(160, 4), chunk=10, left=0, right=0))
    fact = r"gives 5 frames for 40 features; model_meta\.json says 10, which are 0\.04 s apart"
    with pytest.raises(StepError, match=fact):
        stream.frames(speech[0])
