"""What a package shows at its door, without opening the rooms behind it: names are imported when they are first used.

The names and their homes stand in ``__init__.pyi`` beside the package's ``__init__.py``, where type checkers and editors read
them too.
"""

from __future__ import annotations

from collections.abc import Callable

import lazy_loader

from shortgpt.utils.quieting import NOISY, quiet


def door(package: str, file: str) -> tuple[Callable[[str], object], Callable[[], list[str]], list[str]]:
    """``__getattr__, __dir__, __all__`` of `package`, whose ``__init__.py`` is `file`."""
    find, listed, names = lazy_loader.attach_stub(package, file)

    def get(name: str) -> object:
        with quiet(*NOISY):
            try:
                return find(name)
            except AttributeError as error:
                if name in names:
                    raise
                raise AttributeError(f"module {package!r} has no attribute {name!r}") from error

    return get, listed, names
