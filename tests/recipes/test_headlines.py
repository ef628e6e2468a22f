from __future__ import annotations

from importlib import import_module
from pathlib import Path

from artifacts.store.store import Store


def test_every_headline_is_a_metric_that_the_step_returns(whole_recipe: Path) -> None:
    store = Store(whole_recipe.parent)
    keys = [path.read_text() for path in (whole_recipe / ".state").glob("*.key")]
    actions = [action for action in map(store.action, keys) if action is not None]
    assert len(actions) > 35
    for action in actions:
        headline = getattr(import_module(f"artifacts.steps.{action.identity.step}"), "HEADLINE", ())
        assert bool(headline) == bool(action.metrics), f"{action.identity.step}: {list(action.metrics)[:5]}"
        assert not headline or set(headline) & set(action.metrics), f"{action.identity.step}: {headline}"
