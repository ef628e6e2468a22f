"""Steps by name: files in `artifacts/steps/`, and in the folder `steps/` of the project.

A project's own steps are modules of the same package, so all that holds for ours holds for them.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from artifacts.errors import RecipeError

STEPS = "artifacts.steps"
PACKAGED = Path(__file__).parents[1] / "steps"
OWN = Path("steps")


def own_steps() -> Path | None:
    """Return the folder of the project's own steps, if there is one. The project is the working folder."""
    folder = Path.cwd() / OWN
    return folder if folder.is_dir() and folder != PACKAGED else None


def known_steps() -> tuple[str, ...]:
    """Return the names of all steps. A file whose name begins with `_` is none, but steps may import it.

    Raises RecipeError for an own step that has the name of a packaged one.
    """
    packaged, own = _names(PACKAGED), _names(own_steps())
    for name in sorted(packaged & own):
        raise RecipeError(f"{OWN / name}.py: '{name}' is the name of a step of the package", "rename the file")
    return tuple(sorted(packaged | own))


def load_step(name: str) -> ModuleType:
    """Import the step of a name. Raises whatever its module raises."""
    extend_steps(own_steps())
    return importlib.import_module(f"{STEPS}.{name}")


def extend_steps(folder: Path | None) -> None:
    """Let modules of the package of steps come from this folder too. Those of the package come first."""
    paths = importlib.import_module(STEPS).__path__
    if folder is not None and str(folder) not in paths:
        paths.append(str(folder))


def own_file(module: str) -> Path | None:
    """Return the file of a module that the project has in its own steps; None for any other module."""
    package, _, name = module.rpartition(".")
    folder = own_steps()
    if package != STEPS or folder is None or (PACKAGED / f"{name}.py").is_file():
        return None
    return folder / f"{name}.py" if (folder / f"{name}.py").is_file() else None


def module_path(module: str) -> str:
    """Return the path of a module's file, as messages show it."""
    own = own_file(module)
    return f"{OWN / own.name}" if own is not None else f"{module.replace('.', '/')}.py"


def _names(folder: Path | None) -> set[str]:
    return {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")} if folder else set()
