"""Lay out a FastConformer-TDT in one flat folder for ncnn's own runtime.

No application has a convention for this model: sherpa-ncnn has no type for it, and sherpa-ncnn's ncnn lacks layers that
the encoder needs. So the folder documents itself: `README.md` describes each network's blobs and their shapes, and
`model_meta.json` is for programs. The folder also contains `tokens.txt` and the preprocessor, an ONNX file, because
features are computed outside ncnn. int8 networks are called `.ncnn.int8.param` and `.ncnn.int8.bin`. `SHA256SUMS` lists
all files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from artifacts.errors import StepError
from artifacts.params import StepParams

if TYPE_CHECKING:
    from artifacts.speech.decoding import DecodingSettings

TOOLS = ("ncnn", "numpy")
HEADLINE = ("files", "bytes")

PARTS = ("encoder", "predictor", "joint")
# Features of the encoder's one run on zeros.
SMOKE_RUN_FRAMES = 64

README = """\
# {name}, for ncnn

Run these networks with ncnn's own runtime. sherpa-ncnn does not load them: it has no type for a FastConformer-TDT.

| network | in | out |
|---|---|---|
| `encoder` | `in0` features [{features}, T] | `out0` frames [{dim}, T / {factor} rounded up] |
| `predictor` | `in0` token [1], `in1`, `in2` states [{layers}, {hidden}] | `out0` [1, {hidden}], `out1`, `out2` |
| `joint` | `in0` a frame [{dim}], `in1` the predictor's [{hidden}] | `out0` [{scores}] |

Shapes are those of ncnn's matrices, the last number being `w`. Tokens are int32, all else is float32. Features are
those of `preprocessor.onnx`, cut to the length that it gives. One utterance at a time, of at most {max_frames} encoder
frames: with more, ncnn cuts the table of positions short and goes on.

Decode greedily: of the joint's numbers the best of the first {tokens} is the token, of which {blank} is the blank, and
the best of the others is the duration, of {durations}: so many encoder frames to go on, a blank by at least one.
The first token is the blank, with zeros as states. A blank leaves the predictor as it was.
"""


class _Sizes(NamedTuple):
    """Mel bins, features to a frame, the predictor's layers and hidden size, and the joint's scores."""

    features: int
    factor: int
    layers: int
    hidden: int
    scores: int


class Params(StepParams):
    """No params: the layout has one form."""


def run(
    out: Path,
    params: Params,
    *,
    encoder: Path,
    predictor: Path,
    joint: Path,
    preprocessor: Path,
    tokens: Path,
    model_meta: Path,
    encoder_int8: Path | None = None,
    predictor_int8: Path | None = None,
    joint_int8: Path | None = None,
) -> dict[str, int]:
    """Write the networks and the files to use them; ncnn runs each network once, in a child process.

    Metrics: files and bytes. Raises StepError for a model without durations, and for a network that is not of the
    precision that its input is named for. Raises it if ncnn crashes, and for other shapes than those of `model_meta`.
    """
    from artifacts.files.checksums import write_checksums
    from artifacts.files.copy import copy_file
    from artifacts.graph.model_file import consolidate, find_model
    from artifacts.model.model_meta import ModelMeta
    from artifacts.ncnn.layout import copy_net
    from artifacts.ncnn.param_file import find_net, read_param
    from artifacts.ncnn.tdt_transducer import max_encoder_frames
    from artifacts.speech.decoding import read_decoding, read_vocabulary

    decoding = read_decoding(model_meta / "model_meta.json")
    if not decoding.durations:
        raise StepError(
            "model_meta.json: duration_values: is empty",
            "give a token-and-duration checkpoint (TDT); the README of this layout describes no other decoding",
        )
    read_vocabulary(tokens / "vocab.txt", decoding)
    meta = ModelMeta(model_meta / "model_meta.json", "write the model_meta again from the checkpoint")
    sizes = _Sizes(
        features=meta.size("features.n_mels", most=4096),
        factor=meta.size("subsampling_factor", most=SMOKE_RUN_FRAMES),
        layers=meta.size("pred_rnn_layers", most=64),
        hidden=meta.size("pred_hidden", most=65536),
        scores=meta.size("joint_vocab_size"),
    )
    plain = dict(zip(PARTS, (encoder, predictor, joint), strict=True))
    int8 = dict(zip(PARTS, (encoder_int8, predictor_int8, joint_int8), strict=True))
    for is_int8, folders in ((False, plain), (True, int8)):
        for part, folder in folders.items():
            if folder is not None:
                copy_net(folder, out, f"{part}.ncnn", int8=is_int8)
    dim = _run_once(plain, sizes, decoding)
    if any(int8.values()):
        _run_once({part: int8[part] or plain[part] for part in PARTS}, sizes, decoding)

    consolidate(find_model(preprocessor), out / "preprocessor.onnx")
    copy_file(tokens / "tokens.txt", out / "tokens.txt")
    copy_file(model_meta / "model_meta.json", out / "model_meta.json")
    readme = README.format(
        name=meta.text("model_name"),
        dim=dim,
        **sizes._asdict(),
        max_frames=max_encoder_frames(read_param(find_net(encoder)[0]), find_net(encoder)[0].name),
        tokens=decoding.blank_id + 1,
        blank=decoding.blank_id,
        durations=", ".join(map(str, decoding.durations)),
    )
    (out / "README.md").write_text(readme, encoding="utf-8")
    return write_checksums(out)


def _run_once(folders: Mapping[str, Path], sizes: _Sizes, decoding: DecodingSettings) -> int:
    """Run each network once on zeros; return the encoder's dimension."""
    import numpy as np

    from artifacts.ncnn.param_file import find_net
    from artifacts.ncnn.runtime import run_isolated

    state = np.zeros((sizes.layers, sizes.hidden), np.float32)

    def shapes(part: str, **feeds: np.ndarray[Any, Any]) -> list[tuple[int, ...]]:
        (result,) = run_isolated(*find_net(folders[part]), [feeds])
        return [value.shape for value in result.values()]

    encoded = shapes("encoder", in0=np.zeros((sizes.features, SMOKE_RUN_FRAMES), np.float32))
    dim = encoded[0][0]
    made = {
        "encoder": encoded,
        "predictor": shapes("predictor", in0=np.array([decoding.blank_id], np.int32), in1=state, in2=state),
        "joint": shapes("joint", in0=np.zeros(dim, np.float32), in1=state[0]),
    }
    wanted = {
        "encoder": [(dim, SMOKE_RUN_FRAMES // sizes.factor)],
        "predictor": [(1, sizes.hidden), state.shape, state.shape],
        "joint": [(sizes.scores,)],
    }
    for part in PARTS:
        if made[part] != wanted[part]:
            raise StepError(
                f"{find_net(folders[part])[0].name}: makes {made[part]}, model_meta.json says {wanted[part]}",
                f"give the {part} and the model_meta of one checkpoint",
            )
    return dim
