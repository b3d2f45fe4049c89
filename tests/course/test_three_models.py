"""What the lessons and the page of three models say in words, of the stored studies. Code writes their numbers."""

import json

import pandas as pd
import pytest

from shortgpt import added_losses, choice_summary, cliff, frontier, read_grid
from shortgpt.course.studies.curves import paired, removal_accuracy, removal_curves
from shortgpt.utils.data import data_folder
from tests.test_data import script

DATA = data_folder()
SMALL, GEMMA, LARGE = "smollm2-135m-instruct", "gemma-3-270m", "qwen2.5-coder-1.5b-instruct"


@pytest.fixture(scope="module")
def english() -> pd.DataFrame:
    return removal_curves(text="en").query("language == 'en' and removed > 0")


def sets(curves: pd.DataFrame, name: str, by: str = "criterion") -> pd.Series:
    rows = curves[curves["model"] == name].drop_duplicates([by, "removed"])
    return rows.set_index([by, "removed"])["layers"]


def test_the_page_is_what_its_script_writes():
    measure = script("three_models")
    assert measure.page_file().read_text(encoding="utf-8") == measure.page(), "run `python measure/three_models.py`"


def test_block_influence_parts_from_relative_magnitude_and_greedy_on_the_larger_model(english):
    layers = sets(english, LARGE)
    for n in (1, 2, 3):
        assert layers["block_influence", n] == layers["relative_magnitude", n]
    for n in (4, 5, 6, 7, 8, 10, 12, 14):
        value, error = paired(LARGE, layers["block_influence", n], layers["relative_magnitude", n])
        assert value > 3 * error, "relative magnitude chose better"
    for n in (4, 5, 6, 7, 8):
        for other in ("block_influence", "relative_magnitude"):
            value, error = paired(LARGE, layers[other, n], layers["greedy", n])
            assert value > 2 * error, "greedy chose better than both"
    assert {24, 25, 26} <= {*layers["block_influence", 8]} and not {24, 26} & {*layers["relative_magnitude", 8]}


def test_what_block_influence_takes_too_early_there_stretches():
    table = pd.read_csv(DATA / "removal_layers.csv").query("model == @LARGE").set_index("layer")
    share = table["block_influence"] / (table["relative_magnitude"] ** 2 / 2)
    far = sorted(share.nsmallest(4).index)
    assert far == [23, 24, 25, 26]
    assert table["longer"][far].min() > 1.15 and table["longer"][5:20].max() < 1.15
    place = table[["block_influence", "relative_magnitude"]].rank()
    assert (place["block_influence"] < place["relative_magnitude"])[far].all()


def test_choosing_on_chinese_need_not_cost_english():
    curves = removal_curves(criterion="block_influence").query("language == 'en' and removed > 0")
    for name in (SMALL, LARGE):
        layers = sets(curves, name, "text")
        apart = [n for n in layers["en"].index if layers["en", n] != layers["zh", n]]
        costs = [paired(name, layers["zh", n], layers["en", n]) for n in apart]
        assert min(value + 2 * error for value, error in costs) < 0 < max(value - 2 * error for value, error in costs)


def test_gemma_has_an_edge_by_block_influence_and_none_there_by_relative_magnitude(english):
    curves = english[english["model"] == GEMMA]
    dense = pd.DataFrame([{"removed": 0, "times": 1.0}])
    edge = {}
    for name in ("block_influence", "relative_magnitude", "greedy"):
        rows = pd.concat([dense, curves[curves["criterion"] == name]])[["removed", "times"]]
        edge[name] = cliff(rows.rename(columns={"times": "value"}))
    assert edge["block_influence"] == 4 and edge["relative_magnitude"] != 4 and edge["greedy"] is None
    times = curves[curves["criterion"] == "block_influence"].set_index("removed")["times"]
    assert 9 < times[5] / times[4] < 10.5, "almost ten"
    layers = sets(english, GEMMA)
    for n in range(3, 10):
        value, error = paired(GEMMA, layers["block_influence", n], layers["relative_magnitude", n])
        assert value > 2 * error
    assert 16 in layers["block_influence", 3] and 17 in layers["block_influence", 5]
    assert 16 not in layers["relative_magnitude", 7]
    table = pd.read_csv(DATA / "removal_layers.csv").query("model == @GEMMA").set_index("layer")
    assert 1.3 < table["longer"][16] < 1.36, "by a third"


