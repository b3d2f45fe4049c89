"""The lessons are what their sources generate and keep the rules that readers rely on. Nothing executes a lesson."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import itertools
import re
import statistics
import sys
import tomllib
from pathlib import Path
from queue import Empty

import nbformat
import pytest
import zmq.asyncio
from jupyter_client.channels import AsyncZMQSocketChannel
from jupyter_client.session import Session

REPOSITORY = Path(__file__).resolve().parents[2]
NOTEBOOKS = REPOSITORY / "notebooks"
_spec = importlib.util.spec_from_file_location("build_notebooks", NOTEBOOKS / "build.py")
build = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = build
_spec.loader.exec_module(build)

SOURCES = sorted((NOTEBOOKS / "source").glob("*.py"))
LESSONS = sorted(NOTEBOOKS.glob("*.ipynb"))
CORE = ("00", "01", "02", "03", "04", "05")
PAGES = "20"  # from this number on a notebook is a page of its own: no lesson before or after it
MEGABYTES = 1.5
CODE_LINES = 25
MACHINE_PATH = re.compile(r"(?<![\w.~])/(root|work|home|tmp|Users|private)\b")

every_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
every_numbered_lesson = pytest.mark.parametrize(
    "path", [path for path in LESSONS if path.name < PAGES], ids=lambda path: path.stem
)


@functools.cache
def cells(path: Path, kind: str = "") -> list:
    """Return the cells of a notebook, of one kind (``code`` or ``markdown``) if given."""
    return [cell for cell in nbformat.read(path, as_version=4).cells if kind in ("", cell.cell_type)]


def tagged(path: Path, tag: str) -> list:
    """Return the cells with this tag."""
    return [cell for cell in cells(path) if tag in cell.metadata.get("tags", [])]


def prose(cell) -> str:
    """Return a text cell without its code blocks and inline code, where # and ]( mean something else."""
    return re.sub(r"```.*?```|`[^`\n]*`", "", cell.source, flags=re.DOTALL)


def link_targets(text: str) -> list[str]:
    """Return what the links and images of a text point to."""
    return re.findall(r"\]\(<?([^)>\s]+)", text) + re.findall(r"(?:href|src)=[\"']([^\"']+)", text)


def outputs(path: Path) -> list[tuple[int, dict]]:
    """Return each output with the number of its code cell, counted from 1."""
    return [(number, output) for number, cell in enumerate(cells(path, "code"), 1) for output in cell.outputs]


def output_text(output: dict) -> str:
    """Return all that a reader can read in one output."""
    return output.get("text", "") + "".join(
        str(value) for kind, value in output.get("data", {}).items() if kind.startswith("text/")
    )


def project_name() -> str:
    """Return OWNER/REPO of this project on GitHub, as pyproject.toml declares it."""
    urls = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
    return urls["Repository"].removeprefix("https://github.com/").removesuffix(".git").strip("/")


# ---- the collection ----


def test_core_lessons_exist():
    missing = [number for number in CORE if not any(path.name.startswith(f"{number}_") for path in LESSONS)]
    assert not missing, f"no notebook for lessons {missing}"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_notebook_is_what_its_source_generates(source):
    assert build.check(source, NOTEBOOKS / f"{source.stem}.ipynb") == []


@every_lesson
def test_notebook_has_a_source(path):
    assert (NOTEBOOKS / "source" / f"{path.stem}.py").exists(), "notebooks are generated: write the source instead"


def test_lesson_numbers_are_unique():
    numbers = [path.name[:3] for path in SOURCES]
    assert len(numbers) == len(set(numbers)) and all(re.fullmatch(r"\d\d_", number) for number in numbers), numbers


EXTRAS = {"eval": "evaluate", "quant": "quantize|size_quality_grid"}  # whose functions need them


def without_extras(source: str) -> tuple[str, set[str]]:
    """A set-up cell with the plain package, and the extras that it asks for."""
    (asked,) = re.findall(r'"shortgpt-pruning(?:\[([\w,]+)\])? @', source)
    return re.sub(r"shortgpt-pruning\[[\w,]+\] @", "shortgpt-pruning @", source), {*filter(None, asked.split(","))}


