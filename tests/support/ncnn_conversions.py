"""Parts of the embedded checkpoint, converted by the real pnnx with its weights, for tests of ncnn without NeMo.

Together they have every type of layer with weights that pnnx writes for the two models: convolutions of two and one
dimensions, Gemm with and without a bias, InnerProduct, LSTM, Embed, LayerNorm, MemoryData.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from conftest import ROOT, run_doit

Weights = dict[str, Tensor]
Array = npt.NDArray[np.float32]


class Head(nn.Module):
    """The encoder's subsampling, and of its first layer a feed-forward and the depthwise convolution."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        stride = {"kernel_size": 3, "stride": 2, "padding": 1}
        self.conv = nn.Sequential(
            nn.Conv2d(1, 32, **stride),
            nn.ReLU(),
            nn.Conv2d(32, 32, groups=32, **stride),
            nn.Conv2d(32, 32, 1),
            nn.ReLU(),
            nn.Conv2d(32, 32, groups=32, **stride),
            nn.Conv2d(32, 32, 1),
            nn.ReLU(),
        )
        self.out = nn.Linear(512, 96)
        self.conv.load_state_dict(part_weights(weights, "encoder.pre_encode.conv."))
        self.out.load_state_dict(part_weights(weights, "encoder.pre_encode.out."))
        layer = part_weights(weights, "encoder.layers.0.")
        self.norm = nn.LayerNorm(96)
        self.norm.load_state_dict(part_weights(layer, "norm_feed_forward1."))
        self.first, self.second = nn.Linear(96, 384, bias=False), nn.Linear(384, 96, bias=False)
        self.first.load_state_dict(part_weights(layer, "feed_forward1.linear1."))
        self.second.load_state_dict(part_weights(layer, "feed_forward1.linear2."))
        self.depthwise = nn.Conv1d(96, 96, 9, padding=4, groups=96, bias=False)
        self.depthwise.load_state_dict(part_weights(layer, "conv.depthwise_conv."))
        self.batch_norm = nn.BatchNorm1d(96)
        self.batch_norm.load_state_dict(part_weights(layer, "conv.batch_norm."))
        self.register_buffer("offset", layer["norm_out.bias"].reshape(1, 1, 96).clone())

    def forward(self, audio_signal: Tensor) -> Tensor:
        """[1, 128, T] → [1, 96, T / 8]."""
        x = self.conv(audio_signal.transpose(1, 2).unsqueeze(1))
        x = self.out(x.transpose(1, 2).reshape(1, -1, 512))
        x = x + 0.5 * self.second(nn.functional.silu(self.first(self.norm(x)))) + self.offset
        return nn.functional.silu(self.batch_norm(self.depthwise(x.transpose(1, 2))))


class Predictor(nn.Module):
    """The embedding and the two LSTM layers."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.embed = nn.Embedding(129, 96)
        self.embed.load_state_dict(part_weights(weights, "decoder.prediction.embed."))
        self.lstm = nn.LSTM(96, 96, 2, batch_first=True)
        self.lstm.load_state_dict(part_weights(weights, "decoder.prediction.dec_rnn.lstm."))

    def forward(self, y: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[1, 1], [2, 1, 96] twice → [1, 1, 96] and the states."""
        g, (h_out, c_out) = self.lstm(self.embed(y), (h, c))
        return g, h_out, c_out


