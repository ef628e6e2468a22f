from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.errors import StoreError
from artifacts.plan.plan import load_plan
from artifacts.run.leftovers import clear_leftovers
from artifacts.run.lookup import Lookup
from small_model import MODEL_RECIPE, write_pipeline

pytestmark = pytest.mark.usefixtures("here")

LEFT = (
    "cache/staging/key.abcd1234/files/a",
    "cache/small/.target.abcd1234.unfinished/a",
    "cache/small/.state/.target.key.abcd1234.unfinished",
    "cache/artifacts/.content.abcd1234.unfinished/a",
    "cache/actions/.key.json.abcd1234.unfinished",
    "dist/small/.flat.abcd1234.unfinished/new/a",
)
OTHERS = ("cache/small/.target.swp", "cache/actions/key.json", "dist/small/flat/a")


def test_what_is_unfinished_is_removed_and_nothing_else() -> None:
    write_pipeline(MODEL_RECIPE)
    for name in (*LEFT, *OTHERS):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("a")
    lookup = Lookup(load_plan())
    user = lookup.store.use()
    with user, pytest.raises(StoreError, match="is in use by a build"):
        clear_leftovers(lookup)
    assert all(Path(name).exists() for name in LEFT)
    clear_leftovers(lookup)
    assert not [name for name in LEFT if Path(name).exists()]
    assert all(Path(name).exists() for name in OTHERS)


def test_where_nothing_is_left_nothing_is_made() -> None:
    write_pipeline(MODEL_RECIPE)
    clear_leftovers(Lookup(load_plan()))
    assert not Path("cache/guard").exists()
