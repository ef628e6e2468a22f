"""Downloads, forgotten recipes and leftovers; artifacts are tested in end_to_end/test_damage.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.errors import StoreError
from artifacts.plan.plan import load_plan
from artifacts.run.lookup import Lookup
from artifacts.run.maintenance import GcResult, clear_leftovers, collect_garbage, verify
from artifacts.store.store import Store
from small_model import MODEL_RECIPE, write_pipeline

pytestmark = pytest.mark.usefixtures("here")

NEEDED, ADDRESS = "a" * 64, "http://127.0.0.1:9/model.bin"


def put(path: str, size: int) -> Path:
    """Make a file of so many bytes."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(bytes(size))
    return Path(path)


def test_an_empty_cache_has_nothing_to_verify_and_nothing_to_drop() -> None:
    assert list(verify(load_plan(), ["small"])) == []
    assert collect_garbage(load_plan()) == GcResult(0, 0, 0)


def test_downloads_that_no_source_is_pinned_to_are_dropped() -> None:
    write_pipeline(MODEL_RECIPE.replace("{folder: model}", f"{{url: '{ADDRESS}', sha256: {NEEDED}}}"))
    kept = put(f"cache/downloads/{NEEDED}/model.bin", 10)
    put(f"cache/downloads/{'b' * 64}/model.bin", 1000)
    put("cache/downloads/partial/of-no-source/part", 500)
    assert collect_garbage(load_plan()) == GcResult(2, 0, 1500)
    assert kept.exists()
    assert [path.name for path in Path("cache/downloads").iterdir()] in (
        [NEEDED],
        [NEEDED, "partial"],
        ["partial", NEEDED],
    )


def test_a_partial_download_is_kept() -> None:
    write_pipeline(MODEL_RECIPE.replace("{folder: model}", f"{{url: '{ADDRESS}'}}"))
    from artifacts.sources.find import partial_folder

    source = load_plan().jobs["small:model"].loaded.recipe.sources["model"]
    part = put(str(partial_folder(source, Path("cache/downloads")) / "part"), 10)
    (part.parent / "validator").write_text('{"validator": "x", "total": 100}')
    assert collect_garbage(load_plan()).folders == 0
    assert part.exists()


def test_leftovers_of_killed_runs_are_dropped_and_no_other_file() -> None:
    left = [
        put("cache/staging/key.abc/files/half.bin", 100),
        put("cache/artifacts/.removed.abc/content/files/f", 10),
        put("cache/actions/.key.json.abc", 1),
        put("cache/small/.state/.shards.key.abc", 1),
        put("cache/small/.shards.abc/shards", 1),
        put("dist/small/.flat.abcd1234.unfinished/new/f", 1000),
    ]
    others = [put("cache/.gitignore", 1), put("dist/small/.keep", 1), put("cache/logs/small/shards.log", 1)]
    others += [put("cache/project/.git/HEAD", 1), put("cache/project/.env", 1)]
    assert collect_garbage(load_plan()).bytes == 1113
    assert not any(path.exists() for path in left)
    assert all(path.exists() for path in others)


def test_a_target_that_no_recipe_has_any_more_loses_its_path() -> None:
    for recipe, name in (("small", "gone"), ("gone", "shards"), ("small", "shards")):
        put(f"cache/{recipe}/.state/{name}.manifest.json", 2)
        put(f"cache/{recipe}/.state/{name}.key", 2)
        Path(f"cache/{recipe}/{name}").symlink_to("../artifacts/x/files")
    collect_garbage(load_plan())
    assert not Path("cache/small/gone").is_symlink()
    assert not Path("cache/gone/shards").is_symlink()
    assert Path("cache/small/shards").is_symlink()


def test_nothing_is_dropped_while_a_build_runs() -> None:
    user = Store(Path("cache")).use()
    with pytest.raises(StoreError, match="is in use by a build"):
        collect_garbage(load_plan())
    user.close()
    assert collect_garbage(load_plan()) == GcResult(0, 0, 0)


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


def test_unfinished_files_are_removed_and_no_other_file() -> None:
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


def test_without_leftovers_no_file_is_made() -> None:
    write_pipeline(MODEL_RECIPE)
    clear_leftovers(Lookup(load_plan()))
    assert not Path("cache/guard").exists()
