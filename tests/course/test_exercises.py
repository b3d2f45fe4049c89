"""Exercise notebooks: the lesson without its solutions and nothing else changed, ready for a learner and for nbgrader."""

from __future__ import annotations

import ast
import builtins
import functools
import importlib.util
import itertools
import re
import sys
import tomllib
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient

from shortgpt import added_losses, frontier, read_grid
from shortgpt.utils.data import data_folder

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
sys.path.append(str(NOTEBOOKS))
from exercise_notebooks import BEGIN, EFFORT, END, POINTS, ExerciseError  # noqa: E402

# by its path: there is a well-known package of the name build
_spec = importlib.util.spec_from_file_location("build_notebooks", NOTEBOOKS / "build.py")
build = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(build)

SOURCES = sorted((NOTEBOOKS / "source").glob("*.py"))
EXERCISES = sorted((NOTEBOOKS / "exercises").glob("*.ipynb"))
CODE_LINES = 25
every_notebook = pytest.mark.parametrize("path", EXERCISES, ids=lambda path: path.stem)


@functools.cache
def cells(path: Path) -> list:
    return nbformat.read(path, as_version=4).cells


@functools.cache
def marked(name: str) -> list:
    """The cells with solutions between markers, as a teacher gets them."""
    return build.generate_exercises(NOTEBOOKS / "source" / f"{name}.py", solved=True).cells


def tagged(found: list, tag: str) -> list:
    return [cell for cell in found if tag in cell.metadata.get("tags", [])]


def nbgrader(found: list) -> list[dict]:
    return [cell.metadata.nbgrader for cell in found if "nbgrader" in cell.metadata]


# ---- the committed notebooks ----


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_exercise_notebook_is_what_the_source_generates(source):
    assert build.check(source, NOTEBOOKS / "exercises" / f"{source.stem}.ipynb", build.generate_exercises) == []


def test_the_lessons_with_exercises_are_at_least_these():
    assert {"01", "02", "03", "04", "05", "06", "07", "08", "10", "11", "12"} <= {path.name[:2] for path in EXERCISES}


@every_notebook
def test_stub_and_solution_differ_between_the_markers_only(path):
    """Lesson, exercise notebook and the teacher's source are one text but for the solutions."""
    source, stubs = marked(path.stem), cells(path)
    lesson = {cell.source for cell in cells(NOTEBOOKS / path.name)}
    solutions = 0
    for ours, stub in zip(source, stubs, strict=True):
        assert (ours.cell_type, ours.metadata) == (stub.cell_type, stub.metadata)
        if BEGIN not in ours.source:
            assert ours.source == stub.source
            continue
        solutions += 1
        before, _, rest = ours.source.partition(f"    {BEGIN}\n")
        solution, _, after = rest.partition(f"    {END}")
        assert after == "" and solution.strip() and f"{before}{solution}".rstrip("\n") in lesson
        line = stub.source.removeprefix(before)
        assert re.fullmatch(r'    raise NotImplementedError\("[^"\n]+"\)', line), line
        told = [line for line in solution.splitlines() if len(line.strip()) > 15 and line in stub.source]
        assert not told, f"a line of the solution is left: {told}"
    assert 3 <= solutions <= 5 and solutions == len(tagged(stubs, "exercise"))


@every_notebook
def test_no_marker_is_left_for_readers(path):
    for notebook in (path, NOTEBOOKS / path.name):
        assert not [cell.source for cell in cells(notebook) if "SOLUTION" in cell.source]


