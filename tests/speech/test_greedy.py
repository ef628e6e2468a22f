from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from artifacts.errors import StepError
from artifacts.speech.corpus import read_corpus
from artifacts.speech.decoding import DecodingSettings, read_decoding
from artifacts.speech.frontend import OnnxEncoder, Preprocessor
from artifacts.speech.greedy import Greedy, decode
from artifacts.speech.transducer import FusedTransducer, SeparateTransducer

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLANK = 3


class Scripted:
    """A transducer with scripted (token, duration index) pairs for each frame, in the order of its calls.

    With tokens alone it has no durations.
    """

    def __init__(self, script: Mapping[int, Sequence[tuple[int, int] | int]]) -> None:
        self.script = {frame: list(answers) for frame, answers in script.items()}
        self.asked: list[int] = []
        self.accepted: list[int] = []

    def start(self) -> None:
        self.accepted.clear()

    def logits(self, frame: NDArray[np.float32]) -> NDArray[np.float32]:
        index = int(frame[0])
        self.asked.append(index)
        answers = self.script[index]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, int):
            scores = np.zeros(BLANK + 1, dtype=np.float32)
            scores[answer] = 1
            return scores
        token, duration = answer
        scores = np.zeros(BLANK + 1 + 3, dtype=np.float32)
        scores[token] = scores[BLANK + 1 + duration] = 1
        return scores

    def accept(self, token: int) -> None:
        self.accepted.append(token)


@pytest.mark.parametrize(
    ("script", "tokens", "asked"),
    [
        pytest.param({0: [(1, 1)], 1: [(2, 1)], 2: [(BLANK, 1)]}, [1, 2], [0, 1, 2], id="one token a frame"),
        pytest.param({0: [(1, 2)], 2: [(BLANK, 2)]}, [1], [0, 2], id="a duration skips frames"),
        pytest.param({0: [(BLANK, 0)], 1: [(BLANK, 0)], 2: [(1, 2)]}, [1], [0, 1, 2], id="a blank moves on by one"),
        pytest.param({0: [(1, 0), (2, 0), (BLANK, 2)], 2: [(BLANK, 1)]}, [1, 2], [0, 0, 0, 2], id="0 stays"),
        pytest.param({0: [(1, 0)], 1: [(2, 2)]}, [1, 1, 1, 2], [0, 0, 0, 1], id="max_symbols tokens end a frame"),
        pytest.param(
            {0: [(1, 0), (1, 1)], 1: [(2, 0)], 2: [(BLANK, 1)]}, [1, 1, 2, 2, 2], [0, 0, 1, 1, 1, 2], id="anew"
        ),
    ],
)
def test_the_rules_of_token_and_duration_decoding(
    script: dict[int, list[tuple[int, int]]], tokens: list[int], asked: list[int]
) -> None:
    transducer = Scripted(script)
    frames = np.arange(3, dtype=np.float32).reshape(3, 1)
    assert decode(transducer, frames, DecodingSettings(BLANK, (0, 1, 2), max_symbols=3)) == tokens
    assert transducer.asked == asked
    assert transducer.accepted == tokens


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
    greedy = Greedy(transducer, DecodingSettings(BLANK, (), max_symbols=3))
    frames = np.arange(2, dtype=np.float32).reshape(2, 1)
    for start, size in zip(np.cumsum([0, *chunks]), chunks, strict=False):
        greedy.accept(frames[start : start + size])
    assert greedy.tokens == tokens
    assert transducer.asked == asked


def test_no_frames_are_no_tokens() -> None:
    assert decode(Scripted({}), np.zeros((0, 1), dtype=np.float32), DecodingSettings(BLANK, (0, 1, 2))) == []


def test_a_joint_with_other_classes_is_refused() -> None:
    with pytest.raises(
        StepError, match=r"the joint scores 7 classes; model_meta\.json names 3 tokens, a blank and 5 dur"
    ):
        decode(Scripted({0: [(0, 0)]}), np.zeros((1, 1), dtype=np.float32), DecodingSettings(BLANK, (0, 1, 2, 3, 4)))