def test_block_influence_beats_orders_by_position_but_not_on_gemma(english):
    for row in english[english["criterion"].isin(["reverse", "sequential"])].itertuples():
        same = (english["model"] == row.model) & (english["removed"] == row.removed)
        bi = english[same & (english["criterion"] == "block_influence")]["added"].item()
        if row.model != GEMMA or row.removed < 5:
            assert row.added > bi + 1
        elif row.criterion == "reverse":
            assert bi > row.added > 5, "both are ruins, and the last layers were the better choice"
    times = english.set_index(["model", "criterion", "removed"])["times"]
    assert times[GEMMA, "relative_magnitude", 6] < 20 < times[GEMMA, "block_influence", 6]


def test_greedy_is_ahead_from_three_layers_on_with_enough_text(english):
    for name, first in ((SMALL, 3), (GEMMA, 4), (LARGE, 4)):
        layers = sets(english, name)
        for n in [n for n in layers["greedy"].index if n >= first]:
            for other in ("block_influence", "relative_magnitude"):
                if layers[other, n] != layers["greedy", n]:
                    value, error = paired(name, layers[other, n], layers["greedy", n])
                    assert value > (2 * error if other == "block_influence" else 0)
    added = english.set_index(["model", "criterion", "removed"])["added"]
    for n in (4, 6, 8):
        assert added[LARGE, "greedy", n] < 0.55 * added[LARGE, "block_influence", n]
    times = english.set_index(["model", "criterion", "removed"])["times"]
    assert times[LARGE, "greedy", 6] == pytest.approx(1.3, abs=0.05)
    assert times[SMALL, "greedy", 6] == pytest.approx(1.8, abs=0.05)
    assert times[GEMMA, "greedy", 6] == pytest.approx(6.6, abs=0.05)


def test_greedy_is_the_best_or_near_it_on_all_models_and_no_cheap_way_is(english):
    added = english.groupby(["model", "removed", "criterion"])["added"].median().unstack()
    best, ran = added.min(axis=1), added["greedy"].dropna()
    assert (ran - best[ran.index]).max() < 0.05 and {name for name, _ in ran.index} == {SMALL, GEMMA, LARGE}
    for name in added.columns.drop("greedy"):
        behind = (added[name] - best).groupby("model").max()
        assert behind.max() > 0.5, name


def test_no_text_chooses_best_on_all_models():
    curves = removal_curves(criterion="block_influence").query("language == 'en' and removed > 0 and share < 0.34")
    gained = {}
    for name in (SMALL, GEMMA, LARGE):
        layers = sets(curves, name, "text")
        for other in ("default", "zh"):
            for n in layers["ours"].index:
                value, error = paired(name, layers["ours", n], layers[other, n])
                if abs(value) > 2 * error:
                    gained[name, other, n] = value
    assert {n for name, text, n in gained if (name, text) == (LARGE, "default")} == {6, 7}
    assert max(value for (name, text, _), value in gained.items() if (name, text) == (LARGE, "default")) < 0
    for name in (SMALL, GEMMA):
        assert all(value > 0 for (model, text, _), value in gained.items() if (model, text) == (name, "default"))
        assert sum(value for (model, text, _), value in gained.items() if (model, text) == (name, "zh")) > 0
    assert sum(value for (model, text, _), value in gained.items() if (model, text) == (LARGE, "zh")) < 0
    assert gained[GEMMA, "default", 4] == pytest.approx(1.1, abs=0.05)


def test_choices_stand_without_greedys_eight_layers_and_fall_without_block_influences():
    table = removal_accuracy(text="en").query("model == @LARGE and removed in [0, 8]")
    table = table.set_index(["task", "criterion"])
    value, error = table["value"], table["standard_error"]
    for task in ("science", "science_zh"):
        assert value[task, "greedy"] > value[task, "dense"] - 2 * error[task, "dense"], "as if nothing had happened"
        assert value[task, "block_influence"] < value[task, "dense"] - 3 * error[task, "block_influence"]
    for criterion in ("greedy", "block_influence"):
        assert value["last_word", criterion] < 0.67 * value["last_word", "dense"], "falls by more than a third"


def test_the_larger_models_chinese_falls_no_more_than_its_english():
    table = removal_accuracy(criterion="block_influence", text="en").query("model == @LARGE")
    value = table.set_index(["task", "removed"])["value"]
    for n in (2, 4, 6, 8):
        assert value["science_zh", n] > value["science", n]
    curves = removal_curves(criterion="block_influence", text="en").query("model == @LARGE")
    bits = curves.set_index(["language", "removed"])["bits_per_byte"]
    assert bits["en", 8] / bits["en", 0] > bits["zh", 8] / bits["zh", 0], "English loses the larger share"
    chinese = removal_accuracy(criterion="block_influence", text="zh").query("model == @LARGE and removed == 6")
    for row in chinese[chinese["task"].isin(["science", "science_zh"])].itertuples():
        assert abs(row.value - value[row.task, 6]) < 2 * row.standard_error


