"""What several public functions ask of their arguments: a wrong one is one clear sentence, before anything is computed.

Torch and the tokenizers answer wrong arguments from deep inside, in the words of their own code, and on a GPU a token
beyond the vocabulary ends the session. What only one function asks is checked in that function.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np


def shown(value: object) -> str:
    """`value` as an error message can hold it: short values in full, of others the type."""
    if value is None or isinstance(value, bool | int | float | np.number):
        return str(value)
    return repr(value if len(value) <= 60 else value[:57] + "...") if isinstance(value, str) else type(value).__name__


def check_count(name: str, value: object, *, least: int | None = 1) -> int:
    """`value` as an int, if it is a whole number of at least `least`. NumPy's are welcome; True is no number."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be a whole number, got {shown(value)}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


def check_number(name: str, value: object) -> float:
    """`value` as a float, if it is a number. NumPy's are welcome; True is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise TypeError(f"{name} must be a number, got {shown(value)}")
    return float(value)


def check_amount(n: object, ratio: object, of: int, what: str, there: str) -> int:
    """How many of `of` things (`what`, in the plural) to remove: `n`, or `ratio` as a fraction of them, rounded.

    Raises:
        TypeError, ValueError: neither or both, no number, or so many that none would be left (`there` says what there is).
    """
    if (n is None) == (ratio is None):
        raise ValueError(f"say how many {what} to remove: give either n (a number) or ratio (a fraction of the {what})")
    if ratio is not None:
        if not 0 <= (share := check_number("ratio", ratio)) < 1:
            raise ValueError(f"ratio is a fraction of the {what}, 0 to below 1, got {ratio}")
        n = round(share * of)
    count = check_count("n", n, least=None)
    if not 0 <= count < of:
        raise ValueError(f"n must be 0 to {of - 1} ({there}), got {count}")
    return count


def check_counts(name: str, values: object, *, least: int | None = None) -> list[int]:
    """`values` as a list of ints."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list of whole numbers, for instance [0, 1], got {shown(values)}")
    return [check_count(f"each of {name}", value, least=least) for value in values]


def check_some(name: str, values: list) -> list:
    """`values`, if there are any."""
    if not values:
        raise ValueError(f"{name} is empty: give at least one")
    return values


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"unknown {name} {shown(value)}: choose one of {', '.join(choices)}")


def check_path(path: object, what: str = "a folder") -> Path:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"expected the path of {what}, got {shown(path)}")
    if not str(path):
        raise ValueError(f"the path of {what.replace('a ', 'the ')} is empty: name one")
    return Path(path)


def check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")


def check_string(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, got {shown(value)}")


def check_strings(name: str, values: object) -> list[str]:
    """`values` as a list. One string alone is refused: it would be read letter by letter."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise TypeError(f"{name} must be a list of strings, got {shown(values)}: put it in a list, if it is a string")
    values = list(values)
    for value in values:
        if not isinstance(value, str):
            raise TypeError(f"{name} must be strings, got {shown(value)} among them")
    return values
