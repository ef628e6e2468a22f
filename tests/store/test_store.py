from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from artifacts.digest import digest_file, digest_json
from artifacts.errors import StoreError
from artifacts.files.atomic import remove_tree
from artifacts.store.records import Action, Identity, manifest_of
from artifacts.store.store import Store

Metrics = dict[str, float | int | str]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "cache")


K1, K2 = (Identity(name, {}, {}, {}, {}) for name in ("one", "two"))


def put(store: Store, identity: Identity, files: dict[str, bytes], metrics: Metrics | None = None) -> str:
    """Seal an artifact of these files, as a build does. Returns its content."""
    key = identity.key
    staging = store.stage(key)
    for name, data in files.items():
        path = staging / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o444)
    manifest = manifest_of({name: (len(data), digest_file(staging / "files" / name)) for name, data in files.items()})
    store.seal(key, staging, manifest, Action(identity, manifest.content, metrics or {}, 1.5, 1000))
    return manifest.content


def test_a_sealed_artifact_is_found_by_its_key_and_by_its_content(store: Store) -> None:
    content = put(store, K1, {"a.onnx": b"a", "sub/b.data": b"bb"}, {"shards": 2})
    assert store.action(K1.key) == Action(K1, content, {"shards": 2}, 1.5, 1000)
    assert (store.files(content) / "sub" / "b.data").read_bytes() == b"bb"
    manifest = store.manifest(content)
    assert manifest is not None
    assert set(manifest.files) == {"a.onnx", "sub/b.data"}
    assert store.damage(content) is None
    assert store.contents() == [content]
    assert [key for key, _ in store.actions()] == [K1.key]


def test_metrics_keep_the_order_in_which_the_step_returned_them(store: Store) -> None:
    put(store, K1, {"a.onnx": b"a"}, {"wer_percent": 2, "deletions_percent": 1})
    action = store.action(K1.key)
    assert action is not None
    assert list(action.metrics) == ["wer_percent", "deletions_percent"]


def test_two_keys_that_give_the_same_bytes_share_one_artifact(store: Store) -> None:
    first, second = put(store, K1, {"a": b"a"}), put(store, K2, {"a": b"a"})
    assert first == second
    assert store.contents() == [first]
    assert [key for key, _ in store.actions()] == sorted((K1.key, K2.key))


def test_an_artifact_that_was_never_sealed_has_no_record(store: Store) -> None:
    assert store.action(K1.key) is None
    assert store.manifest("0" * 64) is None
    assert store.damage("0" * 64) == "its manifest is missing or damaged"
    assert store.contents() == []


def _link(files: Path) -> None:
    (files / "a").unlink()
    (files / "a").symlink_to("sub/b")


def _pipe(files: Path) -> None:
    (files / "a").unlink()
    os.mkfifo(files / "a")


def _folder(files: Path) -> None:
    (files / "a").unlink()
    (files / "a").mkdir()


