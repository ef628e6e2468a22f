from __future__ import annotations

import threading
from pathlib import Path

from artifacts.journal import Entry, Journal


def test_what_was_written_is_read_oldest_first_with_its_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "cache" / "journal.jsonl")
    assert journal.read() == []
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
    assert [journal.last("x:a", *outcomes) for outcomes in ((), ("built",), ("nothing",))] == [
        journal.read()[2],
        journal.read()[0],
        None,
    ]


def test_a_line_cut_off_by_a_crash_costs_that_line_alone(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.write(Entry("x:a", "built", "k1"))
    journal.write(Entry("x:b", "built", "k2"))
    data = journal.path.read_bytes()
    journal.path.write_bytes(data[:-20])
    journal.write(Entry("x:c", "built", "k3"))
    assert [entry.target for entry in journal.read()] == ["x:a", "x:c"]


def test_lines_of_another_version_and_nonsense_are_left_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.path.write_bytes(
        b'{"target": "x:a"}\n[1]\n\xff\xfe\n{"target": "x:a", "outcome": "o", "key": "k", "new": 1}\n\n'
        b'{"target": "x:a", "outcome": "o", "key": "k", "peak_bytes": null}\n'
        b'{"target": "x:a", "outcome": "o", "key": "k", "why": [1]}\n'
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
    entries = Journal(tmp_path / "journal.jsonl").read()
    assert len(entries) == 400
    assert {entry.key for entry in entries} == {"k" * 500}
