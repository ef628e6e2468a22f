from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from artifacts.errors import StepError
from artifacts.ncnn.named_tools import Files, run_calibrator, run_quantiser
from artifacts.ncnn.runtime import find_net
from artifacts.ncnn.scale_table import read_table
from lstm_networks import LstmNetworks
from ncnn_conversions import Pieces
from stand_in_tools import program

TABLE = "conv_13_param_0 1.000000 2.000000 \nconv_13 3.000000 \n"

RECORDER = f"""
# Writes down what it was given, and a table for the encoder alone.
import json, shutil
said = Path(__file__).parent / "said"
said.mkdir()
(said / "argv.json").write_text(json.dumps(sys.argv[1:]))
clips = Path(sys.argv[9]).read_text().splitlines()
for number, name in enumerate([sys.argv[1], *clips]):
    shutil.copy(name, said / f"{{number}}{{Path(name).suffix}}")
Path(sys.argv[7]).write_text({TABLE!r})
Path(sys.argv[8]).write_text("")
"""


@pytest.fixture
def networks(lstm: LstmNetworks) -> tuple[Files, Files, Files]:
    encoder, predictor, joint = (find_net(lstm.converted(part)) for part in ("encoder", "predictor", "joint"))
    return encoder, predictor, joint


def test_the_calibrator_gets_three_networks_and_the_clips_and_leaves_two_tables(
    networks: tuple[Files, Files, Files], tmp_path: Path
) -> None:
    tool = program(tmp_path / "tool", RECORDER)
    clip = np.array([0, 0.5, -1, 1, 1 / 32768], np.float32)
    out = tmp_path / "out"
    out.mkdir()
    assert run_calibrator(tool, *networks, [clip, clip[:2]], out) == ["encoder"]
    assert (out / "encoder.table").read_text() == TABLE
    assert read_table(out / "encoder.table").activations == {"conv_13": 3}
    assert [path.name for path in out.iterdir()] == ["encoder.table"]
    words = json.loads((tmp_path / "said" / "argv.json").read_text())
    assert words[1:6] == [str(path) for path in (networks[0][1], *networks[1], *networks[2])]
    tagged = (tmp_path / "said" / "0.param").read_text().splitlines()
    assert tagged[2].split()[:2] == ["SherpaMetaData", "sherpa_meta_data1"]
    samples, rate = soundfile.read(tmp_path / "said" / "1.wav", dtype="int16")
    assert (samples.tolist(), rate) == ([0, 16384, -32768, 32767, 1], 16000)
    assert len(soundfile.read(tmp_path / "said" / "2.wav")[0]) == 2


def test_a_tool_that_fails_is_quoted(networks: tuple[Files, Files, Files], pieces: Pieces, tmp_path: Path) -> None:
    tool = program(tmp_path / "tool", "sys.exit('no luck today')")
    with pytest.raises(StepError, match=r"encoder\.ncnn\.param: 'tool' does not calibrate it: .*no luck today"):
        run_calibrator(tool, *networks, [], tmp_path)
    with pytest.raises(StepError, match=r"joint\.ncnn\.param: 'tool' does not quantise it: .*no luck today"):
        run_quantiser(tool, find_net(pieces.folder("joint")), None, tmp_path)
    program(tool, f"Path(sys.argv[7]).write_text({'conv_13 0'!r})")
    with pytest.raises(StepError, match=r"encoder\.table:1: conv_13: '0' is no scale"):
        run_calibrator(tool, *networks, [], tmp_path)


def test_what_is_no_program_is_refused(networks: tuple[Files, Files, Files], pieces: Pieces, tmp_path: Path) -> None:
    (tmp_path / "tool").write_text("")
    for tool in (tmp_path / "tool", tmp_path, tmp_path / "none"):
        with pytest.raises(StepError, match=f"'{tool.name}' is not a program"):
            run_calibrator(tool, *networks, [], tmp_path)
        with pytest.raises(StepError, match=f"'{tool.name}' is not a program"):
            run_quantiser(tool, find_net(pieces.folder("joint")), None, tmp_path)


def test_the_quantiser_gets_the_paths_in_its_own_order(pieces: Pieces, tmp_path: Path) -> None:
    tool = program(tmp_path / "tool", "Path(sys.argv[3]).write_text(chr(10).join(sys.argv[1:]))")
    param, weights = find_net(pieces.folder("joint"))
    made = run_quantiser(tool, (param, weights), tmp_path / "a.table", tmp_path)
    want = [param, weights, tmp_path / param.name, tmp_path / weights.name, tmp_path / "a.table"]
    assert made.read_text().splitlines() == [str(path) for path in want]
