"""The real calibrator and quantiser, for those who have them: `generate-int8-scale-table` and `ncnn2int8`.

No package ships either. Both are called with paths alone, say what they do on stderr, and leave files behind; what they
leave is read by those who call this.
"""

from __future__ import annotations

import os
import wave
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from artifacts.errors import StepError
from artifacts.files.copy import copy_file
from artifacts.ncnn.param_file import ParamFile, read_param, write_param
from artifacts.ncnn.runtime import METADATA_TYPE
from artifacts.ncnn.scale_table import SUFFIX, read_table
from artifacts.ncnn.sherpa_metadata import add_metadata
from artifacts.runtime.child_process import run_program

LIMIT_SECONDS = 3600.0
SAMPLE_RATE_HZ = 16_000

Files = tuple[Path, Path]
"""A network's `.param` and `.bin`."""


def run_quantiser(tool: Path, network: Files, table: Path | None, out: Path) -> Path:
    """`ncnn2int8 <in.param> <in.bin> <out.param> <out.bin> [table]`: writes both files to `out`; returns the first.

    Raises StepError for what is no program, a network with sherpa-ncnn's metadata, which would be lost, and for a
    program that fails; the error quotes it.
    """
    param, weights = network
    if _is_tagged(read_param(param)):
        raise StepError(
            f"{param.name}: holds {METADATA_TYPE}, which '{tool.name}' would lose",
            "quantise first, then add it (tag_sherpa_ncnn)",
        )
    made = out / param.name
    words = [param, weights, made, out / weights.name, *([table] if table else [])]
    with _program(tool) as scratch:
        _call(tool, words, scratch, f"{param.name}: '{tool.name}' does not quantise it")
    return made


def run_calibrator(
    tool: Path, encoder: Files, predictor: Files, joint: Files, clips: Iterable[npt.NDArray[np.float32]], out: Path
) -> list[str]:
    """`generate-int8-scale-table` on clips `[N]` at 16 kHz: writes `encoder.table` and `joint.table`.

    Returns the parts whose table is not empty. The encoder is given with sherpa-ncnn's metadata, the clips as WAV files
    of 16 bits. Raises StepError for what is no program, an encoder that is no LSTM transducer's, a program that fails,
    and tables that cannot be read.
    """
    with _program(tool) as scratch:
        file = read_param(encoder[0])
        tagged = scratch / encoder[0].name
        write_param(file if _is_tagged(file) else add_metadata(file, encoder[0].name), tagged)
        names = []
        for number, clip in enumerate(clips):
            names.append(f"{scratch / f'{number}.wav'}\n")
            _write_wave(scratch / f"{number}.wav", clip)
        (scratch / "clips.txt").write_text("".join(names), encoding="utf-8")
        tables = {part: scratch / f"{part}{SUFFIX}" for part in ("encoder", "joint")}
        words = [tagged, encoder[1], *predictor, *joint, *tables.values(), scratch / "clips.txt"]
        _call(tool, words, scratch, f"{encoder[0].name}: '{tool.name}' does not calibrate it")
        written = [part for part, path in tables.items() if path.is_file() and path.stat().st_size]
        for part in written:
            read_table(tables[part])
            copy_file(tables[part], out / tables[part].name)
    return written


@contextmanager
def _program(tool: Path) -> Iterator[Path]:
    """A folder to run it in, if it is one."""
    if not tool.is_file() or not os.access(tool, os.X_OK):
        raise StepError(f"'{tool.name}' is not a program", f"name the executable itself; chmod +x {tool.name}")
    with TemporaryDirectory() as scratch:
        yield Path(scratch)


def _call(tool: Path, words: list[Path], scratch: Path, fact: str) -> None:
    command = [path.absolute() for path in (tool, *words)]
    run_program(command, scratch, LIMIT_SECONDS, fact, "see what it says, or leave the tool out: then it is done here")


def _is_tagged(file: ParamFile) -> bool:
    return any(layer.type == METADATA_TYPE for layer in file.layers)


def _write_wave(path: Path, clip: npt.NDArray[np.float32]) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(np.clip(np.round(clip * 32768), -32768, 32767).astype("<i2").tobytes())
