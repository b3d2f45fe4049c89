"""What the lessons say in words about live outputs that no other test reads: the committed notebooks are held to it."""

from __future__ import annotations

import io
import re

import nbformat
import pandas as pd
import pytest
from test_setup import ROOT

from shortgpt import read_grid
from shortgpt.utils.data import data_folder


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


def test_one_vector_lesson_02():
    text = printed("02_block_influence", "11. One vector")
    ((dense,),) = numbers(r"[Pp]erplexity ([\d.]+) with all layers", text)
    rows = {
        int(layer): (first, others) for layer, first, others in numbers(r"layer (\d+): ([\d.]+) and ([\d.]+)", text)
    }
    ((sink, before, after),) = numbers(r"layer (\d+): the first token's state grows from (\d+) to (\d+)", text)
    assert sink == 11 and after > 5 * before and len(rows) == 5
    first, others = rows.pop(11)
    assert first > 3 * dense and others < 1.5 * dense, "one token costs far more than all the rest"
    assert all(first < others and first < 1.15 * dense for first, others in rows.values()), "not so elsewhere"
    alone, rest = (re.search(rf"skipped for {name}: .* … (.*)", text)[1] for name in ("the first", "all other"))
    assert "Paris" not in alone and rest.startswith("Paris")


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
    dense, pruned = numbers(r"along the \w+ model's text: .* second, ([+-][\d.]+) ± ([\d.]+)", text)
    assert all(change < -3 * error for change, error in (dense, pruned)), "it shrinks on both texts"
    assert pruned[0] < dense[0] - 2 * max(dense[1], pruned[1]), "and faster along the pruned model's own"
    (start, end), (own_start, own_end) = numbers(r"text it goes from (\d+\.\d+) to (\d+\.\d+)", text)
    assert abs(start - own_start) < 0.2 and own_end < end, "the damage is there at the first token"
    second, first, both = numbers(r"(?:half|both): ([+-][\d.]+) ± ([\d.]+) against", text)
    assert abs(second[0]) < 2 * second[1], "who writes the second half hardly matters"
    assert first[0] > 2 * first[1] and both[0] > 2 * both[1], (
        "after a pruned first half the dense model goes on in the loop"
    )


def test_skipping_in_the_prompt_and_drafting_lesson_10():
    ((adds, spared),) = numbers(r"prompt alone adds (\d+)%, and (\d+)% if", printed("10_generation", "4. Skip"))
    assert spared < adds < 50, "a part of what removing them costs"
    text = printed("10_generation", "5. Let the pruned model draft")
    assert "where drafting pays: 0 of 4. Same text in all cases: True" in text
    (ceiling, needed, found), *_ = numbers(
        r"more than ([\d.]+) times, and only above α = ([\d.]+)\. Ours reaches ([\d.]+)\.", text
    )
    assert found < needed and ceiling < 1.5