@every_lesson
def test_setup_cell_is_the_same_in_all_lessons(path):
    found = tagged(path, "setup")
    assert len(found) == 1, f"{len(found)} cells are tagged setup"
    same, extras = without_extras(found[0].source)
    assert same == without_extras(tagged(LESSONS[0], "setup")[0].source)[0], f"differs from {LESSONS[0].name}"
    used = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
    needed = {name for name, called in EXTRAS.items() if re.search(rf"\b({called})\(", used)}
    assert extras == needed, "a learner on Colab waits for what is installed: only what the lesson calls"
    folded = found[0].metadata  # by JupyterLab, by Colab (which shows the title) and in the book
    assert folded.jupyter.source_hidden and folded.cellView == "form" and "hide-input" in folded.tags
    assert found[0].source.startswith("# @title ")


# ---- what a reader sees first, and where the links lead ----


@every_lesson
def test_colab_badge_opens_this_notebook(path):
    badges = re.findall(r"https://colab\.research\.google\.com/github/[^\s()]+", cells(path)[0].source)
    assert badges == [f"https://colab.research.google.com/github/{project_name()}/blob/main/notebooks/{path.name}"]


@every_lesson
def test_first_cells_announce_minutes_memory_and_download(path):
    beginning = ""
    for cell in cells(path):
        if "setup" in cell.metadata.get("tags", []):
            break
        beginning += cell.source
    missing = [word for word in ("minute", "memory", "download") if not re.search(word, beginning, re.IGNORECASE)]
    assert not missing, f"the text before the set-up cell does not mention {missing}"


@every_numbered_lesson
def test_readme_and_lesson_announce_the_same_minutes(path):
    here = re.search(r"\*\*Takes:\*\* about (\d+) minute", cells(path)[0].source)
    row = re.search(
        rf"\(notebooks/{path.name}\)[^|]*\| \d+ \| (\d+) \|", (REPOSITORY / "README.md").read_text(encoding="utf-8")
    )
    assert here and row and here[1] == row[1], (here, row)


@every_lesson
def test_one_title_and_headings_without_jumps(path):
    text = "\n\n".join(prose(cell) for cell in cells(path, "markdown"))
    levels = [len(marks) for marks in re.findall(r"^(#{1,6})[ \t]", text, flags=re.MULTILINE)]
    assert levels.count(1) == 1 and levels[0] == 1, f"heading levels {levels}: exactly one H1, and it comes first"
    jumps = [(a, b) for a, b in itertools.pairwise(levels) if b > a + 1]
    assert not jumps, f"heading levels jump: {jumps}"


@every_lesson
def test_links_inside_the_repository_resolve(path):
    hosts = r"https://(?:github\.com|colab\.research\.google\.com/github)"
    own = rf"{hosts}/{re.escape(project_name())}/(?:blob|tree)/main/"
    broken = []
    for target in [target for cell in cells(path, "markdown") for target in link_targets(prose(cell))]:
        if re.match(own, target):
            wanted = REPOSITORY / re.sub(own, "", target).partition("#")[0]
        elif re.match(r"[a-z]+:|#", target):  # another site, or a place in this notebook
            continue
        else:
            wanted = NOTEBOOKS / target.partition("#")[0]
        if not wanted.exists():
            broken.append(target)
    assert not broken, f"nothing is at {broken}"


@every_numbered_lesson
def test_next_and_previous_links(path):
    """The last cell leads to the next lesson; a link called next or previous is what it says."""
    names = sorted({f"{lesson.stem}.ipynb" for lesson in (*SOURCES, *LESSONS) if lesson.name < PAGES})
    here = names.index(path.name)
    last = prose(cells(path)[-1])
    if path.name != names[-1]:
        assert names[here + 1] in link_targets(last), f"the last cell does not link to {names[here + 1]}"
    label = r"\b(next|previous)\b[^.\n()]{0,60}?\]\(([^)\s]+\.ipynb)"
    for text in (prose(cells(path)[0]), last):
        for word, target in re.findall(label, text, flags=re.IGNORECASE):
            expected = here + (1 if word.lower() == "next" else -1)
            assert 0 <= expected < len(names), f"there is no {word.lower()} lesson, yet {target} is called that"
            assert target == names[expected], f"{target} is called {word}"