class Joint(nn.Module):
    """The joint, whole."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.enc, self.pred, self.out = nn.Linear(96, 96), nn.Linear(96, 96), nn.Linear(96, 134)
        self.enc.load_state_dict(part_weights(weights, "joint.enc."))
        self.pred.load_state_dict(part_weights(weights, "joint.pred."))
        self.out.load_state_dict(part_weights(weights, "joint.joint_net.1."))

    def forward(self, frame: Tensor, prediction: Tensor) -> Tensor:
        """[1, 96] and [1, 96] → [1, 134]."""
        return self.out(torch.relu(self.enc(frame) + self.pred(prediction)))


def part_weights(weights: Weights, prefix: str) -> Weights:
    """The weights of one module."""
    return {name.removeprefix(prefix): each for name, each in weights.items() if name.startswith(prefix)}


def read_checkpoint(checkpoint: Path) -> Weights:
    """The weights in a `.nemo` file."""
    with tarfile.open(checkpoint) as archive:
        name = next(name for name in archive.getnames() if name.endswith(".ckpt"))
        member = archive.extractfile(name)
        assert member is not None
        return torch.load(io.BytesIO(member.read()), weights_only=True)


def convert(network: nn.Module, samples: Sequence[Tensor], others: Sequence[Tensor], stem: Path, *, fp16: bool) -> None:
    """Trace `network` on `samples` and convert it to `<stem>.ncnn.param` and `.bin`.

    `others` are inputs of another length: what differs between the two stays open.
    """
    import pnnx

    name, folder = stem.name, stem.parent
    folder.mkdir(parents=True)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tracing, which is what pnnx reads
        torch.jit.trace(network.eval(), tuple(samples)).save(folder / f"{name}.pt")
    words = [f"{name}.pt", f"fp16={int(fp16)}", f"inputshape={_shapes(samples)}", f"inputshape2={_shapes(others)}"]
    words += [f"ncnnparam={name}.ncnn.param", f"ncnnbin={name}.ncnn.bin", "ncnnpy=n.py"]
    words += ["pnnxparam=p.param", "pnnxbin=p.bin", "pnnxpy=p.py", "pnnxonnx=p.onnx"]
    done = subprocess.run([pnnx.EXEC_PATH, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for path in folder.iterdir():
        if ".ncnn." not in path.name:
            path.unlink()


def _shapes(tensors: Sequence[Tensor]) -> str:
    names = {torch.float32: "f32", torch.int64: "i64"}
    return ",".join(f"[{','.join(str(size) for size in each.shape)}]{names[each.dtype]}" for each in tensors)


class Parts:
    """The folders `head`, `predictor` and `joint`, each of one network; in fp16 with `_fp16` behind the name."""

    def __init__(self, checkpoint: Path, folder: Path) -> None:
        self._folder = folder
        self._weights = read_checkpoint(checkpoint)

    def folder(self, part: str, *, fp16: bool = False) -> Path:
        """Return the folder of a part, which is converted on first use."""
        out = self._folder / f"{part}{'_fp16' if fp16 else ''}"
        if not out.exists():
            state = torch.zeros(2, 1, 96)
            kind, samples, others = {
                "head": (Head, [torch.zeros(1, 128, 200)], [torch.zeros(1, 128, 296)]),
                "predictor": (Predictor, [torch.zeros(1, 1, dtype=torch.int64), state, state], None),
                "joint": (Joint, [torch.zeros(1, 96), torch.zeros(1, 96)], None),
            }[part]
            convert(kind(self._weights), samples, others or samples, out / part, fp16=fp16)
        return out


@pytest.fixture(scope="session")
def parts(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """The parts. Tests do not change them."""
    return Parts(tiny_checkpoint, tmp_path_factory.mktemp("parts"))


def build_tdt(target: str) -> Path:
    """Build a target of the embedded checkpoint's ncnn recipe, and what it needs; its folder."""
    run_doit(f"tiny-ncnn:{target}")
    return ROOT / "cache" / "tiny-ncnn" / target


@pytest.fixture(scope="session")
def tdt() -> dict[str, Path]:
    """The embedded checkpoint's `encoder`, `predictor` and `joint` in ncnn, whole, in fp32."""
    return {part: build_tdt(f"{part}_ncnn_fp32") for part in ("encoder", "predictor", "joint")}


@pytest.fixture(scope="session")
def one_utterance(preprocessor: Path, evaluation: Path) -> Array:
    """Features [128, T] of real speech, those that are valid."""
    from artifacts.speech.corpus import read_corpus
    from artifacts.speech.frontend import Preprocessor

    corpus = read_corpus(evaluation, ("clean",))
    features, lengths = Preprocessor(preprocessor / "preprocessor.onnx", threads=1).features(
        corpus.waveform(corpus.utterances[0])
    )
    return np.ascontiguousarray(features[0, :, : int(lengths[0])])
