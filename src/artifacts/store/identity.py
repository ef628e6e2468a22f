"""Identity of a step run: all that decides the bytes of its artifact. Its sha256 is the key in the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from artifacts.digest import digest_json

# The store's own rules about bytes (what is hashed, how). A change here makes every earlier artifact another's.
SCHEMA = 1


@dataclass(frozen=True)
class Identity:
    """Step, digests of its code as {module: {definition: digest}}, params with defaults filled in, versions of its
    tools, and content digests of its inputs by the step's own names."""

    schema: int = field(default=SCHEMA, kw_only=True)
    step: str
    code: dict[str, dict[str, str]]
    params: dict[str, Any]
    tools: dict[str, str]
    inputs: dict[str, str]

    @cached_property
    def key(self) -> str:
        """The sha256 of the identity, as 64 hex digits."""
        return digest_json(asdict(self))


def read_identity(record: Mapping[str, Any]) -> Identity:
    """Return the identity that a record in the store holds. Parts that another schema did not have are empty.

    Raises TypeError, AttributeError or KeyError for a record that holds none.
    """
    parts = {part: dict(record.get(part, {})) for part in ("code", "params", "tools", "inputs")}
    return Identity(schema=record.get("schema", 0), step=record["step"], **parts)
