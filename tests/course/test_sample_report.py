"""docs/sample_report.md: its numbers are those of the measured entries, and its marks follow the scheme."""

from __future__ import annotations

import json
import re
from math import hypot

import pandas as pd
import pytest
from test_setup import ROOT

PAGE = (ROOT / "docs" / "sample_report.md").read_text(encoding="utf-8")
TEXT = " ".join(PAGE.split())
ENTRIES = {
    "Block Influence": "block_influence",
    "row": "angular_span_all_tokens",
    "greedy": "greedy",
    "search": "search",
    "row, repaired (our entry)": "repaired_search",
}


@pytest.fixture(scope="module")
def scores() -> pd.DataFrame:
    return pd.read_csv(ROOT / "data" / "challenge.csv").query("word == '2026-11-28'").set_index("entry")


def rows(heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, without its head."""
    lines = PAGE.partition(f"\n{heading}\n")[2].partition("\n|")[2].partition("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_table_has_the_measured_scores_and_passes(scores):
    chosen = (
        pd.read_csv(ROOT / "data" / "choosing.csv").query("removed == 6 and repair == 'none'").set_index("criterion")
    )
    found = rows("### 3. Results")
    assert [row[0] for row in found] == list(ENTRIES)
    for name, layers, passes, nats, right in found:
        row = scores.loc[ENTRIES[name]]
        assert [int(layer) for layer in layers.split(",")] == json.loads(row.layers)
        assert nats == f"{row.nats_lost:.3f} ± {row.error:.3f}" and right == f"{row.right:.0f} ± {row.right_error:.0f}"
        of = "angular_span_all_tokens" if name.startswith("row") else ENTRIES[name]
        assert int(passes) == round(chosen.loc[of, "forward_passes"])


def test_the_differences_and_their_errors(scores):
    def difference(worse: str, better: str) -> tuple[float, float]:
        a, b = scores.loc[worse], scores.loc[better]
        return a.nats_lost - b.nats_lost, hypot(a.error, b.error)

    lead, error = difference("block_influence", "angular_span_all_tokens")
    assert f"loses {lead:.3f} nats less" in TEXT and f"that of the difference is {error:.3f}," in TEXT
    assert f"so it is {lead / error:.1f} errors. The claim stands." in TEXT and lead > max(0.1, 2 * error)
    lead, error = difference("angular_span_all_tokens", "repaired_search")
    assert f"another {lead:.3f} nats, {lead / error:.1f} errors" in TEXT
    assert f'"{lead / error:.1f} errors for the repair' in TEXT
    lead, error = difference("greedy", "angular_span_all_tokens")
    assert f"ahead by {lead:.3f} nats, which is {lead / error:.1f} errors" in TEXT and lead < 2 * error
    assert f"is {lead / error:.1f} errors against greedy" in TEXT
    cut, repaired = (scores.loc[entry] for entry in ("angular_span_all_tokens", "repaired_search"))
    assert f"{repaired.right:.0f} against {cut.right:.0f}" in TEXT
    assert f"this difference is {hypot(cut.right_error, repaired.right_error):.0f} points" in TEXT
    assert cut.right - repaired.right < 2 * hypot(cut.right_error, repaired.right_error)


def test_marks_follow_the_scheme_and_add_up():
    scheme = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8").partition("## Marking scheme")[2]
    weights = {name: int(weight) for name, weight in re.findall(r"(?m)^\| (\w+) \|.*\| (\d) \|$", scheme)}
    marks = {name: (int(points), int(weight)) for name, points, weight, _ in rows("## The marks")}
    assert {name: weight for name, (_, weight) in marks.items()} == weights
    total = sum(points * weight for points, weight in marks.values())
    assert f"**Sum: {total} of {3 * sum(weights.values())}**, very good." in TEXT
    assert "24 is very good" in " ".join(scheme.split())
    assert f"would lose four of the six points for honesty and stand at {total - 4}" in TEXT
    assert marks["honesty"][0] * marks["honesty"][1] == 6
