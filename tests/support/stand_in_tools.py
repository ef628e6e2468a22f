"""Programs that obey the command lines of ncnn's and sherpa-ncnn's own tools, which no package ships.

They are none of these tools: each calls what it stands in for. What they show is that a named program is called as the
real one is, and that its outcome is taken.
"""

from __future__ import annotations

import sys
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "src"

QUANTISER = """
import shutil, tempfile
from artifacts.steps.quantize_ncnn_int8 import Params, run
if len(sys.argv) not in (5, 6):
    sys.exit("usage: ncnn2int8 [inparam] [inbin] [outparam] [outbin] [calibration table]")
param, weights, out_param, out_bin, *table = map(Path, sys.argv[1:])
if b"Embed" in param.read_bytes():
    sys.exit("embed_0 (Embed): calibration table is required")
with tempfile.TemporaryDirectory() as name:
    run(Path(name), Params(), model=param.parent, table=table[0] if table else None)
    shutil.move(Path(name, param.name), out_param)
    shutil.move(Path(name, weights.name), out_bin)
"""

CALIBRATOR = """
import soundfile
from artifacts.speech.streaming_rnnt import transcribe
from artifacts.ncnn.lstm_transducer import LstmTransducer
from artifacts.ncnn.runtime import Net
from artifacts.ncnn.scale_table import write_table
from artifacts.ncnn.tapped_net import TappedNet
if len(sys.argv) != 10:
    sys.exit(f"Please provide 10 arg. Currently given: {len(sys.argv)}")
paths = list(map(Path, sys.argv[1:]))
if b"SherpaMetaData" not in paths[0].read_bytes():
    sys.exit("Unable to create a model from specified model files.")
tapped = TappedNet(*paths[0:2]), TappedNet(*paths[4:6])
nets = tapped[0], Net(*paths[2:4]), tapped[1]
networks = LstmTransducer(*(path.parent for path in paths[0:6:2]), nets=nets)
for number in range(2):
    for name in paths[8].read_text().splitlines():
        clip, rate = soundfile.read(name, dtype="float32")
        assert rate == 16000
        transcribe(networks, clip)
    if not number:
        for net in tapped:
            net.begin_second_pass()
for net, path in zip(tapped, paths[6:8]):
    write_table(net.table("kl"), path)
"""


def program(path: Path, script: str) -> Path:
    """Write an executable Python program that finds this project's sources."""
    start = ["import sys", "from pathlib import Path", f"sys.path.insert(0, {str(SOURCES)!r})"]
    path.write_text("\n".join([f"#!{sys.executable}", *start, script]))
    path.chmod(0o755)
    return path


def quantiser(path: Path) -> Path:
    """A stand-in for `ncnn2int8`. It refuses an Embed, as newer ones do without a table."""
    return program(path, QUANTISER)


def calibrator(path: Path) -> Path:
    """A stand-in for `generate-int8-scale-table`."""
    return program(path, CALIBRATOR)
