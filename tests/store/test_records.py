"""Records of a store: as they are written and read, and malformed ones."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from artifacts.digest import canonical_json, digest_json
from artifacts.store.records import SCHEMA, Action, FileRecord, Identity, manifest_of, read_identity, read_manifest
from artifacts.store.store import Store

GOOD, OTHER = (Identity(name, {}, {}, {}, {}) for name in ("one", "two"))
KEY = GOOD.key


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with one artifact, and the record of it."""
    store = Store(tmp_path / "cache")
    put(store, GOOD, b"one")
    return store


def put(store: Store, identity: Identity, data: bytes) -> str:
    """Seal an artifact of one file, as a build does. Returns its content."""
    key = identity.key
    staging = store.stage(key)
    (staging / "files").mkdir()
    (staging / "files" / "f").write_bytes(data)
    manifest = manifest_of({"f": (len(data), hashlib.sha256(data).hexdigest())})
    store.seal(key, staging, manifest, Action(identity, manifest.content, {}, 1.0, 1))
    shutil.rmtree(staging)
    return manifest.content


def write_record(store: Store, key: str, action: Any) -> None:
    """Write a record with the right digest of itself."""
    (store.cache / "actions" / f"{key}.json").write_text(json.dumps({"action": action, "sha256": digest_json(action)}))


def test_a_record_that_was_copied_from_another_key_is_none(store: Store) -> None:
    put(store, OTHER, b"two")
    shutil.copy(store.cache / "actions" / f"{OTHER.key}.json", store.cache / "actions" / f"{KEY}.json")
    assert store.action(KEY) is None
    assert [key for key, _ in store.actions()] == [OTHER.key]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("content", "../../elsewhere"),
        ("content", "/etc"),
        ("content", ""),
        ("content", 7),
        ("content", None),
        ("content", ["a"]),
        ("content", "A" * 64),
        ("metrics", None),
        ("metrics", [1]),
        ("metrics", {"a": None}),
        ("metrics", {"a": [1]}),
        ("seconds", "1"),
        ("seconds", None),
        ("peak_bytes", {}),
        ("processor", 3),
        ("identity", []),
        ("identity", {"step": "two"}),
    ],
)
def test_a_record_with_a_value_of_another_kind_is_none(store: Store, field: str, value: object) -> None:
    action = store.action(KEY)
    assert action is not None
    write_record(store, KEY, {**asdict(action), field: value})
    assert store.action(KEY) is None


@pytest.mark.parametrize(
    "key", ["", ".", "..", "../actions/x", "/etc/passwd", "k" * 5000, "a\0b", "\udcff", KEY.upper()]
)
def test_an_invalid_key_has_no_record(store: Store, key: str) -> None:
    assert store.action(key) is None


DEEP = "[" * 200_000 + "]" * 200_000


@pytest.mark.parametrize(
    "text", [DEEP, '{"action": ' + DEEP + ', "sha256": "x"}', "1" * 10_000, '"', "\0", "[]", "NaN"]
)
def test_a_record_that_no_parser_accepts_is_none(store: Store, text: str) -> None:
    (store.cache / "actions" / f"{KEY}.json").write_text(text)
    assert store.action(KEY) is None


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inner").write_text("in the way")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


IN_THE_WAY: list[Callable[[Path], None]] = [_folder, _pipe, _loop, Path.unlink]


@pytest.mark.parametrize("put_there", IN_THE_WAY)
def test_anything_else_at_the_path_of_a_record_is_replaced_by_the_next_build(
    store: Store, put_there: Callable[[Path], None]
) -> None:
    put_there(store.cache / "actions" / f"{KEY}.json")
    assert store.action(KEY) is None
    put(store, GOOD, b"one")
    assert store.action(KEY) is not None


@pytest.mark.parametrize("put_there", IN_THE_WAY)
def test_anything_else_at_the_path_of_a_manifest_is_replaced_by_the_next_build(
    store: Store, put_there: Callable[[Path], None]
) -> None:
    [content] = store.contents()
    put_there(store.folder(content) / "manifest.json")
    assert store.damage(content) == "its manifest is missing or damaged"
    put(store, GOOD, b"one")
    assert store.damage(content) is None


def test_a_broken_link_at_the_path_of_an_artifact_is_replaced_by_the_next_build(store: Store) -> None:
    [content] = store.contents()
    shutil.rmtree(store.folder(content))
    store.folder(content).symlink_to("nowhere")
    assert store.damage(content) is not None
    put(store, GOOD, b"one")
    assert store.damage(content) is None


SHA256 = hashlib.sha256(b"one").hexdigest()
FILE = {"bytes": 3, "sha256": SHA256}