@pytest.fixture(scope="module")
def spoken(evaluation: Path, preprocessor: Path, encoder_fp32: Path) -> list[NDArray[np.float32]]:
    """OnnxEncoder frames of real speech."""
    corpus = read_corpus(evaluation)
    preprocess = Preprocessor(preprocessor / "preprocessor.onnx", threads=1)
    encode = OnnxEncoder(encoder_fp32 / "encoder-model.onnx", threads=1)
    chosen = [utterance for utterance in corpus.evenly_spread(3) if utterance.duration < 30]
    return [encode.frames(*preprocess.features(corpus.waveform(utterance))) for utterance in chosen]


@pytest.fixture(scope="module")
def decoding(model_meta: Path) -> DecodingSettings:
    return read_decoding(model_meta / "model_meta.json")


@pytest.fixture(scope="module")
def fused(decoder_joint_fp32: Path, decoding: DecodingSettings) -> FusedTransducer:
    return FusedTransducer(decoder_joint_fp32 / "decoder_joint-model.onnx", 1, decoding.blank_id)


def decode_with_nemo(model: Any, frames: NDArray[np.float32], max_symbols: int) -> list[int]:
    import torch

    model.decoding.decoding.max_symbols = max_symbols
    model.decoding.decoding.decoding_computer.max_symbols = max_symbols
    with torch.inference_mode():
        (hypotheses,) = model.decoding.decoding(
            encoder_output=torch.from_numpy(frames.T[np.newaxis].copy()), encoded_lengths=torch.tensor([len(frames)])
        )
    ids: list[int] = hypotheses[0].y_sequence.tolist()
    return ids


@pytest.mark.parametrize("max_symbols", [10, 1])
def test_speech_is_decoded_as_nemo_decodes_it(
    nemo_model: Any,
    spoken: list[NDArray[np.float32]],
    fused: FusedTransducer,
    decoding: DecodingSettings,
    max_symbols: int,
) -> None:
    limited = replace(decoding, max_symbols=max_symbols)
    for frames in spoken:
        assert decode(fused, frames, limited) == decode_with_nemo(nemo_model, frames, max_symbols)


@pytest.mark.parametrize("max_symbols", [10, 2])
def test_frames_that_make_no_sense_are_decoded_as_nemo_decodes_them(
    nemo_model: Any,
    spoken: list[NDArray[np.float32]],
    fused: FusedTransducer,
    decoding: DecodingSettings,
    max_symbols: int,
) -> None:
    limited = replace(decoding, max_symbols=max_symbols)
    generator = np.random.default_rng(0)
    for frames in spoken[:6]:
        torn = (generator.permutation(frames) * generator.uniform(-4, 4, size=(len(frames), 1))).astype(np.float32)
        assert decode(fused, torn, limited) == decode_with_nemo(nemo_model, torn, max_symbols)


def test_separate_graphs_decode_as_the_fused_one(
    spoken: list[NDArray[np.float32]],
    fused: FusedTransducer,
    decoding: DecodingSettings,
    predictor_fp32: Path,
    joint_fp32: Path,
) -> None:
    separate = SeparateTransducer(
        predictor_fp32 / "predictor-model.onnx", joint_fp32 / "joint-model.onnx", 1, decoding.blank_id
    )
    for frames in spoken:
        assert decode(separate, frames, decoding) == decode(fused, frames, decoding)


@pytest.mark.parametrize("size", [1, 2, 3, 14])
def test_frames_that_arrive_in_chunks_are_decoded_as_all_at_once(
    size: int, spoken: list[NDArray[np.float32]], fused: FusedTransducer, decoding: DecodingSettings
) -> None:
    greedy = Greedy(fused, decoding)
    for frames in spoken:
        wanted = decode(fused, frames, decoding)
        greedy.start()
        for start in range(0, len(frames), size):
            greedy.accept(frames[start : start + size])
        assert greedy.tokens == wanted
        assert len(wanted) > 5
