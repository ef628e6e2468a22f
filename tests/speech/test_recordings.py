from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from artifacts.errors import StepError
from artifacts.speech.corpus import SAMPLE_RATE_HZ, Corpus, read_corpus
from artifacts.speech.recordings import (
    Recording,
    SpeechDigest,
    read_calibration_corpus,
    recordings,
    shares,
    transcribe_twice,
)

GAP = round(0.4 * SAMPLE_RATE_HZ)


def test_a_corpus_with_long_recordings_is_used_as_it_is(calibration: Path) -> None:
    corpus = read_corpus(calibration)
    chosen = recordings(corpus.utterances, 120, 4)
    assert [one.utterances for one in chosen] == [(utterance,) for utterance in corpus.utterances]
    assert max(one.seconds for one in chosen) > 120


@pytest.mark.parametrize(("most", "count"), [(1, 1), (3, 3), (100, 3)])
def test_short_clips_are_joined_into_windows_of_the_given_length(calibration: Path, most: int, count: int) -> None:
    short = read_corpus(calibration, ("clean", "noisy", "soft_endings"))
    assert max(utterance.duration for utterance in short.utterances) < 8
    chosen = recordings(short.utterances, 70, most)
    alone, windows = chosen[: len(short.utterances)], chosen[len(short.utterances) :]
    assert [one.utterances for one in alone] == [(utterance,) for utterance in short.utterances]
    assert len(windows) == count
    for window in windows:
        assert 70 <= window.seconds < 78
        first = short.utterances.index(window.utterances[0])
        assert window.utterances == short.utterances[first : first + len(window.utterances)]
    assert len({utterance.id for window in windows for utterance in window.utterances}) == sum(
        len(window.utterances) for window in windows
    )


def test_too_little_speech_for_a_window_is_one_window(calibration: Path) -> None:
    clean = read_corpus(calibration, ("clean",)).utterances
    *alone, window = recordings(clean, 300, 4)
    assert len(alone) == len(clean)
    assert window.utterances == clean


def test_no_windows_are_joined_where_none_are_wanted_or_there_is_but_one_clip(calibration: Path) -> None:
    clean = read_corpus(calibration, ("clean",)).utterances
    assert len(recordings(clean, None, 4)) == len(clean)
    assert len(recordings(clean[:1], 120, 4)) == 1


def test_clips_are_joined_with_silence_between_them(calibration: Path) -> None:
    corpus = read_corpus(calibration, ("clean",))
    pair = Recording(corpus.utterances[:2])
    first, second = (corpus.waveform(utterance) for utterance in pair.utterances)
    joined = pair.waveform(corpus)
    np.testing.assert_array_equal(joined[: len(first)], first)
    assert not joined[len(first) : len(first) + GAP].any()
    np.testing.assert_array_equal(joined[len(first) + GAP :], second)
    assert pair.seconds == pytest.approx(len(joined) / SAMPLE_RATE_HZ, abs=0.01)
    assert pair.name == "utterances 'clean-000' to 'clean-001'"
    assert Recording(corpus.utterances[:1]).name == "utterance 'clean-000'"


def test_the_digest_is_that_of_the_samples_and_their_order(calibration: Path) -> None:
    corpus = read_corpus(calibration, ("clean",))
    first, second = (corpus.waveform(utterance) for utterance in corpus.utterances[:2])
    louder = first.copy()
    louder[1000] += 1e-4

    def digest(*waveforms: np.ndarray[tuple[int], np.dtype[np.float32]]) -> str:
        speech = SpeechDigest()
        for waveform in waveforms:
            speech.add(waveform)
        return speech.hexdigest()

    assert digest(first, second) == digest(first, second)
    others = [digest(second, first), digest(louder, second), digest(first), digest(np.concatenate([first, second]))]
    assert len({digest(first, second), *others}) == 5


@pytest.mark.parametrize("count", [0, 1, 16, 128, 1000])
def test_shares_go_by_length_and_none_is_lost(calibration: Path, count: int) -> None:
    chosen = recordings(read_corpus(calibration).utterances, 120, 4)
    found = shares(chosen, count)
    seconds = sum(one.seconds for one in chosen)
    assert sum(found) == count
    assert all(abs(share - count * one.seconds / seconds) < 1 for share, one in zip(found, chosen, strict=True))


def test_less_speech_than_a_calibration_needs_is_an_error(calibration: Path) -> None:
    speech = read_calibration_corpus(calibration, ("clean",), 60)
    assert speech == read_corpus(calibration, ("clean",))
    with pytest.raises(StepError, match=r"calibration: contains \d+\.\d s of speech, needs 6000 s"):
        read_calibration_corpus(calibration, ("clean",), 6000)


@pytest.fixture
def few(calibration: Path) -> Corpus:
    """The first three clean utterances."""
    corpus = read_corpus(calibration, ("clean",))
    return Corpus(corpus.folder, corpus.utterances[:3])


def test_a_corpus_is_transcribed_in_two_equal_passes(few: Corpus) -> None:
    lengths: list[int] = []

    def count_tokens(waveform: np.ndarray[tuple[int], np.dtype[np.float32]]) -> int:
        lengths.append(len(waveform))
        return 7

    metrics = transcribe_twice(few, count_tokens, lambda: lengths.append(0))
    once = [len(few.waveform(utterance)) for utterance in few.utterances]
    assert lengths == [*once, 0, *once]
    assert (metrics["utterances"], metrics["tokens"]) == (3, 21)
    assert metrics["seconds"] == pytest.approx(sum(once) / SAMPLE_RATE_HZ, abs=0.01)
    digest = SpeechDigest()
    for utterance in few.utterances:
        digest.add(few.waveform(utterance))
    assert metrics["speech_sha256"] == digest.hexdigest()


def test_an_error_while_transcribing_names_the_utterance(few: Corpus) -> None:
    def count_tokens(waveform: object) -> int:
        raise StepError("blob '3': NaN or infinity", "repair the model")

    with pytest.raises(StepError, match=r"^calibration: 'clean-000': blob '3': NaN or infinity"):
        transcribe_twice(few, count_tokens, lambda: None)
