from __future__ import annotations

import json

from artifacts.store.status import Status


def test_a_status_reads_the_same_in_a_table_and_in_the_journal() -> None:
    assert [f"{status}" for status in Status] == [json.loads(json.dumps(status)) for status in Status]
    assert Status("built?") is Status.MAYBE_BUILT
