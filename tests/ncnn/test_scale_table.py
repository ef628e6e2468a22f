from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from artifacts.errors import StepError
from artifacts.ncnn.scale_table import ScaleTable, find_table, read_table, write_table

TEXT = "conv_0_param_0 12.500000 354.293823 \nlinear_1_param_0 1.000000 \nconv_0 25.038275 \nlinear_1 7.250550 \n"


def test_the_text_equals_that_of_generate_int8_scale_table(tmp_path: Path) -> None:
    weights = {"conv_0_param_0": np.array([12.5, 354.29382], np.float32), "linear_1_param_0": np.ones(1, np.float32)}
    write_table(ScaleTable(weights, {"conv_0": 25.038275, "linear_1": 7.25055}), tmp_path / "a.table")
    assert (tmp_path / "a.table").read_text() == TEXT


def test_what_was_read_is_written_again(tmp_path: Path) -> None:
    (tmp_path / "a.table").write_text(TEXT)
    table = read_table(tmp_path / "a.table")
    write_table(table, tmp_path / "b.table")
    assert (tmp_path / "b.table").read_text() == TEXT
    assert table.layers == ("conv_0", "linear_1")
    scales = table.weight_scales("conv_0")
    assert scales is not None
    assert scales.dtype == np.float32
    assert scales.tolist() == [12.5, float(np.float32(354.293823))]
    assert table.weight_scales("conv_0", 1) is None


def test_lines_may_come_in_any_order_and_weights_alone_are_enough(tmp_path: Path) -> None:
    text = "conv_0 25\r\n\r\nlstm_0_param_1 3 4\r\nlstm_0_param_0 1 2\r\nconv_0_param_0 2\r\n"
    (tmp_path / "a.table").write_text(text, newline="")
    table = read_table(tmp_path / "a.table")
    assert table.activations == {"conv_0": 25}
    assert set(table.layers) == {"conv_0", "lstm_0"}
    scales = table.weight_scales("lstm_0", 1)
    assert scales is not None
    assert scales.tolist() == [3, 4]


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("", "contains no scales"),
        ("conv_0 1\n", "conv_0: has a scale of its input and none of its weights"),
        ("conv_0_param_0 1\nconv_0_param_0 2\n", ":2: conv_0_param_0: is there twice"),
        ("conv_0_param_0 1\nconv_0 1 2\n", ":2: conv_0: has 2 numbers, needs one scale of its input"),
        ("conv_0_param_0\n", ":1: conv_0_param_0: has 0 numbers, needs scales of its output channels"),
        ("conv_0_param_0 1 x\n", ":1: conv_0_param_0: 'x' is not a scale"),
        ("conv_0_param_0 1 inf\n", ":1: conv_0_param_0: 'inf' is not a scale"),
        ("conv_0_param_0 0.000000\n", ":1: conv_0_param_0: '0.000000' is not a scale"),
        ("conv_0_param_0 -2\n", ":1: conv_0_param_0: '-2' is not a scale"),
    ],
)
def test_a_damaged_table_is_an_error_with_its_line(text: str, fact: str, tmp_path: Path) -> None:
    (tmp_path / "a.table").write_text(text)
    with pytest.raises(StepError) as caught:
        read_table(tmp_path / "a.table")
    assert fact in caught.value.fact
    assert caught.value.fact.startswith("a.table:")


def test_the_table_of_a_model_is_found_by_its_part(tmp_path: Path) -> None:
    (tmp_path / "encoder.table").write_text(TEXT)
    assert find_table(tmp_path, "encoder.ncnn.param") == tmp_path / "encoder.table"
    assert find_table(tmp_path / "encoder.table", "joint.ncnn.param") == tmp_path / "encoder.table"
    with pytest.raises(StepError, match=r"contains encoder\.table, not 'joint\.table'"):
        find_table(tmp_path, "joint.ncnn.param")
    with pytest.raises(StepError, match=r"a\.table: is missing"):
        read_table(tmp_path / "a.table")


def test_a_table_that_is_not_utf8_is_an_error_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.table").write_bytes(b"conv_0_param_0 1.0\n\xff 1.0\n")
    with pytest.raises(StepError, match=r"a\.table:2: is not UTF-8"):
        read_table(tmp_path / "a.table")
