from __future__ import annotations

import hashlib
import json

import pytest

from artifacts.store.manifest import FileRecord, manifest_of, read_manifest

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