@pytest.mark.parametrize(
    "manifest",
    [
        {"files": {"../f": FILE}},
        {"files": {"../../../f": FILE}},
        {"files": {"f": FILE, "sub/../../f": FILE}},
        {"files": {"/etc/passwd": FILE}},
        {"files": {"": FILE}},
        {"files": {".": FILE}},
        {"files": {"sub//f": FILE}},
        {"files": {"a\0b": FILE}},
        {"files": {}},
        {"files": []},
        {"files": None},
        {"files": {"f": None}},
        {"files": {"f": [3, SHA256]}},
        {"files": {"f": {"bytes": "3", "sha256": SHA256}}},
        {"files": {"f": {"bytes": 3.0, "sha256": SHA256}}},
        {"files": {"f": {"bytes": -1, "sha256": SHA256}}},
        {"files": {"f": {"bytes": 3, "sha256": None}}},
        {"files": {"f": {"bytes": 3}}},
        [],
        "text",
        None,
    ],
)
def test_a_manifest_that_no_build_writes_is_none_though_its_digest_is_right(store: Store, manifest: Any) -> None:
    written = canonical_json(manifest)
    content = hashlib.sha256(written).hexdigest()
    (store.files(content)).mkdir(parents=True)
    (store.files(content) / "f").write_bytes(b"one")
    (store.folder(content) / "manifest.json").write_bytes(written)
    assert store.manifest(content) is None
    assert store.damage(content) == "its manifest is missing or damaged"


def test_a_manifest_that_is_nested_too_deep_is_none(store: Store) -> None:
    content = hashlib.sha256(DEEP.encode()).hexdigest()
    store.folder(content).mkdir()
    (store.folder(content) / "manifest.json").write_text(DEEP)
    assert store.manifest(content) is None


def test_a_folder_outside_the_store_is_not_an_artifact(store: Store, tmp_path: Path) -> None:
    shutil.copytree(store.folder(store.contents()[0]), tmp_path / "elsewhere")
    assert store.manifest("../../elsewhere") is None


def test_a_file_that_the_disk_cannot_read_is_damage_and_replaced(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(path: Path) -> str:
        raise OSError(5, "Input/output error", str(path))

    [content] = store.contents()
    with monkeypatch.context() as patch:
        patch.setattr(store.memory, "digest", digest)  # no disk here has bad sectors
        assert store.damage(content) == "'f' cannot be read: Input/output error"
    assert store.damage(content) is None


IDENTITY = Identity(
    "quantize", {"artifacts.steps.quantize": {"run": "aa"}}, {"bits": 8}, {"onnx": "1.23.2"}, {"model": "1" * 64}
)


def test_the_key_is_the_digest_of_all_parts() -> None:
    assert IDENTITY.key == digest_json({"schema": SCHEMA, **asdict(IDENTITY)})
    assert IDENTITY.key == Identity(**asdict(IDENTITY)).key
    for part in ("code", "params", "tools", "inputs"):
        assert Identity(**{**asdict(IDENTITY), part: {}}).key != IDENTITY.key, part


def test_an_identity_is_read_as_it_was_recorded() -> None:
    assert read_identity(asdict(IDENTITY)) == IDENTITY


def test_missing_parts_in_a_record_of_another_schema_are_empty() -> None:
    old = read_identity({"step": "quantize", "params": {"bits": 8}})
    assert (old.schema, old.params, old.inputs, old.code) == (0, {"bits": 8}, {}, {})


ONE, TWO = "1" * 64, "2" * 64


def test_a_manifest_says_names_sizes_and_digests_and_nothing_else() -> None:
    manifest = manifest_of({"b": (2, TWO), "a": (1, ONE)})
    assert list(manifest.files.items()) == [("a", FileRecord(1, ONE)), ("b", FileRecord(2, TWO))]
    assert json.loads(manifest.text) == {"files": {"a": {"bytes": 1, "sha256": ONE}, "b": {"bytes": 2, "sha256": TWO}}}
    assert manifest.total_bytes == 3


def test_the_content_is_the_sha256_of_the_text() -> None:
    manifest = manifest_of({"a": (1, ONE)})
    assert manifest.content == hashlib.sha256(manifest.text).hexdigest()
    assert read_manifest(manifest.text, manifest.content) == manifest
    assert read_manifest(manifest.text, ONE) is None


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "{}", '{"files": []}', '{"files": {}}', '{"files": {"a": 1}}', '{"files": {"a": {"bytes": 1}}}',
        f'{{"files": {{"../a": {{"bytes": 1, "sha256": "{ONE}"}}}}}}',
        f'{{"files": {{"a//b": {{"bytes": 1, "sha256": "{ONE}"}}}}}}',
        f'{{"files": {{"a": {{"bytes": -1, "sha256": "{ONE}"}}}}}}',
        f'{{"files": {{"a": {{"bytes": 1, "sha256": "{ONE[1:]}"}}}}}}',
        "[" * 200_000,
    ],
)  # fmt: skip
def test_a_text_that_lists_no_possible_files_is_none(text: str) -> None:
    assert read_manifest(text.encode(), hashlib.sha256(text.encode()).hexdigest()) is None
