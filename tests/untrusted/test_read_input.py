from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from artifacts.errors import StepError
from artifacts.untrusted.read_input import (
    MAX_TEXT_BYTES,
    parse_json,
    read_json,
    read_json_object,
    read_text,
    require_inside,
)

FIX = "write it again"


def test_text_and_json_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": ["\u2581\u00e9", 1.5, null, "\\ud83d\\ude00"]}', encoding="utf-8")
    assert read_json_object(tmp_path / "a.json", FIX) == {"a": ["\u2581\u00e9", 1.5, None, "\U0001f600"]}
    assert read_text(tmp_path / "a.json", FIX).startswith('{"a"')


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("", "place:1: is not JSON: expecting value"),
        ('{"a": 1,\n"b"}', "place:2:4: is not JSON: expecting ':' delimiter"),
        ("[" * 100_000, "place: is nested too deep"),
        ('{"a":' * 100_000, "place: is nested too deep"),
        ("9" * 5000, "place: is not JSON that can be read: Exceeds the limit"),
        ("[NaN]", "place: is not JSON that can be read: NaN is not a number of JSON"),
        ("-Infinity", "place: is not JSON that can be read: -Infinity is not a number of JSON"),
        ('"\\ud800"', "place: contains half a surrogate pair"),
    ],
)
def test_json_that_cannot_be_kept_is_refused_with_its_place(text: str, fact: str) -> None:
    with pytest.raises(StepError) as raised:
        parse_json(text, "place", FIX)
    assert raised.value.fact.startswith(fact)
    assert raised.value.fix == FIX


@pytest.mark.parametrize("text", ["[]", "1", "null", '"a"'])
def test_another_value_than_an_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    read_json(tmp_path / "a.json", FIX)
    with pytest.raises(StepError, match=r"a\.json: expected a JSON object, got "):
        read_json_object(tmp_path / "a.json", FIX)


def test_bytes_that_are_not_utf8_are_refused_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\ntwo \xff\n")
    with pytest.raises(StepError, match=r"a\.txt:2: is not UTF-8"):
        read_text(tmp_path / "a.txt", FIX)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: None,
        Path.mkdir,
        os.mkfifo,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to(path),
    ],
    ids=["nothing", "folder", "pipe", "device", "loop"],
)
def test_what_is_not_a_regular_file_is_not_opened(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "a.txt")
    with pytest.raises(StepError, match=r"a\.txt: is missing in "):
        read_text(tmp_path / "a.txt", FIX)


def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StepError, match="File name too long"):
        read_text(tmp_path / ("a" * 300), FIX)


def test_a_text_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(MAX_TEXT_BYTES + 1)
    with pytest.raises(StepError, match="at most 67108864 are read"):
        read_text(tmp_path / "a.txt", FIX)


def test_a_link_may_lead_within_its_folder_and_not_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    (tmp_path / "folder" / "sub" / "file").write_text("here")
    (tmp_path / "secret").write_text("there")
    (tmp_path / "stable").symlink_to("folder")
    (tmp_path / "folder" / "inside").symlink_to("sub/file")
    (tmp_path / "folder" / "outside").symlink_to("../secret")
    (tmp_path / "folder" / "loop").symlink_to("loop")
    for name in ("inside", "sub/file", "not there"):
        require_inside(tmp_path / "stable" / name, FIX)
    with pytest.raises(StepError, match="outside: is a symbolic link that leads out of 'stable'"):
        require_inside(tmp_path / "stable" / "outside", FIX)
    with pytest.raises(StepError, match="loop: is a symbolic link that leads nowhere"):
        require_inside(tmp_path / "stable" / "loop", FIX)
