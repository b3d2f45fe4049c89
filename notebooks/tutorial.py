"""`make tutorial`: run the core lessons on the default model and say where the results are.

    python notebooks/tutorial.py              lessons 00 to 05
    python notebooks/tutorial.py 00 03        some of them
    python notebooks/tutorial.py --from 03    go on with lesson 03 (`make tutorial FROM=03`)

The pruned model and the results table come first, within minutes; then every lesson is executed as it is committed. The
executed copies and their figures as PNG files go to ``output/`` too. The committed notebooks stay as they are. What fails
is told in one sentence, with what is done and how to go on; its traceback goes to ``output/tutorial.log``.
"""

from __future__ import annotations

import argparse
import base64
import logging
import os
import re
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

NOTEBOOKS = Path(__file__).resolve().parent
OUTPUT = NOTEBOOKS.parent / "output"
REMOVE = 6
ANSI = re.compile(r"\x1b\[[\d;]*m")
CELL_SECONDS = int(os.environ.get("TUTORIAL_CELL_SECONDS", 1800))


class LessonError(Exception):
    """A lesson stopped; the message says where and why, the cause is what nbclient raised."""


def run_lesson(path: Path) -> int:
    """Execute one lesson into `OUTPUT` and write its figures as PNG files; return how many there are."""
    import asyncio

    import nbformat
    import patient_client  # noqa: F401  (a widget must not halt a run)
    from nbclient import NotebookClient
    from tqdm.auto import tqdm

    from shortgpt.utils.atomic import file_written_beside

    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(NOTEBOOKS)}}
    client = NotebookClient(notebook, timeout=CELL_SECONDS, kernel_name="python3", resources=resources)
    client.extra_arguments = ["--log-level=CRITICAL"]  # no note about unencrypted local connections
    client.log.setLevel(logging.CRITICAL)  # what it would log is in the sentence
    started, pressed, exit_status = [], [], []
    start_kernel = client.async_start_new_kernel

    async def start_and_heed_ctrl_c(**options: object) -> None:  # nbclient ends the kernel, and then reports a dead one
        task = asyncio.current_task()

        def stop() -> None:
            pressed.append(True)
            task.cancel()

        with suppress(NotImplementedError):  # on Windows nothing is to be undone
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop)
        await start_kernel(**options)

    client.async_start_new_kernel = start_and_heed_ctrl_c
    client.on_notebook_error = lambda notebook: exit_status.append(client.km.provisioner.process.poll())
    with tqdm(total=len(notebook.cells), desc=path.stem, unit="cell") as bar:
        client.on_cell_start = lambda cell, cell_index: (started.append(cell_index), bar.update(cell_index - bar.n))
        try:
            client.execute()
        except (Exception, asyncio.CancelledError) as error:
            if pressed:
                raise KeyboardInterrupt from None
            where = place(notebook.cells, started[-1]) if started else "its start"
            raise LessonError(f"{path.stem} stopped at {where}: {reason(error, *exit_status)}") from error
        bar.update(bar.total - bar.n)
    figures = [
        output["data"]["image/png"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    for number, image in enumerate(figures, 1):
        with file_written_beside(OUTPUT / "figures" / f"{path.stem}_{number:02d}.png") as png:
            png.write_bytes(base64.b64decode(image))
    with file_written_beside(OUTPUT / path.name) as written:
        nbformat.write(notebook, written)
    return len(figures)


def place(cells: list[dict], index: int) -> str:
    """Which cell that is, as a reader finds it: its number among the code cells, and the heading above it."""
    number = sum(cell["cell_type"] == "code" for cell in cells[: index + 1])
    text = "\n".join(cell["source"] for cell in cells[:index] if cell["cell_type"] == "markdown")
    headings = re.findall(r"^#+ +(.+)", text, re.MULTILINE)
    return f"code cell {number}" + (f' ("{headings[-1]}")' if headings else "")


def reason(error: BaseException, exit_status: int | None = None) -> str:
    """The error in one line, without the traceback."""
    name, text = getattr(error, "ename", type(error).__name__), str(getattr(error, "evalue", error))
    if name == "CellTimeoutError":
        return f"the cell took longer than {CELL_SECONDS} seconds (TUTORIAL_CELL_SECONDS=N allows it more)"
    if name == "DeadKernelError" and exit_status == -signal.SIGKILL:
        return "its Python process was killed, most likely because memory ran out: close other programs"
    if name == "DeadKernelError":
        return f"its Python process ended by itself (exit status {exit_status})"
    if isinstance(error, ImportError) or name == "NoSuchKernel":
        text += f" (to install what is missing: {sys.executable} -m pip install -e '.[notebooks]')"
    return text if isinstance(error, LessonError) else f"{name}: {' '.join(ANSI.sub('', text).split())[:400]}"


def prune_default_model() -> None:
    """The pruned checkpoint and the table that compares it with the dense model."""
    from shortgpt import calibration_batches, choose_layers, compare, load, remove_layers, save, score_layers

    model, tokenizer = load()
    plan = choose_layers(score_layers(model, calibration_batches(tokenizer)), REMOVE)
    pruned = remove_layers(model, plan)
    save(pruned, OUTPUT / "pruned_model", tokenizer=tokenizer, plan=plan, overwrite=True)
    models = {"dense": model, f"{REMOVE} layers removed": pruned}
    table = compare(models, tokenizer, tasks=("last_word", "grammar"), limit=60, errors=True)
    table.to_csv(OUTPUT / "results.csv", float_format="%.3f")
    print(f"\n{table.T.to_string(float_format='%.1f')}")
    print("(accuracies in percent, with standard errors, on the first 60 items of each task)")
    print(
        f"The pruned model is in {OUTPUT}/pruned_model, this table in {OUTPUT}/results.csv. Now the lessons, one by one.\n"
    )


def how_to_go_on(done: list[str], lesson: Path | None, names: list[str]) -> str:
    """What a run that stopped in `lesson` (None: before the first) leaves, and the command that goes on there."""
    command = "make tutorial" if not names else f"python notebooks/tutorial.py {' '.join(names)}"
    if lesson:
        command += f" --from {lesson.name[:2]}" if names else f" FROM={lesson.name[:2]}"
    return f"done before: {', '.join(done) or 'nothing'}{f', in {OUTPUT}' if done else ''}; go on with: {command}"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lessons", nargs="*", help="numbers of lessons (default: 00 to 05)")
    parser.add_argument("--from", dest="first", metavar="NN", help="leave out what comes before this lesson")
    options = parser.parse_args(arguments)
    names = [name.zfill(2) for name in options.lessons]
    first = (options.first or "").zfill(2)
    there = {path.name[:2]: path for path in sorted(NOTEBOOKS.glob("0[0-5]_*.ipynb"))}
    if unknown := [name for name in [*names, *([first] if options.first else [])] if name not in there]:
        print(f"no lesson is called {' or '.join(unknown)}: name them by number, 00 to 05", file=sys.stderr)
        return 2
    lessons = [path for number, path in there.items() if number >= first and (not names or number in names)]
    start, figures, done, lesson = time.perf_counter(), 0, [], None
    try:
        (OUTPUT / "figures").mkdir(parents=True, exist_ok=True)
        if not (options.first and (OUTPUT / "results.csv").exists()):  # written last
            prune_default_model()
        done.append("pruned_model/, results.csv")
        for lesson in lessons:
            figures += run_lesson(lesson)
            done.append(lesson.name)
    except KeyboardInterrupt:
        print(f"\ntutorial: interrupted; {how_to_go_on(done, lesson, names)}", file=sys.stderr)
        return 130
    except Exception as error:
        what = "" if isinstance(error, LessonError) else f"{lesson.stem if lesson else 'the default model'}: "
        log, written = OUTPUT / "tutorial.log", ""
        with suppress(OSError):
            trace = ANSI.sub("", "".join(traceback.format_exception(error)))
            log.write_text(trace, encoding="utf-8")
            written = f"; the traceback is in {log}"
        print(f"tutorial: {what}{reason(error)}{written}; {how_to_go_on(done, lesson, names)}", file=sys.stderr)
        return 1
    print(f"\nDone in {(time.perf_counter() - start) / 60:.0f} minutes. In {OUTPUT}/:")
    print(f"  figures/         {figures} figures of the lessons")
    print("  results.csv      dense against pruned")
    print("  pruned_model/    a checkpoint that AutoModelForCausalLM.from_pretrained loads")
    print("  *.ipynb          the lessons as they ran here; `make lab` opens the originals")
    return 0


if __name__ == "__main__":
    sys.exit(main())
