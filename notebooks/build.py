"""Make the lessons: ``source/NN_name.py`` (jupytext percent, edited by hand) becomes ``NN_name.ipynb``, executed.

A lesson with exercises also becomes ``exercises/NN_name.ipynb``, without solutions and outputs (`exercise_notebooks`).

    python notebooks/build.py                  every lesson
    python notebooks/build.py 02 03            the lessons whose names start with 02 and 03
    python notebooks/build.py --check          execute nothing, exit 1 if a notebook is not what its source generates
    python notebooks/build.py --no-execute     new text, but keep the outputs of the cells whose source is the same
    python notebooks/build.py --fresh          measure the timings in cells tagged ``volatile`` again
    python notebooks/build.py --classroom DIR  write the exercises with solutions as an nbgrader course, into DIR/source
    python notebooks/build.py --variant 7      write the exercises with other values, by this seed, into output/variant_7
                                               (with --classroom: the same with solutions, into DIR/source)

Two builds of one source give the same bytes, so that a difference in git is a difference in the lesson: cell ids are
hashes, and time stamps, widgets, progress bars, memory addresses and absolute paths are left out. A cell tagged
``volatile`` prints timings, so it keeps its present outputs for as long as its source stays the same. A notebook that
fails leaves the old file as it was.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
import tempfile
import time
import tomllib
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import jupytext
import nbformat
import patient_client  # noqa: F401  (a widget must not halt a run)
import psutil
from exercise_notebooks import Cell, ExerciseError, exercise_cells, has_exercises, with_solution
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from variants import vary

from shortgpt.utils.atomic import file_written_beside
from shortgpt.utils.peak import highest

NOTEBOOKS = Path(__file__).resolve().parent
CELL_SECONDS = 1800
THREADS = os.environ.get("OMP_NUM_THREADS", "2")  # side by side with other work, one is faster
WIDGET = "application/vnd.jupyter.widget-view+json"
ANSI = re.compile(r"\x1b\[[0-9;]*m")
# Where a variable moves a cache, outputs name its usual place.
CACHES = {"SHORTGPT_CACHE": "~/.cache/shortgpt", "HF_HOME": "~/.cache/huggingface", "XDG_CACHE_HOME": "~/.cache"}
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
}
# Nobody wants to read the installation first: JupyterLab, Colab and the book (by a tag) show it folded, until clicked.
FOLDED = {"jupyter": {"source_hidden": True}, "cellView": "form"}


class BuildError(Exception):
    """A lesson could not be made. The message says which one, at which cell, and why."""


def generate(source: Path) -> NotebookNode:
    """Return the notebook that ``source`` describes, without outputs."""
    cells = []
    for cell in jupytext.read(source, fmt="py:percent").cells:
        metadata = {key: cell.metadata[key] for key in ("tags", "nbmake", "jupyter") if key in cell.metadata}
        cells.append((cell.cell_type, with_solution(cell.source), metadata))
    return assemble(source.stem, cells)


def generate_exercises(source: Path, *, solved: bool = False, variant: int | None = None) -> NotebookNode | None:
    """Return the exercise notebook of a lesson, or None if it has no exercises. ``solved`` keeps marked solutions.

    ``variant`` is a seed for the values in it (`variants`).
    """
    cells = jupytext.read(source, fmt="py:percent").cells
    if not has_exercises(cells):
        return None
    project = tomllib.loads((NOTEBOOKS.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    owner = project["urls"]["Repository"].removeprefix("https://github.com/")
    made = exercise_cells(cells, source.stem, owner, solved=solved)
    return assemble(f"exercises/{source.stem}", made if variant is None else vary(source.stem, made, variant))


def assemble(name: str, cells: Sequence[Cell]) -> NotebookNode:
    """Make a notebook. Cell ids hash notebook, position, cell source, so that they are the same in every build."""
    made = []
    for position, (kind, text, metadata) in enumerate(cells):
        if "setup" in metadata.get("tags", ()):
            metadata = metadata | FOLDED | {"tags": [*metadata["tags"], "hide-input"]}
        identity = hashlib.sha256(f"{name}\0{position}\0{text}".encode()).hexdigest()[:12]
        made.append(getattr(nbformat.v4, f"new_{kind}_cell")(text, id=identity, metadata=metadata))
    return nbformat.v4.new_notebook(cells=made, metadata=nbformat.from_dict(METADATA), nbformat_minor=5)


def check(source: Path, target: Path, make: Callable[[Path], NotebookNode | None] = generate) -> list[str]:
    """Return what in ``target`` is not what ``make`` generates from ``source`` (the first difference), or nothing."""
    notebook = make(source)
    if notebook is None:
        return [f"{target}: {source.name} has no exercises"] if target.exists() else []
    if not target.exists():
        return [f"{target.name}: missing, though {source.name} exists"]
    expected, found = notebook.cells, nbformat.read(target, as_version=4).cells
    for number, (want, have) in enumerate(zip(expected, found, strict=False), 1):
        wrong = [part for part in ("cell_type", "source", "metadata", "id") if want[part] != have.get(part)]
        if wrong:
            return [f"{target.name}: cell {number} is not what {source.name} generates ({', '.join(wrong)} differ)"]
    counts = f"{target.name}: {len(found)} cells, but {source.name} generates {len(expected)}"
    return [] if len(expected) == len(found) else [counts]


def keep_outputs(notebook: NotebookNode, target: Path, tag: str | None = None) -> int:
    """Take the outputs of cells with unchanged source (and with ``tag``, if given) from ``target``; count them."""
    old, kept = defaultdict(list), 0
    for cell in nbformat.read(target, as_version=4).cells if target.exists() else []:
        if cell.cell_type == "code" and cell.execution_count is not None:
            old[cell.source].append(cell)
    for cell in notebook.cells:
        wanted = tag is None or tag in cell.metadata.get("tags", [])
        if cell.cell_type == "code" and wanted and old[cell.source]:
            previous = old[cell.source].pop(0)
            cell.outputs, kept = previous.outputs, kept + 1
            cell.execution_count = cell.execution_count or previous.execution_count
    return kept


def normalise(text: str) -> str:
    """Replace what differs from run to run or machine to machine: memory addresses and absolute paths."""
    folders = {str(NOTEBOOKS.parent): "[repository]", sys.prefix: "[python]", str(Path.home()): "~"}
    folders |= {os.environ[name].rstrip("/"): usual for name, usual in CACHES.items() if os.environ.get(name)}
    for folder in sorted(folders, key=len, reverse=True):  # the innermost folder first
        if len(folder) > 1:
            text = re.sub(rf"(?<![\w.~]){re.escape(folder)}(?![\w-])", folders[folder], text)
    temporary = re.escape(tempfile.gettempdir().rstrip("/"))
    text = re.sub(rf"{temporary}/(ipykernel_\d+/\d+\.py|tmp\w+)", "[temporary]", text)
    return re.sub(r"\b0x[0-9a-f]{6,16}\b", "0x...", text)


def clean(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Return the outputs without widgets and progress bars, with neighbouring prints joined and text normalised."""
    stderr = "".join(output.text for output in outputs if output.get("name") == "stderr")
    lines = [line for line in re.findall(r"[^\n]+\n?", stderr) if "\r" not in line]  # \r: a progress bar redraws itself
    cleaned = [nbformat.v4.new_output("stream", name="stderr", text="".join(lines))] if lines else []
    for output in outputs:
        if output.get("name") == "stderr" or WIDGET in output.get("data", {}):
            continue
        if output.get("name") == "stdout" and cleaned and cleaned[-1].get("name") == "stdout":
            cleaned[-1].text += output.text
        else:
            cleaned.append(output)
    for output in cleaned:  # after joining, because a path may arrive in two parts
        texts = output if output.output_type == "stream" else output.data
        texts |= {kind: normalise(value) for kind, value in texts.items() if kind.startswith("text")}
    return cleaned


