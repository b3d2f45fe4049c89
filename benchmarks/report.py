"""What every benchmark writes: its table into docs/benchmarks.md, with the machine, the versions and the date."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import version
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "docs" / "benchmarks"
PAGE = FOLDER.parent / "benchmarks.md"


def machine() -> str:
    """One sentence: processor, cores, memory, load when this was asked, versions, date."""
    import psutil
    import torch

    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "accelerate"))
    return (
        f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads, {psutil.virtual_memory().total / 2**30:.0f} GiB; load average "
        f"{os.getloadavg()[0]:.1f} at the end; Python {platform.python_version()}, {versions}; {datetime.date.today()}."
    )


def write_section(name: str, text: str) -> None:
    """Replace what stands between the marks of `name` in docs/benchmarks.md."""
    page = PAGE.read_text(encoding="utf-8")
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, _, rest = page.partition(start)
    PAGE.write_text(before + start + text.strip() + "\n" + end + rest.partition(end)[2], encoding="utf-8")


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []
