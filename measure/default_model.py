"""Measure the project's own text and tasks on the default model, and put the tables into `data/README.md`.

python measure/default_model.py            measure (about 25 minutes on 2 cores), write measured.json, update the README
python measure/default_model.py --render   only update the README from measured.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.scoring.influence import LayerScores

FOLDER = Path(__file__).parents[1] / "data"
BEGIN, END = "<!-- measured: written by measure/default_model.py -->", "<!-- end of measured -->"
REMOVED = (0, 3, 6, 9)
LIMIT = 120  # items of each task: the standard error is then up to 4.6 points


def measure() -> dict:
    """Everything the README states about the default model."""
    import pydoc_data.topics

    from shortgpt import (
        built_in_text,
        calibration_batches,
        load,
        perplexity_table,
        removal_order,
        score_layers,
    )

    model, tokenizer = load(device="cpu")
    text = []
    for part in ("calibration", "perplexity"):
        for language in ("en", "zh"):
            table = perplexity_table(model, tokenizer, built_in_text(part, language=language), by="genre")
            text.append(table.assign(part=part, language=language))
    texts = {
        "built-in English": None,
        "built-in Chinese": built_in_text(language="zh")["text"],
        "pydoc_data.topics": list(pydoc_data.topics.topics.values()),
    }
    scores = {
        name: score_layers(model, calibration_batches(tokenizer, source, samples=29)) for name, source in texts.items()
    }
    reference = pd.Series(scores["built-in English"].values).rank()
    orders = [
        {
            "text": name,
            "tokens": int(s.counts.sum()),
            "lowest nine": removal_order(s)[:9],
            "rank correlation": reference.corr(pd.Series(s.values).rank()),
        }
        for name, s in scores.items()
    ]
    accuracy = measure_accuracy(model, tokenizer, scores["built-in English"])
    return json.loads(
        json.dumps({"text": pd.concat(text).to_dict("records"), "orders": orders, "accuracy": accuracy}, default=float)
    )


def measure_accuracy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, scores: LayerScores) -> list[dict]:
    """Accuracy on the first `LIMIT` items of every task, dense and pruned, and with the question hidden."""
    from hidden_question import hidden_question  # this one's neighbour

    from shortgpt import choose_layers, evaluate, remove_layers
    from shortgpt.evaluation.comparing import OFFLINE_TASKS

    accuracy = []
    for n in REMOVED:
        results = evaluate(remove_layers(model, choose_layers(scores, n)), tokenizer, OFFLINE_TASKS, limit=LIMIT)
        columns = ["task", "value", "standard_error", "chance", "items"]
        accuracy += [{"removed": n} | row for row in results[columns].to_dict("records")]
        print(results.to_string(), flush=True)
    blind = [hidden_question(model, tokenizer, task) for task in ("physical", "science", "chinese")]
    return accuracy + [{"removed": "question hidden", **row} for row in blind]


def measure_results() -> dict:
    """The results table of the project's README, and its figure."""
    import matplotlib.pyplot as plt

    from shortgpt import (
        built_in_text,
        calibration_batches,
        choose_layers,
        load,
        perplexity,
        quantize,
        remove_layers,
        score_layers,
        size,
    )
    from shortgpt.course import plots

    model, tokenizer = load(device="cpu")
    texts = built_in_text("perplexity").groupby("genre").head(1)["text"].tolist()
    scores = score_layers(model, calibration_batches(tokenizer, built_in_text()["text"]))
    by_score = {n: remove_layers(model, choose_layers(scores, n)) for n in REMOVED}
    models = {"dense": model}
    models |= {f"−{n} layers, lowest Block Influence": by_score[n] for n in REMOVED[1:]}
    models["−3 layers, the last ones"] = remove_layers(model, choose_layers(scores, 3, order="reverse"))
    models["−3 layers, at random (seed 0)"] = remove_layers(model, choose_layers(scores, 3, order="random"))
    models["dense, 8 bits"] = quantize(model, 8)
    models["dense, 4 bits"] = quantize(model, 4)
    models["−3 layers, 8 bits"] = quantize(by_score[3], 8)
    models["−3 layers, 4 bits"] = quantize(by_score[3], 4)
    rows = []
    for name, candidate in models.items():
        cost = size(candidate)
        rows.append({"model": name, "layers": cost["layers"], "memory_mb": cost["memory_bytes"] / 1e6})
        rows[-1]["perplexity"] = perplexity(candidate, tokenizer, texts)
        print(rows[-1], flush=True)
    plots.plot_scores(scores.table, removed=choose_layers(scores, 6).removed)
    plt.gca().set_title("SmolLM2-135M-Instruct: the six layers with the lowest Block Influence")
    plt.savefig(FOLDER / "figures" / "block_influence.png", dpi=110)
    return {"rows": rows, "tokens": int(scores.counts.sum())}


