"""Times what streams against what it is held to: shard_weights and cp; fp16 and the quantisers that need no speech, and
reading their input and writing as many bytes as their output.

    python benchmarks/streaming.py                    # 2.42 GB, three pairs; needs 6 GB of disk
    python benchmarks/streaming.py --gigabytes 0.2    # a quick look
    python benchmarks/streaming.py --peers            # the libraries too, once each; needs 10 GB of memory
    python benchmarks/streaming.py --only NAME ...    # some contestants; nothing is kept

Each contestant is a process of its own. "process s" is the time seen from outside, "step s" that of the work alone:
what starting Python and importing libraries takes does not grow with the model. Baseline and contestant take turns;
the median of the pairs' ratios is what to trust on a machine that does other things too. "peak MiB" is the process's
high-water mark, "own MiB" the part that no file stands behind. The model is made for the occasion, and removed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from statistics import median

MODEL = "encoder-model.onnx"
MAX_SHARD_BYTES = 1_500_000_000
LIBRARIES = (
    "numpy", "onnx", "onnx-ir", "onnx-neural-compressor", "onnx-shrink-ray", "onnxconverter-common", "onnxruntime",
    "protobuf",
)  # fmt: skip
RESULTS = Path(__file__).with_name("results.json")


Run = dict[str, float]
"""`wall_seconds`, `cpu_seconds`, and of the contestants `step_seconds`, `peak_bytes` and `own_bytes`."""


def shard_weights(source: Path, out: Path) -> None:
    from artifacts.steps import shard_weights as step

    step.run(out, step.Params(max_shard_bytes=MAX_SHARD_BYTES), model=source)


def convert_fp16(source: Path, out: Path) -> None:
    from artifacts.steps import convert_fp16 as step

    step.run(out, step.Params(), model=source)


def onnxconverter_common(source: Path, out: Path) -> None:
    from artifacts.steps import convert_fp16 as step

    step.run(out, step.Params(converter="onnxconverter-common"), model=source)


def onnx_ir(source: Path, out: Path) -> None:
    import onnx_ir as ir

    model = ir.load(source / MODEL)
    ir.save(model, out / MODEL, external_data=f"{MODEL}.data", max_shard_size_bytes=MAX_SHARD_BYTES)


def quantize_weights(source: Path, out: Path) -> None:
    from artifacts.steps import quantize_weights as step

    step.run(out, step.Params(), model=source)


def round_weights(source: Path, out: Path) -> None:
    from artifacts.steps import round_weights as step

    step.run(out, step.Params(), model=source)


def quantize_nbits(source: Path, out: Path) -> None:
    from artifacts.steps import quantize_nbits as step

    step.run(out, step.Params(), model=source)


def quantize_dynamic(source: Path, out: Path) -> None:
    from artifacts.steps import quantize_dynamic as step

    step.run(out, step.Params(), model=source)


def onnxruntime_nbits(source: Path, out: Path) -> None:
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(
        onnx.load(source / MODEL), bits=8, block_size=32, is_symmetric=True, accuracy_level=4
    )
    quantizer.process()
    quantizer.model.save_model_to_file(str(out / MODEL), use_external_data_format=True)


def shrink_ray_weights(source: Path, out: Path) -> None:
    import onnx
    from onnx_shrink_ray.shrink import quantize_weights

    onnx.save(quantize_weights(onnx.load(source / MODEL)), out / MODEL)


def neural_compressor_4bits(source: Path, out: Path) -> None:
    """4 bits: its 8 are rounded weights in plain MatMuls, as large as they were."""
    import onnx
    from onnx_neural_compressor.quantization import algorithm_entry, config

    rounding = config.RTNConfig(weight_bits=4, weight_group_size=32, accuracy_level=4)
    model = algorithm_entry.rtn_quantize_entry(str(source / MODEL), rounding)
    onnx.save(model, out / MODEL, save_as_external_data=True, location=f"{MODEL}.data")


Command = Callable[[Path, Path], list[str]]

KIT = ("artifacts.graph.model_file", "artifacts.graph.tensor_writer")
CHILDREN: dict[str, tuple[Callable[[Path, Path], None], tuple[str, ...]]] = {
    "shard_weights": (shard_weights, ("artifacts.steps.shard_weights", *KIT)),
    "convert_fp16": (convert_fp16, ("artifacts.steps.convert_fp16", *KIT, "artifacts.graph.fp16_graph")),
    "quantize_weights": (quantize_weights, ("artifacts.steps.quantize_weights", *KIT)),
    "round_weights": (round_weights, ("artifacts.steps.round_weights", *KIT)),
    "quantize_nbits": (quantize_nbits, ("artifacts.steps.quantize_nbits", *KIT)),
    "quantize_dynamic": (quantize_dynamic, ("artifacts.steps.quantize_dynamic", *KIT, "onnxruntime.quantization")),
    "onnxruntime_nbits": (onnxruntime_nbits, ("onnxruntime.quantization.matmul_nbits_quantizer", "onnx_ir")),
    "neural_compressor_4bits": (neural_compressor_4bits, ("onnx_neural_compressor.quantization.algorithm_entry",)),
    "shrink_ray_weights": (shrink_ray_weights, ("onnx_shrink_ray.shrink",)),
    "onnx_ir": (onnx_ir, ("onnx_ir",)),
    "onnxconverter_common": (
        onnxconverter_common,
        ("artifacts.steps.convert_fp16", *KIT, "artifacts.graph.fp16_graph", "onnxconverter_common.float16"),
    ),
}
"""What to run, and what it imports: before the step is timed."""


def cp(source: Path, out: Path) -> list[str]:
    return ["cp", "-r", str(source), str(out)]


def read_and_write(part: float) -> Command:
    """Read the model's data, and write `part` as many bytes."""

    def command(source: Path, out: Path) -> list[str]:
        data = source / f"{MODEL}.data"
        count = int(data.stat().st_size * part)
        write = f"dd if=/dev/zero of='{out}/data' bs=1M iflag=count_bytes count={count} status=none"
        return ["sh", "-c", f"cat '{data}' > /dev/null && {write}"]

    return command


