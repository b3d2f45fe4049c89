"""`make tutorial`: run the core lessons on the default model and say where the results are.

    python notebooks/tutorial.py            lessons 00 to 05
    python notebooks/tutorial.py 00 03      some of them

The pruned model and the results table come first, within minutes; then every lesson is executed as it is committed. The
executed copies and their figures as PNG files go to ``output/`` too. The committed notebooks stay as they are.
"""

from __future__ import annotations

import base64
import sys
import time
from pathlib import Path

import nbformat
import patient_client  # noqa: F401  (a widget must not halt a run)
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from tqdm.auto import tqdm

from shortgpt import calibration_batches, choose_layers, compare, load, remove_layers, save, score_layers

NOTEBOOKS = Path(__file__).resolve().parent
OUTPUT = NOTEBOOKS.parent / "output"
REMOVE = 6


def run_lesson(path: Path) -> int:
    """Execute one lesson into `OUTPUT` and write its figures as PNG files; return how many there are."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=1800, kernel_name="python3", resources={"metadata": {"path": str(NOTEBOOKS)}}
    )
    client.extra_arguments = ["--log-level=ERROR"]  # no note about unencrypted local connections
    with tqdm(total=len(notebook.cells), desc=path.stem, unit="cell") as bar:
        client.on_cell_complete = lambda cell, cell_index: bar.update(cell_index + 1 - bar.n)
        client.execute()
        bar.update(bar.total - bar.n)
    nbformat.write(notebook, OUTPUT / path.name)
    figures = [
        output["data"]["image/png"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    for number, image in enumerate(figures, 1):
        (OUTPUT / "figures" / f"{path.stem}_{number:02d}.png").write_bytes(base64.b64decode(image))
    return len(figures)


def prune_default_model() -> None:
    """The pruned checkpoint and the table that compares it with the dense model."""
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


def main(names: list[str]) -> int:
    lessons = [p for p in sorted(NOTEBOOKS.glob("0[0-5]_*.ipynb")) if not names or p.name[:2] in names]
    if not lessons:
        print(f"no lesson is called {' or '.join(names)}: name them by number, 00 to 05", file=sys.stderr)
        return 2
    (OUTPUT / "figures").mkdir(parents=True, exist_ok=True)
    start, figures = time.perf_counter(), 0
    prune_default_model()
    for lesson in lessons:
        try:
            figures += run_lesson(lesson)
        except CellExecutionError as error:
            print(f"{lesson.name} stopped: {error}", file=sys.stderr)
            return 1
    print(f"\nDone in {(time.perf_counter() - start) / 60:.0f} minutes. In {OUTPUT}/:")
    print(f"  figures/         {figures} figures of the lessons")
    print("  results.csv      dense against pruned")
    print("  pruned_model/    a checkpoint that AutoModelForCausalLM.from_pretrained loads")
    print("  *.ipynb          the lessons as they ran here; `make lab` opens the originals")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
