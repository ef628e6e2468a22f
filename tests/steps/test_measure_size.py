"""Sizes are those of the files, and those that the compressors' own tools reach."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path

import brotli
import numpy as np
import pytest
import zstandard
from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.graph.model_file import consolidate
from artifacts.steps import measure_size
from small_model import write_model

MIB = 1 << 20


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """Weights of few levels (which shrink) over more than one piece, a text in a folder, and an empty file."""
    folder = tmp_path / "artifact"
    (folder / "tokens").mkdir(parents=True)
    weights = np.random.default_rng(0).integers(0, 16, measure_size.CHUNK_BYTES + 12_345, np.uint8)
    (folder / "encoder-model.onnx.data").write_bytes(weights.tobytes())
    (folder / "tokens" / "vocab.txt").write_text("".join(f"token {index}\n" for index in range(1000)))
    (folder / "empty").touch()
    return folder


def measure(model: Path, out: Path, **params: int | None) -> tuple[dict[str, float | int | str], dict[str, object]]:
    out.mkdir()
    metrics = measure_size.run(out, measure_size.Params(**params), model=model)
    assert [path.name for path in out.iterdir()] == ["metrics.json"]
    return metrics, json.loads((out / "metrics.json").read_bytes())


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("{}", True),
        ('{"gzip_level": 9, "brotli_quality": 11, "zstd_level": 19}', True),
        ('{"gzip_level": null, "brotli_quality": null, "zstd_level": null}', True),
        ('{"brotli_quality": 0}', True),
        ('{"gzip_level": 0}', False),
        ('{"gzip_level": 10}', False),
        ('{"brotli_quality": 12}', False),
        ('{"zstd_level": 20}', False),
        ('{"zstd_level": "fast"}', False),
        ('{"xz_level": 6}', False),
    ],
)
def test_levels_are_those_that_the_compressors_have(text: str, good: bool) -> None:
    if good:
        measure_size.Params.model_validate_json(text)
    else:
        with pytest.raises(ValidationError):
            measure_size.Params.model_validate_json(text)


def test_every_file_is_measured_and_summed(artifact: Path, tmp_path: Path) -> None:
    metrics, written = measure(artifact, tmp_path / "out")
    files = written["files"]
    assert isinstance(files, dict)
    assert list(files) == ["empty", "encoder-model.onnx.data", "tokens/vocab.txt"]
    for name, sizes in files.items():
        assert sizes["bytes"] == (artifact / name).stat().st_size
    for key in ("bytes", "gzip_bytes", "brotli_bytes", "zstd_bytes"):
        assert metrics[key] == sum(sizes[key] for sizes in files.values())
    assert written["totals"] == {key: metrics[key] for key in ("bytes", "gzip_bytes", "brotli_bytes", "zstd_bytes")}
    assert written["largest_file"] == {"name": "encoder-model.onnx.data", "bytes": metrics["largest_file_bytes"]}
    assert metrics["files"] == 3


def test_streamed_sizes_are_those_of_compressing_at_once(artifact: Path, tmp_path: Path) -> None:
    _, written = measure(artifact, tmp_path / "out", gzip_level=4, brotli_quality=3, zstd_level=5)
    data = (artifact / "encoder-model.onnx.data").read_bytes()
    files = written["files"]
    assert isinstance(files, dict)
    found = files["encoder-model.onnx.data"]
    assert found["gzip_bytes"] == len(gzip.compress(data, 4, mtime=0))
    assert found["brotli_bytes"] == pytest.approx(len(brotli.compress(data, quality=3)), rel=1e-3)
    assert found["zstd_bytes"] == pytest.approx(len(zstandard.compress(data, 5)), rel=1e-3)
    assert max(found["gzip_bytes"], found["brotli_bytes"], found["zstd_bytes"]) < 0.6 * len(data)
    assert written["compressors"] == {
        "gzip": f"zlib {zlib.ZLIB_RUNTIME_VERSION} level 4", "brotli": "brotli quality 3", "zstd": "zstd level 5",
    }  # fmt: skip


def test_a_compressor_can_be_left_out(artifact: Path, tmp_path: Path) -> None:
    metrics, written = measure(artifact, tmp_path / "some", gzip_level=None, brotli_quality=None)
    assert set(metrics) == {"bytes", "zstd_bytes", "largest_file_bytes", "files"}
    assert written["compressors"] == {"zstd": "zstd level 3"}
    metrics, _ = measure(artifact, tmp_path / "none", gzip_level=None, brotli_quality=None, zstd_level=None)
    assert set(metrics) == {"bytes", "largest_file_bytes", "files"}


def test_measuring_again_gives_the_same_bytes(artifact: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        measure(artifact, tmp_path / name)
    assert (tmp_path / "a" / "metrics.json").read_bytes() == (tmp_path / "b" / "metrics.json").read_bytes()


def test_one_onnx_file_has_the_size_of_its_external_data_too(tmp_path: Path) -> None:
    write_model(tmp_path / "whole")
    (tmp_path / "model").mkdir()
    consolidate(tmp_path / "whole" / "encoder-model.onnx", tmp_path / "model" / "encoder-model.onnx", external=True)
    (tmp_path / "model" / "notes.txt").write_text("of another model")
    model = tmp_path / "model" / "encoder-model.onnx"
    metrics, written = measure(model, tmp_path / "out")
    files = written["files"]
    assert isinstance(files, dict)
    assert list(files) == ["encoder-model.onnx", "encoder-model.onnx.data"]
    assert metrics["bytes"] == sum((tmp_path / "model" / name).stat().st_size for name in files)
    assert metrics["files"] == 2
    (tmp_path / "model" / "encoder-model.onnx.data").unlink()
    with pytest.raises(StepError, match=r"external data 'encoder-model\.onnx\.data' is missing"):
        measure(model, tmp_path / "again")


def test_one_file_of_another_kind_is_measured_alone(artifact: Path, tmp_path: Path) -> None:
    metrics, written = measure(artifact / "tokens" / "vocab.txt", tmp_path / "out")
    assert metrics["bytes"] == (artifact / "tokens" / "vocab.txt").stat().st_size
    assert written["largest_file"] == {"name": "vocab.txt", "bytes": metrics["bytes"]}


def test_an_empty_artifact_is_refused(tmp_path: Path) -> None:
    (tmp_path / "artifact").mkdir()
    with pytest.raises(StepError, match="artifact: no file to measure"):
        measure(tmp_path / "artifact", tmp_path / "out")


def test_a_large_file_is_never_held_in_memory(tmp_path: Path) -> None:
    (tmp_path / "artifact").mkdir()
    (tmp_path / "artifact" / "data").touch()
    os.truncate(tmp_path / "artifact" / "data", 300 * MIB)
    (tmp_path / "out").mkdir()
    program = """
import pathlib, sys
from artifacts.steps import measure_size as step
step.run(pathlib.Path(sys.argv[2]), step.Params(brotli_quality=1, gzip_level=1), model=pathlib.Path(sys.argv[1]))
status = dict(line.split(":") for line in open("/proc/self/status"))
print(int(status["VmHWM"].split()[0]) * 1024)
"""
    command = [sys.executable, "-c", program, str(tmp_path / "artifact"), str(tmp_path / "out")]
    assert int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) < 150 * MIB
