"""Time and memory of scoring layers, side by side in one run: ours, a plain forward, and the usual loop.

    python benchmarks/bi_pass.py [--tokens 128 512 1024] [--rows 1 4] [--repeats 3]

Four ways through the same batch of the default model, for each number of rows and of tokens a row:

  backbone       the model without its head, nothing captured: the least that any score can cost
  forward        an ordinary forward pass of the whole model, with logits
  score_layers   ours: backbone, hooks, one number per token and layer
  hidden_states  the usual loop over ``output_hidden_states=True``, cosine between neighbouring entries

Times come from one process that alternates between the ways, so that a busy machine treats them alike; the peak of
memory above the loaded model from one fresh process a way, with batches of growing size. Prints a table, and writes it
with a figure and all measurements to docs/benchmarks/.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

WAYS = ("backbone", "forward", "score_layers", "hidden_states")
MIB = 2**20
Row = dict[str, object]


def prepare(shapes: list[list[int]]) -> tuple[Callable[[str, dict], None], list[dict]]:
    """``(run, batches)``: what sends a batch through the default model one way, and a batch of each shape."""
    import torch

    from shortgpt import load, score_layers

    model, _ = load(device="cpu")
    generator = torch.Generator().manual_seed(0)
    batches = []
    for rows, tokens in shapes:
        ids = torch.randint(model.config.vocab_size, (rows, tokens), generator=generator)
        batches.append({"input_ids": ids, "attention_mask": torch.ones_like(ids)})

    def usual_loop(batch: dict) -> list[float]:
        states = model(**batch, output_hidden_states=True).hidden_states
        pairs = itertools.pairwise(states)
        return [(1 - torch.cosine_similarity(x_in, x_out, dim=-1)).mean().item() for x_in, x_out in pairs]

    ways = {
        "backbone": lambda batch: model.model(**batch, use_cache=False),
        "forward": lambda batch: model(**batch, use_cache=False),
        "score_layers": lambda batch: score_layers(model, [batch], progress=False),
        "hidden_states": usual_loop,
    }

    @torch.inference_mode()
    def run(way: str, batch: dict) -> None:
        ways[way](batch)

    return run, batches


def measure_seconds(shapes: list[list[int]], repeats: int) -> Iterator[Row]:
    """All ways and shapes in this process, in alternating order."""
    run, batches = prepare(shapes)
    for (rows, tokens), batch in zip(shapes, batches, strict=True):
        run("backbone", batch)  # warm-up
        for repeat in range(repeats):
            for way in WAYS if repeat % 2 == 0 else reversed(WAYS):
                start, cpu = time.perf_counter(), time.process_time()
                run(way, batch)
                seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
                row = {"way": way, "rows": rows, "tokens": tokens, "repeat": repeat}
                yield row | {"quantity": "seconds", "value": seconds}
                yield row | {"quantity": "cpu_seconds", "value": cpu}


def measure_bytes(way: str, shapes: list[list[int]]) -> Iterator[Row]:
    """Peak of the resident set above the loaded model; `shapes` must grow, because freed memory may be kept."""
    import psutil

    from shortgpt.utils.peak import highest

    run, batches = prepare(shapes)
    run("backbone", {name: values[:1, :8] for name, values in batches[0].items()})  # warm-up
    process = psutil.Process()
    before = process.memory_info().rss
    for (rows, tokens), batch in zip(shapes, batches, strict=True):
        with highest(lambda: process.memory_info().rss, 0.003) as peak:
            run(way, batch)
        row = {"way": way, "rows": rows, "tokens": tokens, "repeat": 0}
        yield row | {"quantity": "bytes", "value": max(peak[0] - before, 0)}


def report(measurements: list[Row]) -> None:
    """Table to the screen and to docs/benchmarks.md, figure and measurements to docs/benchmarks/."""
    from report import FOLDER, machine, markdown, write_section

    frame = pd.DataFrame(measurements)
    FOLDER.mkdir(parents=True, exist_ok=True)
    frame.round(4).to_csv(FOLDER / "bi_pass.csv", index=False)
    summary = summarise(frame)
    columns = ["seconds", "x forward", "x backbone", "CPU x forward", "MiB"]
    lines = [
        [f"{row.rows} × {row.tokens}, {row.way}", *(f"{row[c]:,.{0 if c == 'MiB' else 2}f}" for c in columns)]
        for _, row in summary.iterrows()
    ]
    for line in lines:
        print(f"{line[0]:28}" + "".join(f"{cell:>15}" for cell in line[1:]))
    header = ["rows × tokens, way", "seconds", "× forward", "× backbone", "CPU time, × forward", "MiB above the model"]
    write_section("bi_pass", markdown(header, lines) + "\n\n" + machine())
    draw(summary, FOLDER / "bi_pass.png")


def summarise(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a shape and way: medians, and medians of the ratio to another way in the same repeat."""
    shape = ["rows", "tokens"]
    index = [*shape, "repeat"]
    of = {name: part.pivot(index=index, columns="way", values="value") for name, part in frame.groupby("quantity")}
    seconds, cpu = of["seconds"], of["cpu_seconds"]
    tables = {
        "seconds": seconds,
        "x forward": seconds.div(seconds["forward"], axis=0),
        "x backbone": seconds.div(seconds["backbone"], axis=0),
        "CPU x forward": cpu.div(cpu["forward"], axis=0),
        "MiB": of["bytes"] / MIB,
    }
    summary = pd.concat({name: table.groupby(shape).median().stack() for name, table in tables.items()}, axis=1)
    summary = summary.reset_index()
    summary["batch"] = summary["rows"] * summary["tokens"]
    summary["order"] = summary["way"].map(WAYS.index)
    return summary.sort_values(["batch", "rows", "order"])


def draw(summary: pd.DataFrame, path: Path) -> None:
    """Time and memory over the tokens in a batch; marker and line tell the ways apart, colour is an extra."""
    import matplotlib.figure
    import matplotlib.ticker
    import seaborn as sns

    figure = matplotlib.figure.Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, value in zip(axes, ("x forward", "MiB"), strict=True):
        sns.lineplot(
            summary, x="batch", y=value, hue="way", style="way", markers=True, markersize=8, errorbar=None, ax=axis
        )
        axis.set(xscale="log", xlabel="tokens in the batch", xticks=sorted(summary["batch"].unique()))
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        axis.grid(alpha=0.3)
    axes[0].set(ylabel="time / time of a forward pass", ylim=(0, None))
    axes[0].axhline(1, color="0.5", linewidth=1)
    axes[1].set(ylabel="MiB above the loaded model", yscale="log")
    axes[1].yaxis.set_major_formatter("{x:,.0f}")
    axes[1].yaxis.set_minor_formatter("{x:,.0f}")
    axes[1].get_legend().remove()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[128, 512, 1024], help="tokens a row")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 4], help="rows in a batch")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    shapes = sorted(([r, t] for r in arguments.rows for t in arguments.tokens), key=lambda shape: shape[0] * shape[1])
    if arguments.one:
        one = arguments.one
        found = measure_seconds(shapes, arguments.repeats) if one == "seconds" else measure_bytes(one, shapes)
        print(json.dumps(list(found)))
        return
    measurements = []
    for one in ("seconds", *WAYS):
        command = [sys.executable, "-W", "ignore", __file__, *sys.argv[1:], "--one", one]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            sys.exit(run.stderr)
        measurements += json.loads(run.stdout.splitlines()[-1])
    report(measurements)


if __name__ == "__main__":
    main()
