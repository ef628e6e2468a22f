from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from artifacts.errors import StepError
from artifacts.speech.corpus import MAX_LINE_CHARACTERS, SAMPLE_RATE_HZ, read_corpus

ROW = {"id": "a-0", "slice": "a", "audio_filepath": "clips/a.flac", "gap_seconds": 0.4, "duration": 0.5, "text": "one"}


def write_clip(path: Path, seconds: float = 0.5, level: float = 0.25, rate_hz: int = SAMPLE_RATE_HZ) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(int(seconds * rate_hz), level, dtype=np.float32), rate_hz, subtype="PCM_16")


def write_rows(folder: Path, *rows: dict[str, Any]) -> Path:
    (folder / "utterances.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def test_a_list_of_clips_is_joined_with_silence_between(tmp_path: Path) -> None:
    write_clip(tmp_path / "clips/a.flac", level=0.25)
    write_clip(tmp_path / "clips/b.flac", level=-0.5)
    row = ROW | {"audio_filepath": ["clips/a.flac", "clips/b.flac"], "duration": 1.4}
    corpus = read_corpus(write_rows(tmp_path, row))
    waveform = corpus.waveform(corpus.utterances[0])
    levels = [(0.25, 0.5), (0.0, 0.4), (-0.5, 0.5)]
    expected = np.concatenate([np.full(int(s * SAMPLE_RATE_HZ), level, dtype=np.float32) for level, s in levels])
    assert waveform.dtype == np.float32
    np.testing.assert_array_equal(waveform, expected)


def test_every_utterance_of_the_evaluation_speech_lasts_as_long_as_its_row_says(evaluation: Path) -> None:
    corpus = read_corpus(evaluation)
    for utterance in corpus.evenly_spread(2):
        waveform = corpus.waveform(utterance)
        assert abs(len(waveform) / SAMPLE_RATE_HZ - utterance.duration) < 0.001
        assert 0.001 < np.abs(waveform).max() <= 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "x/utterances.jsonl:2:2: is not JSON: expecting property name"),
        ("[1]", "x/utterances.jsonl:2: must be a mapping of keys"),
        (json.dumps(ROW | {"duration": "0.5"}), "x/utterances.jsonl:2: duration: must be a number"),
        (json.dumps(ROW | {"duration": 0}), "x/utterances.jsonl:2: duration: must be greater than 0"),
        (json.dumps(ROW | {"duration": float("nan")}), "x/utterances.jsonl:2: is not JSON that can be read: NaN"),
        (json.dumps(ROW | {"duration": 1e9}), "x/utterances.jsonl:2: duration: must be at most"),
        (json.dumps(ROW | {"gap_seconds": 1e9}), "x/utterances.jsonl:2: gap_seconds: must be at most"),
        ("[" * 100_000, "x/utterances.jsonl:2: is nested too deep"),
        ("9" * 5000, "x/utterances.jsonl:2: is not JSON that can be read: Exceeds the limit"),
        ('{"id": "\\ud800"}', "x/utterances.jsonl:2: contains half a surrogate pair"),
        ("x" * (MAX_LINE_CHARACTERS + 1), "x/utterances.jsonl:2: has more than 16777216 characters"),
        (json.dumps(ROW | {"id": "b", "audio_filepath": "clips/\0"}), "2: audio_filepath: no file at 'x/clips/"),
        (json.dumps(ROW | {"id": "b", "audio_filepath": "x" * 5000}), "2: audio_filepath: no file at 'x/xxx"),
        (json.dumps(ROW | {"id": "b", "audio_filepath": "./utterances.jsonl"}), "is the manifest"),
        (json.dumps(ROW | {"gap_seconds": -1}), "x/utterances.jsonl:2: gap_seconds: must be"),
        (json.dumps(ROW | {"text": " "}), "x/utterances.jsonl:2: text: must have at least 1 character"),
        (json.dumps(ROW | {"audio_filepath": []}), "x/utterances.jsonl:2: audio_filepath: "),
        (json.dumps(ROW | {"audio_filepath": 3}), "x/utterances.jsonl:2: audio_filepath: "),
        (
            json.dumps({key: ROW[key] for key in ROW if key != "slice"}),
            "x/utterances.jsonl:2: slice: this key is missing",
        ),
        (json.dumps(ROW | {"slice": "all"}), "2: slice: 'all' is the row of all slices in a table"),
        (json.dumps(ROW), "x/utterances.jsonl:2: id: 'a-0' is also on line 1"),
        (
            json.dumps(ROW | {"id": "b", "audio_filepath": "clips/b.flac"}),
            "2: audio_filepath: no file at 'x/clips/b.flac'",
        ),
        (json.dumps(ROW | {"id": "b", "audio_filepath": "../x/clips/a.flac"}), "points outside the corpus folder"),
        (json.dumps(ROW | {"id": "b", "audio_filepath": "/clips/a.flac"}), "points outside the corpus folder"),
    ],
)
def test_a_bad_line_is_named_with_its_number(tmp_path: Path, line: str, message: str) -> None:
    folder = tmp_path / "x"
    write_clip(folder / "clips/a.flac")
    write_rows(folder, ROW)
    with (folder / "utterances.jsonl").open("a", encoding="utf-8") as lines:
        lines.write(line + "\n")
    with pytest.raises(StepError) as raised:
        read_corpus(folder)
    assert message in raised.value.fact