def test_scale_lesson_12():
    heading = "1. Does a larger model have more layers to spare?"
    factors = dict(re.findall(r"([\w.-]+) × ([\d,.]+)", printed("12_paper_at_scale", heading)))
    factors = {name: float(value.rstrip(".").replace(",", "")) for name, value in factors.items()}
    assert max(factors.values()) > 200 * min(factors.values()) and min(factors, key=factors.get) == "Llama-2-7B"
    (limits,) = tables("12_paper_at_scale", heading)
    limits.columns = limits.columns.get_level_values(0)
    ours = limits.loc[["smollm2-135m-instruct", "gemma-3-270m", "qwen2.5-coder-1.5b-instruct"]]
    assert limits["× 2"].max() < 27 and limits["× 2"].median() < 16, "most of them much earlier than a quarter"
    assert ours["× 2"].idxmax() == "qwen2.5-coder-1.5b-instruct" and ours["× 2"].idxmin() == "gemma-3-270m"
    assert limits.loc["Llama-2-7B", "× 2"] < ours.loc["smollm2-135m-instruct", "× 2"], "loses more than our model"

    retention, others = tables("12_paper_at_scale", "2. What the paper measured")
    for table in (retention, others):
        table.columns = table.columns.get_level_values(0)
    grown, kept = others["perplexity, times dense"], others["accuracy kept (%)"]
    assert len(others) == 6 and grown.idxmax() == "Qwen1.5-14B" and round(grown.max()) == 166
    assert (grown.drop("Qwen1.5-14B").between(3, 6.5)).all() and (kept.drop("Qwen1.5-14B") > 75).all()
    assert retention["retention (%)"].min() > 80

    _, counted = tables("12_paper_at_scale", "3. How many parameters?")
    known = counted.dropna()
    assert len(known) >= 6 and (known["all (billion)"] == known["as published"]).all()
    assert counted.loc["meta-llama/Llama-2-7b-hf", "16-bit weights (GB)"] < 14

    text = printed("12_paper_at_scale", "4. How much time?")
    ((simple, finer),) = numbers(r"at most (\d+)% too high, the finer one at most (\d+)%", text)
    assert finer < simple < 35, "by about a third at most, and less with attention"
    (check,) = tables("12_paper_at_scale", "4. How much time?")
    assert len(check) == 5 and (check["with attention"] >= check["measured"]).all(), (
        "errs on the safe side, five shapes"
    )

    (plan,) = tables("12_paper_at_scale", "5. A plan for seven billion")
    largest = plan.loc["meta-llama/Llama-2-70b-hf"]
    assert largest.iloc[0] > 130 and largest.iloc[1] > 80 and largest.iloc[2] < 40

    needs = printed("12_paper_at_scale", "Exercise 2: How many layers have to go?")
    gone = {line.split(":")[0]: dict(re.findall(r"([\w.-]+) (\d+) of", line)) for line in needs.splitlines()[1:]}
    assert int(gone["80 GB"]["Llama-2-70b-hf"]) in range(36, 40), "nearly half of 80"
    assert int(gone["24 GB"]["Llama-2-13b-hf"]) in (6, 7), "about one in six of 40"


SIX = {3, 13, 14, 17, 25, 26}  # lesson 02, section 5
EARLY = ("01_hidden_states", "02_block_influence", "03_pruning", "04_quantization", "05_evaluation")


def test_lessons_choose_the_same_six():
    def named(lesson: str, heading: str, pattern: str) -> set[int]:
        return set(map(int, re.search(pattern, printed(lesson, heading))[1].split(", ")))

    assert named("02_block_influence", "5. All layers", r"those of layers ([\d, ]+) \(") == SIX
    assert named("03_pruning", "5. How far", r"Block Influence: removed layers ([\d, ]+) of") == SIX
    order = re.search(r"in which they go: \[([\d, ]+)\]", printed("04_quantization", "6. The grid"))[1]
    assert set(map(int, order.split(", ")[:6])) == SIX
    cells = nbformat.read(ROOT / "notebooks" / "05_evaluation.ipynb", as_version=4).cells[:8]
    text = "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", ()))
    assert f"−6 layers: without {sorted(SIX)}" in text


def test_the_dense_perplexities_in_words_of_lessons_03_and_04():
    live = re.findall(r">0</th>\s*<td>([\d.]+)</td>", str(cells_after("04_quantization", "6. The grid")[0].outputs))
    assert round(float(live[0]), 1) == 30.0
    stored = read_grid(data_folder() / "grid.csv").query("removed == 0 and method == 'none'")["perplexity"]
    assert round(stored.iloc[0], 1) == 32.0
    for lesson, words in {
        "03_pruning": "perplexity is 30.0",
        "04_quantization": "is 32.0 there and not the 30.0",
    }.items():
        source = (ROOT / "notebooks" / "source" / f"{lesson}.py").read_text(encoding="utf-8")
        assert words in " ".join(source.replace("\n# ", " ").split())


@pytest.mark.parametrize("lesson", EARLY)
def test_a_lesson_announces_its_reading_time_and_its_exercises(lesson):
    cells = nbformat.read(ROOT / "notebooks" / f"{lesson}.ipynb", as_version=4).cells
    said = r"reading about (\d+) minutes, exercises (\d+)"
    reading, exercises = map(int, re.search(said, " ".join(cells[0].source.split())).groups())
    words = sum(len(cell.source.split()) for cell in cells if cell.cell_type == "markdown")
    assert abs(reading - words / 120) <= 5, (
        f"{words / 120:.0f} minutes at 120 words a minute, code and figures included"
    )
    assert exercises == sum(int(m) for cell in cells for m in re.findall(r"\*\*Minutes:\*\* (\d+)", cell.source))
