from __future__ import annotations

import json
import os
import threading
import time
import tracemalloc
from pathlib import Path

import pytest

from artifacts.store.journal import Entry, Journal, Status


def test_entries_are_read_oldest_first_with_their_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "cache" / "journal.jsonl")
    assert list(journal.read()) == []
    journal.write(Entry("x:a", "built", "k1", ["because"], "step", 10, 1.5, 2000))
    journal.write(Entry("x:b", "failed", "", error="ä is wrong"))
    first, second = journal.read()
    assert (first.target, first.why, first.seconds, first.peak_bytes) == ("x:a", ["because"], 1.5, 2000)
    assert second.error == "ä is wrong"
    assert first.at.endswith("+00:00")


def test_the_last_entry_of_a_target_can_be_asked_for_by_outcome(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    for key, outcome in enumerate(("built", "restored", "failed")):
        journal.write(Entry("x:a", outcome, str(key)))
    journal.write(Entry("x:b", "built", "other"))
    written = list(journal.read())
    assert [journal.last("x:a", *outcomes) for outcomes in ((), ("built",), ("nothing",))] == [
        written[2],
        written[0],
        None,
    ]


def test_the_newest_entry_of_each_target_is_found_in_one_pass(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    for target, outcome in (("x:a", "built"), ("x:b", "failed"), ("x:a", "failed")):
        journal.write(Entry(target, outcome, ""))
    assert {name: entry.outcome for name, entry in journal.newest().items()} == {"x:a": "failed", "x:b": "failed"}


@pytest.mark.parametrize(
    ("at", "shown"), [("2026-11-28T17:01:59+00:00", "2026-11-28 18:01"), ("yesterday", "yesterday"), ("", "")]
)
def test_the_time_of_an_entry_is_shown_by_the_clock_of_this_machine(
    at: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Etc/GMT-1")  # an hour ahead of UTC
    time.tzset()
    try:
        assert Entry("x:a", "built", "", at=at).local_time == shown
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_line_cut_off_by_a_crash_costs_that_line_alone(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.write(Entry("x:a", "built", "k1"))
    journal.write(Entry("x:b", "built", "k2"))
    data = journal.path.read_bytes()
    journal.path.write_bytes(data[:-20])
    journal.write(Entry("x:c", "built", "k3"))
    assert [entry.target for entry in journal.read()] == ["x:a", "x:c"]


def test_lines_of_another_version_and_malformed_lines_are_skipped(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.path.write_bytes(
        b'{"target": "x:a"}\n[1]\n\xff\xfe\n{"target": "x:a", "outcome": "o", "key": "k", "new": 1}\n\n'
        b'{"target": "x:a", "outcome": "o", "key": "k", "peak_bytes": null}\n'
        b'{"target": "x:a", "outcome": "o", "key": "k", "why": [1]}\n'
        b'{"target": "x:a", "outcome": "o", "key": "k", "why": "text"}\n'
        b'{"target": "x:a", "outcome": "o", "key": "k", "seconds": NaN}\n'
        b'{"target": "x:a", "outcome": "o", "key": "k", "seconds": 1e999}\n'
        b'{"target": "x:a", "outcome": "o", "key": "k", "bytes": -1}\n'
        + b'{"target": "x:a", "outcome": "o", "key": "k", "bytes": '
        + b"9" * 4000
        + b"}\n"
        + b'{"target": "x:a", "outcome": "o", "key": "k", "bytes": '
        + b"9" * 100_000
        + b"}\n"
        + b"[" * 100_000
        + b"\n"
        + b'{"target":' * 100_000
        + b"\n"
        + b'"a\rb\x00\x1b"\n'
    )
    journal.write(Entry("x:b", "built", "k"))
    assert [entry.target for entry in journal.read()] == ["x:b"]


def test_many_threads_write_whole_lines(tmp_path: Path) -> None:
    def write(name: str) -> None:
        journal = Journal(tmp_path / "journal.jsonl")
        for _ in range(50):
            journal.write(Entry(name, "built", "k" * 500))

    threads = [threading.Thread(target=write, args=(f"x:{index}",)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries = list(Journal(tmp_path / "journal.jsonl").read())
    assert len(entries) == 400
    assert {entry.key for entry in entries} == {"k" * 500}


def test_the_peak_memory_of_all_targets_is_read_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    for peak in (5, 9, 7):
        journal.write(Entry("x:a", "built", "k", peak_bytes=peak))
    journal.write(Entry("x:b", "failed", ""))
    again = Journal(journal.path)
    assert [again.peak_bytes(name) for name in ("x:a", "x:b", "x:c")] == [9, 0, 0]
    again.write(Entry("x:b", "built", "k", peak_bytes=3))
    journal.path.unlink()
    assert [again.peak_bytes(name) for name in ("x:a", "x:b", "x:c")] == [9, 3, 0], "what was read once is remembered"


def test_a_line_without_an_end_takes_no_memory_and_hides_no_other_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.write(Entry("x:a", "built", "k1"))
    with journal.path.open("ab") as file:
        for _ in range(100):
            file.write(b'{"target": "x:long", "why": ["' + b"y" * 1_000_000)
        file.write(b'"]}\n')
    journal.write(Entry("x:b", "built", "k2", why=["z" * 1000]))
    tracemalloc.start()
    assert [entry.target for entry in journal.read()] == ["x:a", "x:b"]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000


def test_of_a_very_large_journal_the_newest_part_is_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    for number in range(100):
        journal.write(Entry(f"x:{number}", "built", "k"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("artifacts.store.journal.MOST_BYTES", 1000)
        found = [entry.target for entry in journal.read()]
    assert 3 <= len(found) < 10
    assert found == [f"x:{number}" for number in range(100)][-len(found) :]


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_a_journal_that_is_not_a_file_is_empty(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "journal.jsonl"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    assert list(Journal(path).read()) == []
    assert Journal(path).last("x:a") is None


def test_a_status_reads_the_same_in_a_table_and_in_the_journal() -> None:
    assert [f"{status}" for status in Status] == [json.loads(json.dumps(status)) for status in Status]
    assert Status("built?") is Status.MAYBE_BUILT