@every_notebook
def test_nothing_was_run(path):
    code = [cell for cell in cells(path) if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


@every_notebook
def test_badge_and_links(path):
    text = "\n".join(cell.source for cell in cells(path) if cell.cell_type == "markdown")
    project = tomllib.loads((NOTEBOOKS.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    owner = project["urls"]["Repository"].removeprefix("https://github.com/")
    badge = f"https://colab.research.google.com/github/{owner}/blob/main/notebooks/exercises/{path.name}"
    assert re.findall(r"https://colab\.research\.google\.com/github/[^\s()]+", text) == [badge]
    links = [target for target in re.findall(r"\]\(<?([^)>\s]+)", text) if not target.startswith("https:")]
    assert f"../{path.name}" in links
    assert [target for target in links if not (path.parent / target.partition("#")[0]).exists()] == []
    opening = cells(NOTEBOOKS / path.name)
    assert any(f"](exercises/{path.name})" in cell.source for cell in opening), (
        "the lesson doesn't link to its exercises"
    )


@every_notebook
def test_every_exercise_is_complete_and_they_get_harder(path):
    found = cells(path)
    start = next(i for i, cell in enumerate(found) if cell.source == "## Exercises")
    exercises = [[]]
    for cell in found[start + 1 :]:
        if re.match(r"### Exercise \d+: ", cell.source):
            exercises.append([])
        exercises[-1].append(cell)
    assert exercises.pop(0) == []
    efforts = []
    for number, (text, *rest) in enumerate(exercises, 1):
        assert text.source.startswith(f"### Exercise {number}: ")
        efforts.append(EFFORT.search(text.source))
        assert efforts[-1] and "<details><summary>Hint" in text.source, f"exercise {number}: effort or hint is missing"
        kinds = [(cell.metadata.get("tags") or [cell.cell_type])[0] for cell in rest]
        assert kinds in (["exercise", "check", "markdown"], ["exercise", "check", "apply", "markdown"]), kinds
    points = [POINTS[effort[1]] for effort in efforts]
    assert points == sorted(points) and points[0] == 1 and points[-1] == 3
    assert points == [int(cell["points"]) for cell in nbgrader(found) if cell["grade"]]
    minutes = sum(int(effort[2]) for effort in efforts)
    assert f"**Takes:** about {minutes} minutes" in found[0].source
    heads = [
        len(marks) for cell in found if cell.cell_type == "markdown" for marks in re.findall(r"(?m)^(#+) ", cell.source)
    ]
    assert heads == [1, 2, *[3] * len(exercises)]


@every_notebook
def test_cells_carry_what_nbgrader_needs(path):
    """What its validator asks for, and that functions are written by learners and checks are not."""
    metadata = nbgrader(cells(path))
    keys = {"grade", "grade_id", "locked", "schema_version", "solution", "task"}
    assert all(set(each) - {"points"} == keys and each["schema_version"] == 3 and not each["task"] for each in metadata)
    ids = [each["grade_id"] for each in metadata]
    assert len(ids) == len(set(ids)) and all(re.fullmatch(r"\w+", name) for name in ids)
    for solution, grade in zip(metadata[::2], metadata[1::2], strict=True):
        assert solution["solution"] and not (solution["grade"] or solution["locked"] or "points" in solution)
        assert grade["grade"] and grade["locked"] and grade["points"] > 0 and not grade["solution"]
        assert grade["grade_id"] == f"check_{solution['grade_id']}"


@every_notebook
def test_a_run_goes_on_after_cells_that_wait_for_the_learner(path):
    found = cells(path)
    waiting = [*tagged(found, "check"), *tagged(found, "apply")]
    assert {cell.id for cell in waiting} == {cell.id for cell in tagged(found, "raises-exception")}


def names(source: str) -> tuple[set[str], set[str]]:
    """What a cell makes available to others, and what it needs from them."""
    tree = ast.parse(re.sub(r"^get_ipython.*$|^[%!].*$", "", source, flags=re.MULTILINE))
    made, used = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else made).add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            made |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            made.add(node.name)
        elif isinstance(node, ast.arg):
            made.add(node.arg)
    return made, used - made - set(dir(builtins))


@every_notebook
def test_exercises_do_not_build_on_each_other(path):
    """A learner who leaves one out can still do the next: cells after a check that fails find all that they need."""
    there, missing = {"display", "get_ipython"}, {}
    for cell in (cell for cell in cells(path) if cell.cell_type == "code"):
        made, used = names(cell.source)
        if used - there:
            missing[cell.source[:60]] = used - there
        if "apply" not in cell.metadata.get("tags", []):  # what an apply cell makes exists only for those who passed
            there |= made
    assert not missing


@every_notebook
def test_rhythm(path):
    code = [cell.source for cell in cells(path) if cell.cell_type == "code"]
    lengths = [sum(bool(line.strip()) for line in source.splitlines()) for source in code]
    assert max(lengths) <= CODE_LINES, lengths
    setup = tagged(cells(path), "setup")
    assert [cell.source for cell in setup] == [tagged(cells(NOTEBOOKS / path.name), "setup")[0].source]


# ---- the generator, on a toy lesson ----

TOY = '''\
# %% [markdown]
# # 00 · Toy: a lesson
#
# **Memory:** none · **Download:** none

# %% tags=["for-exercises"]
import torch

# %%
lesson = "for readers of the lesson only"

# %% [markdown]
# ## Exercises
#
# Here they are solved.

# %% [markdown]
# ### Exercise 1: The cosine
#
# **Difficulty:** medium · **Minutes:** 10

# %% tags=["exercise"]
def cosine(a, b):
    """Cosine."""
    ### BEGIN SOLUTION
    return torch.cosine_similarity(a.float(), b.float(), dim=-1)
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_cosine

check_cosine(cosine)

# %% tags=["apply"]
print(cosine(torch.ones(2), torch.ones(2)))

# %% [markdown]
# ## Next
'''


def make(folder: Path, text: str, *arguments: str) -> int:
    (folder / "source").mkdir(exist_ok=True)
    (folder / "source" / "00_toy.py").write_text(text, encoding="utf-8")
    return build.main([*arguments, "--folder", str(folder)])


def test_lesson_exercises_and_classroom_come_from_one_source(tmp_path):
    assert make(tmp_path, TOY, "--no-execute") == 0
    assert make(tmp_path, TOY, "--classroom", str(tmp_path / "course")) == 0
    lesson, stubs, teacher = (
        cells(tmp_path / name)
        for name in ("00_toy.ipynb", "exercises/00_toy.ipynb", "course/source/00_toy/00_toy.ipynb")
    )
    assert 'lesson = "for readers of the lesson only"' in [cell.source for cell in lesson]
    code = [cell.source for cell in stubs if cell.cell_type == "code"]
    assert code[0] == "import torch" and len(code) == 4, "for-exercises, exercise, check, apply"
    assert not [cell for cell in stubs if "for readers" in cell.source or "solved" in cell.source]
    assert "torch.cosine_similarity" not in code[1] and "SOLUTION" not in code[1]
    assert [BEGIN in cell.source for cell in teacher].count(True) == 1
    assert BEGIN not in "".join(cell.source for cell in lesson)


def test_drift_of_an_exercise_notebook_is_seen(tmp_path, capsys):
    assert make(tmp_path, TOY, "--no-execute") == 0
    assert make(tmp_path, TOY, "--check") == 0
    exercises = tmp_path / "exercises" / "00_toy.ipynb"
    text = exercises.read_text(encoding="utf-8")
    exercises.write_text(text.replace("Cosine.", "The cosine."), encoding="utf-8")
    assert make(tmp_path, TOY, "--check") == 1
    exercises.write_text(text, encoding="utf-8")
    assert make(tmp_path, TOY.replace("a.float(), b.float()", "a.double(), b.double()"), "--check") == 1
    message = capsys.readouterr().err
    assert message.count("is not what 00_toy.py generates") == 2
    without = TOY.partition("# %% [markdown]\n# ## Exercises")[0]
    assert make(tmp_path, without, "--check") == 1
    assert "00_toy.py has no exercises" in capsys.readouterr().err
    exercises.unlink()
    assert make(tmp_path, TOY, "--check") == 1
    (tmp_path / "exercises" / "07_gone.ipynb").write_text("{}")
    assert make(tmp_path, TOY, "--check") == 1
    assert "exercises/07_gone.ipynb: no source/07_gone.py" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("    ### END SOLUTION\n", "", "one function with one solution"),
        ("def cosine", "def sine(): ...\ndef cosine", "one function with one solution"),
        ("**Difficulty:** medium", "medium", "no text with difficulty and minutes"),
        ("check_cosine(cosine)", "check_cosine(torch.cos)", "does not check it"),
        ("## Exercises\n", "## Practice\n", "begins with ## Exercises, not 0"),
        ("# # 00 · Toy: a lesson", "# # Toy", "lacks a title"),
    ],
)
def test_a_badly_laid_out_exercise_is_refused(old, new, says, tmp_path, capsys):
    (tmp_path / "00_toy.py").write_text(TOY.replace(old, new), encoding="utf-8")
    with pytest.raises(ExerciseError, match=says):
        build.generate_exercises(tmp_path / "00_toy.py")


