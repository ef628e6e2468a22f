from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.nemo.streaming import StreamingOverrides, set_up_streaming
from artifacts.speech.corpus import read_corpus
from artifacts.speech.streaming_encoder import CACHES, INPUTS, OUTPUTS, StreamingEncoder
from artifacts.steps import export_streaming_encoder
from artifacts.steps.export_streaming_encoder import Params
from streaming_targets import CHECKPOINT, restored_streaming_model, stream_with_nemo, streaming

pytestmark = pytest.mark.slow

BOUND = 1e-4
MODEL = "encoder-model.onnx"


@pytest.mark.parametrize(
    ("params", "is_good"),
    [
        ({}, True),
        ({"opset": 20}, True),
        ({"opset": 16}, False),
        ({"layout": "batch_first"}, True),
        ({"layout": "time_first"}, False),
        ({"left_context": 70, "right_context": 6}, True),
        ({"left_context": 0}, False),
        ({"right_context": 0}, True),
        ({"right_context": -1}, False),
        ({"chunk_frames": 112, "shift_frames": 112, "cache_size": 70, "cache_drop_size": 0}, True),
        ({"chunk_frames": 0}, False),
        ({"shift_frames": 0}, False),
        ({"cache_size": 0}, False),
        ({"cache_size": 4001}, False),
        ({"cache_drop_size": -1}, False),
        ({"experimental": True}, True),
        ({"experimental": 1}, False),
        ({"chunk_seconds": 1.12}, False),
    ],
)
def test_params(params: dict[str, Any], is_good: bool) -> None:
    if is_good:
        Params.model_validate_json(json.dumps(params))
    else:
        with pytest.raises(ValidationError):
            Params.model_validate_json(json.dumps(params))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The checkpoint, restored."""
    return restored_streaming_model(tmp_path_factory.mktemp("unpacked"))


@pytest.fixture(scope="module")
def rows(model: Any, evaluation: Path) -> list[Any]:
    """Whole recordings of three lengths, the longest of 20 s, as NeMo's features: float32 [1, 128, T] each."""
    set_up_streaming(model, StreamingOverrides(), CHECKPOINT.name)
    corpus = read_corpus(evaluation, ("long_20s", "noisy_1db", "soft_endings"))
    waveforms = [torch.from_numpy(corpus.waveform(utterance))[None] for utterance in corpus.evenly_spread(1)]
    made = [model.preprocessor(input_signal=each, length=torch.tensor([each.shape[1]])) for each in waveforms]
    features = [each[:, :, : int(length[0])] for each, length in made]
    assert len({each.shape[2] for each in features}) == 3
    return sorted(features, key=lambda each: -each.shape[2])


def stream_with_graph(session: onnxruntime.InferenceSession, windows: Sequence[Any], layers_first: bool) -> Any:
    """The outputs of each window in turn, the caches carried on from one to the next."""
    rows = len(windows[0].length)
    caches = []
    for value in session.get_inputs()[2:]:
        shape = [dim if isinstance(dim, int) else rows for dim in value.shape]
        caches.append(np.zeros(shape, np.float32 if value.type == "tensor(float)" else np.int64))
    for step in windows:
        feeds = {"audio_signal": step.window.numpy(), "length": step.length.numpy()}
        output, lengths, *caches = session.run(OUTPUTS, {**feeds, **dict(zip(CACHES, caches, strict=True))})
        turned = [cache if layers_first else np.swapaxes(cache, 0, 1) for cache in caches[:2]]
        yield output, lengths, [*turned, caches[2]]


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize(
    ("target", "right_context"),
    [("streaming_encoder_fp32", 13), ("streaming_encoder_batch_first", 13), ("streaming_encoder_560ms", 6)],
)
def test_whole_recordings_are_streamed_exactly_as_nemo_streams_them(
    target: str, right_context: int, batch: int, model: Any, rows: list[Any]
) -> None:
    set_up_streaming(model, StreamingOverrides(right_context=right_context), CHECKPOINT.name)
    steps = stream_with_nemo(model, rows[:batch])
    session = onnxruntime.InferenceSession(streaming(target) / MODEL)
    assert len(steps) >= 15
    worst = 0.0
    results = stream_with_graph(session, steps, target != "streaming_encoder_batch_first")
    for step, (output, lengths, caches) in zip(steps, results, strict=True):
        assert output.shape == tuple(step.output.shape)
        assert lengths.tolist() == step.output_length.tolist()
        assert caches[2].tolist() == step.caches[2].tolist()
        for have, want in ((output, step.output), (caches[0], step.caches[0]), (caches[1], step.caches[1])):
            worst = max(worst, float(np.abs(have - want.numpy()).max()))
    assert worst < BOUND
    set_up_streaming(model, StreamingOverrides(), CHECKPOINT.name)


def test_our_own_way_through_a_recording_is_nemos_too(model: Any, rows: list[Any]) -> None:
    set_up_streaming(model, StreamingOverrides(), CHECKPOINT.name)
    encoder = StreamingEncoder(streaming("streaming_encoder_fp32") / MODEL, threads=1)
    for features in rows:
        steps = stream_with_nemo(model, [features])
        chunks = list(encoder.chunks(features.numpy(), np.array([features.shape[2]])))
        assert [len(chunk) for chunk in chunks] == [int(step.output_length[0]) for step in steps]
        for step, chunk in zip(steps, chunks, strict=True):
            assert np.abs(chunk.T - step.output.numpy()[0, :, : len(chunk)]).max() < BOUND


