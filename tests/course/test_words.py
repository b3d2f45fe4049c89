"""What the lessons say in words about live outputs that no other test reads: the committed notebooks are held to it."""

from __future__ import annotations

import io
import re

import nbformat
import pandas as pd
from test_setup import ROOT


def cells_after(lesson: str, heading: str) -> list:
    """The code cells of a section."""
    found, inside = [], False
    for cell in nbformat.read(ROOT / "notebooks" / f"{lesson}.ipynb", as_version=4).cells:
        if cell.cell_type == "markdown" and re.search(r"(?m)^#{2,3} ", cell.source):
            inside = bool(re.search(rf"(?m)^#{{2,3}} {re.escape(heading)}", cell.source))
        elif cell.cell_type == "code" and inside:
            found.append(cell)
    assert found, f"{lesson} has no section {heading!r} with code"
    return found


def printed(lesson: str, heading: str) -> str:
    return "".join(output.get("text", "") for cell in cells_after(lesson, heading) for output in cell.outputs)


def tables(lesson: str, heading: str) -> list[pd.DataFrame]:
    """The tables that the section shows."""
    pages = (output.get("data", {}) for cell in cells_after(lesson, heading) for output in cell.outputs)
    return [
        pd.read_html(io.StringIO(page["text/html"]), index_col=0)[0]
        for page in pages
        if "<table" in page.get("text/html", "")
    ]


def numbers(pattern: str, text: str) -> list[tuple[float, ...]]:
    found = [each if isinstance(each, tuple) else (each,) for each in re.findall(pattern, text)]
    assert found, f"{pattern!r} is not in {text[:300]!r}"
    return [tuple(float(number.replace(",", "").replace("−", "-")) for number in row) for row in found]


def test_prune_it_yourself_lesson_03():
    (table,) = tables("03_pruning", "6. Explore: prune it yourself")
    perplexity = table["perplexity"]
    assert table.loc[[name for name in table.index if name != "nothing"], "memory_mb"].nunique() == 1, "the same size"
    assert perplexity["spread out"] > 3 * perplexity["six in a row"], "many times worse than the row"
    assert perplexity["six in a row"] < perplexity["Block Influence"], "the row beats Block Influence here"


def test_choice_and_margin_lesson_10():
    text = printed("10_generation", "1. Why choosing can survive")
    nats = r"costs an answer ([\d.]+) nats, and moves a margin by ([\d.]+); .* margins are ([\d.]+) wide"
    rows = numbers(nats + r". Right: (\d+)% before, (\d+)% after", text)
    (cost, moved, width, *grammar), (cost_2, moved_2, width_2, *physical) = rows
    assert moved < cost and moved_2 < cost_2, "part of what both answers lose cancels"
    assert moved_2 / width_2 < moved / width, "what does not cancel is smaller against the margin"
    assert physical[0] - physical[1] < 10 < 30 < grammar[0] - grammar[1], "so one choice survives, and the other falls"


def test_texts_part_sooner_than_powers_lesson_10():
    text = printed("10_generation", "2. One wrong token is another text")
    for percent, leaves in numbers(
        r"agrees on (\d+)% of single tokens; its text leaves the dense one's at token ([\d.]+)", text
    ):
        agree = percent / 100
        assert leaves < sum(agree**n for n in range(13)) - 0.2, "even sooner than the powers say"
        assert agree**5 < 0.1, "next to none after five"


def test_no_accumulation_in_the_model_lesson_10():
    text = printed("10_generation", "3. Do errors accumulate?")
    found = {}
    for pair, texts in re.findall(r"Divergence at (\w+) pairs, stretch by stretch: (.*)\.", text):
        found[pair] = [numbers(r"([\d.]+) ± ([\d.]+)", each) for each in texts.split("; ")]
    for values in found["new"]:
        (first, error), (last, last_error) = values[0], values[-1]
        assert first > 0.8 and last < first + 2 * (error**2 + last_error**2) ** 0.5, (
            "large at once, and it doesn't rise"
        )
    for new, repeated in zip(found["new"], found["repeated"], strict=True):
        assert repeated[-1][0] < new[-1][0] and repeated[-1][0] < repeated[0][0], "small and smaller"
    second, first, both = numbers(r"then \w+: ([+-][\d.]+) ± ([\d.]+) against", text)
    assert abs(second[0]) < 2 * second[1], "who writes the second half hardly matters"
    assert first[0] > 2 * first[1] and both[0] > 2 * both[1], (
        "after a pruned first half the dense model goes on in the loop"
    )


def test_skipping_in_the_prompt_and_drafting_lesson_10():
    ((adds, spared),) = numbers(r"prompt alone adds (\d+)%, and (\d+)% if", printed("10_generation", "4. Skip"))
    assert spared < adds < 50, "a part of what removing them costs"
    text = printed("10_generation", "5. Let the pruned model draft")
    assert "where drafting pays: 0 of 4. Same text in all cases: True" in text
    (report,) = tables("10_generation", "5. Let the pruned model draft")
    assert (report["acceptance"] < report["cost"]).all() and (1 / report["cost"] < 1.5).all()


def prose(lesson: str) -> str:
    found = nbformat.read(ROOT / "notebooks" / f"{lesson}.ipynb", as_version=4).cells
    return "\n".join(cell.source for cell in found if cell.cell_type == "markdown")


def test_a_task_that_survives_leads_lesson_10():
    section = prose("10_generation").partition("## 1. Why choosing can survive")[2].partition("## 2. ")[0]
    assert section.index("`physical`") < section.index("`grammar`")


def test_what_is_used_up_lesson_07():
    """The lesson said once that FFNs are used up, and that the smallest parts go first: the table says neither."""
    (worth,) = tables("07_depth_or_width", "1. What is there to remove?")
    used_up = worth.index[worth["9 layers"] > worth["there are"]]
    assert {*used_up} == {"attention", "heads"}
    assert "FFNs are not used up" in prose("07_depth_or_width")


def test_how_the_samples_change_the_six_lowest_lesson_06():
    """One lesson, two plans by one criterion: the text names both, and says why."""
    (game,) = tables("06_choosing_layers", "7. Beat the algorithm")
    stored = pd.read_csv(ROOT / "data" / "choosing.csv").query("criterion == 'block_influence' and removed == 6")
    there = stored.query("repair == 'none'")["layers"].iloc[0]
    sets = [[int(n) for n in re.findall(r"\d+", str(each))] for each in (game.loc["Block Influence", "layers"], there)]
    text = prose("06_choosing_layers")
    assert all(", ".join(map(str, sorted(layers))) in text for layers in sets)
    assert len({*sets[0]} & {*sets[1]}) == 4 and "four of six in common" in text


def test_how_alike_the_two_scores_choose_lesson_06():
    text = printed("06_choosing_layers", "3. Why relative magnitude comes close")
    common = re.search(r"Layers in common: (.*)", text)[1].replace(", 8 of 9", " and 8 of 9")
    assert common in prose("06_choosing_layers"), "not 'nearly the same layers'"