def graded(notebook, answer: str) -> tuple[list[dict], list[float], str]:
    """Run an exercise notebook with `answer` in the exercise cell; return outputs, marks by nbgrader's rule, prints."""
    notebook = nbformat.from_dict(notebook)
    tagged(notebook.cells, "exercise")[0].source = answer
    NotebookClient(notebook, kernel_name="python3", timeout=120).execute()
    check = tagged(notebook.cells, "check")[0]
    failed = any(output.output_type == "error" or output.get("name") == "stderr" for output in check.outputs)
    assert not [output for output in check.outputs if output.output_type == "execute_result"], "read as partial marks"
    marks = 0 if failed else check.metadata.nbgrader["points"]
    return check.outputs, marks, "".join(output.get("text", "") for output in notebook.cells[-1].outputs)


@pytest.mark.slow
def test_a_run_marks_solutions_and_goes_on_after_stubs(tmp_path):
    """Stub: one calm sentence and no marks. Solution: full marks. Wrong: the verdict alone, no marks."""
    assert make(tmp_path, TOY, "--no-execute") == 0
    notebook = nbformat.read(tmp_path / "exercises" / "00_toy.ipynb", as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("print('went on')"))
    stub = tagged(notebook.cells, "exercise")[0].source
    solution = next(cell.source for cell in cells(tmp_path / "00_toy.ipynb") if cell.source.startswith("def cosine"))
    outputs, marks, last = graded(notebook, stub)
    assert marks == 0 and last == "went on\n"
    assert outputs[0].ename == "NotSolved" and outputs[0].traceback == [
        "not solved yet: cosine() is still to be written: put your lines in place of this one"
    ]
    outputs, marks, last = graded(notebook, solution)
    assert marks == 2 and last == "went on\n" and outputs[0].text.startswith("cosine is right")
    outputs, marks, last = graded(notebook, solution.replace("return ", "return 1 - "))
    assert marks == 0 and last == "went on\n"
    assert outputs[0].ename == "CheckFailed" and [line.split()[0] for line in outputs[0].traceback] == [
        "cosine",
        "expected",
        "got",
        "hint",
    ]


