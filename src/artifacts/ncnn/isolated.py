"""ncnn tried on a file in a process of its own: where it crashes on what pnnx wrote, there is an error, not an end.

`python -m artifacts.ncnn.isolated <folder>` is that process. `trial.json` in the folder names the network and the blobs
to return; each `feeds-<n>.npz` is one run, which `results-<n>.npz` answers, or `error.json` all of them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from artifacts.errors import StepError
from artifacts.ncnn.runtime import Array, Blob, Net
from artifacts.runtime.child_process import die_with_parent, run_program

LIMIT_SECONDS = 600.0


def open_net(param: Path, weights: Path, *, threads: int = 1, fp16_storage: bool = False) -> Net:
    """`Net`, after another process has opened it. Raises StepError if that one died of it, or if `Net` does."""
    run_isolated(param, weights, [], threads=threads, fp16_storage=fp16_storage)
    return Net(param, weights, threads=threads, fp16_storage=fp16_storage)


def run_isolated(
    param: Path,
    weights: Path,
    cases: Sequence[Mapping[str, Array]],
    outputs: Iterable[str] | None = None,
    *,
    threads: int = 1,
    fp16_storage: bool = False,
) -> list[dict[str, Blob]]:
    """Open a network elsewhere and run it once for each of `cases`, as `Net.run` does. Raises StepError as it does.

    The limit is 10 minutes for all of the cases; a network that is larger than that is not run here.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        trial = {
            "param": str(param.absolute()),
            "weights": str(weights.absolute()),
            "cases": len(cases),
            "outputs": None if outputs is None else list(outputs),
            "threads": threads,
            "fp16_storage": fp16_storage,
        }
        (folder / "trial.json").write_text(json.dumps(trial), encoding="utf-8")
        for number, feeds in enumerate(cases):
            _write(folder / f"feeds-{number}.npz", feeds)
        run_program(
            [sys.executable, "-P", "-m", "artifacts.ncnn.isolated", folder],
            folder,
            LIMIT_SECONDS,
            f"{param.name}: ncnn does not survive {'running' if cases else 'loading'} it",
            "convert the model again; if it was, pnnx wrote layers that ncnn misreads",
        )
        if (folder / "error.json").exists():
            raise StepError(*json.loads((folder / "error.json").read_text(encoding="utf-8")))
        return [_read(folder / f"results-{number}.npz") for number in range(len(cases))]


def _write(path: Path, arrays: Mapping[str, Array]) -> None:
    np.savez(path, allow_pickle=False, **arrays)


def _read(path: Path) -> dict[str, Blob]:
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _main(folder: Path) -> None:
    die_with_parent()
    trial = json.loads((folder / "trial.json").read_text(encoding="utf-8"))
    try:
        net = Net(
            Path(trial["param"]),
            Path(trial["weights"]),
            threads=trial["threads"],
            fp16_storage=trial["fp16_storage"],
        )
        for number in range(trial["cases"]):
            results = net.run(_read(folder / f"feeds-{number}.npz"), trial["outputs"])
            _write(folder / f"results-{number}.npz", results)
    except StepError as error:
        (folder / "error.json").write_text(json.dumps([error.fact, error.fix]), encoding="utf-8")


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