def peak_memory() -> AbstractContextManager[list[int]]:
    """Sample the memory of all child processes while the block runs; ``[0]`` of the list is the peak in bytes."""
    return highest(_children_bytes, 0.1)


def _children_bytes() -> int:
    total = 0
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it may have ended since it was listed
            total += child.memory_info().rss
    return total


def execute(notebook: NotebookNode, folder: Path, name: str) -> None:
    """Run every cell in ``folder`` and clean the outputs, in place. Raise BuildError with the cell that failed."""
    environment = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}
    environment |= {f"{library}_NUM_THREADS": THREADS for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR")}
    environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONHASHSEED": "0"}
    with tempfile.TemporaryDirectory() as profile:  # nobody's IPython start-up files and history
        environment["IPYTHONDIR"] = profile
        client = NotebookClient(notebook, timeout=CELL_SECONDS, kernel_name="python3", record_timing=False)
        client.extra_arguments = ["--log-level=ERROR"]  # no note about unencrypted local connections
        try:
            client.execute(env=environment, cwd=str(folder))
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
            number = sum(cell.get("execution_count") is not None for cell in notebook.cells)
            raise BuildError(f"{name}: stopped at code cell {number}\n{ANSI.sub('', str(error))}") from error
    for number, cell in enumerate((cell for cell in notebook.cells if cell.cell_type == "code"), 1):
        for output in cell.outputs:
            if output.output_type == "error":  # the tag raises-exception lets a run go on after one
                trace = ANSI.sub("", "\n".join(output.traceback))
                raise BuildError(f"{name}: error output in code cell {number}\n{cell.source}\n{trace}")
        cell.outputs = clean(cell.outputs)
    notebook.metadata = nbformat.from_dict(METADATA)  # without widget state and Python version


def build(source: Path, target: Path, *, run: bool = True, fresh: bool = False) -> str:
    """Make one notebook and return a line about it. The old file is replaced only when everything has succeeded."""
    notebook, start = generate(source), time.perf_counter()
    if run:
        with peak_memory() as peak:
            execute(notebook, target.parent, source.stem)
        kept = 0 if fresh else keep_outputs(notebook, target, tag="volatile")
        report = f"{time.perf_counter() - start:.0f} s, peak {peak[0] / 2**20:.0f} MiB, {kept} volatile cells kept"
    else:
        report = f"not executed, outputs of {keep_outputs(notebook, target)} cells kept"
    write(notebook, target)
    return f"{source.stem}: {report}, {target.stat().st_size / 1e3:.0f} kB"


def write(notebook: NotebookNode, target: Path) -> None:
    """Replace ``target`` at once, or leave it as it was."""
    nbformat.validate(notebook)
    target.parent.mkdir(parents=True, exist_ok=True)
    with file_written_beside(target) as beside:
        beside.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lessons", nargs="*", help="beginnings of lesson names, such as 02 (default: all)")
    parser.add_argument("--check", action="store_true", help="only compare the notebooks with their sources")
    parser.add_argument("--no-execute", action="store_true", help="regenerate, keep outputs of unchanged cells")
    parser.add_argument("--fresh", action="store_true", help="measure volatile cells again")
    parser.add_argument("--classroom", type=Path, metavar="DIR", help="write exercises with solutions, for nbgrader")
    parser.add_argument("--variant", type=int, metavar="SEED", help="write exercises with other values, by this seed")
    parser.add_argument("--folder", type=Path, default=NOTEBOOKS, help="where source/ and the notebooks are")
    options = parser.parse_args(arguments)
    folder = options.folder.resolve()
    sources = sorted((folder / "source").glob("[0-9]*.py"))
    chosen = [path for path in sources if not options.lessons or path.name.startswith(tuple(options.lessons))]
    problems = [f"no lesson starts with {x}" for x in options.lessons if not any(p.name.startswith(x) for p in sources)]
    for source in chosen:
        target, exercises = folder / f"{source.stem}.ipynb", folder / "exercises" / f"{source.stem}.ipynb"
        try:
            if options.check:
                problems += check(source, target) + check(source, exercises, generate_exercises)
            elif options.classroom or options.variant is not None:
                made = folder.parent / "output" / f"variant_{options.variant}" / target.name
                if options.classroom:
                    made = options.classroom / "source" / source.stem / target.name
                if notebook := generate_exercises(source, solved=bool(options.classroom), variant=options.variant):
                    write(notebook, made)
                    print(made)
            else:
                print(build(source, target, run=not options.no_execute, fresh=options.fresh), flush=True)
                if notebook := generate_exercises(source):
                    write(notebook, exercises)
        except (BuildError, ExerciseError) as error:
            problems.append(f"{error}\n{target.name} was left as it was.")
    if options.check and not options.lessons:
        for made in (*folder.glob("*.ipynb"), *folder.glob("exercises/*.ipynb")):
            if not (folder / "source" / f"{made.stem}.py").exists():
                problems.append(f"{made.relative_to(folder)}: no source/{made.stem}.py generates it")
    if problems and options.check:
        problems.append("Edit source/*.py only, then run `python notebooks/build.py` for these lessons.")
    print(*problems, sep="\n", end="\n" if problems else "", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
