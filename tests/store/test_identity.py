from __future__ import annotations

from dataclasses import asdict

from artifacts.digest import digest_json
from artifacts.store.identity import SCHEMA, Identity, read_identity

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


def test_what_a_record_of_another_schema_lacks_is_empty() -> None:
    old = read_identity({"step": "quantize", "params": {"bits": 8}})
    assert (old.schema, old.params, old.inputs, old.code) == (0, {"bits": 8}, {}, {})
