"""Lesson 00: its plain PyTorch is the toolkit's method, and what it and the README say of its outputs is so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import build
import nbformat
import pandas as pd
import pytest
import torch
from committed import numbers, printed
from small import build_tiny

from shortgpt import calibration_batches, choose_layers, perplexity, remove_layers, score_layers
from shortgpt.evaluation.writing import repetition
from shortgpt.utils.data import data_folder

ROOT = Path(__file__).resolve().parents[2]
LESSON = "00_start_here"
SOURCE = build.generate(ROOT / "notebooks" / "source" / f"{LESSON}.py").cells
README = (ROOT / "README.md").read_text(encoding="utf-8")
METHOD = ("import torch\n", "import copy\n")  # how its two cells begin
WORDS = r"\S*\w\S*"


def method_cells() -> list[str]:
    found = [cell.source for cell in SOURCE if cell.cell_type == "code" and cell.source.startswith(METHOD)]
    assert len(found) == 2
    return found


# ---- the method ----


def test_the_plain_method_gives_the_toolkits_scores_perplexity_and_model(tokenizer, capsys):
    model, texts = build_tiny(), ["the old keeper opened the door", "a light on the sea"]
    batches = calibration_batches(tokenizer, ["the keeper of the light. " * 9], samples=5, length=32, batch_size=2)
    place = {"model": model, "tokenizer": tokenizer, "batches": batches, "unseen": texts, "depth": 10, "riddle": [1]}
    before = [*model.model.layers]
    for cell in method_cells():
        exec(cell, place)
    scores = score_layers(model, batches, progress=False)
    torch.testing.assert_close(place["influence"], torch.tensor(scores.values).float(), rtol=0, atol=1e-6)
    plan = choose_layers(scores, 2)
    assert place["lowest"] == list(plan.removed)
    pruned, small = remove_layers(model, plan), place["small"]
    assert place["surprise"](model, texts) == pytest.approx(perplexity(model, tokenizer, texts), rel=1e-5)
    assert place["surprise"](small, texts) == pytest.approx(perplexity(pruned, tokenizer, texts), rel=1e-5)
    ids = batches[0]["input_ids"][:1, :8]
    for cached in (True, False):  # with a cache a wrong layer_idx shows
        written = [m.generate(ids, max_new_tokens=6, do_sample=False, use_cache=cached) for m in (small, pruned)]
        assert torch.equal(*written)
    assert [*model.model.layers] == before and not any(layer._forward_hooks for layer in before)
    assert [layer.self_attn.layer_idx for layer in before] == list(range(len(before))), "the dense model is as it was"
    capsys.readouterr()


def test_the_plain_method_is_short_and_without_the_toolkit():
    code = "\n".join(method_cells())
    assert "shortgpt" not in code
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 45


def test_the_notebooks_two_ways_print_the_same_numbers():
    pattern = r"perplexity: ([\d.,]+) before, ([\d.,]+) after"
    assert numbers(pattern, printed(LESSON, "2. The whole method")) == numbers(
        pattern, printed(LESSON, "3. The same with the toolkit")
    )
    (difference,) = numbers(r"largest difference of a score: ([\d.]+)", printed(LESSON, "3. The same"))
    assert difference[0] < 1e-5


# ---- what a reader meets ----


def test_the_riddle_comes_first_and_no_setup_is_in_sight():
    cells = nbformat.read(ROOT / "notebooks" / f"{LESSON}.ipynb", as_version=4).cells
    assert "The capital of France is" in cells[0].source
    assert cells[1].metadata.jupyter.source_hidden, "the set-up is folded"
    assert cells[2].outputs[0].text.startswith("without layer 17: The capital of France is … ")


def test_it_is_short():
    prose = [cell.source for cell in SOURCE if cell.cell_type == "markdown"]
    assert sum(len(re.findall(WORDS, text)) for text in prose) <= 1500
    code = [cell.source for cell in SOURCE if cell.cell_type == "code" and "setup" not in cell.metadata.get("tags", [])]
    assert max(len(line) for cell in code for line in cell.splitlines()) <= 88
    assert "pandas" not in "".join(code)


def riddle() -> dict[int, str]:
    cells = nbformat.read(ROOT / "notebooks" / f"{LESSON}.ipynb", as_version=4).cells
    return {int(i): text for i, text in re.findall(r"without layer (\d+): .*? … (.*)", cells[2].outputs[0].text)}


def test_what_the_lesson_says_of_the_riddle():
    texts = riddle()
    assert set(texts) == {17, 11, 29}
    assert texts[17].startswith("Paris.") and repetition(texts[17]) == 0, "it answers, and goes on in good English"
    assert "Paris" not in texts[11] + texts[29]
    assert set(re.findall(r"\w+", texts[11])) == {"not"}, "nothing is left of the sentence"
    letters = re.findall(r"\b\w\b", texts[29])
    assert len(letters) > 0.6 * len(texts[29].split()), "it writes single letters"
    found = printed(LESSON, "2. The whole method")
    scores = {i: float(v) for i, v in re.findall(r"(\d+): ([\d.]+)[,}]", found.partition("riddle:")[2].split("\n")[0])}
    assert scores["11"] - scores["17"] < 0.02 and scores["29"] > 5 * scores["11"], "nearly the same, and a high one"


def bread() -> dict[str, str]:
    pattern = r"(without [\d, ]+|all layers): The history of bread begins … (.*)"
    return dict(re.findall(pattern, printed(LESSON, "4. What is left")))


def test_with_three_gone_it_writes_with_six_it_loops_without_the_last_three_it_is_noise():
    """The sentence of the lesson, the README and docs/teaching.md; an older one called the loop English."""
    dense, three, six, last = bread().values()

    def words(text: str) -> float:
        """Share of what is words of three letters or more, of all that stands there."""
        return sum(len(word) for word in re.findall(r"[A-Za-z]{3,}", text)) / len(text.replace(" ", ""))

    assert repetition(dense) < 0.1 and repetition(three) < 0.1 and words(three) > 0.8
    assert repetition(six) > 0.5, "a loop"
    assert words(last) < 0.3, "noise"
    said = r"with three gone it writes; with six it loops; without its last three it writes noise"
    pages = [README, (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")]
    pages += [cell.source for cell in SOURCE if "What we saw" in cell.source]
    for page in pages:
        flowing = " ".join(page.replace("of the lowest-scored layers ", "").replace("layers gone", "gone").split())
        assert re.search(said, flowing.replace("the model writes", "it writes"), re.I), page[:300]


def test_choices_of_six_lie_orders_of_magnitude_apart():
    (found,) = re.findall(r"Perplexity: (.*)\.", printed(LESSON, "5. Is it the number"))
    values = {name: float(v.replace(",", "")) for name, v in re.findall(r"([a-z][\w, ]*?) ([\d,]+)(?:; |$)", found)}
    assert values["lowest scores"] > 2 * values["all layers"], "more than doubled"
    others = [v for name, v in values.items() if "random" in name or "last" in name]
    assert len(others) == 3 and min(others) > values["lowest scores"] and max(others) > 100 * values["lowest scores"]
    assert values["the last ones"] > 49_152, "worse than picking blindly"


# ---- the README ----


def test_the_readme_is_short():
    assert len(re.findall(WORDS, README)) <= 900


def test_the_readme_quotes_the_lesson():
    block = re.search(r"```text\n(.*?)```", README, re.S)[1]
    quoted = [line.split("… ", 1)[1].strip() for line in block.splitlines() if "… " in line]
    written = list(bread().values())
    assert len(quoted) == 4
    for line, text in zip(quoted, written, strict=True):
        assert text.startswith(line.removesuffix(" …")), text


def test_the_readme_compares_with_the_paper_in_one_unit():
    """An older sentence said that our model "pays more for each layer"; for nine layers it pays less."""
    ours = {
        row["layers"]: row["perplexity"] for row in json.loads((data_folder() / "results.json").read_text())["rows"][:4]
    }
    table = pd.read_csv(data_folder() / "paper" / "table4_gptq.csv").set_index("kept_layers")["ppl"]
    ours3, ours9 = ours[27] / ours[30], ours[21] / ours[30]
    paper3, paper9 = table[29] / table[32], table[23] / table[32]
    assert ours3 > paper3 and ours9 < paper9
    said = " ".join(README.split())
    assert f"× {ours3:.2f} against × {paper3:.2f}" in said
    assert f"× {ours9:.2f} of 30 layers, × {paper9:.2f} of 32" in said
    everywhere = said + " ".join(cell.source for cell in SOURCE)
    assert "pays more for each layer" not in everywhere and "works much better" not in everywhere


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks" / "source").glob("[01]*.py")), ids=lambda path: path.stem)
def test_the_readme_says_how_long_a_lesson_takes_to_read(path):
    """A hundred words a minute: slow, because there are code and figures to read, too."""
    row = re.search(rf"\(notebooks/{path.stem}\.ipynb\)[^|]*\| (\d+) \| (\d+) \|", README)
    if row is None:
        pytest.skip("not in the README's table yet")
    text = "\n".join(cell.source for cell in build.generate(path).cells if cell.cell_type == "markdown")
    minutes = len(text.split()) / 100
    assert abs(int(row[1]) - minutes) <= max(3, 0.25 * minutes), f"write {5 * round(minutes / 5)} into the README"
    here = re.search(r"\*\*Takes:\*\* [^*]*?(\d+) to\s+read", text)
    assert here is None or here[1] == row[1]
