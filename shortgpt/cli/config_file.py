"""`--config run.toml`: options from a file, a section for each command. What the command line says wins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cyclopts import App
from cyclopts.config import Toml

from shortgpt.cli.failing import UsageError


@contextmanager
def options_from(file: Path | None, app: App) -> Iterator[None]:
    """While open, `app` takes options that its command line does not name from the section of the command in `file`.

    Raises:
        UsageError: no such file, no TOML, or something in it that is no section of a command.
    """
    if file is None:
        yield
        return
    commands = [name for name in app if not name.startswith("-")]
    if not file.is_file():
        raise UsageError(f"--config: no such file: {file}")
    found = Toml(file, must_exist=True)
    try:
        sections = found.config
    except Exception as error:  # cyclopts passes on what the TOML reader says
        raise UsageError(f"--config: {file} is not TOML: {error}") from None
    if wrong := [name for name, value in sections.items() if name not in commands or not isinstance(value, dict)]:
        raise UsageError(
            f"--config: {file} has {wrong[0]!r}, and its sections are those of commands: {', '.join(commands)}"
        )
    before = app.config
    try:
        app.config = (found,)
        yield
    finally:
        app.config = before
