"""Ten baselines of the six-layer challenge, on the text of one word, and the table of records in docs/challenge.md.

    python measure/challenge.py WORD      the date, for instance; about a minute a row on one core

Needs `choosing.csv` (see `measure/choosing.py`): what each criterion chose. Writes `challenge.csv`, a row per entry; rows
that are there are not measured again. The table in docs/challenge.md is written from all rows of the word.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import date
from pathlib import Path

import pandas as pd
from rows import Rows

from shortgpt import built_in_text, calibration_batches, heal, load, remove_layers
from shortgpt.evaluation import challenge
from shortgpt.utils.atomic import file_written_beside

DATA = Path(__file__).parents[1] / "data"
ENTRIES = {
    "random": "a coin",
    "sequential": "the first layers",
    "reverse": "the last layers",
    "relative_magnitude": "relative magnitude",
    "block_influence": "Block Influence",
    "block_influence_iterative": "Block Influence, one by one",
    "angular_span_all_tokens": "the best row of layers",
    "greedy": "greedy",
    "search": "search",
    "repaired_search": "search with repair, repaired",
}


def chosen() -> dict[str, list[int]]:
    """Six layers by criterion, as `measure/choosing.py` found them; of random, the first draw."""
    table = pd.read_csv(DATA / "choosing.csv").query("removed == 6 and repair == 'none'")
    return table.drop_duplicates("criterion").set_index("criterion")["layers"].map(json.loads).to_dict()


def measure(word: str, rows: Rows) -> None:
    dense, tokenizer = load(device="cpu")
    layers, held = chosen(), challenge.held_back(dense, tokenizer, word)
    before = challenge.losses(dense, held)
    for criterion in ENTRIES:
        row = {"word": word, "entry": criterion}
        if row in rows:
            continue
        if criterion == "repaired_search":
            text = [*built_in_text("calibration")["text"], *built_in_text("repair")["text"]]
            batches = calibration_batches(tokenizer, text, samples=16)
            pruned = heal(dense, layers[criterion], batches, kind="fold")
        else:
            pruned = remove_layers(dense, layers[criterion])
        challenge.require_entry(dense, pruned)
        found = challenge.summary(before, challenge.losses(pruned, held), held)
        rows.add(row | {"date": f"{date.today()}"} | found | {"layers": json.dumps(sorted(layers[criterion]))})


def table(rows: list[dict], word: str) -> str:
    """The records of a word, the best first, as Markdown."""
    mine = sorted((row for row in rows if row["word"] == word), key=lambda row: row["nats_lost"])
    lines = ["| entry | layers removed | nats lost a token | right (%) | date |", "|---|---|---|---|---|"]
    for row in mine:
        numbers = f"{row['nats_lost']:.3f} ± {row['error']:.3f} | {row['right']:.0f} ± {row['right_error']:.0f}"
        gone = str(row["layers"] if isinstance(row["layers"], str) else "").strip("[]")
        lines.append(f"| {ENTRIES[row['entry']]} | {gone} | {numbers} | {row['date']} |")
    dense = f"The dense model has {mine[0]['right_dense']:.0f} % of the items right; guessing gives 50 %."
    return "\n".join([f"Word `{word}`, text `{mine[0]['text']}`. {dense}", "", *lines])


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    word = sys.argv[1]
    rows = Rows(DATA / "challenge.csv", ["word", "entry"])
    measure(word, rows)
    file = DATA.parent / "docs" / "challenge.md"
    page = file.read_text(encoding="utf-8")
    written = f"<!-- records -->\n{table(rows.rows, word)}\n<!-- end -->"
    page = re.sub(r"<!-- records -->.*?<!-- end -->", lambda _: written, page, flags=re.DOTALL)
    with file_written_beside(file) as beside:
        beside.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
