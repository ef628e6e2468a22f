"""The embedded checkpoint and its speech: what is committed is whole, small, disjoint and tells of no machine."""

from __future__ import annotations

import json
import re
import tarfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

TINY = Path(__file__).parents[2] / "embedded" / "tiny"
CORPORA = ("evaluation", "calibration")
SAMPLE_RATE_HZ = 16_000
MAX_CHECKPOINT_BYTES = 8_000_000
MAX_SPEECH_BYTES = 15_000_000
QUIETEST_RMS = 1e-4
LONG_SECONDS = {"long_20s": 20, "long_60s": 60, "long_120s": 120, "long_240s": 240}
NOISY = re.compile(r"noisy_(minus_)?\d+db")

Row = dict[str, Any]


@cache
def rows(corpus: str) -> tuple[Row, ...]:
    lines = (TINY / corpus / "utterances.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(json.loads(line) for line in lines)


def clips(row: Row) -> list[str]:
    named = row["audio_filepath"]
    return [named] if isinstance(named, str) else list(named)


@cache
def clip_seconds(corpus: str) -> dict[str, float]:
    named = sorted({clip for row in rows(corpus) for clip in clips(row)})
    return {clip: soundfile.info(TINY / corpus / clip).duration for clip in named}


def words_by_slice(corpus: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for row in rows(corpus):
        counts[row["slice"]] = counts.get(row["slice"], 0) + len(row["text"].split())
    return counts


def single_texts(corpus: str) -> list[str]:
    return [row["text"] for row in rows(corpus) if isinstance(row["audio_filepath"], str)]


def test_checkpoint_and_speech_stay_small_enough_for_git() -> None:
    speech_bytes = sum(path.stat().st_size for name in CORPORA for path in (TINY / name).rglob("*") if path.is_file())
    assert (TINY / "tiny.nemo").stat().st_size <= MAX_CHECKPOINT_BYTES
    assert speech_bytes <= MAX_SPEECH_BYTES


def test_no_sentence_is_in_both_corpora_or_twice_in_one() -> None:
    evaluation, calibration = single_texts("evaluation"), single_texts("calibration")
    assert set(evaluation).isdisjoint(calibration)
    assert len(set(evaluation)) == len(evaluation)
    assert len(set(calibration)) == len(calibration)


@pytest.mark.parametrize("corpus", CORPORA)
def test_rows_have_the_agreed_keys_and_their_own_ids(corpus: str) -> None:
    for row in rows(corpus):
        assert list(row) == ["id", "slice", "audio_filepath", "gap_seconds", "duration", "text"]
    assert len({row["id"] for row in rows(corpus)}) == len(rows(corpus))


@pytest.mark.parametrize("corpus", CORPORA)
def test_every_clip_is_used_and_lies_in_the_corpus(corpus: str) -> None:
    lying = {path.relative_to(TINY / corpus).as_posix() for path in (TINY / corpus / "clips").iterdir()}
    assert lying == set(clip_seconds(corpus))


@pytest.mark.parametrize("corpus", CORPORA)
def test_every_clip_is_16_khz_mono_and_not_silent(corpus: str) -> None:
    for clip in clip_seconds(corpus):
        wave, rate_hz = soundfile.read(TINY / corpus / clip, dtype="float32", always_2d=True)
        assert (rate_hz, wave.shape[1]) == (SAMPLE_RATE_HZ, 1), clip
        assert np.sqrt(np.mean(wave**2)) > QUIETEST_RMS, clip


@pytest.mark.parametrize("corpus", CORPORA)
def test_durations_are_those_of_the_clips_and_the_gaps_between_them(corpus: str) -> None:
    for row in rows(corpus):
        seconds = sum(clip_seconds(corpus)[clip] for clip in clips(row)) + row["gap_seconds"] * (len(clips(row)) - 1)
        assert row["duration"] == pytest.approx(seconds, abs=1e-6), row["id"]


@pytest.mark.parametrize("corpus", CORPORA)
def test_a_joined_text_is_the_texts_of_its_clips(corpus: str) -> None:
    said = {row["audio_filepath"]: row["text"] for row in rows(corpus) if isinstance(row["audio_filepath"], str)}
    for row in rows(corpus):
        assert row["text"] == " ".join(said[clip] for clip in clips(row)), row["id"]


def test_every_evaluation_slice_has_enough_words_for_a_tenth_of_a_point_to_mean_something() -> None:
    words = words_by_slice("evaluation")
    noisy = [name for name in words if NOISY.fullmatch(name)]
    assert len(noisy) >= 3
    assert set(words) == {"clean", "soft_endings", *noisy, *LONG_SECONDS}
    for name, count in words.items():
        assert count >= (5_000 if name in LONG_SECONDS else 500), name


@pytest.mark.parametrize("corpus", CORPORA)
def test_long_rows_are_about_as_long_as_their_slice_says(corpus: str) -> None:
    long_rows = [row for row in rows(corpus) if row["slice"] in LONG_SECONDS]
    assert long_rows
    for row in long_rows:
        assert row["duration"] == pytest.approx(LONG_SECONDS[row["slice"]], abs=5), row["id"]


@pytest.mark.parametrize("corpus", CORPORA)
def test_long_slices_of_a_corpus_say_the_same_sentences_in_so_many_orders(corpus: str) -> None:
    joined: dict[str, Counter[str]] = {}
    for row in rows(corpus):
        if row["slice"] in LONG_SECONDS:
            joined.setdefault(row["slice"], Counter()).update(clips(row))
    orders = {name: set(counts.values()) for name, counts in joined.items()}
    assert orders == {name: {4 if corpus == "evaluation" else 1} for name in joined}
    assert len({frozenset(counts) for counts in joined.values()}) == 1


def test_the_checkpoint_names_no_path_date_or_user() -> None:
    with tarfile.open(TINY / "tiny.nemo") as archive:
        members = archive.getmembers()
        assert all((member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "") for member in members)
        read = {member.name: archive.extractfile(member) for member in members}
        texts = {name: file.read() for name, file in read.items() if file is not None}
    config = texts["./model_config.yaml"].decode()
    assert not re.search(r"(?m)(^|[\s'\"])(/|[A-Za-z]:\\|~)\w", config)
    assert "manifest_filepath" not in config
    assert not re.search(rb"/(home|root|tmp|work|Users)/", b"".join(texts.values()))


def test_the_readme_counts_rows_and_words_as_they_are() -> None:
    table = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \| [\d.]+ \| ([\d.]+) \|$", (TINY / "README.md").read_text(), re.M)
    found: dict[str, list[int]] = {}
    for row in rows("evaluation"):
        counts = found.setdefault(row["slice"], [0, 0])
        counts[0] += 1
        counts[1] += len(row["text"].split())
    assert {name: [int(number), int(words)] for name, number, words, _ in table} == found


def test_the_clean_slice_is_easy_and_every_other_leaves_room_to_be_worse(whole_recipe: Path) -> None:
    slices = json.loads((whole_recipe / "wer_fp32" / "metrics.json").read_text())["slices"]
    wers = {name: figures["wer_percent"] for name, figures in slices.items()}
    assert wers.pop("clean") <= 3
    assert len(wers) == 8
    assert {name: wer for name, wer in wers.items() if not 2 <= wer <= 12} == {}
