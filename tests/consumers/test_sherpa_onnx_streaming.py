"""sherpa-onnx, as its users install it, streams from the layout and gives the texts of our own loop."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import kaldi_native_fbank
import numpy as np
import numpy.typing as npt
import onnx
import pytest

from artifacts.speech.corpus import SAMPLE_RATE_HZ, Corpus
from artifacts.speech.decoding import detokenize, read_decoding, read_vocabulary
from artifacts.speech.greedy import Greedy
from artifacts.speech.streaming_encoder import StreamingEncoder
from artifacts.speech.transducer import SeparateTransducer
from artifacts.speech.word_error_rate import count_errors, sum_errors
from streaming_targets import ROOT, measurement_inputs, streaming

SLICES = ("clean", "soft_endings")
TAIL_SECONDS = 1.3  # more than a window, so that the last word is decoded
WINDOW, SHIFT = 121, 112


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout, carried to another place."""
    streaming("sherpa-onnx-streaming")
    layout = ROOT / "dist" / "tiny-streaming" / "sherpa-onnx-streaming"
    return Path(shutil.copytree(layout, tmp_path_factory.mktemp("elsewhere") / "model"))


def stream(folder: Path, clips: list[Path], cwd: Path) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).parent / "stream_with_sherpa_onnx.py"
    command = [sys.executable, str(script), str(folder), str(TAIL_SECONDS)]
    lines = "".join(f"{clip}\n" for clip in clips)
    return subprocess.run(command, cwd=cwd, input=lines, capture_output=True, text=True, timeout=600)


def clips_of(speech: Corpus) -> list[tuple[Path, str]]:
    """Each clip of the slices with its text."""
    chosen = [utterance for utterance in speech.utterances if utterance.slice in SLICES]
    return [(speech.folder / utterance.clips[0], utterance.text) for utterance in chosen]


@pytest.fixture(scope="module")
def theirs(folder: Path, speech: Corpus, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What sherpa-onnx makes of each clip."""
    done = stream(folder, [clip for clip, _ in clips_of(speech)], tmp_path_factory.mktemp("cwd"))
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def sherpa_onnx_features(waveform: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """`[1, 128, T]`: what sherpa-onnx makes of samples for NeMo's models, by the library that it is built on.

    Not quite what the model was trained with: half a hop later, with another floor under the logarithm.
    """
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = SAMPLE_RATE_HZ
    options.frame_opts.dither = 0
    options.frame_opts.snip_edges = False
    options.frame_opts.remove_dc_offset = False
    options.frame_opts.window_type = "hann"
    options.mel_opts.num_bins = 128
    options.mel_opts.low_freq = 0
    options.mel_opts.high_freq = 8000
    options.mel_opts.is_librosa = True
    computer = kaldi_native_fbank.OnlineFbank(options)
    computer.accept_waveform(SAMPLE_RATE_HZ, waveform.tolist())
    computer.input_finished()
    frames = np.stack([computer.get_frame(index) for index in range(computer.num_frames_ready)])
    return frames.T[np.newaxis]


@pytest.fixture(scope="module")
def ours(speech: Corpus) -> list[str]:
    """Texts of our own loop for each clip, with sherpa-onnx's features and windows."""
    inputs = measurement_inputs("streaming_encoder_batch_first")
    decoding = read_decoding(inputs["model_meta"] / "model_meta.json")
    pieces = read_vocabulary(inputs["tokens"] / "vocab.txt", decoding)
    networks = (next(inputs[name].glob("*.onnx")) for name in ("predictor", "joint"))
    greedy = Greedy(SeparateTransducer(*networks, 1, decoding.blank_id), decoding)
    model = inputs["encoder"] / "encoder-model.onnx"
    schedule = StreamingEncoder(model, 1).schedule
    schedule = replace(schedule, first_chunk_frames=WINDOW, first_shift_frames=WINDOW, output_frames=WINDOW)
    encoder = StreamingEncoder(model, 1, schedule)
    texts = []
    silence = np.zeros(int(TAIL_SECONDS * SAMPLE_RATE_HZ), np.float32)
    for utterance in speech.utterances:
        if utterance.slice in SLICES:
            features = sherpa_onnx_features(np.concatenate([speech.waveform(utterance), silence]))
            windows = -(-(features.shape[2] - WINDOW) // SHIFT)  # a window is run when more than it has come in
            greedy.start()
            for frames in encoder.chunks(features, np.array([WINDOW + SHIFT * (windows - 1)])):
                greedy.accept(frames)
            texts.append(detokenize(pieces, greedy.tokens))
    return texts


def wer_percent(speech: Corpus, texts: list[str]) -> float:
    pairs = zip(clips_of(speech), texts, strict=True)
    return sum_errors(
        count_errors(said, text, ignore_case_and_punctuation=False) for (_, said), text in pairs
    ).wer_percent


def test_it_gives_the_texts_of_our_own_loop(
    theirs: list[str], ours: list[str], speech: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    same = sum(their.strip() == text for their, text in zip(theirs, ours, strict=True))
    theirs_wer, our_wer = wer_percent(speech, theirs), wer_percent(speech, ours)
    with capsys.disabled():
        print(f"\n  sherpa-onnx streaming: WER {theirs_wer:.2f} %, ours {our_wer:.2f} %, {same} of {len(theirs)} equal")
    assert same == len(theirs)
    assert theirs_wer <= 25


@pytest.mark.parametrize(
    "key",
    [
        "vocab_size",
        "window_size",
        "chunk_shift",
        "subsampling_factor",
        "normalize_type",
        "pred_rnn_layers",
        "pred_hidden",
        "cache_last_channel_dim1",
        "cache_last_time_dim3",
    ],
)
def test_each_key_that_is_written_is_needed(key: str, folder: Path, speech: Corpus, tmp_path: Path) -> None:
    changed = Path(shutil.copytree(folder, tmp_path / "model"))
    (changed / "encoder.onnx").chmod(0o644)
    model = onnx.load(changed / "encoder.onnx")
    kept = [entry for entry in model.metadata_props if entry.key != key]
    assert len(kept) == len(model.metadata_props) - 1
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    (changed / "encoder.onnx").write_bytes(model.SerializeToString())
    done = stream(changed, [clips_of(speech)[0][0]], tmp_path)
    assert done.returncode != 0 or key == "normalize_type"
    assert key in done.stderr or key == "normalize_type"
