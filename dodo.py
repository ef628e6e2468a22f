"""The targets of the recipes that a command asks for, for doit.

What they are is said in pipeline.yaml and recipes/; the work is in src/.
"""

from collections.abc import Iterator
from typing import Any

from artifacts.cli.tasks import Session

SESSION = Session()
DOIT_CONFIG = SESSION.doit_config


def task_targets() -> Iterator[dict[str, Any]]:
    """Every source, target and layout."""
    yield from SESSION.tasks()
