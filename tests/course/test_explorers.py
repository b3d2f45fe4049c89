"""The explorers show what the functions behind them return, by click, by reset and by the algorithm's choice."""

import asyncio
import re
from html import escape
from pathlib import Path

import ipywidgets
import pytest
from matplotlib.figure import Figure
from small import LAYERS, build_tiny

from shortgpt import Ablation, best_within, continue_text, frontier_steps, read_grid, remove_layers, token_paths
from shortgpt.course.explorers import explore_frontier, explore_pruning, explore_token, explore_writing, parts
from shortgpt.course.explorers.frontier import budget_html, draw_budget
from shortgpt.course.explorers.pruning import cost_html, draw_tries
from shortgpt.course.explorers.token import labels_of, path_table
from shortgpt.course.plots.tokens import least_moving, one_token, path_sentence
from shortgpt.utils.data import data_folder

TEXT = "the old keeper of the light opened the door."
ORDER = [4, 1, 3, 2, 5, 0]


def inside(widget, kind):
    """All widgets of a kind, in the order of the page."""
    found = [widget] if type(widget) is kind else []
    return found + [each for child in getattr(widget, "children", ()) for each in inside(child, kind)]


def alt(html: str) -> str:
    return re.search(r'alt="([^"]*)"', html)[1]


@pytest.fixture
def pruning(tokenizer):
    box = explore_pruning(build_tiny(), tokenizer, ORDER, text=TEXT, prompt="the <door>", new_tokens=4)
    layers = inside(box, ipywidgets.ToggleButton)
    numbers, written, picture, _ = inside(box, ipywidgets.HTML)
    return layers, inside(box, ipywidgets.Button), numbers, written, picture


def test_pressing_layers_shows_what_the_model_without_them_costs_and_writes(pruning, tokenizer):
    layers, _, numbers, written, picture = pruning
    ablation = Ablation(build_tiny(), tokenizer, TEXT, prompt="the <door>", new_tokens=4)
    assert [layer.description for layer in layers] == [f"layer {i}" for i in range(LAYERS)]
    for i in (3, 1):
        layers[i].value = True
    assert cost_html(ablation([1, 3]), ablation([]), LAYERS) in numbers.value and 'aria-live="polite"' in numbers.value
    assert "2 of 6 layers removed: 1, 3." in numbers.value
    assert layers[3].description == "layer 3 out" and layers[2].description == "layer 2"
    assert f"the &lt;door&gt; <b>{ablation.writes([1, 3]).strip()}</b>" in written.value
    assert alt(picture.value).startswith("3 sets of layers tried; the best of the 1 with 2 removed is without 1, 3")
    assert alt(picture.value) in numbers.value, "also for those who see the picture"
    layers[3].value = False
    assert cost_html(ablation([1]), ablation([]), LAYERS) in numbers.value


def test_the_algorithms_choice_has_as_many_layers_and_is_one_click_away(pruning):
    layers, (algorithm, back), numbers, _, picture = pruning
    layers[0].value = layers[5].value = True
    algorithm.click()
    assert [i for i, layer in enumerate(layers) if layer.value] == sorted(ORDER[:2])
    assert "removed: 1, 4." in numbers.value
    # none, 0, 0 and 5, and the algorithm's: no step between was measured
    assert alt(picture.value).startswith("4 sets")
    back.click()
    assert "0 of 6 layers removed: none." in numbers.value and not any(layer.value for layer in layers)
    algorithm.click()
    assert [i for i, layer in enumerate(layers) if layer.value] == ORDER[:1]


def test_removing_all_layers_says_why_not_and_the_explorer_goes_on(pruning):
    layers, _, numbers, written, _ = pruning
    for layer in layers:
        layer.value = True
    assert "removing 6 of 6 layers leaves none: keep at least one" in numbers.value and written.value == ""
    layers[0].value = False
    assert "5 of 6 layers removed" in numbers.value


