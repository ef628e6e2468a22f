"""Measure an artifact's size: its bytes, its largest file, and its bytes under gzip, brotli and zstd.

Users often download the compressed size, which says more than the plain one: fp32 weights shrink by a few percent,
int8 weights by a third. Each file is read once, chunk by chunk, by all compressors in parallel.

The step writes `metrics.json`: `bytes`, `gzip_bytes`, `brotli_bytes` and `zstd_bytes` for each file and in total, the
largest file, and the compressors. These have the version of zlib: it comes with Python and is not pinned like a
package.
"""

from __future__ import annotations

import json
import logging
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from artifacts.errors import StepError
from artifacts.params import StepParams

TOOLS = ("brotli", "zstandard")
HEADLINE = ("bytes", "brotli_bytes", "largest_file_bytes")

CHUNK_BYTES = 1 << 22
GZIP_CONTAINER = 31  # zlib's wbits for a window of 32 KiB and a gzip header without time and name

log = logging.getLogger(__name__)


class Params(StepParams):
    """Levels that take minutes for gigabytes (brotli 11 takes hours). null disables a compressor."""

    gzip_level: int | None = Field(default=6, ge=1, le=9)
    """Level of gzip; null leaves it out."""
    brotli_quality: int | None = Field(default=5, ge=0, le=11)
    """Quality of brotli; null leaves it out."""
    zstd_level: int | None = Field(default=3, ge=1, le=19)
    """Level of zstd; null leaves it out."""


def run(out: Path, params: Params, *, model: Path) -> dict[str, float | int | str]:
    """Measure every file of the artifact `model`, or one file; a `.onnx` file with its external data.

    Metrics: the totals. Raises StepError for no file, and for external data that are missing or damaged.
    """
    folder = model if model.is_dir() else model.parent
    paths = _files(model)
    if not paths:
        raise StepError(f"{model.name}: no file to measure", "build the artifact again")
    sizes: dict[str, dict[str, int]] = {}
    for path in paths:
        sizes[path.relative_to(folder).as_posix()] = _measure(path, params)
    totals = {key: sum(size[key] for size in sizes.values()) for key in next(iter(sizes.values()))}
    largest = max(sizes, key=lambda name: sizes[name]["bytes"])
    metrics = {
        "files": sizes,
        "totals": totals,
        "largest_file": {"name": largest, "bytes": sizes[largest]["bytes"]},
        "compressors": {name: compressor.label for name, compressor in _compressors(params).items()},
    }
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    return {**totals, "largest_file_bytes": sizes[largest]["bytes"], "files": len(sizes)}


def _files(model: Path) -> list[Path]:
    if model.is_file() and model.suffix == ".onnx":
        from artifacts.graph.model_file import model_files  # not needed to measure a folder

        return model_files(model)
    return [model] if model.is_file() else sorted(path for path in model.rglob("*") if path.is_file())


@dataclass(frozen=True)
class _Compressor:
    label: str
    compress: Callable[[bytes], bytes]
    finish: Callable[[], bytes]


def _compressors(params: Params) -> dict[str, _Compressor]:
    """New compressors for one file, by name."""
    import brotli
    import zstandard

    chosen = {}
    if (level := params.gzip_level) is not None:
        gzip = zlib.compressobj(level, wbits=GZIP_CONTAINER)
        chosen["gzip"] = _Compressor(f"zlib {zlib.ZLIB_RUNTIME_VERSION} level {level}", gzip.compress, gzip.flush)
    if (quality := params.brotli_quality) is not None:
        stream = brotli.Compressor(quality=quality)
        chosen["brotli"] = _Compressor(f"brotli quality {quality}", stream.process, stream.finish)
    if (level := params.zstd_level) is not None:
        zstd = zstandard.ZstdCompressor(level=level).compressobj()
        chosen["zstd"] = _Compressor(f"zstd level {level}", zstd.compress, zstd.flush)
    return chosen


def _measure(path: Path, params: Params) -> dict[str, int]:
    compressors = _compressors(params)
    size = dict.fromkeys(("bytes", *(f"{name}_bytes" for name in compressors)), 0)
    # The libraries release the GIL while they compress, so threads help. Sizes do not depend on them.
    total = path.stat().st_size
    with ThreadPoolExecutor(max(1, len(compressors))) as pool, path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            if size["bytes"] % (16 * CHUNK_BYTES) == 0:
                log.info("compressing %s", path.name, extra={"done": size["bytes"], "total": total})
            size["bytes"] += len(chunk)
            compressed = pool.map(lambda compressor, chunk=chunk: compressor.compress(chunk), compressors.values())
            for name, output in zip(compressors, compressed, strict=True):
                size[f"{name}_bytes"] += len(output)
    for name, compressor in compressors.items():
        size[f"{name}_bytes"] += len(compressor.finish())
    return size