def render_results(results: dict) -> str:
    """The table of the project's README, as Markdown."""
    dense = results["rows"][0]
    lines = ["| model | layers | weights in memory | perplexity | against dense |", "|---|---|---|---|---|"]
    for row in results["rows"]:
        ratio = row["perplexity"] / dense["perplexity"]
        lines.append(
            f"| {row['model']} | {row['layers']} | {row['memory_mb']:.0f} MB | {row['perplexity']:,.1f} | × {ratio:,.2f} |"
        )
    return "\n".join(lines)


def render(measured: dict) -> str:
    """The README's tables, as Markdown."""
    text = pd.DataFrame(measured["text"])
    lines = ["**The dense model on each genre** (perplexity ± standard error over documents; bits per byte)", ""]
    lines += [
        "| language | genre | calibration | bits/byte | perplexity part | bits/byte | tokens (both) |",
        "|---|---|---|---|---|---|---|",
    ]
    for (language, genre), rows in text.groupby(["language", "genre"]):
        cells, tokens = [], 0
        for part in ("calibration", "perplexity"):
            row = rows[rows["part"] == part].iloc[0]
            spread = "" if pd.isna(row["standard_error"]) else f" ± {row['standard_error']:.1f}"
            cells += [f"{row['perplexity']:.1f}{spread}", f"{row['bits_per_byte']:.2f}"]
            tokens += row["tokens"]
        lines.append(f"| {language} | {genre} | {' | '.join(cells)} | {tokens:,} |")
    lines += [
        "",
        "**Which layers each calibration text finds lowest** (lowest first; correlation of all 30 ranks with the first row)",
        "",
    ]
    lines += ["| text | tokens | nine lowest | rank correlation |", "|---|---|---|---|"]
    for row in measured["orders"]:
        lowest = ", ".join(map(str, row["lowest nine"]))
        lines.append(f"| {row['text']} | {row['tokens']:,} | {lowest} | {row['rank correlation']:.2f} |")
    accuracy = pd.DataFrame(measured["accuracy"])
    lines += [
        "",
        f"**Accuracy in percent ± standard error**, first {LIMIT} items, layers removed by Block Influence",
        "",
    ]
    lines += [
        "| task | items | chance | dense | −3 | −6 | −9 | question hidden, dense |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task, rows in accuracy.groupby("task"):
        cells = []
        for removed in (*REMOVED, "question hidden"):
            row = rows[rows["removed"] == removed]
            cells.append("" if row.empty else f"{row['value'].item():.0f} ± {row['standard_error'].item():.1f}")
        first = rows.iloc[0]
        lines.append(f"| {task} | {first['items']:.0f} | {first['chance']:.0f} | {' | '.join(cells)} |")
    blind = accuracy[accuracy["removed"] == "question hidden"]
    given_away = [
        f"{row.value:.0f} % of `{row.task}` (chance {row.chance:.0f} %)"
        for row in blind.itertuples()
        if row.value - row.chance > 2 * row.standard_error
    ]
    lines += [
        "",
        f"**A limitation of these items.** Without any question, from the choices alone, the dense model is right on "
        f"{' and '.join(given_away)}. That much the wording gives away. Such an accuracy is therefore not a measure of "
        "knowledge; only its fall on the same items, when layers go, says something.",
    ]
    return "\n".join(lines)


def update_readmes() -> None:
    """Replace what stands between the marks."""
    tables = {
        FOLDER / "README.md": ("measured.json", render),
        FOLDER.parent / "README.md": ("results.json", render_results),
    }
    for readme, (source, render_table) in tables.items():
        if (FOLDER / source).exists():
            before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
            table = render_table(json.loads((FOLDER / source).read_text()))
            readme.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    for flag, name, function in (("--data", "measured.json", measure), ("--results", "results.json", measure_results)):
        if flag in sys.argv or len(sys.argv) == 1:
            (FOLDER / name).write_text(json.dumps(function(), indent=1) + "\n")
    update_readmes()
