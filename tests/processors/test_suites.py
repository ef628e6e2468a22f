"""Tests that depend on integer sums or last bits pass on emulated processors.

A selection that takes a minute each. `LONGEST_SPEECH_SECONDS=6 qemu-x86_64 -cpu Haswell python -m pytest tests/graph
tests/speech tests/steps/test_quantize_*.py` runs whole suites: docs/processors.md.
"""

from __future__ import annotations

import re

import pytest

from conftest import ROOT
from emulated import PROCESSORS, run_emulated

SELECTION = (
    "tests/graph/quantization/test_calibrated_matmuls_bits.py",
    "tests/graph/quantization/test_int8_sums.py",
    "tests/graph/quantization/test_nbits_values.py",
    "tests/graph/quantization/test_smoothing.py",
    "tests/graph/quantization/test_stock_quantizer_lstm.py",
    "tests/graph/quantization/test_weight_grid.py",
    "tests/graph/test_fp16_values.py",
    "tests/icefall/test_lstm_transducer.py::test_exponentials_are_rounded_once",
    "tests/nemo/test_networks.py::test_each_number_is_the_exact_one_rounded_once",
    "tests/nemo/test_transducer_positions.py::test_sines_are_the_exact_ones_rounded_once",
    "tests/processors/test_nbits_sums.py",
    "tests/steps/test_quantize_dynamic.py::test_a_decoder_joint_is_quantised_whole",
    "tests/steps/test_quantize_dynamic_of_odd_graphs.py",
)


@pytest.mark.parametrize("processor", PROCESSORS)
def test_quantisers_are_green_on_other_processors(processor: str) -> None:
    said = run_emulated(processor, "-m", "pytest", "-q", "-p", "no:cacheprovider", *SELECTION, cwd=ROOT)
    ended = re.search(r"^(\d+) passed.*", said, flags=re.MULTILINE)
    assert ended is not None, said
    assert int(ended[1]) > 100
    assert not re.search(r"skipped|failed|error", ended[0])
