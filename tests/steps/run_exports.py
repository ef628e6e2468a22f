"""Runs every step that reads the checkpoint, into one folder each: python run_exports.py CHECKPOINT OUT.

Prints the steps' metrics as JSON, and nothing else.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

EXPORTS = {
    "encoder_fp32": ("export_encoder", {}),
    "encoder_fp32_fixed_shape": ("export_encoder", {"dynamic_axes": False, "batch_size": 2, "frames": 203}),
    "predictor_fp32": ("export_predictor", {}),
    "predictor_fp32_fixed_shape": ("export_predictor", {"dynamic_axes": False, "batch_size": 1, "tokens": 1}),
    "joint_fp32": ("export_joint", {}),
    "joint_fp32_fixed_shape": (
        "export_joint", {"dynamic_axes": False, "batch_size": 1, "encoder_frames": 1, "tokens": 1},
    ),
    "decoder_joint_fp32": ("fuse_decoder_joint", {}),
    "decoder_joint_fp32_fixed_shape": ("fuse_decoder_joint", {}),
    "preprocessor": ("export_preprocessor", {}),
    "tokens": ("write_tokens", {}),
    "model_meta": ("write_model_meta", {"model_name": "tiny"}),
}  # fmt: skip


def main(checkpoint: Path, out: Path) -> None:
    metrics = {}
    for target, (step, params) in EXPORTS.items():
        module = importlib.import_module(f"artifacts.steps.{step}")
        folder = out / target
        folder.mkdir()
        if step == "fuse_decoder_joint":
            inputs = {name: out / target.replace("decoder_joint", name) for name in ("predictor", "joint")}
        else:
            inputs = {"checkpoint": checkpoint}
        metrics[target] = module.run(folder, module.Params(**params), **inputs)
    print(json.dumps(metrics))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