def test_ids_do_not_depend_on_anything_but_the_function(tmp_path):
    """A teacher may reword a lesson in the middle of a term: marks are stored under these names."""
    (tmp_path / "00_toy.py").write_text(TOY, encoding="utf-8")
    before = nbgrader(build.generate_exercises(tmp_path / "00_toy.py").cells)
    changed = TOY.replace("Here they are solved.", "Solved here.").replace(
        "Exercise 1: The cosine", "Exercise 1: Angles"
    )
    (tmp_path / "00_toy.py").write_text(changed.replace("medium", "easy"), encoding="utf-8")
    after = nbgrader(build.generate_exercises(tmp_path / "00_toy.py").cells)
    assert [each["grade_id"] for each in before] == [each["grade_id"] for each in after] == ["cosine", "check_cosine"]
    assert (before[1]["points"], after[1]["points"]) == (2, 1)


def test_the_plan_for_learning_alone_has_every_lesson_and_the_exercises_minutes():
    page = (NOTEBOOKS.parent / "docs" / "syllabus.md").read_text(encoding="utf-8").partition("## On your own")[2]
    lessons = re.findall(r"\]\(\.\./notebooks/(\d\d_\w+)\.ipynb\)", page)
    assert lessons == [path.stem for path in sorted(NOTEBOOKS.glob("*.ipynb"))]
    minutes = {name: n for n, name in re.findall(r"\[(\d+)\]\(\.\./notebooks/exercises/(\w+)\.ipynb\)", page)}
    for path in EXERCISES:
        assert f"about {minutes[path.stem]} minutes of your time" in cells(path)[0].source


def test_the_teachers_page_has_the_marks_of_every_lesson():
    page = (NOTEBOOKS.parent / "docs" / "classroom.md").read_text(encoding="utf-8")
    totals = {
        path.name[:2]: sum(cell["points"] for cell in nbgrader(cells(path)) if cell["grade"]) for path in EXERCISES
    }
    rows = [[cell.strip() for cell in line.split("|")] for line in page.splitlines() if line.startswith("|")]
    head = next(row for row in rows if row[1] == "lesson")
    row = [row for row in rows if row[1] == "every solution, in the released notebook"][-1]
    first = int(re.search(r"handing in six versions of lesson 01 \((\d+) points\)", page)[1])
    table = dict(zip(head, row, strict=True)) | {"01": first}
    assert {lesson: int(table[lesson]) for lesson in totals} == totals