def test_the_chunks_together_are_what_the_whole_recording_gives(model: Any, rows: list[Any]) -> None:
    set_up_streaming(model, StreamingOverrides(), CHECKPOINT.name)
    encoder = StreamingEncoder(streaming("streaming_encoder_fp32") / MODEL, threads=1)
    for features in rows:
        whole, _ = model.encoder(audio_signal=features, length=torch.tensor([features.shape[2]]))
        streamed = np.concatenate(list(encoder.chunks(features.numpy(), np.array([features.shape[2]]))))
        assert len(streamed) >= whole.shape[2] - 1  # a rest of fewer than eight features is not encoded
        assert np.abs(streamed.T - whole[0, :, : len(streamed)].numpy()).max() < BOUND


@pytest.mark.parametrize("layout", ["layer_first", "batch_first"])
def test_inputs_and_outputs_are_named_typed_and_shaped_as_promised(layout: str) -> None:
    target = "streaming_encoder_fp32" if layout == "layer_first" else "streaming_encoder_batch_first"
    session = onnxruntime.InferenceSession(streaming(target) / MODEL)
    first: list[int | str] = [5, "batch"] if layout == "layer_first" else ["batch", 5]
    caches = {"cache_last_channel": [*first, 70, 96], "cache_last_time": [*first, 96, 8]}
    inputs = {"audio_signal": ["batch", 128, "frames"], "length": ["batch"], **caches}
    outputs = {"encoder_output": ["batch", 96, "encoder_frames"], "encoded_lengths": ["batch"]}
    outputs |= {f"{name}_out": shape for name, shape in caches.items()}
    assert {v.name: v.shape for v in session.get_inputs()} == {**inputs, "cache_last_channel_len": ["batch"]}
    assert {v.name: v.shape for v in session.get_outputs()} == {**outputs, "cache_last_channel_len_out": ["batch"]}
    assert [value.name for value in session.get_inputs()] == list(INPUTS)
    assert [value.name for value in session.get_outputs()] == list(OUTPUTS)
    counts = ("length", "cache_last_channel_len", "encoded_lengths", "cache_last_channel_len_out")
    for value in (*session.get_inputs(), *session.get_outputs()):
        assert value.type == ("tensor(int64)" if value.name in counts else "tensor(float)")


def test_there_is_one_valid_file_that_says_how_it_is_fed() -> None:
    folder = streaming("streaming_encoder_560ms")
    assert [path.name for path in folder.iterdir() if path.suffix != ".json"] == [MODEL]
    onnx.checker.check_model(str(folder / MODEL), full_check=True)
    entries = {each.key: each.value for each in onnx.load(folder / MODEL).metadata_props}
    assert entries["cache_layout"] == "layer_first"
    wanted = {"first_chunk_frames": 49, "chunk_frames": 56, "shift_frames": 56, "pre_encode_frames": 9}
    wanted |= {"output_frames": 7, "cache_size": 70, "left_context": 70, "right_context": 6, "subsampling_factor": 8}
    assert {key: int(entries[key]) for key in wanted} == wanted


SCRIPT = """
import json, sys
from pathlib import Path
from artifacts.steps.export_streaming_encoder import Params, run
Path(sys.argv[2]).mkdir()
print(json.dumps(run(Path(sys.argv[2]), Params(), checkpoint=Path(sys.argv[1]))))
"""


def test_the_same_bytes_come_out_elsewhere_and_the_differences_were_measured(tmp_path: Path) -> None:
    (tmp_path / "a place with a longer name").mkdir()
    environment = {**os.environ, "PYTHONHASHSEED": "4711", "OMP_NUM_THREADS": "2", "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-W", "error", "-c", SCRIPT, str(CHECKPOINT), "out"]
    cwd = tmp_path / "a place with a longer name"
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (cwd / "out").iterdir()] == [MODEL]
    assert (cwd / "out" / MODEL).read_bytes() == (streaming("streaming_encoder_fp32") / MODEL).read_bytes()
    metrics = json.loads(done.stdout)
    assert metrics.pop("latency_seconds") == 1.12
    assert set(metrics) == {f"{name}_max_abs_diff" for name in OUTPUTS if not name.endswith(("lengths", "len_out"))}
    assert all(0 < value < BOUND for value in metrics.values())


def test_an_offline_checkpoint_is_refused_unless_it_is_an_experiment(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"tiny\.nemo: attention spans the whole recording") as raised:
        export_streaming_encoder.run(tmp_path, Params(), checkpoint=tiny_checkpoint)
    assert "experimental: true" in raised.value.fix
    chosen = {"left_context": 70, "right_context": 13}
    with pytest.raises(StepError, match=r"context \[70, 13\]: it was trained with \[-1, -1\]"):
        export_streaming_encoder.run(tmp_path, Params(**chosen), checkpoint=tiny_checkpoint)
    assert list(tmp_path.iterdir()) == []
    params = Params(**chosen, experimental=True, layout="batch_first")
    metrics = export_streaming_encoder.run(tmp_path, params, checkpoint=tiny_checkpoint)
    assert metrics["encoder_output_max_abs_diff"] < BOUND
    shapes = {v.name: v.shape for v in onnxruntime.InferenceSession(tmp_path / MODEL).get_inputs()}
    assert shapes["cache_last_time"] == ["batch", 5, 96, 4]
