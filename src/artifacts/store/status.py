"""Status of a target: what a run did, what a run would do, and what the journal records."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """One word for each way in which a target can end, or would end."""

    UNCHANGED = "unchanged"
    FOUND = "found"  # a source that is on this machine
    FETCHED = "fetched"  # a source that is not, in a dry run; a run says found
    RESTORED = "restored"  # from the store, without its step
    BUILT = "built"
    MAYBE_BUILT = "built?"  # in a dry run: it depends on bytes that are not made yet
    MISSING = "missing"  # a source, in a dry run; a run says failed
    NOT_TRIED = "not tried"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
