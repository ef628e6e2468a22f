from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from artifacts.errors import RecipeError
from artifacts.recipe.yaml_locations import MOST_BYTES, YamlDocument, merge, read_yaml


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Read a text as YAML, as if from the file x.yaml."""
    monkeypatch.chdir(tmp_path)

    def read_text(text: str, name: str = "x.yaml") -> YamlDocument:
        Path(name).write_text(text)
        return read_yaml(Path(name))

    return read_text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("-7", -7), ("010", 10), ("08", 8), ("1_000", 1000), ("1.5", 1.5), ("1e-7", 1e-7), (".5", 0.5),
        ("1.", 1.0),
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("no", "no"), ("on", "on"), ("yes", "yes"), ("1.2.3", "1.2.3"), ("0x10", "0x10"), ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"), (".inf", ".inf"), ("'1'", "1"), ('"true"', "true"), ("1e", "1e"), ("-", [None]),
    ],
)  # fmt: skip
def test_scalars_are_read_as_yaml_1_2_reads_them(read: Any, text: str, value: object) -> None:
    found = read(f"key: {text}" if text != "-" else "key:\n -").value["key"]
    assert found == value
    assert type(found) is type(value)


def test_every_value_has_its_location(read: Any) -> None:
    document = read("a: 1\nb:\n  c: [x, yy]\n  d:\n")
    assert str(document.location(("a",))) == "x.yaml:1:4"
    assert str(document.location(("b", "c", 1))) == "x.yaml:3:10"
    assert str(document.location(("b", "c", "<key>"))) == "x.yaml:3:3"
    assert str(document.location(("b", "nothing", "here"))) == "x.yaml:3:3"
    assert str(document.location(())) == "x.yaml:1:1"


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("a: 1\na: 2\n", "x.yaml:2:1: the key 'a' is repeated"),
        ("a: [1\n", "x.yaml:2:1: not YAML: did not find expected ',' or ']'"),
        ("a: 'open\n", "x.yaml:2:1: not YAML: found unexpected end of stream"),
        ("a: b: c\n", "x.yaml:1:5: not YAML: mapping values are not allowed in this context"),
        ("a: *nothing\n", "x.yaml:1:4: alias 'nothing': anchors and aliases are not read"),
        ("a: 1\n---\nb: 2\n", "x.yaml:2:1: not YAML: but found another document"),
        ("a: \x07\n", "x.yaml: not YAML: "),
        ("? [1]\n: 2\n", "x.yaml:1:3: a key must be a word"),
        ("a: !!binary aGk=\n", "x.yaml:1:4: 'aGk=' is not a valid !!binary"),
        ("a: !!float .inf\n", "x.yaml:1:4: '.inf' is not a valid !!float"),
        ("a: !!int many\n", "x.yaml:1:4: 'many' is not a valid !!int"),
        ("a: &x\n  b: *x\n", "x.yaml:1:4: anchor 'x': anchors and aliases are not read"),
        ("a: {<<: {b: 1}, <<: {c: 1}}\n", "x.yaml:1:17: the key '<<' is repeated"),
        ("a: !!python/object/apply:os.system [x]\n", "x.yaml:1:4: the tag '!!python/object/apply:os.system' is not"),
        ("a: !!python/name:os.system ''\n", "x.yaml:1:4: '' is not a valid !!python/name:os.system"),
        ("a: !!set {b, c}\n", "x.yaml:1:4: the tag '!!set' is not supported"),
        ("!mine\na: 1\n", "x.yaml:1:1: the tag '!mine' is not supported"),
        ("!!binary a: 1\n", "x.yaml:1:1: a key must be a word"),
        ("? {a: 1}\n: 2\n", "x.yaml:1:3: a key must be a word"),
        (f"a: {'9' * 100_000}\n", f"x.yaml:1:4: '{'9' * 60}...{'9' * 17}' is not a valid !!int"),
        ("a: 1e999\n", "x.yaml:1:4: '1e999' is not a valid !!float"),
        ("a: -1e999\n", "x.yaml:1:4: '-1e999' is not a valid !!float"),
        ("a: b\0c\n", "x.yaml: not YAML: "),
        ('a: "\\ud800"\n', "x.yaml:1:7: not YAML: found invalid Unicode character escape code"),
        (f"{'[' * 100_000}\n", "x.yaml:1:51: nested more than 50 deep"),
        (f"{'- ' * 100_000}\n", "x.yaml:1:101: nested more than 50 deep"),
        (f"{'? ' * 100_000}\n", "x.yaml:1:101: nested more than 50 deep"),
        (f"a: {'{a: ' * 100_000}\n", "x.yaml:1:200: nested more than 50 deep"),
    ],
)
def test_a_text_that_is_not_yaml_is_reported_with_its_location(read: Any, text: str, fact: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read(text)
    assert caught.value.fact.startswith(fact)
    assert caught.value.fix


def test_a_file_that_is_missing_or_not_text_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such file"):
        read_yaml(tmp_path / "x.yaml")
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="cannot be read: 'utf-8' codec"):
        read_yaml(tmp_path / "x.yaml")
    with pytest.raises(RecipeError, match=r"cannot be read: .*Is a directory"):
        read_yaml(tmp_path)


@pytest.mark.parametrize(
    "path", ["/dev/zero", "fifo", "link", "socket", "loop", "a\0b", "x" * 300, "/".join(["y"] * 3000)]
)
def test_a_file_that_is_not_regular_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    Path("link").symlink_to("/dev/zero")
    Path("loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
        with pytest.raises(RecipeError, match=r"cannot be read: [^/]*\n  fix: make it a readable UTF-8 text file"):
            read_yaml(Path(path))


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a: " + "x" * (MOST_BYTES - 3))
    assert len(read_yaml(path).value["a"]) == MOST_BYTES - 3
    with path.open("r+") as file:
        file.truncate(1 << 40)  # a sparse file of 1 TiB
    with pytest.raises(RecipeError, match=r"x.yaml: the file has more than 2000000 bytes\n  fix: "):
        read_yaml(path)


def test_a_file_in_another_encoding_is_reported_and_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
    document = read_yaml(path)
    assert document.value == {"a": 1, "b": 2}
    assert str(document.location(("a",))) == f"{path}:1:4"
    for encoding in ("utf-16", "utf-16-le", "utf-32", "latin-1"):
        path.write_bytes("a: ä\n".encode(encoding))
        with pytest.raises(RecipeError):
            read_yaml(path)


def test_the_time_of_a_merge_grows_with_its_size_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(
        "targets:\n" + "".join(f"  t{n}: {{step: s, inputs: {{a: t0}}, params: {{b: 1}}}}\n" for n in range(3000))
    )
    document = read_yaml(path)
    began = time.monotonic()
    merged = merge(document, document)
    assert time.monotonic() - began < 5  # a search of all locations for each value takes minutes
    assert merged.value == document.value
    assert merged.locations == document.locations


def test_an_empty_file_is_nothing(read: Any) -> None:
    assert read("# only a comment\n").value is None
    assert str(read("").location(("a", "b"))) == "x.yaml:1:1"


def test_a_merge_joins_mappings_and_replaces_the_rest(read: Any) -> None:
    base = read("a: {x: 1, y: [1, 2]}\nb: 2\nc: 3\n", "base.yaml")
    over = read("a: {y: [3], z: 4}\nc: null\nd: {e: 5}\n", "over.yaml")
    merged = merge(base, over)
    assert merged.value == {"a": {"x": 1, "y": [3], "z": 4}, "b": 2, "d": {"e": 5}}
    assert base.value["c"] == 3


def test_a_null_removes_what_a_base_has_and_is_kept_where_there_is_nothing_to_remove(read: Any) -> None:
    first = read("a: {x: 1, y: {z: 2}}\nb: {c: 3}\n", "first.yaml")
    second = merge(first, read("a: {x: null, y: null}\nb: null\n", "second.yaml"))
    assert second.value == {"a": {}}
    assert str(second.location(("a", "x", "<key>"))) == "second.yaml:1:5", "where it is removed"
    again = merge(second, read("a: {x: null, xx: null}\nb: {c: null, d: null}\ne: null\n", "third.yaml"))
    assert again.value == {"a": {"xx": None}, "b": {"d": None}, "e": None}
    assert str(again.location(("a", "xx", "<key>"))) == "third.yaml:1:14"
    assert merge(again, read("a: {x: 7, xx: {y: 8}}\n", "x.yaml")).value["a"] == {"x": 7, "xx": {"y": 8}}


def test_a_merged_value_has_the_location_where_it_was_written(read: Any) -> None:
    base = read("a: {x: 1, y: {deep: 1}}\nb: 2\n", "base.yaml")
    over = read("# comment\na:\n  y: 3\n", "over.yaml")
    merged = merge(base, over)
    assert str(merged.location(("a", "x"))) == "base.yaml:1:8"
    assert str(merged.location(("a", "y"))) == "over.yaml:3:6"
    assert str(merged.location(("a", "y", "deep"))) == "over.yaml:3:6", "what was replaced has no place"
    assert str(merged.location(("b",))) == "base.yaml:2:4"
