from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from artifacts.errors import StepError
from artifacts.graph.model_file import consolidate
from artifacts.graph.quantization.activation_statistics import (
    MODEL_KEY,
    ActivationStatistics,
    StatisticsReader,
    digest_model,
    write_statistics,
)
from small_model import write_model

NAMES = ("/layers.0/norm/out", "/layers.0/linear:1 \N{GREEK SMALL LETTER ALPHA}")


def statistics(value: str, channels: int = 3) -> ActivationStatistics:
    numbers = np.arange(channels, dtype=np.float32)
    return ActivationStatistics(
        value=value,
        frames=17,
        low=-numbers,
        high=numbers / 2,
        percentile=numbers / 3,
        clip=1.75,
        rows=np.arange(2 * channels, dtype=np.float32).reshape(2, channels),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_statistics(tmp_path, [statistics(NAMES[0]), statistics(NAMES[1], 5)], {"seconds": 12.5, "speech": "ab"})
    return tmp_path


def test_what_was_written_is_read(folder: Path) -> None:
    reader = StatisticsReader(folder)
    assert reader.values == list(NAMES)
    assert reader.measured == {"seconds": 12.5, "speech": "ab"}
    for name, channels in zip(NAMES, (3, 5), strict=True):
        found, expected = reader.read(name), statistics(name, channels)
        assert (found.value, found.frames, found.clip) == (name, 17, 1.75)
        for field in ("low", "high", "percentile", "rows"):
            np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))
            assert getattr(found, field).dtype == np.float32


def test_the_largest_magnitude_is_that_of_either_end() -> None:
    one = statistics("x")
    np.testing.assert_array_equal(one.abs_max, [0, 1, 2])
    np.testing.assert_array_equal(statistics("x").abs_max, np.maximum(-one.low, one.high))


def test_a_value_that_was_not_measured_is_an_error(folder: Path) -> None:
    with pytest.raises(StepError, match="no statistics of the value 'other'") as caught:
        StatisticsReader(folder).read("other")
    assert caught.value.fix == "calibrate on this model"


def test_statistics_of_another_model_are_refused_also_where_only_its_data_file_differs(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    path = tmp_path / "model" / "encoder-model.onnx"
    (tmp_path / "large").mkdir()
    consolidate(path, large := tmp_path / "large" / "encoder-model.onnx", external=True)
    write_statistics(tmp_path, [statistics(NAMES[0])], {MODEL_KEY: digest_model(large)})
    reader = StatisticsReader(tmp_path)
    reader.check_model(large)
    data = bytearray((tmp_path / "large" / "encoder-model.onnx.data").read_bytes())
    data[-1] ^= 1
    (tmp_path / "large" / "encoder-model.onnx.data").write_bytes(data)
    for other in (path, large):
        with pytest.raises(StepError, match=r"encoder-model\.onnx: the statistics are those of another model"):
            reader.check_model(other)


@pytest.mark.parametrize("missing", ["statistics.json", "statistics.npz"])
def test_a_folder_without_statistics_is_an_error(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(StepError, match=r"has no statistics\.json and statistics\.npz"):
        StatisticsReader(folder)


def test_the_bytes_are_the_same_whenever_they_are_written(folder: Path, tmp_path: Path) -> None:
    # Without a clock, another hash seed and another time zone.
    script = (
        "import sys, time; from pathlib import Path; sys.path[:0] = sys.argv[1:3]; time.localtime = None\n"
        "import test_activation_statistics as t\n"
        "t.write_statistics(Path(sys.argv[3]), [t.statistics(t.NAMES[0]), t.statistics(t.NAMES[1], 5)],"
        " {'seconds': 12.5, 'speech': 'ab'})"
    )
    (tmp_path / "again").mkdir()
    here = Path(__file__).parent
    command = [sys.executable, "-c", script, str(here), str(here.parents[1] / "support"), str(tmp_path / "again")]
    subprocess.run(command, env={"PYTHONHASHSEED": "9", "TZ": "Asia/Tokyo"}, check=True)
    for name in ("statistics.json", "statistics.npz"):
        assert digest(folder / name) == digest(tmp_path / "again" / name)
    with zipfile.ZipFile(folder / "statistics.npz") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_index_is_for_people_too(folder: Path) -> None:
    index = json.loads((folder / "statistics.json").read_text(encoding="utf-8"))
    assert index["values"][1] == {"value": NAMES[1], "frames": 17, "channels": 5}


def damage(folder: Path, **arrays: np.ndarray) -> None:
    with np.load(folder / "statistics.npz") as found:
        values = dict(found)
    np.savez(folder / "statistics.npz", allow_pickle=False, **(values | arrays))


@pytest.mark.parametrize(
    ("arrays", "fact"),
    [
        ({"0.low": np.zeros(4, np.float32)}, "different numbers of channels"),
        ({"0.clip": np.zeros(1, np.float32)}, "different numbers of channels"),
        ({"0.rows": np.zeros((0, 3), np.float32)}, "different numbers of channels"),
        ({"0.rows": np.zeros(3, np.float32)}, "different numbers of channels"),
        ({"0.high": np.full(3, np.nan, np.float32)}, "high: NaN or infinity"),
        ({"0.clip": np.float32(np.inf)}, "clip: NaN or infinity"),
        ({"0.low": np.full(3, 9, np.float32)}, "a range ends below its start"),
        ({"0.low": np.zeros(3)}, "array '0.low': is float64"),
    ],
)
def test_damaged_arrays_are_refused(folder: Path, arrays: dict[str, np.ndarray], fact: str) -> None:
    damage(folder, **arrays)
    with pytest.raises(StepError) as raised:
        StatisticsReader(folder).read(NAMES[0])
    assert raised.value.fact.startswith("statistics.npz: ")
    assert fact in raised.value.fact


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("", "statistics.json:1: is not JSON"),
        ("[" * 100_000, "statistics.json: is nested too deep"),
        ("[]", "statistics.json: must be"),
        ('{"measured": {}}', "statistics.json: values: this key is missing"),
        ('{"measured": 1, "values": []}', "statistics.json: measured: must be"),
        ('{"measured": {}, "values": [{"value": "x"}]}', "statistics.json: values.0.frames: this key is missing"),
        (
            '{"measured": {}, "values": [{"value": "x", "frames": 0}]}',
            "statistics.json: values.0.frames: must be",
        ),
    ],
)
def test_a_damaged_index_is_refused_with_its_key(folder: Path, text: str, fact: str) -> None:
    (folder / "statistics.json").write_text(text)
    with pytest.raises(StepError) as raised:
        StatisticsReader(folder)
    assert raised.value.fact.startswith(fact)