@every_lesson
def test_images_in_text_have_alternative_text(path):
    text = "\n".join(prose(cell) for cell in cells(path, "markdown"))
    silent = re.findall(r"!\[\s*\]\([^)]*\)", text)
    silent += [tag for tag in re.findall(r"<img\b[^>]*>", text) if not re.search(r"alt=[\"'][^\"']+[\"']", tag)]
    assert not silent, f"no alternative text: {silent}"


# ---- rhythm ----


@every_lesson
def test_text_and_code_alternate(path):
    texts, codes = len(cells(path, "markdown")), len(cells(path, "code"))
    assert 1.0 <= texts / codes <= 2.0, f"{texts} text cells to {codes} code cells"


@every_lesson
def test_code_cells_are_short(path):
    lengths = [sum(bool(line.strip()) for line in cell.source.splitlines()) for cell in cells(path, "code")]
    long = {number: length for number, length in enumerate(lengths, 1) if length > CODE_LINES}
    assert not long, f"code cells with more than {CODE_LINES} lines (cell: lines): {long}"
    assert statistics.median(lengths) <= 10, f"median of {statistics.median(lengths)} lines"


# ---- outputs ----


@every_lesson
def test_every_cell_ran_once_in_order(path):
    counts = [cell.execution_count for cell in cells(path, "code") if cell.source.strip()]
    assert counts == list(range(1, len(counts) + 1)), f"execution counts {counts}"


@every_lesson
def test_no_errors_and_no_warnings(path):
    errors = [number for number, output in outputs(path) if output.output_type == "error"]
    assert not errors, f"error output in code cells {errors}"
    stderr = {number: output.text for number, output in outputs(path) if output.get("name") == "stderr"}
    assert not stderr, f"output on stderr (code cell: text): {stderr}"


@every_lesson
def test_nothing_of_the_moment_or_the_machine_is_stored(path):
    notebook = nbformat.read(path, as_version=4)
    assert "widgets" not in notebook.metadata, "widget state"
    assert not [cell.id for cell in notebook.cells if "execution" in cell.metadata], "time stamps of the execution"
    widgets = [number for number, output in outputs(path) if build.WIDGET in output.get("data", {})]
    assert not widgets, f"widgets, which nobody sees in a saved notebook, in code cells {widgets}"
    where = {n: found[0] for n, output in outputs(path) if (found := MACHINE_PATH.search(output_text(output)))}
    assert not where, f"absolute paths (code cell: beginning of the path): {where}"


@every_lesson
def test_every_figure_has_a_sentence(path):
    """No reader shows alternative text for an output, so each figure is printed as a sentence, too."""
    for number, cell in enumerate(cells(path, "code"), 1):
        figures = sum(any(kind.startswith("image/") for kind in output.get("data", {})) for output in cell.outputs)
        text = "\n".join(output.text.strip() for output in cell.outputs if output.get("name") == "stdout")
        sentences = [part for part in re.split(r"(?<=\.)\s+", text) if part.endswith(".") and len(part) >= 30]
        assert len(sentences) >= figures, f"code cell {number}: {figures} figures, {len(sentences)} printed sentences"