def test_what_is_said_of_the_larger_models_answers_in_chat():
    asked = pd.read_csv(DATA / "removal_answers.csv", keep_default_na=False)
    asked = asked.query("model == @LARGE and task == 'science'")
    asked["removed"] = asked["layers"].map(json.loads).map(len)
    ways = {n: choice_summary(rows).iloc[0] for n, rows in asked.groupby("removed")}
    assert ways[0]["choice"] > 90 and ways[0]["written"] >= 90, "it knows the answers"
    assert ways[4]["difference"] < -2 * ways[4]["difference_error"], "choosing fell further"
    assert 50 < ways[4]["choice"] < 60 and 62 < ways[4]["written"] < 72
    assert ways[2]["difference"] < -2 * ways[2]["difference_error"] and 70 < ways[2]["choice"] < 80
    assert abs(ways[2]["written"] - ways[0]["written"]) < ways[0]["written_error"], "as many right as the dense model"
    assert abs(ways[6]["difference"]) < ways[6]["difference_error"], "the same"
    assert ways[8]["difference"] > 2 * ways[8]["difference_error"], "the other way round"
    names = asked["written"].str.match(r"^[A-D]\.").groupby(asked["removed"]).mean()
    assert names[0] == pytest.approx(0.25, abs=0.05) and names[2] == names[4] == 0 and names[8] > 0.5
    explains = asked["written"].str.startswith("To determine").groupby(asked["removed"]).mean()
    assert explains[4] > 3 * explains[0] and explains[8] < 0.05
    accuracy = removal_accuracy(criterion="block_influence", text="en").set_index(["model", "task", "removed"])["value"]
    assert accuracy[LARGE, "science", 4] == pytest.approx(93, abs=0.5)


def again_on(name: str, english: pd.DataFrame) -> pd.Series:
    added = english.set_index(["model", "criterion", "removed"])["added"][name]
    return added["block_influence_iterative"] - added["block_influence"]


def test_what_the_page_says_of_spans_and_of_scoring_again(english):
    added = english.set_index(["model", "criterion", "removed"])["added"][SMALL]
    span, greedy, block = (added[name] for name in ("angular_span_all_tokens", "greedy", "block_influence"))
    assert (again_on(GEMMA, english)[[4, 5]] * [1, -1] > 0.4).all(), "worse at four, better at five"
    on_gemma = english.set_index(["model", "criterion", "removed"])["added"][GEMMA]
    assert (on_gemma["angular_span_all_tokens"][range(4, 10)] > 3).all(), "ruins"
    assert (abs(span - greedy)[[5, 6, 7]] < 0.02).all() and (span[[8, 9]] > block[[8, 9]] + 0.5).all()
    on_large = english.set_index(["model", "criterion", "removed"])["times"][LARGE]
    assert on_large["angular_span_all_tokens", 14] == pytest.approx(4.5, abs=0.05)
    assert on_large["block_influence", 14] == pytest.approx(63, abs=0.5)
    assert (again_on(LARGE, english)[[8, 10, 12, 14]] < -0.3).all(), "helps"
    again = again_on(SMALL, english)
    assert (again[range(1, 10)] > -0.02).all(), "buys nothing"
    assert (again[range(12, 16)] > 0.7).all(), "costs much"
    magnitude = added["relative_magnitude"] - block
    assert (abs(magnitude[range(1, 10)]) < 0.1).all() and magnitude[14] > 2


def test_what_the_page_says_of_choosing_on_chinese():
    curves = removal_curves(criterion="block_influence").query("language == 'en' and removed > 0")

    def less(name: str, n: int, language: str = "en") -> float:
        """Two standard errors from 0, or it counts as nothing: what choosing on Chinese costs."""
        layers = sets(curves, name, "text")
        value, error = paired(name, layers["zh", n], layers["en", n], language)
        return value if abs(value) > 2 * error else 0.0

    assert all(less(SMALL, n) <= 0 for n in range(1, 9)) and all(less(GEMMA, n) <= 0 for n in range(5, 10))
    assert all(less(LARGE, n) > 0 for n in (3, 7)) and all(less(LARGE, n, "zh") >= 0 for n in (3, 7))
    assert all(less(LARGE, n, language) < 0 for n in (5, 12, 14) for language in ("en", "zh"))
    assert less(LARGE, 6) == 0 and less(LARGE, 6, "zh") == pytest.approx(-0.45, abs=0.05)