def test_the_tries_are_drawn_apart_from_the_algorithms():
    tried = {(): 30.0, (1,): 33.0, (4,): 32.0, (1, 4): 50.0, (0, 1): 900.0}
    tried = {key: {"removed": len(key), "perplexity": value} for key, value in tried.items()}
    figure, sentence = draw_tries(tried, [0, 1], ORDER)
    yours, algorithms, now = figure.axes[0].lines
    assert yours.get_xydata().tolist() == [[0, 30], [1, 33], [2, 900]]
    assert algorithms.get_xydata().tolist() == [[1, 32], [2, 50]] and now.get_xydata().tolist() == [[2, 900]]
    assert sentence == "5 sets of layers tried; the best of the 2 with 2 removed is without 1, 4, perplexity 50.0."


def test_a_lonely_point_stands_on_an_axis_of_whole_layers():
    figure, _ = draw_tries({(): {"perplexity": 30.0, "removed": 0}}, (), [3])
    ticks = [tick for tick in figure.axes[0].get_xticks() if -0.5 <= tick <= 3.5]
    assert ticks == [0, 1, 2, 3]


def test_without_an_order_block_influence_is_the_algorithm(tokenizer):
    from shortgpt import calibration_batches, removal_order, score_layers

    model = build_tiny()
    box = explore_pruning(model, tokenizer, text=TEXT, prompt="the door", new_tokens=1)
    inside(box, ipywidgets.Button)[0].click()
    expected = removal_order(score_layers(model, calibration_batches(tokenizer, samples=4), progress=False))
    assert [i for i, layer in enumerate(inside(box, ipywidgets.ToggleButton)) if layer.value] == expected[:1]


@pytest.fixture
def writing(tokenizer):
    box = explore_writing(build_tiny(), tokenizer, "the <door>", new_tokens=4)
    told, tries, _ = inside(box, ipywidgets.HTML)
    return inside(box, ipywidgets.ToggleButton), inside(box, ipywidgets.Button), told, tries


def test_the_text_answers_when_layers_are_pressed(writing, tokenizer):
    layers, (back,), told, tries = writing
    model = build_tiny()
    assert told.value.count("With all layers:") == 1 and 'aria-live="polite"' in told.value
    for i in (3, 1):
        layers[i].value = True
    text = escape(continue_text(remove_layers(model, [1, 3]), tokenizer, "the <door>", new_tokens=4).strip())
    assert f"Without layers 1, 3:<br>the &lt;door&gt; <b>{text}</b>" in told.value
    assert layers[3].description == "layer 3 out"
    assert re.findall(r'scope="row"[^>]*>(.*?)<', tries.value) == [
        "Without layers 1, 3",
        "Without layer 3",
        "With all layers",
    ]
    back.click()
    assert "With all layers:" in told.value and not any(layer.value for layer in layers)
    assert re.findall(r'scope="row"[^>]*>(.*?)<', tries.value)[0] == "With all layers", "the newest first, none twice"
    assert tries.value.count("<tr>") == 3


def test_without_any_layer_nothing_is_written_and_it_goes_on(writing):
    layers, _, told, _ = writing
    for layer in layers:
        layer.value = True
    assert "leaves none: keep at least one" in told.value
    layers[0].value = False
    assert "Without layers 1, 2, 3, 4, 5:" in told.value


SENTENCES = ["the door opened", "a <b>"]


@pytest.fixture
def watched(tokenizer):
    model = build_tiny()
    box = explore_token(model, tokenizer, SENTENCES)
    (menu,), (own,) = inside(box, ipywidgets.Dropdown), inside(box, ipywidgets.Text)
    (tokens,) = inside(box, ipywidgets.ToggleButtons)
    return model, menu, own, tokens, *inside(box, ipywidgets.HTML)


