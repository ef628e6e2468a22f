"""Joined recordings are a corpus: the same sentences in long recordings, in the given number of orders."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from artifacts.errors import StepError
from artifacts.speech.corpus import Corpus, read_corpus
from artifacts.steps import join_recordings

Metrics = dict[str, float | int | str]


def join(out: Path, corpus: Path, **params: Any) -> Metrics:
    out.mkdir()
    return join_recordings.run(out, join_recordings.Params(**params), corpus=corpus)


@pytest.fixture(scope="module")
def joined(evaluation: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, Metrics]:
    out = tmp_path_factory.mktemp("joined") / "corpus"
    metrics = join(out, evaluation, seconds=(30, 120), orders=3, gap_seconds=0.25)
    return read_corpus(out), metrics


def test_every_order_of_every_length_contains_each_clip_once(joined: tuple[Corpus, Metrics], evaluation: Path) -> None:
    singles = {utterance.clips[0] for utterance in read_corpus(evaluation).utterances if len(utterance.clips) == 1}
    for name in ("long_30s", "long_120s"):
        counts = Counter(clip for each in joined[0].utterances if each.slice == name for clip in each.clips)
        assert counts == dict.fromkeys(singles, 3)


def test_recordings_have_about_the_given_length_and_differ(joined: tuple[Corpus, Metrics]) -> None:
    for each in joined[0].utterances:
        seconds = int(each.slice.removeprefix("long_").removesuffix("s"))
        assert each.duration == pytest.approx(seconds, rel=0.2)
    assert len({tuple(each.clips) for each in joined[0].utterances}) == len(joined[0].utterances)


def test_what_is_read_back_is_the_clips_with_silence_between_them(
    joined: tuple[Corpus, Metrics], evaluation: Path
) -> None:
    corpus, _ = joined
    said = {each.clips[0]: each for each in read_corpus(evaluation).utterances if len(each.clips) == 1}
    whole = read_corpus(evaluation)
    for each in corpus.evenly_spread(2):
        waveform = corpus.waveform(each)  # which holds the length to the manifest's
        first = whole.waveform(said[each.clips[0]])
        assert np.array_equal(waveform[: len(first)], first)
        assert not waveform[len(first) : len(first) + 4000].any()
        assert each.text == " ".join(said[clip].text for clip in each.clips)


def test_the_metrics_count_what_was_made(joined: tuple[Corpus, Metrics]) -> None:
    corpus, metrics = joined
    hours = sum(each.duration for each in corpus.utterances) / 3600
    assert metrics == {"utterances": len(corpus.utterances), "clips": 330, "hours": pytest.approx(hours, abs=1e-3)}


def test_more_orders_leave_the_first_ones_as_they_were_and_bytes_repeat(evaluation: Path, tmp_path: Path) -> None:
    for name, orders in (("a", 2), ("b", 2), ("c", 3)):
        join(tmp_path / name, evaluation, seconds=(60,), orders=orders)
    a, b, c = (tmp_path.joinpath(name, "utterances.jsonl").read_bytes() for name in "abc")
    assert hashlib.sha256(a).digest() == hashlib.sha256(b).digest()
    assert c.startswith(a)
    assert len(c) > len(a)


def test_a_corpus_that_is_too_short_is_refused(evaluation: Path, tmp_path: Path) -> None:
    lines = (evaluation / "utterances.jsonl").read_text().splitlines()[:3]
    short = tmp_path / "short"
    for line in lines:
        clip = short / json.loads(line)["audio_filepath"]
        clip.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(evaluation / json.loads(line)["audio_filepath"], clip)
    (short / "utterances.jsonl").write_text("\n".join(lines))
    with pytest.raises(StepError, match=r"short: its 3 recordings of one clip last \d+ s together, less than 240 s"):
        join(tmp_path / "out", short)


def test_durations_are_those_of_the_clips_not_of_a_manifest_that_rounds(evaluation: Path, tmp_path: Path) -> None:
    rounded = tmp_path / "rounded"
    rounded.mkdir()
    (rounded / "clips").symlink_to(evaluation / "clips")
    rows = [json.loads(line) for line in (evaluation / "utterances.jsonl").read_text().splitlines()]
    lines = "".join(json.dumps(row | {"duration": int(row["duration"] * 10) / 10}) + "\n" for row in rows)
    (rounded / "utterances.jsonl").write_text(lines)
    for name, corpus in (("a", evaluation), ("b", rounded)):
        join(tmp_path / name, corpus, seconds=(240,), orders=1)
    a, b = (tmp_path.joinpath(name, "utterances.jsonl").read_bytes() for name in "ab")
    assert a == b


def test_a_damaged_clip_is_refused(evaluation: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(evaluation, damaged)
    clip = next(damaged.glob("clips/*.flac"))
    clip.write_bytes(clip.read_bytes()[:100])
    with pytest.raises(StepError, match=rf"clips/{clip.name}: cannot be read"):
        join(tmp_path / "out", damaged)


@pytest.mark.parametrize(
    "wrong", [{"orders": 0}, {"seconds": ()}, {"seconds": (60, 60)}, {"gap_seconds": -1.0}, {"gap_seconds": 11.0}]
)
def test_params_have_bounds(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        join_recordings.Params(**wrong)


@pytest.mark.parametrize("seconds", [0, -60])
def test_lengths_are_above_zero(seconds: int) -> None:
    with pytest.raises(ValidationError):
        join_recordings.Params(seconds=(seconds,))
