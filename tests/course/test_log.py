"""docs/log.md: what it says about stored results is so, every file that it names is there, and its days are in order."""

from __future__ import annotations

import re

import pandas as pd
from test_setup import ROOT

PAGE = (ROOT / "docs" / "log.md").read_text(encoding="utf-8")


def test_days_are_in_order_and_each_has_entries():
    days = re.findall(r"(?m)^## (.+)$", PAGE)
    assert days == sorted(days) and all(re.fullmatch(r"\d{4}-\d\d-\d\d", day) for day in days)
    assert all(len(re.findall(r"(?m)^- \*\*", part)) >= 3 for part in PAGE.split("\n## ")[1:])


def test_every_file_that_it_names_is_there():
    named = re.findall(r"`((?:data|notebooks|measure)/[\w/.]*)`", PAGE)
    assert len(named) >= 3 and [name for name in named if not (ROOT / name).exists()] == []


def test_what_it_says_about_choosing():
    table = pd.read_csv(ROOT / "data" / "choosing.csv").query("repair == 'none'")
    best = table.loc[table.groupby("removed")["perplexity"].idxmin()].set_index("removed")["criterion"]
    assert best.nunique() > 1, "no criterion is best at three, six and nine layers"
    six = table.query("removed == 6").drop_duplicates("criterion").set_index("criterion")
    row = six.loc["angular_span_all_tokens"]
    assert (
        row.forward_passes == 1 and row.perplexity < six.loc[["greedy", "search", "leave_one_out"], "perplexity"].min()
    )
    assert six.loc["angular_span", "perplexity"] > 2 * row.perplexity, "far worse rows"
    merged = pd.read_csv(ROOT / "data" / "choosing.csv").query("repair == 'merge'")["perplexity"]
    assert merged.min() > 1e5, "ruins the default model at once"
