"""The tests of what is delicate about integers and last bits pass on other processors too.

A selection that takes a minute each. `LONGEST_SPEECH_SECONDS=6 qemu-x86_64 -cpu Haswell python -m pytest tests/graph
tests/asr tests/steps/test_quantize_*.py` runs whole suites: docs/processors.md.
"""

from __future__ import annotations

import re

import pytest

from conftest import ROOT
from emulated import PROCESSORS, run_emulated

SELECTION = (
    "tests/graph/quantization/test_int8_sums.py",
    "tests/graph/quantization/test_nbits_values.py",
    "tests/graph/quantization/test_significant_bits.py",
    "tests/graph/quantization/test_smoothing.py",
    "tests/graph/quantization/test_unsigned_lstm.py",
    "tests/graph/quantization/test_weight_levels.py",
    "tests/graph/test_fp16_values.py",
    "tests/steps/test_quantize_dynamic.py::test_a_decoder_joint_is_quantised_whole",
    "tests/steps/test_quantize_dynamic_of_odd_graphs.py",
)


@pytest.mark.parametrize("processor", PROCESSORS)
def test_quantisers_are_green_on_other_processors(processor: str) -> None:
    said = run_emulated(processor, "-m", "pytest", "-q", "-p", "no:cacheprovider", *SELECTION, cwd=ROOT)
    passed = re.search(r"^(\d+) passed in ", said, flags=re.MULTILINE)
    assert passed is not None, said  # nothing was skipped
    assert int(passed[1]) > 100