def test_a_line_that_is_not_utf_8_is_named_with_its_place(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    write_clip(folder / "clips/a.flac")
    rows = [json.dumps(ROW | {"id": text, "text": text}, ensure_ascii=False) for text in ("größe", "été")]
    (folder / "utterances.jsonl").write_bytes(f"{rows[0]}\n".encode() + rows[1].encode("latin-1"))
    with pytest.raises(StepError) as raised:
        read_corpus(folder)
    assert raised.value.fact == f"x/utterances.jsonl:2:{rows[1].index('é') + 1}: is not UTF-8"


def test_a_folder_without_utterances_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StepError, match=r"contains no utterances\.jsonl"):
        read_corpus(tmp_path)
    with pytest.raises(StepError, match="contains no utterances"):
        read_corpus(write_rows(tmp_path))


def test_other_keys_and_empty_lines_are_left_alone(tmp_path: Path) -> None:
    write_clip(tmp_path / "clips/a.flac")
    (tmp_path / "utterances.jsonl").write_text("\n" + json.dumps(ROW | {"lang": "en"}) + "\n\n", encoding="utf-8")
    assert [utterance.id for utterance in read_corpus(tmp_path).utterances] == ["a-0"]


def write_stereo(path: Path) -> None:
    soundfile.write(path, np.zeros((8000, 2), dtype=np.float32), SAMPLE_RATE_HZ)


def write_not_finite(path: Path) -> None:
    soundfile.write(path, np.full(8000, np.nan, dtype=np.float32), SAMPLE_RATE_HZ, format="WAV", subtype="FLOAT")


def write_huge(path: Path) -> None:
    soundfile.write(path, np.full(8000, 1e38, dtype=np.float32), SAMPLE_RATE_HZ, format="WAV", subtype="FLOAT")


def write_empty(path: Path) -> None:
    soundfile.write(path, np.zeros(0, dtype=np.float32), SAMPLE_RATE_HZ, format="WAV")


def truncate(path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, 8000)
    soundfile.write(path, noise, SAMPLE_RATE_HZ)
    path.write_bytes(path.read_bytes()[:-100])


def claim_much(path: Path) -> None:
    """2 GiB of samples, none of which take room on the disk."""
    soundfile.write(path, np.zeros(8000), SAMPLE_RATE_HZ, format="WAV", subtype="PCM_16")
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = (2**31).to_bytes(4, "little")
    path.write_bytes(data)
    with path.open("r+b") as file:
        file.truncate(2**31 + 44)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_stereo, "has 2 channel(s) at 16000 Hz, needs one at 16000 Hz"),
        (lambda path: write_clip(path, rate_hz=8000), "has 1 channel(s) at 8000 Hz, needs one at 16000 Hz"),
        (write_empty, "contains no samples"),
        (lambda path: write_clip(path, seconds=0.3), "lasts 0.300 s, utterances.jsonl says 0.500 s"),
        (write_not_finite, "contains samples that are not finite"),
        (write_huge, "the magnitude of a sample must be at most 1000, got 1e+38"),
        (truncate, "cannot be read"),
        (lambda path: path.write_bytes(b"not audio"), "cannot be read"),
        (lambda path: soundfile.write(path, np.zeros(1), 1, format="WAV"), "has 1 channel(s) at 1 Hz"),
        (claim_much, "says 0.500 s"),
    ],
)
def test_a_bad_clip_is_refused_when_it_is_read(tmp_path: Path, write: Any, message: str) -> None:
    write_clip(tmp_path / "clips/a.flac")
    write(tmp_path / "clips/a.flac")
    corpus = read_corpus(write_rows(tmp_path, ROW))
    with pytest.raises(StepError) as raised:
        corpus.waveform(corpus.utterances[0])
    assert message in raised.value.fact


def test_slices_select_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    write_clip(tmp_path / "clips/a.flac")
    write_rows(tmp_path, *(ROW | {"id": name, "slice": name[0]} for name in ("a-0", "b-0", "a-1")))
    assert [utterance.id for utterance in read_corpus(tmp_path, ["a"]).utterances] == ["a-0", "a-1"]
    with pytest.raises(StepError, match="contains no slice 'c'") as raised:
        read_corpus(tmp_path, ["a", "c"])
    assert raised.value.fix == "choose among: 'a', 'b'"


def test_a_spread_takes_utterances_from_all_over_each_slice(tmp_path: Path) -> None:
    write_clip(tmp_path / "clips/a.flac")
    rows = [ROW | {"id": f"a-{i}"} for i in range(9)] + [ROW | {"id": f"b-{i}", "slice": "b"} for i in range(2)]
    corpus = read_corpus(write_rows(tmp_path, *rows))
    assert [utterance.id for utterance in corpus.evenly_spread(3)] == ["a-0", "a-3", "a-6", "b-0", "b-1"]


def test_a_file_that_does_not_say_what_it_is_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(bytes(16_000))
    corpus = read_corpus(write_rows(tmp_path, ROW | {"audio_filepath": "a.raw"}))
    with pytest.raises(StepError, match=r"a \.raw file has no header"):
        corpus.waveform(corpus.utterances[0])
