"""Six answers on three real models, with standard errors, from the stored studies: a page in `docs/`, and its figure.

    python measure/three_models.py      a few seconds; measures nothing

Puts the tables between the marks of `docs/three_models.md`; the words between them are written by hand, and tested.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib
import pandas as pd

from shortgpt import added_losses, choice_summary, cliff, frontier_steps, read_grid
from shortgpt.course.plots import plot_removal_curves
from shortgpt.course.studies.curves import LANGUAGES, paired, removal_accuracy, removal_curves
from shortgpt.utils.data import data_folder

FIGURE = data_folder() / "figures" / "removal_curves.png"
SHORT = {
    "smollm2-135m-instruct": "SmolLM2-135M",
    "gemma-3-270m": "Gemma 3 270M",
    "qwen2.5-coder-1.5b-instruct": "Qwen2.5-Coder-1.5B",
}
LARGE = "qwen2.5-coder-1.5b-instruct"
SINGLE = ("added_by_pruning", "added_by_quantization")
CRITERIA = {  # columns
    "block_influence": "BI",
    "block_influence_iterative": "BI, iterated",
    "relative_magnitude": "relative magnitude",
    "angular_span_all_tokens": "span",
    "greedy": "greedy",
    "random": "random (median of 5)",
    "reverse": "reverse",
    "sequential": "sequential",
}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plus_minus(value: float, error: float, digits: int = 2) -> str:
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def figure_five() -> str:
    """Perplexity, times dense, without a fifth and a third of the layers, by what chose them."""
    rows = []
    for name, title in SHORT.items():
        mine = chosen(name, text="en").query("language == 'en'")
        depth = int(mine["depth"].iloc[0])
        for n in (round(depth / 5), 2 * round(depth / 6)):
            row = [title, f"{n} of {depth}"]
            for criterion in CRITERIA:
                here = mine[(mine["criterion"] == criterion) & (mine["removed"] == n)]
                times, error = here["times"].median(), here["added_error"].median()
                row.append(
                    "" if here.empty else f"× {times:,.2f} (±{100 * error:.0f} %)" if times < 100 else f"× {times:,.0f}"
                )
            rows.append(row)
    return table(["model", "removed", *CRITERIA.values()], rows)


def chosen(name: str, **how: str) -> pd.DataFrame:
    """Rows of `removal_curves` of one model, those of the dense one left out."""
    curves = removal_curves(**how)
    return curves[(curves["model"] == name) & (curves["removed"] > 0)]


def sets(rows: pd.DataFrame, by: str) -> pd.Series:
    """The layers that are chosen, by the column `by` and the number removed; of the coins, the first."""
    return rows.drop_duplicates([by, "removed"]).set_index([by, "removed"])["layers"]


def cliffs() -> str:
    rows = []
    for name, title in SHORT.items():
        for criterion in ("block_influence", "relative_magnitude", "greedy"):
            lines, row = chosen(name, criterion=criterion, text="en").groupby("language"), [title, CRITERIA[criterion]]
            for language in LANGUAGES if len(lines) else ():
                line = lines.get_group(language)[["removed", "times"]]
                steps = pd.concat([pd.DataFrame([{"removed": 0, "times": 1.0}]), line])
                edge = cliff(steps.assign(value=steps["times"].clip(lower=1)))
                row.append(f"none to {line['removed'].max()}" if edge is None else f"after {edge}")
            rows.append(row + ["not run"] * (5 - len(row)))
    return table(["model", "chosen by", "English", "Chinese", "code"], rows)


def ways() -> str:
    asked = pd.read_csv(data_folder() / "removal_answers.csv", keep_default_na=False)
    asked["removed"] = asked["layers"].map(json.loads).map(len)
    rows = []
    for (name, task, n), answers in asked.groupby(["model", "task", "removed"]):
        row = choice_summary(answers).iloc[0]
        values = [plus_minus(row[each], row[f"{each}_error"], 0) for each in ("choice", "written", "difference")]
        rows.append([SHORT[name], task, str(n), *values, f"{row['unread']:.0f}"])
    return table(["model", "task", "removed", "chosen right, %", "written right, %", "difference", "unread, %"], rows)


def accuracies() -> str:
    """Accuracies by Block Influence on English; the larger model also on Chinese and by greedy."""
    asked = removal_accuracy()
    asked = asked[
        asked["criterion"].isin(["dense", "block_influence", "greedy"]) & asked["text"].isin(["", "en", "zh"])
    ]
    tasks = ["science", "science_zh", "physical", "last_word", "grammar", "chinese"]
    rows = []
    for (name, criterion, text, n), some in asked.groupby(["model", "criterion", "text", "removed"], sort=False):
        if name != LARGE and n % 3:
            continue
        by = some.drop_duplicates("task").set_index("task")
        cells = [plus_minus(by.loc[t, "value"], by.loc[t, "standard_error"], 0) if t in by.index else "" for t in tasks]
        rows.append([SHORT[name], str(n), "" if n == 0 else f"{criterion.replace('_', ' ')}, {text}", *cells])
    return table(["model", "removed", "chosen by, on", *tasks], rows)


def hidden() -> str:
    """Accuracies of the dense models when only the choices are read."""
    tasks = ["science", "science_zh", "physical", "chinese"]
    asked = removal_accuracy(criterion="dense").set_index(["model", "task"])[["value", "standard_error"]]
    rows = [[title, *(plus_minus(*asked.loc[name, f"{t}, hidden"], 0) for t in tasks)] for name, title in SHORT.items()]
    return table(["model", *tasks], rows)


def languages() -> str:
    """What choosing on Chinese costs against choosing on English, in both languages."""
    rows = []
    for name, title in SHORT.items():
        layers = sets(chosen(name, criterion="block_influence"), "text")
        for n in layers["en"].index:
            if layers["en", n] != layers["zh", n]:
                costs = [paired(name, layers["zh", n], layers["en", n], language) for language in ("en", "zh")]
                rows.append([title, str(n), *(plus_minus(*cost) for cost in costs)])
    return table(["model", "removed", "English, nats a token", "Chinese, nats a token"], rows)


def against(by: str, one: str, others: Sequence[str], **how: str) -> list[list[str]]:
    """A row per model and number: English loss of what `one` chose less that of the others' choices."""
    rows = []
    for name, title in SHORT.items():
        layers = sets(chosen(name, **how), by)
        for n in layers[one].index:
            row = [title, str(n)]
            for other in others:
                if (other, n) not in layers.index:
                    row.append("")
                elif layers[one, n] == layers[other, n]:
                    row.append("same layers")
                else:
                    row.append(plus_minus(*paired(name, layers[one, n], layers[other, n])))
            rows.append(row)
    return [row for row in rows if {*row[2:]} - {"same layers", ""}]