BASELINES: dict[str, Command] = {
    "cp": cp,
    "read, write all": read_and_write(1.0),
    "read, write half": read_and_write(0.5),
    "read, write quarter": read_and_write(0.25),
}

CONTESTS = {
    "shard_weights": "cp",
    "convert_fp16": "read, write half",
    "quantize_weights": "read, write quarter",
    "round_weights": "read, write all",
    "quantize_nbits": "read, write quarter",
}
"""Each contestant's baseline."""

PEERS = {
    "onnx_ir": "cp",
    "onnxconverter_common": "read, write half",
    "shrink_ray_weights": "read, write quarter",
    "onnxruntime_nbits": "read, write quarter",
    "neural_compressor_4bits": "read, write quarter",
    "quantize_dynamic": "read, write quarter",
}
"""The libraries, and the step of ours that is a library's. What is not installed is left out, and said to be."""


def timed(command: list[str], out: Path) -> Run:
    """Run the command with an empty `out`, after what was written before has reached the disk."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    os.sync()
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as pipe:
        said = pipe.read().strip().splitlines()[-1:]  # libraries show their progress before
    _, status, usage = os.wait4(process.pid, 0)
    run: Run = {"wall_seconds": time.monotonic() - started, "cpu_seconds": usage.ru_utime + usage.ru_stime}
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    run.update(json.loads(said[0]) if said else {})
    return run


def be_child(name: str, source: Path, out: Path) -> None:
    function, modules = CHILDREN[name]
    for module in modules:
        import_module(module)
    started = time.monotonic()
    function(source, out)
    seconds = time.monotonic() - started
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak, of_files = (int(status[key].split()[0]) * 1024 for key in ("VmHWM", "RssFile"))
    print("\n" + json.dumps({"step_seconds": seconds, "peak_bytes": peak, "own_bytes": peak - of_files}))


def compare(name: str, baseline: str, pairs: int, source: Path, out: Path) -> dict[str, object]:
    """Baseline and contestant in turns: medians of their seconds, and of the ratios within a pair."""
    theirs, ours = [], []
    for _ in range(pairs):
        theirs.append(timed(BASELINES[baseline](source, out), out))
        ours.append(timed([sys.executable, __file__, "--child", name, str(source), str(out)], out))
        said = f"{baseline} {theirs[-1]['wall_seconds']:.2f} s, {name} {ours[-1]['wall_seconds']:.2f} s"
        print(said, file=sys.stderr, flush=True)
    row: dict[str, object] = {"contestant": name, "baseline": baseline, "pairs": pairs}
    row["baseline_seconds"] = round(median(run["wall_seconds"] for run in theirs), 2)
    for key, against in (
        ("wall_seconds", "wall_seconds"),
        ("step_seconds", "wall_seconds"),
        ("cpu_seconds", "cpu_seconds"),
    ):
        row[key] = round(median(run[key] for run in ours), 2)
        ratios = (mine[key] / other[against] for mine, other in zip(ours, theirs, strict=True))
        row[f"{key}_ratio"] = round(median(ratios), 2)
    for key in ("peak_bytes", "own_bytes"):
        row[key] = max(run[key] for run in ours)
    return row


def table(rows: list[dict[str, object]]) -> str:
    """The rows in Markdown, as README.md shows them."""
    heads = ("contestant", "baseline", "baseline s", "process s", "ratio", "step s", "ratio", "own MiB", "peak MiB")
    keys = ("contestant", "baseline", "baseline_seconds", "wall_seconds", "wall_seconds_ratio", "step_seconds")
    lines = [heads, ("---",) * len(heads)]
    for row in rows:
        memory = [f"{int(str(row[key])) / 2**20:.0f}" for key in ("own_bytes", "peak_bytes")]
        lines.append((*(str(row[key]) for key in (*keys, "step_seconds_ratio")), *memory))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def is_installed(name: str) -> bool:
    """Whether a peer can be run here; it is said if not."""
    library = CHILDREN[name][1][-1].partition(".")[0]
    if find_spec(library) is None:
        print(f"{name}: left out, {library} is not installed", file=sys.stderr)
        return False
    return True


def main() -> None:
    from synthetic_encoder import write_encoder  # the children do without

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=2.42, help="size of the encoder (%(default)s)")
    parser.add_argument("--pairs", type=int, default=3, help="runs of each pair (%(default)s)")
    parser.add_argument("--folder", type=Path, help="where to work (the system's temporary folder)")
    parser.add_argument("--peers", action="store_true", help="the libraries too, once each")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these contestants alone")
    parser.add_argument("--date", help="kept with the results")
    arguments = parser.parse_args()
    contests = [(name, baseline, arguments.pairs) for name, baseline in CONTESTS.items()]
    if arguments.peers:
        contests += [(name, baseline, 1) for name, baseline in PEERS.items() if is_installed(name)]
    if arguments.only:
        contests = [contest for contest in contests if contest[0] in arguments.only]
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        source, out = Path(folder, "source"), Path(folder, "out")
        source.mkdir()
        write_encoder(source, arguments.gigabytes)
        nbytes = sum(path.stat().st_size for path in source.iterdir())
        rows = [compare(*contest, source, out) for contest in contests]
    results = {
        "date": arguments.date,
        "model_bytes": nbytes,
        "cpus": os.cpu_count(),
        "versions": versions(),
        "rows": rows,
    }
    if not arguments.only:
        RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        be_child(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
