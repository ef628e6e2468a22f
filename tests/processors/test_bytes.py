"""What steps write is the same on other processors. Exports and calibration take longer: benchmarks/processors.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import RECIPE, ROOT, run_doit
from emulated import PROCESSORS, run_emulated
from quantised_models import digests

CHILD = ROOT / "benchmarks" / "processor_child.py"
TARGETS = (
    "decoder_joint_fp32", "tokens", "model_meta", "encoder_fp16", "encoder_fp16_fixed", "decoder_joint_fp16",
    "decoder_joint_fp16_fixed", "encoder_int8", "encoder_int4", "decoder_joint_int8_dynamic", "decoder_joint_int8",
    "encoder_int8_dynamic", "encoder_smooth", "encoder_int8_smoothquant", "encoder_int8_weights", "encoder_rounded",
    "shard_fp32", "shard_fp16", "size_int8", "size_rounded", "onnx-asr",
)  # fmt: skip


@pytest.mark.parametrize("processor", PROCESSORS)
def test_every_step_behind_the_exports_writes_the_same_bytes(processor: str, tmp_path: Path) -> None:
    names = [f"{RECIPE}:{target}" for target in TARGETS]
    run_doit("-n", "2", *names)
    asked = json.dumps({"out": str(tmp_path / "out"), "names": names, "calibration": ""})
    said = run_emulated(processor, CHILD, "build", asked, cwd=tmp_path)
    there = {row["name"]: row["files"] for row in map(json.loads, said.splitlines())}
    assert there == {name: digests(ROOT / "cache" / RECIPE / name.partition(":")[2]) for name in names}
