"""Leave-one-out with resumed states against a forward pass of every pruned model, side by side in one run.

    python benchmarks/resume.py [--tokens 256] [--rows 2] [--repeats 1]

  resumed    ours: `Trials`, made once (that is one pass of the dense model), then asked for each layer alone
  separate   `remove_layers` and an ordinary forward pass of what is left, for each layer (removing is not timed)

Both value the mean loss per token of the default model on the same batch of built-in text. The ways alternate layer by
layer, so that a busy machine treats them alike. The head is timed apart: every trial needs it, however little else it
needs, and it is a fifth of this small model (of a Llama-2-7B it is a fiftieth). Prints a table and writes it to
docs/benchmarks.md, all measurements to docs/benchmarks/.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm
from transformers import PreTrainedModel

WAYS = ("separate", "resumed")
PARTS = ("everything", "without the head")
CLOCKS = {"seconds": time.perf_counter, "cpu_seconds": time.process_time}
Row = dict[str, object]


class Stopwatch:
    """Adds up, for one way, the time of all and of the head within it, by both clocks."""

    def __init__(self, way: str, repeat: int) -> None:
        self.way, self.repeat = way, repeat
        self.spent = {(part, clock): 0.0 for part in ("everything", "head") for clock in CLOCKS}

    @contextmanager
    def running(self, part: str = "everything") -> Iterator[None]:
        start = {clock: now() for clock, now in CLOCKS.items()}
        yield
        for clock, now in CLOCKS.items():
            self.spent[part, clock] += now() - start[clock]

    def time_head(self, model: PreTrainedModel) -> None:
        """From now on, let the head of `model` report to this watch."""
        head, forward = model.get_output_embeddings(), model.get_output_embeddings().forward

        def timed(states: Tensor) -> Tensor:
            with self.running("head"):
                return forward(states)

        head.forward = timed

    def rows(self) -> Iterator[Row]:
        for clock in CLOCKS:
            whole, head = self.spent["everything", clock], self.spent["head", clock]
            for part, value in zip(PARTS, (whole, whole - head), strict=True):
                yield {"way": self.way, "part": part, "repeat": self.repeat, "quantity": clock, "value": value}


@torch.inference_mode()
def measure(model: PreTrainedModel, batch: dict, repeat: int) -> Iterator[Row]:
    """Both ways through all layers; then the largest difference between their losses."""
    from shortgpt import Trials, decoder_layers, remove_layers

    next_ids, watches = batch["input_ids"][:, 1:].flatten(), {way: Stopwatch(way, repeat) for way in WAYS}

    def loss(pruned: PreTrainedModel) -> Tensor:
        """As usual in float32; gives the logits, from which the loss to compare with is taken in float64, not timed."""
        logits = pruned(**batch, use_cache=False).logits[:, :-1].flatten(0, 1)
        cross_entropy(logits, next_ids).item()
        return logits

    loss(model)  # warm-up
    with watches["resumed"].running():
        trials = Trials(model, [batch])
    watches["resumed"].time_head(trials._view)  # the dense pass ran without it
    worst = 0.0
    for layer in tqdm(range(len(decoder_layers(model))), desc="leaving out each layer, both ways", unit="layer"):
        pruned = remove_layers(model, [layer])
        watches["separate"].time_head(pruned)
        ways: dict[str, Callable[[], Tensor | float]] = {
            "separate": lambda p=pruned: loss(p),
            "resumed": lambda i=layer: trials([i]),
        }
        found = {}
        for way in WAYS if layer % 2 else reversed(WAYS):
            with watches[way].running():
                found[way] = ways[way]()
        expected = cross_entropy(found["separate"].double(), next_ids).item()
        worst = max(worst, abs(expected - found["resumed"]))
    for watch in watches.values():
        yield from watch.rows()
    row = {"way": "resumed", "part": PARTS[0], "repeat": repeat}
    yield row | {"quantity": "largest difference", "value": worst}
    yield row | {"quantity": "forward passes", "value": trials.forward_passes}


def report(measurements: list[Row], shape: tuple[int, int]) -> None:
    """Table to the screen and to docs/benchmarks.md, measurements to docs/benchmarks/."""
    from report import FOLDER, machine, markdown, write_section

    frame = pd.DataFrame(measurements)
    frame.to_csv(FOLDER / "resume.csv", index=False, float_format="%.6g")
    times = frame[frame["quantity"].isin(CLOCKS)]
    wide = times.pivot_table(index=["quantity", "part", "repeat"], columns="way", values="value")
    wide["ratio"] = wide["resumed"] / wide["separate"]
    medians = wide.groupby(["quantity", "part"]).median()
    lines = [
        [f"{part}, {'CPU seconds' if clock == 'cpu_seconds' else clock}"]
        + [f"{medians.loc[(clock, part), column]:.{2 if column == 'ratio' else 1}f}" for column in (*WAYS, "ratio")]
        for part in PARTS
        for clock in CLOCKS
    ]
    others = frame.groupby("quantity")["value"].max()
    table = markdown(["what is timed", *WAYS, "resumed / separate"], lines)
    text = (
        f"One batch of {shape[0]} × {shape[1]} tokens, {frame['repeat'].nunique()} repeat(s). Layers run by the resumed way: "
        f"{others['forward passes']:.2f} forward passes. Largest difference between the losses: "
        f"{others['largest difference']:.1e} (target: at most 1e-5)."
    )
    print(table, text, sep="\n\n")
    write_section("resume", "\n\n".join([text, table, machine()]))


def main() -> None:
    from shortgpt import calibration_batches, load

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=256, help="tokens a row")
    parser.add_argument("--rows", type=int, default=2, help="rows in the batch")
    parser.add_argument("--repeats", type=int, default=1)
    arguments = parser.parse_args()
    model, tokenizer = load(device="cpu")
    rows, tokens = arguments.rows, arguments.tokens
    (batch,) = calibration_batches(tokenizer, samples=rows, length=tokens, batch_size=rows)
    measurements = [row for repeat in range(arguments.repeats) for row in measure(model, batch, repeat)]
    report(measurements, (rows, tokens))


if __name__ == "__main__":
    main()