# ---- what the lessons say in words about these outputs ----


def printed(lesson: str, function: str) -> str:
    """What the cell that uses a solved function printed in the lesson."""
    found = tagged(cells(NOTEBOOKS / f"{lesson}.ipynb"), "apply")
    (cell,) = (cell for cell in found if cell.source.startswith(f"require_passed({function})\n"))
    return "".join(output.get("text", "") for output in cell.outputs)


def test_words_of_lesson_01():
    small, large = (
        float(megabytes.replace(",", ""))
        for megabytes in re.findall(r"([\d,]+) MB", printed("01_hidden_states", "states_bytes"))
    )
    assert small < 200 and large > 1000, "no problem for a small model, one for a large"
    shapes = re.findall(r"\[1, (\d+), \d+\]", printed("01_hidden_states", "record_outputs"))
    assert shapes == ["8", "1", "1", "1"], "the whole prompt, then one token at a time"
    busiest = eval(printed("01_hidden_states", "busiest_layers").partition(":")[2])
    assert set(busiest) == {0, 1, 29, 24}, "those at both ends, and layer 24"
    ranks = [int(rank) for rank in printed("01_hidden_states", "answer_ranks").partition(":")[2].split()]
    assert ranks[2] > 2 * ranks[20] and ranks[23] > 1000 and ranks[28] == 1, "slowly, then within a few layers"
    falls = [after < before / 2 for before, after in itertools.pairwise(ranks[23:29])]
    assert sum(falls) >= 3, "several layers"


def test_words_of_lesson_02():
    true, reported = map(float, re.findall(r": ([\d.]+)", printed("02_block_influence", "layer_influences")))
    assert 0 < true < reported / 2 < 1
    whole, single = map(int, re.findall(r"(\d+) degrees", printed("02_block_influence", "span_angle")))
    assert single > 2 * whole, "far more than the turn of all six"


def test_words_of_lesson_03():
    assert printed("03_pruning", "number_layers").strip().endswith("True"), "the cache works"
    trials = int(re.search(r"after (\d+) trials", printed("03_pruning", "greedy"))[1])
    assert trials == 5 + 4


def test_words_of_lesson_04():
    bits = [float(x) for x in re.findall(r"([\d.]+) bits a weight", printed("04_quantization", "bits_per_weight"))]
    assert bits == sorted(bits) and bits[-1] == 4 * 1.5, "half as much again"
    errors = [float(x) for x in re.findall(r"([\d.]+)% of the matrix", printed("04_quantization", "round_in_groups"))]
    assert errors == sorted(errors, reverse=True), "the smaller the group, the finer its grid"
    table = read_grid(data_folder() / "grid.csv").query("order != 'quantize first'")
    models = re.findall(r"(\w+), (\d) layers removed", printed("04_quantization", "best_models"))
    assert models == [(row.method, str(row.removed)) for row in frontier(table).itertuples()], "that of section 7"
    rows = re.findall(r"(\d) layers and NF4: ([+-][\d.]+) ± ([\d.]+)", printed("04_quantization", "interaction"))
    assert [removed for removed, _, _ in rows] == ["3", "6", "9"]
    added = added_losses(table).query("method == 'nf4'").set_index("removed")["interaction"]
    losses = {(row.removed, row.method): np.divide(row.losses, row.tokens) for row in table.itertuples()}
    for removed, mean, error in rows:
        assert 0.0005 < abs(float(mean) - added[int(removed)]) < 0.05, "a little"
        keys = ((0, "none"), (int(removed), "none"), (0, "nf4"), (int(removed), "nf4"))
        apart = sum(losses[key].var(ddof=1) / len(losses[key]) for key in keys) ** 0.5
        assert apart > 5 * float(error), "many times larger"


def test_words_of_lesson_05():
    each, whole, mean = printed("05_evaluation", "corpus_perplexity").splitlines()
    assert float(mean.split()[-1]) > float(whole.split()[-1]) > min(map(float, each.partition(":")[2].split()))
    kept = re.findall(r"retention (\d+) %, above guessing (\d+) %", printed("05_evaluation", "kept_above_chance"))
    assert len(kept) == 3 and all(int(above) < int(plain) for plain, above in kept), "the same models look worse"
    ours, theirs = re.findall(r"\d+\.\d+", printed("05_evaluation", "scored_windows"))
    assert ours == theirs
    assert int(re.search(r"differently (\d+) times", printed("05_evaluation", "answer_scores"))[1]) > 0


