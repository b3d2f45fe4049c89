"""What the lessons say in words about live outputs that no other test reads: the committed notebooks are held to it."""

from __future__ import annotations

import re

import nbformat
import pandas as pd
import pytest
from committed import numbers, printed, tables
from test_setup import ROOT

import shortgpt
from shortgpt import read_grid
from shortgpt.utils.data import data_folder


def test_one_vector_lesson_02():
    text = printed("02_block_influence", "11. One vector")
    ((dense,),) = numbers(r"[Pp]erplexity ([\d.]+) with all layers", text)
    rows = {
        int(layer): (first, others) for layer, first, others in numbers(r"layer (\d+): (\d+\.\d) and (\d+\.\d)", text)
    }
    ((sink, before, after),) = numbers(r"layer (\d+): the first token's state grows from (\d+) to (\d+)", text)
    assert sink == 11 and after > 5 * before and len(rows) == 5
    first, others = rows.pop(11)
    assert first > 3 * dense and others < 1.5 * dense, "one token costs far more than all the rest"
    assert all(first < others and first < 1.15 * dense for first, others in rows.values()), "not so elsewhere"
    alone, rest = (re.search(rf"skipped for {name}[^:]*: .* … (.*)", text)[1] for name in ("the first", "all other"))
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


SIX = {3, 13, 14, 17, 25, 26}  # lesson 02, section 8, names them for all lessons
EARLY = ("01_hidden_states", "02_block_influence", "03_pruning", "04_quantization", "05_evaluation")


def test_the_window_decides_the_last_place_and_a_sign_lesson_02():
    pairs, windows = tables("02_block_influence", "8. How sure is the choice?")
    by_window = {int(window): row for window, row in windows.iterrows()}
    six = {window: set(map(int, row["lowest six"].split(", "))) for window, row in by_window.items()}
    assert six[512] == SIX, "the text names them"
    assert min(len(SIX & chosen) for chosen in six.values()) == 5, "five of the six stay, and the last one changes"
    difference = {window: row["14 minus 17"] for window, row in by_window.items()}
    assert difference[512] < 0 < difference[64], "the sign changes"
    errors = pairs["errors"].tolist()
    assert errors[0] > 20 and errors[1] > 2 and errors[2] < 1, "large, several times its error, smaller than its error"
    ours = {
        name: (float(mean), float(error))
        for name, mean, error in re.findall(
            r"(layer \d+ minus layer \d+): ([+-][\d.]+) \+- ([\d.]+)", printed("02_block_influence", "Exercise 4")
        )
    }
    assert list(ours) == list(pairs.index), "the same pairs as in section 8"
    assert all(error > pairs["standard error"][name] for name, (_, error) in ours.items()), "larger errors"
    assert ours["layer 14 minus layer 17"][0] > 0, "the sign of short windows"


def test_all_lessons_choose_the_same_six():
    def named(lesson: str, heading: str, pattern: str) -> set[int]:
        return set(map(int, re.search(pattern, printed(lesson, heading))[1].split(", ")))

    assert named("02_block_influence", "5. All layers", r"those of layers ([\d, ]+) \(") == SIX
    assert named("03_pruning", "5. How far", r"Block Influence: removed layers ([\d, ]+) of") == SIX
    order = re.search(r"in which they go: \[([\d, ]+)\]", printed("04_quantization", "6. The grid"))[1]
    assert set(map(int, order.split(", ")[:6])) == SIX
    text = "".join(
        output.get("text", "")
        for cell in nbformat.read(ROOT / "notebooks" / "05_evaluation.ipynb", as_version=4).cells[:8]
        for output in cell.get("outputs", ())
    )
    assert f"−6 layers: without {sorted(SIX)}" in text


def test_one_dense_perplexity_for_the_four_documents():
    sources = {name: (ROOT / "notebooks" / "source" / f"{name}.py").read_text(encoding="utf-8") for name in EARLY}
    grid = tables("04_quantization", "6. The grid: pruning times bits")[0]
    languages = tables("05_evaluation", "4. Bits per byte")[0]
    english = languages[(languages["language"] == "English") & (languages["model"] == "dense")]["perplexity"].item()
    assert round(grid.loc[0, "none"], 1) == round(english, 1) == 30.0
    stored = read_grid(data_folder() / "grid.csv").query("removed == 0 and method == 'none'")["perplexity"]
    assert round(stored.iloc[0], 1) == 32.0
    assert "perplexity is 30.0" in " ".join(sources["03_pruning"].replace("\n# ", " ").split())
    assert "is 32.0 there and not the 30.0" in " ".join(sources["04_quantization"].replace("\n# ", " ").split())


def test_two_tasks_fall_for_certain_lesson_05():
    falls = tables("05_evaluation", "6. The harness")[-1]
    fall, error = falls["−3 layers: fall"], falls["−3 layers: its s.e."]
    assert set(falls.index[fall > 2 * error]) == {"grammar", "science"}
    dense = tables("05_evaluation", "6. The harness")[-2].set_index("task")["standard_error"]
    assert 2 * dense["physical"] < fall["physical"] < 2 * error["physical"], (
        "more than of either, less than of the difference"
    )


@pytest.mark.parametrize("lesson", EARLY)
def test_code_fits_the_page(lesson):
    """Wider lines are cut off on the site and on GitHub. The set-up cell is folded; a cell with timings keeps its source."""
    cells = nbformat.read(ROOT / "notebooks" / f"{lesson}.ipynb", as_version=4).cells
    code = [
        cell
        for cell in cells
        if cell.cell_type == "code" and not {"setup", "volatile"} & {*cell.metadata.get("tags", ())}
    ]
    assert not [line for cell in code for line in cell.source.splitlines() if len(line) > 88]


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
    assert int(gone["80 GB"]["Llama-2-70b"]) in range(36, 40), "nearly half of 80"
    assert int(gone["24 GB"]["Llama-2-13b"]) in (6, 7), "about one in six of 40"


OF_TWINS = ("08", "11")  # these lessons load the twins, and have no other model
WITH_A_MODEL = [
    path for path in sorted((ROOT / "notebooks" / "source").glob("[01]*.py")) if path.name[:2] not in OF_TWINS
]


@pytest.mark.parametrize("path", WITH_A_MODEL, ids=lambda path: path.stem)
def test_a_lesson_that_names_another_model_points_at_what_is_there(path):
    """The menu of models moved from lesson 00 to the toolkit's page."""
    line = re.search(r'^MODEL = "smollm2-135m-instruct" .*$', path.read_text(encoding="utf-8"), re.MULTILINE)[0]
    if place := re.search(r"see (docs/\S+)$", line):
        assert "suggested_models()" in (ROOT / place[1]).read_text(encoding="utf-8")
    else:
        table = getattr(shortgpt, re.search(r"shortgpt\.(\w+)\(\)$", line)[1])()
        assert "smollm2-135m-instruct" in str(table) and len(table) > 5
