"""The embedded checkpoint on the ncnn road: what each form costs in words, and how small it is.

The short recordings and those of a minute are transcribed in ncnn with each form, and the tables are printed, slice
by slice (all of the evaluation: `doit tiny-ncnn`). fp32 is compared with the ONNX graphs: the same words, but for
places where the last bits of a sum decide.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from artifacts.ncnn.layer_fields import is_int8
from artifacts.ncnn.param_file import read_param
from conftest import ROOT, run_doit
from heard_words import hear

FORMS = ("fp32", "fp16", "int8")
MEASURED = ("fp32", "int8")
"""In words. fp16 is compared with torch when it is converted, and heard by `doit tiny-ncnn:wer_ncnn_fp16`."""
SLICES = ("clean", "noisy_1db", "noisy_minus_1db", "noisy_minus_3db", "soft_endings", "long_60s")
UTTERANCES = 362
CACHE = ROOT / "cache" / "tiny-ncnn"


@dataclass(frozen=True)
class Measured:
    """Word error rates in percent by slice, `total` among them, and what was heard, utterance by utterance, of the
    slices that are measured here."""

    wer: dict[str, float]
    heard: dict[str, str]


Measure = Callable[[str], Measured]


def _read(folder: Path) -> Measured:
    slices = json.loads((folder / "metrics.json").read_text())["slices"]
    rows = [json.loads(line) for line in (folder / "hypotheses.jsonl").read_text().splitlines()]
    wer = {name: slices[name]["wer_percent"] for name in SLICES}
    words = sum(slices[name]["words"] for name in SLICES)
    wer["total"] = sum(wer[name] * slices[name]["words"] for name in SLICES) / words
    return Measured(wer, {row["id"]: row["hypothesis"] for row in rows if row["slice"] in SLICES})


@pytest.fixture(scope="module")
def onnx(built: Callable[[str], Path]) -> Measured:
    """The exported ONNX graphs in fp32."""
    return _read(built("wer_fp32"))


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Measured]:
    """What is heard of each measured form in ncnn."""
    run_doit("tiny-ncnn:encoder_ncnn_fp16")
    targets = [f"wer_ncnn_{form}" for form in MEASURED]
    heard = hear(tmp_path_factory.mktemp("heard"), "tiny-ncnn", targets, SLICES)
    return {form: _read(heard[f"wer_ncnn_{form}"]) for form in MEASURED}


def _show(capsys: pytest.CaptureFixture[str], onnx: Measured, forms: dict[str, Measured]) -> None:
    with capsys.disabled():
        print(f"\n\n  tiny-ncnn, WER in %{'ONNX fp32':>14}{''.join(f'{form:>10}' for form in MEASURED)}")
        for name, wer in onnx.wer.items():
            print(f"  {name:<18}{wer:15.2f}{''.join(f'{forms[form].wer[name]:10.2f}' for form in MEASURED)}")


def _heard_alike(one: Measured, other: Measured) -> int:
    assert one.heard.keys() == other.heard.keys()
    return sum(one.heard[name] == other.heard[name] for name in one.heard)


def _difference(form: Measured, reference: Measured) -> dict[str, float]:
    assert form.wer.keys() == reference.wer.keys()
    return {name: round(form.wer[name] - wer, 4) for name, wer in reference.wer.items()}


def test_fp32_is_heard_as_the_onnx_graphs_are(forms: dict[str, Measured], onnx: Measured) -> None:
    assert len(onnx.heard) == UTTERANCES
    assert _heard_alike(forms["fp32"], onnx) >= UTTERANCES - 3
    assert {name: loss for name, loss in _difference(forms["fp32"], onnx).items() if abs(loss) > 0.1} == {}


def test_int8_loses_less_than_a_point_on_every_slice(
    forms: dict[str, Measured], onnx: Measured, capsys: pytest.CaptureFixture[str]
) -> None:
    _show(capsys, onnx, forms)
    loss = _difference(forms["int8"], forms["fp32"])
    assert {name: points for name, points in loss.items() if points >= 1} == {}
    assert loss["total"] <= 0.3
    assert _heard_alike(forms["int8"], forms["fp32"]) < len(forms["fp32"].heard), (
        "int8 that changes nothing is not int8"
    )


@pytest.mark.usefixtures("forms")
def test_each_form_is_as_much_smaller_as_its_weights() -> None:
    sizes = {}
    for form in FORMS:
        path = CACHE / f"encoder_ncnn_{form}" / "encoder.ncnn.param"
        tables = sum(
            4 * layer.integer(0) * max(1, layer.integer(1)) for layer in read_param(path).layers
            if layer.type == "MemoryData"
        )  # fmt: skip
        sizes[form] = path.with_suffix(".bin").stat().st_size - tables  # they are float32 in every form
    assert 0.49 < sizes["fp16"] / sizes["fp32"] < 0.53
    assert 0.25 < sizes["int8"] / sizes["fp32"] < 0.29
    layers = read_param(CACHE / "encoder_ncnn_int8" / "encoder.ncnn.param").layers
    assert sum(is_int8(layer) for layer in layers) == sum(layer.type == "Gemm" for layer in layers) == 56
