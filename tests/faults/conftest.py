"""Long harnesses may take hours on a busy machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.lengths import LONG


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Raise the time bound of the tests in this folder where FAULTS=long."""
    for item in items:
        if LONG and item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(4 * 3600))