def test_words_of_lesson_06():
    rows = re.findall(
        r"(\w+) +(\d) of 6 .* ([+-][\d.]+), perplexity ([\d,]+)", printed("06_choosing_layers", "overlap_above_chance")
    )
    found = {name: (int(common), float(above), float(value.replace(",", ""))) for name, common, above, value in rows}
    assert found["random"][0] == 1 and abs(found["random"][1]) < 0.1, "a coin's overlap is near zero"
    assert found["reverse"][1] == found["search"][1] < 0.5, "the same small agreement"
    stored = (
        pd.read_csv(data_folder() / "choosing.csv").query("repair == 'none' and removed == 6").set_index("criterion")
    )
    assert found["search"][2] < stored.loc["block_influence", "perplexity"] < found["reverse"][2] / 1000, (
        "a ruin and a better plan"
    )
    losses = re.findall(r"loss ([\d.]+) .* perplexity ([\d.]+)", printed("06_choosing_layers", "exchange_search"))
    (before, elsewhere), (after, elsewhere_after) = [(float(a), float(b)) for a, b in losses]
    assert after < before and elsewhere_after >= elsewhere, "better where it searched, not elsewhere"
    dense, cut, mine = map(
        float, re.findall(r"(?:dense|cut|you) ([\d.]+)", printed("06_choosing_layers", "repair_matrix"))
    )
    outputs = "".join(
        o.get("text", "") for cell in cells(NOTEBOOKS / "06_choosing_layers.ipynb") for o in cell.get("outputs", ())
    )
    theirs = re.search(r"dense ([\d.]+), layers 13 to 18 cut ([\d.]+), repaired ([\d.]+)", outputs)
    assert [dense, cut] == [float(theirs[1]), float(theirs[2])]
    assert mine == pytest.approx(float(theirs[3]), rel=0.01), "what heal repairs"


def test_words_of_lesson_07():
    shares = dict(
        re.findall(
            r"(\S+|our model) +attention .* is (\d+)% of a layer", printed("07_depth_or_width", "layer_parameters")
        )
    )
    assert shares["Llama-2-7B"] == "33", "a third of a layer"
    assert int(shares["Qwen2.5-7B"]) < int(shares["Llama-3-8B"]) < int(shares["Llama-2-7B"]), "less and less"
    apart = float(re.search(r"differ by (\S+) of", printed("07_depth_or_width", "without_channels"))[1])
    assert apart < 1e-5, "up to rounding"
    none, activation, magnitude, coin = (
        float(value.replace(",", ""))
        for value in re.findall(r"perplexity ([\d,.]+)\n", printed("07_depth_or_width", "channel_scores"))
    )
    assert none < activation < 1.05 * none, "hardly missed"
    assert coin > 1.1 * none and magnitude > 5 * coin, "more harm, and far more than a coin"


def test_words_of_lesson_10():
    pairs = re.findall(r"n = (\d): ([\d.]+) and (\d.\d+)", printed("10_generation", "repeated_share"))
    dense, pruned = ({int(n): float(pair[i]) for n, *pair in pairs} for i in (0, 1))
    assert pruned[5] > 2 * dense[5] and pruned[1] < 1.6 * dense[1], "more alike by single words"
    best = {
        int(row[1]): {float(alpha): int(n) for n, alpha in re.findall(r"(\d+) at α = ([\d.]+)", row[2])}
        for row in re.finditer(r"(\d+) layers removed, c = [\d.]+: (.*)", printed("10_generation", "best_draft_length"))
    }
    assert best[3][0.9] == 0 < best[24][0.5]
    written = printed("10_generation", "write_with_draft")
    tokens, passes = map(int, re.search(r"own text: True\. (\d+) tokens in (\d+) passes", written).groups())
    assert passes < tokens
    outputs = "".join(
        o.get("text", "") for cell in cells(NOTEBOOKS / "10_generation.ipynb") for o in cell.get("outputs", ())
    )
    assert re.search(r"above the dashed line, where drafting pays: 0 of", outputs), "none of ours"