def test_the_criterion_mattered_more_than_the_text_where_criteria_part(english):
    texts = removal_curves(criterion="block_influence").query("language == 'en' and removed > 0 and share < 0.34")
    for name in (GEMMA, LARGE):
        by_text, by_criterion = sets(texts, name, "text"), sets(english.query("share < 0.34"), name)
        counts = by_text["ours"].index
        text = [abs(paired(name, by_text["ours", n], by_text["default", n])[0]) for n in counts]
        part = [
            abs(paired(name, by_criterion["block_influence", n], by_criterion["relative_magnitude", n])[0])
            for n in counts
        ]
        assert max(part) > 1.3 * max(text)
    longer = pd.read_csv(DATA / "removal_layers.csv").set_index(["model", "layer"])["longer"]
    assert longer[LARGE][range(23, 27)].min() == pytest.approx(1.16, abs=0.005)
    assert longer[LARGE][range(23, 27)].max() == pytest.approx(1.21, abs=0.005)
    assert longer[GEMMA, 10] == pytest.approx(1.5, abs=0.05) and longer[GEMMA, 16] == pytest.approx(1.3, abs=0.05)


def test_what_is_said_of_layers_and_bits_on_the_larger_model():
    grid = read_grid(DATA / "grid_large.csv")
    added = added_losses(grid).set_index(["removed", "method"])
    beyond, error = added["interaction"], added["interaction_error"]
    assert beyond[[2, 3, 5]].abs().max() < 0.01
    for method in ("nf4", "gptq"):
        assert beyond[7, method] == pytest.approx(0.03, abs=0.005) and beyond[7, method] > 2 * error[7, method]
        assert error[7, method] < 0.0105
    bits = added["added_by_quantization"]
    assert bits[2, "gptq"] == pytest.approx(0.059, abs=5e-4) and bits[2, "nf4"] == pytest.approx(0.037, abs=5e-4)
    assert bits[2, "int8"] < 0.005, "next to nothing"
    assert added["added_by_pruning"][7, "nf4"] == pytest.approx(0.67, abs=0.005)
    best = {(row.method, row.removed) for row in frontier(grid).itertuples()}
    assert {("nf4", 0), ("int8", 0)} < best and all(method == "nf4" for method, removed in best if removed)
    cell = grid.set_index(["removed", "method"])
    assert cell["memory_mb"][0, "nf4"] == pytest.approx(1610, abs=5)
    assert 1 - cell["memory_mb"][2, "nf4"] / cell["memory_mb"][0, "nf4"] == pytest.approx(0.03, abs=0.002)
    assert cell["perplexity"][2, "nf4"] / cell["perplexity"][0, "nf4"] == pytest.approx(1.07, abs=0.002)


def test_the_larger_model_knows_science_and_not_by_the_wording():
    value = removal_accuracy(criterion="dense").query("model == @LARGE").set_index("task")["value"]
    for task, share in {"science": 1 / 3, "science_zh": 0.44, "physical": 2 / 3, "chinese": 0.7}.items():
        assert value[f"{task}, hidden"] == pytest.approx(100 * share, abs=3)
    assert value["science"] > 95 and value["science_zh"] > 95, "nearly all when it may read the question"


def test_the_small_models_keep_answers_and_lose_last_words():
    table = removal_accuracy(text="en").set_index(["model", "criterion", "task", "removed"])["value"]
    dense = removal_accuracy(criterion="dense").set_index(["model", "task"])["value"]
    said = {
        (SMALL, "block_influence", 9): {"science": (73, 82), "last_word": (11, 32)},
        (GEMMA, "greedy", 6): {"science": (57, 88), "last_word": (2, 42)},
    }
    for (name, criterion, n), tasks in said.items():
        for task, (kept, whole) in tasks.items():
            assert table[name, criterion, task, n] == pytest.approx(kept, abs=0.51)
            assert dense[name, task] == pytest.approx(whole, abs=0.51)


def test_perplexity_and_tasks_disagree_about_gemmas_six_layers(english):
    table = (
        removal_accuracy(text="en").query("model == @GEMMA and removed == 6").set_index(["criterion", "task"])["value"]
    )
    times = english.query("model == @GEMMA and removed == 6").set_index("criterion")["times"]
    assert times["block_influence"] > 50 * times["greedy"]
    for task, (block, greedy) in {"science": (63, 57), "last_word": (19, 2)}.items():
        assert table["block_influence", task] == pytest.approx(block, abs=0.51)
        assert table["greedy", task] == pytest.approx(greedy, abs=0.51)
