"""Where modules were before they moved into rooms: their old names go on working for one release.

``from shortgpt.influence import …`` gives the module that holds those names now, with a DeprecationWarning. Goes with 0.3.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from shortgpt.utils.quieting import NOISY, quiet

MOVED = {
    "benchmarks": "evaluation.benchmarks",
    "calibration": "model.text",
    "checks": "course.checks",
    "explorers": "course.explorers",
    "influence": "scoring.influence",
    "likelihood": "evaluation.likelihood",
    "checkpoints.default_model": "checkpoints.packaged",
    "packaged": "checkpoints.packaged",
    "plots": "course.plots",
    "plots_choosing": "course.plots",
    "plots_evaluation": "course.plots",
    "plots_generation": "course.plots",
    "plots_tokens": "course.plots",
    "quiz": "course.quiz",
    "speedup": "course.studies.speedup",
}


class _Moved(MetaPathFinder, Loader):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        package, _, old = name.partition(".")
        return ModuleSpec(name, self) if package == "shortgpt" and old in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        old = module.__name__
        new = f"shortgpt.{MOVED[old.removeprefix('shortgpt.')]}"
        warnings.warn(f"{old} is now {new}: import it from there", DeprecationWarning, stacklevel=2)
        with quiet(*NOISY):
            sys.modules[old] = import_module(new)


def install() -> None:
    """Look the old names up after everything else has failed; once, however often the package is reloaded."""
    if not any(type(finder).__name__ == _Moved.__name__ for finder in sys.meta_path):
        sys.meta_path.append(_Moved())
