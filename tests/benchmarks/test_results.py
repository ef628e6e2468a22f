"""The figures that are kept are those of all contestants at full size, in one run, within what each was held to.

Seconds are compared with those of the peers and of the disk in that run. Starting Python is no part of what streams.
"""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MIB = 2**20

PEAK_MIB = {
    "shard_weights": 100,
    "convert_fp16": 100,
    "quantize_weights": 150,
    "round_weights": 150,
    "quantize_nbits": 1536,
}
TIMES_ITS_BASELINE = {"shard_weights": 1.3, "convert_fp16": 2, "quantize_weights": 3, "round_weights": 3}
TIMES_AS_FAST = {
    ("shard_weights", "onnx_ir"): 1.5,
    ("convert_fp16", "onnxconverter_common"): 5,
    ("quantize_weights", "shrink_ray_weights"): 5,
    ("quantize_nbits", "quantize_dynamic"): 1.5,
}


def kept(name: str) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((BENCHMARKS / name).read_text(encoding="utf-8"))
    return results


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    results = kept("results.json")
    assert results["model_bytes"] > 2.4e9
    return {row["contestant"]: row for row in results["rows"]}


@pytest.mark.parametrize(("contestant", "mib"), PEAK_MIB.items())
def test_what_streams_holds_little_memory(rows: dict[str, dict[str, Any]], contestant: str, mib: int) -> None:
    assert rows[contestant]["peak_bytes"] <= mib * MIB


@pytest.mark.parametrize(("contestant", "times"), TIMES_ITS_BASELINE.items())
def test_it_takes_few_times_what_copying_takes(rows: dict[str, dict[str, Any]], contestant: str, times: float) -> None:
    assert rows[contestant]["step_seconds_ratio"] <= times


@pytest.mark.parametrize(("pair", "times"), TIMES_AS_FAST.items())
def test_it_is_faster_than_its_peer(rows: dict[str, dict[str, Any]], pair: tuple[str, str], times: float) -> None:
    ours, theirs = (rows[name]["wall_seconds"] for name in pair)
    assert theirs >= times * ours


def test_block_quantisation_takes_less_than_a_minute(rows: dict[str, dict[str, Any]]) -> None:
    assert rows["quantize_nbits"]["wall_seconds"] <= 60


def test_a_full_size_lstm_transducer_has_the_published_sizes() -> None:
    results = kept("full_size_ncnn.json")
    benchmark = runpy.run_path(str(BENCHMARKS / "full_size_ncnn.py"))
    published = {
        "encoder fp32": "317M", "encoder fp16": "159M", "decoder fp16": "503K",
        "joiner fp32": "3.0M", "joiner fp16": "1.5M", "joiner int8": "774K",
    }  # fmt: skip
    assert benchmark["PUBLISHED"] == published
    assert {name: benchmark["as_listed"](results["bytes"][name]) for name in published} == published
    epsilons = 12  # one a layer, which icefall's log of its export does not count
    assert results["parameters"] == {"encoder": 83_137_520 + epsilons, "decoder": 257_024, "joiner": 781_812}


def test_calibration_costs_little_more_than_plain_inference() -> None:
    results = kept("calibration.json")
    assert results["gigabytes"] > 2.4
    assert results["cpu_ratio"] <= 1.3
    assert results["wall_ratio"] <= 1.3
    assert results["calibration_peak_mib"] - results["inference_peak_mib"] <= 500
