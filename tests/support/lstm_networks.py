"""An LSTM transducer of the real architecture with random weights, in ncnn; each artifact is built once, on first use.

Its numbers can be compared with torch's, and sherpa-ncnn loads and streams it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from artifacts.icefall.lstm_transducer import Config, LstmTransducer
from artifacts.ncnn.int8_layers import weight_scales
from artifacts.ncnn.param_file import find_net, read_param
from artifacts.ncnn.scale_table import ScaleTable, write_table
from artifacts.ncnn.weights_file import read_weights
from artifacts.steps import convert_pnnx, quantize_ncnn_int8, tag_sherpa_ncnn, trace_icefall

LAYERS, DIM, HIDDEN, TOKENS = 3, 64, 128, 50
CONFIG = Config(
    num_encoder_layers=LAYERS,
    encoder_dim=DIM,
    rnn_hidden_size=HIDDEN,
    vocab_size=TOKENS,
    dim_feedforward=128,
    decoder_dim=DIM,
    joiner_dim=DIM,
)


class LstmNetworks:
    """The folders of its artifacts, by part: `encoder`, `predictor` and `joint`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        torch.manual_seed(0)
        torch.set_num_threads(1)  # two are no faster at this size, and on busy cores many times slower
        self.model = LstmTransducer(CONFIG).eval()
        with torch.no_grad():  # else it decodes every recording to one repeated token
            self.model.joiner.output_linear.weight.mul_(6)
            self.model.joiner.encoder_proj.weight.mul_(4)
        self._checkpoint = folder / "random.pt"
        torch.save(self.model.state_dict(), self._checkpoint)

    def traced(self, part: str) -> Path:
        """`<part>.pt` and `inputs.json`."""
        params = trace_icefall.Params.model_validate({"part": part})
        return self._once(f"traced_{part}", lambda out: trace_icefall.run(out, params, checkpoint=self._checkpoint))

    def converted(self, part: str, *, fp16: bool = False) -> Path:
        """`<part>.ncnn.param` and `<part>.ncnn.bin`."""
        params = convert_pnnx.Params(fp16=fp16)
        name = f"converted_{part}_{'fp16' if fp16 else 'fp32'}"
        return self._once(name, lambda out: convert_pnnx.run(out, params, traced=self.traced(part)))

    def tagged(self, *, fp16: bool = False) -> Path:
        """The encoder with sherpa-ncnn's metadata."""
        encoder = self.converted("encoder", fp16=fp16)
        name = f"tagged_{'fp16' if fp16 else 'fp32'}"
        return self._once(name, lambda out: tag_sherpa_ncnn.run(out, tag_sherpa_ncnn.Params(), encoder=encoder))

    def quantised(self, part: str) -> Path:
        """The encoder (tagged) or the joint with int8 layers."""
        if part == "encoder":
            int8 = self._once("int8_encoder", lambda out: self._quantise(out, self.converted("encoder"), None))
            return self._once(
                "tagged_int8", lambda out: tag_sherpa_ncnn.run(out, tag_sherpa_ncnn.Params(), encoder=int8)
            )
        joint = self.converted("joint")
        tables = self._once("tables", lambda out: write_joint_table(joint, out / "joint.table"))
        return self._once("int8_joint", lambda out: self._quantise(out, joint, tables))

    def _quantise(self, out: Path, model: Path, table: Path | None) -> None:
        quantize_ncnn_int8.run(out, quantize_ncnn_int8.Params(), model=model, table=table)

    def tokens(self) -> Path:
        """`tokens.txt` of letters."""
        return self._once("tokens", lambda out: (out / "tokens.txt").write_text(TOKENS_TXT, encoding="utf-8"))

    def _once(self, name: str, make: Callable[[Path], object]) -> Path:
        out = self._folder / name
        if not out.exists():
            out.mkdir()
            make(out)
        return out


def write_joint_table(joint: Path, path: Path) -> None:
    """Write a table whose scales clip nothing that a joint reads in the tests."""
    param, weights_path = find_net(joint)
    file = read_param(param)
    weights = read_weights(file, weights_path)
    layers = [layer for layer in file.layers if layer.type == "InnerProduct"]
    rows = {f"{layer.name}_param_0": weight_scales(layer, weights[layer.name]) for layer in layers}
    write_table(ScaleTable(rows, dict(zip((layer.name for layer in layers), (30.0, 60.0, 10.0), strict=True))), path)


TOKENS_TXT = "<blk> 0\n<sos/eos> 1\n<unk> 2\n" + "".join(f"{chr(62 + id_)} {id_}\n" for id_ in range(3, TOKENS))


@pytest.fixture(scope="session")
def lstm(tmp_path_factory: pytest.TempPathFactory) -> LstmNetworks:
    """The model. Tests leave its artifacts as they are."""
    return LstmNetworks(tmp_path_factory.mktemp("lstm"))
