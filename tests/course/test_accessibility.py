"""Reading without sight of colours, by ear, and on a small screen: what the other tests of lessons and plots leave out.

Elsewhere: one title and ordered headings, alternative texts, a sentence with every figure, working links, size of the file
(test_notebooks.py); hatches and markers beside colours (test_plots.py); folded text beside the quiz (test_quiz.py); the
explorers by keyboard (test_browser.py); pages of the site (test_book.py).
"""

from __future__ import annotations

import itertools
import re

import nbformat
import numpy as np
import pytest
from test_setup import ROOT

from shortgpt.course.plots import PALETTE

NOTEBOOKS = [*sorted((ROOT / "notebooks").glob("*.ipynb")), *sorted((ROOT / "notebooks" / "exercises").glob("*.ipynb"))]
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: f"{path.parent.name}-{path.stem}")
# linear RGB as seen without one kind of cone (Machado, Oliveira and Fernandes 2009, severity 1.0)
BLINDNESS = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # sRGB, D65


def cells(path, kind):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def linear(colour) -> np.ndarray:
    colour = np.array(colour, dtype=float)
    return np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of a linear RGB colour."""
    ratio = TO_XYZ @ rgb.clip(0, 1) / (TO_XYZ @ np.ones(3))
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("matrix", BLINDNESS.values(), ids=BLINDNESS)
def test_colours_of_a_comparison_stay_apart(matrix):
    """The first three are those of most figures. A difference of 2.3 is just noticed; we ask for many times that."""
    seen = [lab(np.array(matrix) @ linear(colour)) for colour in PALETTE[:3]]
    apart = [float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2)]
    assert min(apart) > 15, apart


def test_the_simulation_can_tell_a_bad_palette():
    red, green = (
        lab(np.array(BLINDNESS["deuteranopia"]) @ linear(colour)) for colour in ([0.7, 0.2, 0], [0.4, 0.4, 0])
    )
    assert np.linalg.norm(red - green) < 15 < np.linalg.norm(lab(linear([0.7, 0.2, 0])) - lab(linear([0.4, 0.4, 0])))


# What a lesson has to say, at the latest in the paragraph that first uses it; every lesson can be somebody's first.
WRITTEN_OUT = {
    r"BI": r"Block Influence",
    r"FFNs?": r"feed-forward network",
    r"RMSNorm": r"root of its mean square|norm, RMSNorm|to one length",
    r"KV cache": r"keys and values",
    r"PPL": r"[Pp]erplexity",
    r"nats?": r"natural logarithm",
    r"NF4": r"normal float",
    r"GGUF": r"llama\.cpp",
    r"GPTQ": r"reads (calibration )?text while it rounds",
    r"C?MMLU": r"multiple-choice",
    r"LoRA": r"small trained matrices",
    r"LaCo": r"merges|takes over|adds? up",
    r"RWKV": r"no attention|without attention",
    r"T4": r"GPU",
    r"NaN": r"not a number|not measured|there isn't",
}


def prose(path) -> str:
    """The text that a lesson is read as: without code, formulas and the addresses of links."""
    text = "\n\n".join(cell.source for cell in cells(path, "markdown"))
    return re.sub(r"```.*?```|`[^`\n]*`|\]\([^)]*\)|</?[a-z]+[^<>\n]*>", " ", text, flags=re.DOTALL)


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_abbreviations_are_written_out_where_they_first_come(path):
    text, unexplained = prose(path), []
    for short, words in WRITTEN_OUT.items():
        first = re.search(rf"\b{short}\b", text)
        if not first:
            continue
        heading = text[text.rfind("\n", 0, first.start()) + 1] == "#"  # then the text below it may say it
        end = text.find("\n\n", first.end() + 2)
        so_far = text[: text.find("\n\n", end + 2) if heading else end]
        if not re.search(words, " ".join(so_far.split())):
            unexplained.append((first[0], text[max(0, first.start() - 60) : first.end() + 60]))
    assert not unexplained


@every_notebook
def test_links_say_where_they_lead(path):
    """A screen reader lists links without the sentence around them."""
    text = "\n".join(cell.source for cell in cells(path, "markdown"))
    text = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    names = re.findall(r"(?<!!)\[([^\[\]]+)\]\(", text)
    assert not [
        name for name in names if name.strip().lower() in ("here", "this", "link", "click here", "more", "page")
    ]
    assert not re.findall(r"(?<![(<\"'=\w])https?://\S+", text), "a bare address is read letter by letter"


@every_notebook
def test_no_output_is_endless(path):
    for cell in cells(path, "code"):
        for output in cell.outputs:
            assert len(str(output)) < 500_000, "a phone has to load it"
            assert output.get("text", "").count("\n") <= 200, "nobody listens to so many lines"


@every_notebook
def test_tables_have_one_row_of_column_names(path):
    """Screen readers announce a cell with its column's name; merged header cells break that on GitHub."""
    for cell in cells(path, "code"):
        for output in cell.outputs:
            html = "".join(output.get("data", {}).get("text/html", ""))
            assert "colspan" not in html and "halign" not in html, cell.source