@every_lesson
def test_kernel_and_size(path):
    notebook = nbformat.read(path, as_version=4)
    assert notebook.metadata.kernelspec == {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert "version" not in notebook.metadata.language_info
    assert path.stat().st_size < MEGABYTES * 1e6, f"{path.stat().st_size / 1e6:.2f} MB"


# ---- build.py itself, on a toy lesson ----

TOY = """\
# %% [markdown]
# # Toy

# %% tags=["setup"]
import os, sys, tempfile, time
import ipywidgets, matplotlib.pyplot as plt
from IPython.display import display
from tqdm import tqdm
from tqdm.auto import tqdm as tqdm_widget

# %%
print("before", object(), os.path.expanduser("~/models"), tempfile.mktemp())
for _ in [*tqdm(range(3)), *tqdm_widget(range(3))]:
    time.sleep(0.15)
print("after", os.environ["HF_HUB_OFFLINE"], os.environ["OMP_NUM_THREADS"], os.getcwd() == sys.path[0] or os.getcwd())

# %% tags=["volatile"]
print(time.time_ns())

# %%
def draw(bars):
    plt.bar(range(bars), range(bars))
    plt.show()
    print(f"The figure has {bars} bars, each one higher than the last.")

draw(3)

# %%
slider = ipywidgets.IntSlider(3, 1, 9)
display(slider, ipywidgets.interactive_output(draw, {"bars": slider}))
"""
CELL = "# %%\nprint('first')\n\n# %% tags=[\"volatile\"]\nimport time\nprint(time.time_ns())\n"


def make(folder: Path, text: str, *arguments: str) -> int:
    """Write the source 00_toy.py into ``folder`` and call build.py there as a person would; return the exit status."""
    (folder / "source").mkdir(exist_ok=True)
    (folder / "source" / "00_toy.py").write_text(text, encoding="utf-8")
    return build.main([*arguments, "--folder", str(folder)])


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    assert make(folder, TOY) == 0
    return folder / "00_toy.ipynb"


@pytest.mark.slow
def test_two_builds_give_the_same_bytes_and_keep_volatile_outputs(toy, capsys):
    before = toy.read_bytes()
    assert make(toy.parent, TOY) == 0
    assert "1 volatile" in capsys.readouterr().out
    assert toy.read_bytes() == before


def test_build_keeps_results_and_drops_the_rest(toy):
    notebook = nbformat.read(toy, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4, 5]
    assert [output.output_type for output in code[1].outputs] == ["stream"], "a progress bar is left"
    first, second = code[1].outputs[0].text.splitlines()
    assert first == "before <object object at 0x...> ~/models [temporary]"
    assert second.startswith(f"after 1 {build.THREADS} ")
    figure, sentence = code[3].outputs
    assert list(figure.data) == ["image/png", "text/plain"] and sentence.text.startswith("The figure has 3 bars")
    assert code[4].outputs == [], "a widget is left"
    assert "widgets" not in notebook.metadata and all("execution" not in cell.metadata for cell in notebook.cells)
    assert notebook.metadata == nbformat.from_dict(build.METADATA)
    assert [path.name for path in toy.parent.iterdir() if path.name.startswith(".00")] == [], "a temporary file is left"


def test_check_sees_every_kind_of_drift(toy, capsys):
    before = toy.read_bytes()
    assert make(toy.parent, TOY, "--check") == 0
    for changed in (
        TOY.replace("# # Toy", "# # Toys"),
        TOY.replace("[markdown]", "[raw]"),
        TOY.replace('tags=["volatile"]', ""),
        TOY + "\n# %%\n1 + 1\n",
    ):
        capsys.readouterr()
        assert make(toy.parent, changed, "--check") == 1
        message = capsys.readouterr().err
        assert "00_toy.ipynb" in message and "python notebooks/build.py" in message
    make(toy.parent, TOY, "--check")
    assert toy.read_bytes() == before, "--check has written"


def test_check_names_missing_and_orphaned_notebooks(tmp_path, capsys):
    (tmp_path / "01_gone.ipynb").write_text("{}")
    assert make(tmp_path, CELL, "--check") == 1
    message = capsys.readouterr().err
    assert "00_toy.ipynb: missing" in message and "01_gone.ipynb: no source" in message


def test_ids_survive_regeneration_and_differ_between_cells(toy):
    source = toy.parent / "source" / "00_toy.py"
    ids = [cell.id for cell in build.generate(source).cells]
    assert ids == [cell.id for cell in build.generate(source).cells]
    assert len(set(ids)) == len(ids)


def test_failing_lesson_leaves_the_old_file_and_names_the_cell(tmp_path, capsys):
    assert make(tmp_path, CELL) == 0
    before = (tmp_path / "00_toy.ipynb").read_bytes()
    for tag in ("", ' tags=["raises-exception"]'):
        assert make(tmp_path, CELL + f"\n# %%{tag}\nlayers = 1 // 0\n") == 1
        message = capsys.readouterr().err
        assert "code cell 3" in message and "layers = 1 // 0" in message and "ZeroDivisionError" in message
        assert "\x1b" not in message, "colour codes in the message"
        assert (tmp_path / "00_toy.ipynb").read_bytes() == before


@pytest.mark.slow
def test_volatile_outputs_are_measured_again_when_asked_or_edited(tmp_path):
    def printed() -> str:
        return nbformat.read(tmp_path / "00_toy.ipynb", as_version=4).cells[-1].outputs[0].text

    make(tmp_path, CELL)
    old = printed()
    make(tmp_path, "# %% [markdown]\n# a new first cell\n\n" + CELL)
    assert printed() == old, "kept although another cell was added"
    make(tmp_path, CELL, "--fresh")
    assert (fresh := printed()) != old
    make(tmp_path, CELL.replace("time_ns()", "time_ns() + 1"))
    assert printed() != fresh


def test_no_execute_keeps_outputs_of_unchanged_cells_only(tmp_path):
    make(tmp_path, CELL)
    text = "# %% [markdown]\n# new text\n\n" + CELL.replace("'first'", "'changed'")
    assert make(tmp_path, text, "--no-execute") == 0
    new_text, changed, volatile = nbformat.read(tmp_path / "00_toy.ipynb", as_version=4).cells
    assert new_text.source == "new text"
    assert changed.outputs == [] and changed.execution_count is None
    assert len(volatile.outputs) == 1 and volatile.execution_count == 2


def test_unknown_lesson_is_an_error(tmp_path, capsys):
    assert make(tmp_path, CELL, "--check", "77") == 1
    assert "no lesson starts with 77" in capsys.readouterr().err


def test_clean_keeps_warnings_and_joins_prints():
    def stream(name: str, text: str):
        return nbformat.v4.new_output("stream", name=name, text=text)

    bar = "\r  0%|          | 0/9\r100%|##########| 9/9\n"
    cleaned = build.clean([stream("stdout", "a "), stream("stderr", bar + "UserWarning: x\n"), stream("stdout", "b\n")])
    assert [(output.name, output.text) for output in cleaned] == [("stderr", "UserWarning: x\n"), ("stdout", "a b\n")]


def test_normalise_hides_machines_not_mathematics(monkeypatch):
    monkeypatch.setenv("SHORTGPT_CACHE", "/mnt/disk/cache/")
    assert build.normalise(f"'{build.NOTEBOOKS.parent}/data/x'") == "'[repository]/data/x'"
    assert build.normalise("in /mnt/disk/cache/m.gguf") == "in ~/.cache/shortgpt/m.gguf"
    assert build.normalise("<f at 0x7f12ab34cd56>") == "<f at 0x...>"
    for text in ("0xff", "a/b", "1/2", "https://arxiv.org/root", str(Path.home()) + "made"):
        assert build.normalise(text) == text


# ---- patient_client.py: a reply whose signal was lost must not halt a run ----


def test_a_reply_is_found_although_its_signal_was_swallowed():
    """What happens when nbclient answers a widget while it waits, on a pair of bare sockets."""
    context = zmq.asyncio.Context()
    session = Session()
    ours, kernel = context.socket(zmq.PAIR), zmq.Context.shadow(context.underlying).socket(zmq.PAIR)
    ours.bind("inproc://lesson")
    kernel.connect("inproc://lesson")
    channel = AsyncZMQSocketChannel(ours, session)

    async def wait() -> dict:
        waiting = asyncio.create_task(channel.get_msg(timeout=60))
        await asyncio.sleep(0.1)  # it sleeps until the socket signals
        session.send(kernel, "execute_reply", content={"status": "ok"})
        zmq.Socket.shadow(ours.underlying).get(zmq.EVENTS)  # a send does this, too: it takes the signal, not the reply
        reply = await asyncio.wait_for(waiting, 10)
        with pytest.raises(Empty):
            await channel.get_msg(timeout=0.2)
        return reply

    try:
        assert asyncio.run(wait())["msg_type"] == "execute_reply"
    finally:
        kernel.close(linger=0)
        ours.close(linger=0)
