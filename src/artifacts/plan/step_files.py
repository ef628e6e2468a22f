"""Steps by name: files in `artifacts/steps/`, and in the folder `steps/` of the project.

A project's own steps are modules of the same package, so the same rules apply to them.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

from artifacts.errors import RecipeError
from artifacts.params import StepParams

STEPS_PACKAGE = "artifacts.steps"
PACKAGED_FOLDER = Path(__file__).parents[1] / "steps"
OWN_FOLDER = Path("steps")


def own_steps_folder() -> Path | None:
    """Return the folder of the project's own steps, if there is one. The project is the working folder."""
    folder = Path.cwd() / OWN_FOLDER
    return folder if folder.is_dir() and folder != PACKAGED_FOLDER else None


def packaged_steps() -> tuple[str, ...]:
    """Return the names of the package's steps."""
    return tuple(sorted(_names(PACKAGED_FOLDER)))


def known_steps() -> tuple[str, ...]:
    """Return the names of all steps. A file whose name begins with `_` is not a step, but steps may import it.

    Raises RecipeError for an own step that has the name of a packaged one.
    """
    packaged, own = set(packaged_steps()), _names(own_steps_folder())
    for name in sorted(packaged & own):
        raise RecipeError(f"{OWN_FOLDER / name}.py: '{name}' is the name of a step of the package", "rename the file")
    return tuple(sorted(packaged | own))


def load_step(name: str) -> ModuleType:
    """Import a step by name, and check that it defines Params, TOOLS and run. Raises RecipeError with its file."""
    extend_search_path(own_steps_folder())
    module = f"{STEPS_PACKAGE}.{name}"
    try:
        step = importlib.import_module(module)
        _check_step(step)
    except (Exception, SystemExit) as error:
        fact = f"step '{name}' cannot be loaded: {type(error).__name__}: {error}"
        raise RecipeError(fact, f"correct {module_path(module)}") from error
    return step


def _check_step(module: Any) -> None:
    """Raise TypeError for a module that lacks what every step has."""
    params = getattr(module, "Params", None)
    if not (isinstance(params, type) and issubclass(params, StepParams)):
        raise TypeError("it has no class Params(StepParams)")
    if not isinstance(getattr(module, "TOOLS", None), tuple):
        raise TypeError("it has no tuple TOOLS")
    if not inspect.isfunction(getattr(module, "run", None)):
        raise TypeError("it has no function run")


def extend_search_path(folder: Path | None) -> None:
    """Add a folder to the search path of the package of steps, after the packaged steps."""
    paths = importlib.import_module(STEPS_PACKAGE).__path__
    if folder is not None and str(folder) not in paths:
        paths.append(str(folder))


def own_step_file(module: str) -> Path | None:
    """Return the file of a module that the project has in its own steps; None for any other module."""
    package, _, name = module.partition(f"{STEPS_PACKAGE}.")
    if package or not name:
        return None
    folder = own_steps_folder()
    if folder is None:
        return None
    base = folder.joinpath(*name.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def module_path(module: str) -> str:
    """Return the path of a module's file, as messages show it."""
    own = own_step_file(module)
    return f"{own.relative_to(Path.cwd())}" if own is not None else f"{module.replace('.', '/')}.py"


def _names(folder: Path | None) -> set[str]:
    return {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")} if folder else set()
