from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from artifacts.asr.corpus import read_corpus
from artifacts.asr.decoding import Decoding, read_decoding
from artifacts.asr.frontend import Encoder, Preprocessor
from artifacts.asr.greedy import decode
from artifacts.asr.streaming_greedy import StreamingGreedy, read_streaming_decoding
from artifacts.asr.transducer import SeparateTransducer
from artifacts.errors import StepError

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLANK = 3


class Scripted:
    """A transducer without durations that answers by frame, with as many tokens as it is asked there."""

    def __init__(self, script: dict[int, list[int]]) -> None:
        self.script = {frame: list(answers) for frame, answers in script.items()}
        self.asked: list[int] = []

    def start(self) -> None:
        self.asked.clear()

    def logits(self, frame: NDArray[np.float32]) -> NDArray[np.float32]:
        self.asked.append(int(frame[0]))
        answers = self.script[self.asked[-1]]
        scores = np.zeros(BLANK + 1, dtype=np.float32)
        scores[answers.pop(0) if len(answers) > 1 else answers[0]] = 1
        return scores

    def accept(self, token: int) -> None:
        pass


@pytest.mark.parametrize(
    ("script", "tokens", "asked"),
    [
        pytest.param({0: [BLANK], 1: [BLANK]}, [], [0, 1], id="a blank takes a frame"),
        pytest.param({0: [1, 2, BLANK], 1: [2, BLANK]}, [1, 2, 2], [0, 0, 0, 1, 1], id="a token takes none"),
        pytest.param({0: [1], 1: [BLANK]}, [1, 1, 1], [0, 0, 0, 1], id="max_symbols tokens end a frame"),
        pytest.param({0: [1], 1: [2]}, [1, 1, 1, 2, 2, 2], [0, 0, 0, 1, 1, 1], id="anew on the next"),
    ],
)
@pytest.mark.parametrize("chunks", [[2], [1, 1], [0, 2, 0]])
def test_the_rules_without_durations(
    script: dict[int, list[int]], tokens: list[int], asked: list[int], chunks: list[int]
) -> None:
    transducer = Scripted(script)
    greedy = StreamingGreedy(transducer, Decoding(BLANK, (), max_symbols=3))
    frames = np.arange(2, dtype=np.float32).reshape(2, 1)
    for start, size in zip(np.cumsum([0, *chunks]), chunks, strict=False):
        greedy.accept(frames[start : start + size])
    assert greedy.tokens == tokens
    assert transducer.asked == asked


@pytest.mark.parametrize("size", [1, 2, 3, 14, 10_000])
def test_durations_that_point_beyond_a_chunk_are_kept(
    size: int,
    evaluation: Path,
    preprocessor: Path,
    encoder_fp32: Path,
    predictor_fp32: Path,
    joint_fp32: Path,
    model_meta: Path,
) -> None:
    decoding = read_decoding(model_meta / "model_meta.json")
    networks = predictor_fp32 / "predictor-model.onnx", joint_fp32 / "joint-model.onnx"
    transducer = SeparateTransducer(*networks, 1, decoding.blank_id)
    preprocess = Preprocessor(preprocessor / "preprocessor.onnx", threads=1)
    encode = Encoder(encoder_fp32 / "encoder-model.onnx", threads=1)
    corpus = read_corpus(evaluation, ("clean", "noisy_1db"))
    greedy = StreamingGreedy(transducer, decoding)
    for utterance in corpus.spread(3):
        frames = encode.frames(*preprocess.features(corpus.waveform(utterance)))
        wanted = decode(transducer, frames, decoding)
        greedy.start()
        for start in range(0, len(frames), size):
            greedy.accept(frames[start : start + size])
        assert len(wanted) > 5
        assert greedy.tokens == wanted


def test_a_joint_with_other_classes_is_refused() -> None:
    greedy = StreamingGreedy(Scripted({0: [0]}), Decoding(BLANK, (0, 1)))
    with pytest.raises(StepError, match=r"the joint scores 4 classes; .* names 3 tokens, a blank and 2 durations"):
        greedy.accept(np.zeros((1, 1), dtype=np.float32))


def test_a_model_without_durations_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model_meta.json"
    path.write_text(json.dumps({"blank_id": 128, "duration_values": [], "max_symbols": None}))
    assert read_streaming_decoding(path) == Decoding(128, (), 10)
    path.write_text(json.dumps({"blank_id": 128, "duration_values": [], "max_symbols": 5}))
    assert read_streaming_decoding(path) == Decoding(128, (), 5)
    path.write_text(json.dumps({"blank_id": 128, "duration_values": [0, 1], "max_symbols": 5}))
    assert read_streaming_decoding(path) == Decoding(128, (0, 1), 5)


@pytest.mark.parametrize("meta", [{}, {"blank_id": "128", "duration_values": [], "max_symbols": 5}])
def test_a_file_that_says_less_is_refused(meta: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "model_meta.json"
    path.write_text(json.dumps(meta))
    with pytest.raises(StepError, match=r"model_meta\.json: "):
        read_streaming_decoding(path)
    path.unlink()
    with pytest.raises(StepError, match="there is no such file"):
        read_streaming_decoding(path)