DAMAGE: list[tuple[Callable[[Path], object], str]] = [
    (lambda files: (files / "a").unlink(), "'a' is missing"),
    (lambda files: (files / "c").write_text("c"), "'c' does not belong there"),
    (lambda files: os.truncate(files / "a", 1), "'a' has 1 bytes instead of 3"),
    (lambda files: (files / "a").write_bytes(b"xyz"), "'a' has other bytes than its manifest says"),
    (_link, "'a' is not a regular file"),
    (_pipe, "'a' is not a regular file"),
    (_folder, "'a' is missing"),
    (remove_tree, "'a' is missing"),
    (lambda files: os.truncate(files.parent / "manifest.json", 9), "its manifest is missing or damaged"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGE)
def test_damage_is_detected_and_sealing_again_repairs_it(
    store: Store, damage: Callable[[Path], object], said: str
) -> None:
    files = {"a": b"abc", "sub/b": b"b"}
    content = put(store, K1, files)
    for path in store.files(content).rglob("*"):
        path.chmod(0o755)
    damage(store.files(content))
    assert store.damage(content) == said
    assert put(store, K1, files) == content
    assert store.damage(content) is None
    assert not list((store.cache / "artifacts").glob(".*"))


@pytest.mark.parametrize("bit", [1, 30, 60, 90, 120])
def test_a_record_with_one_flipped_bit_is_ignored(store: Store, bit: int) -> None:
    put(store, K1, {"a": b"a"}, {"wer_percent": 3.25})
    path = store.cache / "actions" / f"{K1.key}.json"
    data = bytearray(path.read_bytes())
    data[bit] ^= 1
    path.write_bytes(data)
    assert store.action(K1.key) is None


def test_a_record_of_another_version_is_ignored(store: Store) -> None:
    put(store, K1, {"a": b"a"})
    path = store.cache / "actions" / f"{K1.key}.json"
    action = {**json.loads(path.read_bytes())["action"], "a new field": 1}
    records: list[object] = [{"action": action, "sha256": digest_json(action)}, action, [], "text", None]
    for record in records:
        path.write_text(json.dumps(record))
        assert store.action(K1.key) is None
        assert list(store.actions()) == []


def test_a_staging_folder_is_empty_and_removes_what_an_earlier_holder_left(store: Store) -> None:
    first = store.stage("k")
    (first / "half").write_text("half")
    other = store.stage("other")
    second = store.stage("k")
    assert list(second.iterdir()) == []
    assert not first.exists()
    assert other.exists()


@pytest.mark.parametrize("is_link", [True, False])
def test_a_link_that_a_step_makes_in_its_staging_folder_leads_nowhere(
    store: Store, tmp_path: Path, is_link: bool
) -> None:
    elsewhere, staging = tmp_path / "elsewhere", store.stage("a" * 64)
    elsewhere.mkdir()
    (staging / "files").mkdir()
    (staging / "files" / "a.txt").write_text("a")
    if is_link:
        (staging / "sealed").symlink_to(elsewhere)
    else:
        (staging / "sealed" / "files" / "more").mkdir(parents=True)
    manifest = manifest_of({"a.txt": (1, hashlib.sha256(b"a").hexdigest())})
    store.seal("a" * 64, staging, manifest, Action(K1, manifest.content, {}, 1.0, 1))
    assert list(elsewhere.iterdir()) == []
    folder = store.folder(manifest.content)
    assert not folder.is_symlink()
    assert sorted(path.name for path in folder.rglob("*")) == ["a.txt", "files", "manifest.json"]


def test_one_at_a_time_holds_a_key(store: Store) -> None:
    held: list[str] = []

    def hold(name: str) -> None:
        with store.lock("k"):
            held.append(f"+{name}")
            time.sleep(0.02)
            held.append(f"-{name}")

    threads = [threading.Thread(target=hold, args=(str(index),)) for index in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [name[1:] for name in held[::2]] == [name[1:] for name in held[1::2]]


def test_a_wait_for_a_key_is_reported_once(store: Store) -> None:
    said: list[str] = []
    got = threading.Event()

    def wait() -> None:
        with store.lock("k", lambda: said.append("waiting")):
            got.set()

    with store.lock("k", lambda: said.append("nobody held it")):
        other = threading.Thread(target=wait)
        other.start()
        assert not got.wait(0.2)
        assert said == ["waiting"]
    other.join()
    assert got.is_set()
    assert said == ["waiting"]


def test_the_store_can_be_locked_only_while_nobody_uses_it(store: Store) -> None:
    users = [store.use(), store.use()]
    for user in users:
        with pytest.raises(StoreError, match="is in use by a build"), store.alone():
            pass
        user.close()
    with store.alone():
        pass


def test_the_content_is_the_sha256_of_the_manifest_file(store: Store) -> None:
    content = put(store, K1, {"a": b"a"})
    assert digest_file(store.folder(content) / "manifest.json") == content


def test_a_forgotten_action_is_removed_and_its_artifact_is_not(store: Store) -> None:
    content = put(store, K1, {"a": b"a"})
    store.forget(K1.key)
    store.forget("never there")
    assert store.action(K1.key) is None
    assert store.damage(content) is None