def test_a_token_is_told_drawn_and_tabulated(watched, tokenizer):
    model, menu, _, tokens, told, picture, table = watched
    paths = token_paths(model, tokenizer, SENTENCES[0])
    assert len(tokens.options) == len(SENTENCES[0]) and tokens.value == len(SENTENCES[0]) - 1
    for position in (14, 2, 14):
        tokens.value = position
        rows = one_token(paths, position)
        sentence = path_sentence(rows).replace("'", "&#x27;")
        assert sentence in told.value and alt(picture.value) == sentence and table.value == path_table(rows)
    menu.value = SENTENCES[1]
    assert [label for label, _ in tokens.options] == ["a", "␣", "?", "b", "? (2)"] and tokens.value == 4
    assert path_table(one_token(token_paths(model, tokenizer, SENTENCES[1]))) == table.value


def test_a_sentence_is_read_once(watched, monkeypatch):
    _, menu, _, tokens, *_ = watched
    menu.value = SENTENCES[1]
    monkeypatch.setattr(
        "shortgpt.course.explorers.token.token_paths", lambda *args: pytest.fail("another forward pass")
    )
    menu.value = SENTENCES[0]
    tokens.value = 3
    menu.value = SENTENCES[1]


def test_a_sentence_of_ones_own_is_read_and_one_too_long_is_refused_in_words(watched):
    _, _, own, tokens, told, *_ = watched
    own.value = "grey"
    assert [label for label, _ in tokens.options] == list("grey")
    own.value = "a" * 100
    assert "100 tokens, and 64 are the most" in told.value and len(tokens.options) == 4
    own.value = "  "  # emptied: nothing to read, nothing happens
    assert len(tokens.options) == 4


def test_a_token_that_comes_twice_has_two_labels(watched):
    """ipywidgets lights up the first button with the label of the chosen one."""
    assert labels_of(["of", "the", "of", "of", "of (2)"]) == ["of", "the", "of (2)", "of (3)", "of (2) (2)"]
    _, menu, _, tokens, *_ = watched
    menu.value = SENTENCES[1]
    names = [label for label, _ in tokens.options]
    assert len(set(names)) == len(names) and tokens.index == len(names) - 1


def test_the_table_has_a_row_a_depth_and_names_the_layers_that_hardly_move_it(tokenizer):
    rows = one_token(token_paths(build_tiny(), tokenizer, "the door"))
    html = path_table(rows.assign(words=[["<i>", "b", "c"]] * len(rows)))
    lines = re.findall(r"<tr><th scope=\"row\">(\d+)</th><td>(.*?)</td><td>(.*?)</td></tr>", html)
    assert [int(depth) for depth, _, _ in lines] == list(range(LAYERS + 1))
    assert [i for i, (_, turn, _) in enumerate(lines[1:]) if turn.endswith(", hardly")] == least_moving(rows)
    assert lines[0][1] == "embedding" and lines[3][1].startswith(f"layer 2: {rows['moved'][3]:.3f}")
    assert lines[0][2].startswith(f"&lt;i&gt; {100 * rows['probabilities'][0][0]:.0f} %; b ")


@pytest.fixture
def grid():
    table = read_grid(data_folder() / "grid.csv")
    return table[table["order"] != "quantize first"]


def test_the_budget_shows_the_best_model_within_it_and_both_steps(grid):
    box = explore_frontier(grid)
    (budget,), (quality,) = inside(box, ipywidgets.IntSlider), inside(box, ipywidgets.Dropdown)
    told, picture = inside(box, ipywidgets.HTML)
    assert list(quality.options) == ["perplexity", "grammar", "last_word"]
    steps = frontier_steps(grid).reset_index(drop=True)
    for value in (budget.min, 165, 171, 300, budget.max):
        budget.value = value
        best = best_within(grid, value)
        at = int(steps.index[steps["memory_mb"] == best["memory_mb"]][0])
        name = "not quantized" if best["method"] == "none" else best["method"]
        assert f"<b>{name}, " in told.value and f"perplexity {best['perplexity']:,.2f}, grammar" in told.value
        assert (f"takes {best['more']:,.1f} MB more" in told.value) == (at < len(steps) - 1)
        assert ("saves" in told.value) == (at > 0)
        if at:
            assert f"saves {best['memory_mb'] - steps['memory_mb'][at - 1]:,.1f} MB" in told.value
        assert f"{best['memory_mb']:,.0f} MB, perplexity {best['perplexity']:,.2f}." in alt(picture.value)
    assert "No larger model is better." in told.value
    quality.value = "last_word"
    best = best_within(grid, budget.value, y="last_word", higher_is_better=True)
    assert f"last word {best['last_word']:.1f} %" in told.value and "last word" in alt(picture.value)


