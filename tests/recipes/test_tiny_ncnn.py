"""The embedded checkpoint in ncnn: word errors and size of each form.

Each form transcribes the short recordings and those of a minute in ncnn, and the tables are printed, slice by slice
(`doit tiny-ncnn` measures the whole evaluation). fp32 is compared with the ONNX graphs: the words are equal except
where the last bits of a sum decide.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from artifacts.ncnn.layer_fields import is_int8
from artifacts.ncnn.param_file import read_param
from conftest import ROOT, run_doit
from measured_words import measure_words
from word_losses import TOTAL, Rows, exceeding, losses, read_rows, wer_percent

FORMS = ("fp32", "fp16", "int8")
# fp16 is compared with torch when it is converted; `doit tiny-ncnn:wer_ncnn_fp16` measures its words.
MEASURED = ("fp32", "int8")
SLICES = ("clean", "noisy_1db", "noisy_minus_1db", "noisy_minus_3db", "soft_endings", "long_60s")
UTTERANCES = 362
CACHE = ROOT / "cache" / "tiny-ncnn"


@pytest.fixture(scope="module")
def onnx(built: Callable[[str], Path]) -> Rows:
    """Results of the exported ONNX graphs in fp32 for each utterance."""
    return [row for row in read_rows(built("wer_fp32")) if row["slice"] in SLICES]


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Rows]:
    """Results of each measured form in ncnn."""
    run_doit("tiny-ncnn:encoder_ncnn_fp16")
    targets = [f"wer_ncnn_{form}" for form in MEASURED]
    folders = measure_words(tmp_path_factory.mktemp("measured"), "tiny-ncnn", targets, SLICES)
    return {form: read_rows(folders[f"wer_ncnn_{form}"]) for form in MEASURED}


def _show(capsys: pytest.CaptureFixture[str], onnx: Rows, forms: dict[str, Rows]) -> None:
    with capsys.disabled():
        print(f"\n\n  tiny-ncnn, WER in %{'ONNX fp32':>14}{''.join(f'{form:>10}' for form in MEASURED)}")
        for name in (*SLICES, TOTAL):
            cells = "".join(f"{wer_percent(forms[form], name):10.2f}" for form in MEASURED)
            print(f"  {name:<18}{wer_percent(onnx, name):15.2f}{cells}")


def _same_texts(one: Rows, other: Rows) -> int:
    return sum(row["hypothesis"] == before["hypothesis"] for row, before in zip(one, other, strict=True))


def test_fp32_gives_the_text_of_the_onnx_graphs(forms: dict[str, Rows], onnx: Rows) -> None:
    assert len(onnx) == UTTERANCES
    assert _same_texts(forms["fp32"], onnx) >= UTTERANCES - 3
    assert exceeding(losses(forms["fp32"], onnx), 0.1) == []
    assert exceeding(losses(onnx, forms["fp32"]), 0.1) == []


def test_int8_loses_less_than_a_point_on_every_slice(
    forms: dict[str, Rows], onnx: Rows, capsys: pytest.CaptureFixture[str]
) -> None:
    _show(capsys, onnx, forms)
    lost = losses(forms["int8"], forms["fp32"])
    assert exceeding(lost, 1, but_for=[TOTAL]) == []
    assert not lost[TOTAL].exceeds(0.3)
    assert _same_texts(forms["int8"], forms["fp32"]) < UTTERANCES, "int8 that changes nothing is not int8"


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