def parting() -> str:
    """Where criteria choose other layers than Block Influence."""
    others = ["relative_magnitude", "block_influence_iterative", "angular_span_all_tokens", "greedy"]
    rows = against("criterion", "block_influence", others, text="en")
    return table(["model", "removed", *(f"less {CRITERIA[name]}" for name in others)], rows)


def texts() -> str:
    """Where Block Influence chooses other layers on other text."""
    rows = against("text", "ours", ["en", "default"], criterion="block_influence")
    return table(["model", "removed", "less people's (40 × 256 tokens)", "less the default's (15,000 tokens)"], rows)


def bits() -> str:
    """Pruning times bits on the larger model: size, perplexity, and what both cost beyond the sum."""
    grid = read_grid(data_folder() / "grid_large.csv")
    beyond = added_losses(grid).set_index(["removed", "method"])
    best = {(row.removed, row.method) for row in frontier_steps(grid).itertuples()}
    rows = []
    for row in grid.sort_values(["removed", "memory_mb"], ascending=[True, False]).itertuples():
        key = (row.removed, row.method)
        numbers = [f"{beyond.loc[key, each]:.2f}" for each in SINGLE] if key in beyond.index else ["", ""]
        both = plus_minus(*beyond.loc[key, ["interaction", "interaction_error"]], 3) if key in beyond.index else ""
        frontier = "yes" if key in best else ""
        rows.append(
            [str(row.removed), row.method, f"{row.memory_mb:,.0f}", f"{row.perplexity:.2f}", *numbers, both, frontier]
        )
    head = ["removed", "method", "MB", "perplexity", "added by layers", "by bits", "beyond the sum", "on the frontier"]
    return table(head, rows)


def hours() -> str:
    """Hours of two cores that the curves took."""
    curves, orders = (pd.read_csv(data_folder() / f"removal_{name}.csv") for name in ("curves", "orders"))
    each = (
        curves.groupby("model")["seconds"].sum()
        + orders.groupby(["model", "criterion", "text"])["seconds"].max().groupby("model").sum()
    )
    return ", ".join(f"{SHORT[name]} {each[name] / 3600:.1f}" for name in SHORT)


def page_file() -> Path:
    return data_folder().parent / "docs" / "three_models.md"


def page() -> str:
    """The page with its tables as the stored results are now."""
    text = page_file().read_text(encoding="utf-8")
    for make in (figure_five, cliffs, ways, accuracies, hidden, languages, parting, bits, texts, hours):
        before, mark, rest = text.partition(f"<!-- {make.__name__} -->\n")
        if mark:
            text = f"{before}{mark}{make()}\n<!-- end -->{rest.partition('<!-- end -->')[2]}"
    return text


def figure() -> None:
    """The curves of figure 5, for the page."""
    matplotlib.use("Agg")
    bold = ["block_influence", "relative_magnitude", "greedy", "angular_span_all_tokens"]
    shown = ["dense", *bold, "random", "reverse", "sequential"]
    curves = removal_curves(text="en").query("language == 'en'")
    curves = curves[curves["criterion"].isin(shown)]
    panels = plot_removal_curves(curves, highlight=bold)
    panels[0].figure.savefig(FIGURE, dpi=110)


if __name__ == "__main__":
    page_file().write_text(page(), encoding="utf-8")
    figure()