def test_two_buttons_walk_along_the_frontier(grid, monkeypatch):
    monkeypatch.setattr(
        "shortgpt.course.explorers.frontier.draw_budget", lambda *args: (Figure(figsize=(1, 1)), "")
    )  # seconds
    box = explore_frontier(grid)
    (budget,) = inside(box, ipywidgets.IntSlider)
    smaller, larger = inside(box, ipywidgets.Button)
    sizes = frontier_steps(grid)["memory_mb"].tolist()
    budget.value = budget.min
    walked = [best_within(grid, budget.value)["memory_mb"]]
    for _ in sizes:
        larger.click()
        walked.append(best_within(grid, budget.value)["memory_mb"])
    assert walked == [*sizes, sizes[-1]]
    smaller.click()
    assert best_within(grid, budget.value)["memory_mb"] == sizes[-2]


def test_a_budget_too_small_is_said_and_drawn(grid):
    assert "no model has memory_mb of at most 100" in budget_html(grid, 100, "perplexity", [])
    figure, sentence = draw_budget(grid, 100)
    assert sentence.endswith("none of at most 100 MB.") and figure.axes[0].lines


def test_a_grid_without_accuracies_works_and_no_grid_is_refused(grid):
    box = explore_frontier(grid[["method", "removed", "memory_mb", "perplexity"]])
    assert list(inside(box, ipywidgets.Dropdown)[0].options) == ["perplexity"]
    with pytest.raises(ValueError, match="the table has no column 'method'"):
        explore_frontier(grid[["memory_mb", "perplexity"]])
    with pytest.raises(TypeError, match="expected a table with one row a model, got None"):
        explore_frontier(None)


def test_quick_changes_get_one_answer_and_the_last_one():
    answers = []

    async def clicks():
        state = [0]
        ask = parts.latest(lambda: answers.append(state[0]), wait=0.01)
        for number in range(5):
            state[0] = number
            ask()
            await asyncio.sleep(0)
        assert answers == []
        await asyncio.sleep(0.1)
        ask()
        await asyncio.sleep(0.1)

    asyncio.run(clicks())
    assert answers == [4, 4]


def test_only_what_ipywidgets_7_has():
    """Its widgets, and of their traits those that both versions know: `test_explorers` also passes with ipywidgets 7.7.1."""
    known = {"Button", "Dropdown", "HBox", "HTML", "IntSlider", "Layout", "Text", "ToggleButton", "ToggleButtons"}
    known |= {"VBox", "Widget"}
    for file in Path(parts.__file__).parent.glob("*.py"):
        used = set(re.findall(r"widgets\.([A-Z]\w+)", file.read_text()))
        assert used <= known, f"{file.name} uses {used - known}"


def test_figures_are_not_pyplots(grid, tokenizer):
    import matplotlib.pyplot as plt

    plt.close("all")
    explore_frontier(grid)
    explore_token(build_tiny(), tokenizer, SENTENCES)
    explore_pruning(build_tiny(), tokenizer, ORDER, text=TEXT, prompt="a", new_tokens=1)
    explore_writing(build_tiny(), tokenizer, "a", new_tokens=1)
    assert plt.get_fignums() == []


def test_texts_from_models_are_escaped_in_alternative_texts():
    html = parts.image(Figure(figsize=(1, 1)), 'says "<b>"')
    assert alt(html) == "says &quot;&lt;b&gt;&quot;" and html.startswith("<img ")
