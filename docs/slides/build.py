"""Slides for three sessions: ``session_N.md`` beside this file becomes ``output/slides/session_N.slides.html`` (reveal.js).

    python docs/slides/build.py

In a source ``---`` alone in a line ends a slide, ``Note:`` begins what only the speaker sees, and a line such as
``figure: 02, 5, 1`` shows lesson 02, section 5, the first figure, as the lesson's notebook holds it, and below it the
line that the lesson prints with it. So no figure and none of its numbers is copied by hand.

A figure with words above it appears at the next key, so that its question stands alone first. S opens the speaker's window
with the notes. Building needs no network, showing does: the page loads reveal.js. For a room without, open it at home with
``?print-pdf`` behind the address and print it to a PDF.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from textwrap import shorten

import nbformat
from nbconvert import SlidesExporter
from nbformat import NotebookNode
from traitlets.config import Config

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FITS = "<style>.reveal section img { max-height: 340px } .reveal section small { font-size: 18px }</style>"
FIGURE = re.compile(r"(?m)^figure: (\d\d), (\d+), (\d+)$")


def figure(lesson: str, section: str, number: int) -> tuple[str, str]:
    """The figure of a lesson's section, counted from 1: the PNG in base64, and what its cell prints about it."""
    (path,) = (ROOT / "notebooks").glob(f"{lesson}_*.ipynb")
    inside, found = False, []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "markdown" and re.search(r"(?m)^## ", cell.source):
            inside = bool(re.search(rf"(?m)^## {section}\. ", cell.source))
        for output in cell.get("outputs", []) if inside else []:
            if png := output.get("data", {}).get("image/png"):
                said = "".join(each.text for each in cell.outputs if each.get("name") == "stdout")
                found.append((png, " ".join(said.split())))
    if len(found) < number:
        raise ValueError(f"lesson {lesson} has {len(found)} figures in section {section}, not {number}")
    return found[number - 1]


def slides(text: str) -> NotebookNode:
    """A notebook with a cell for the words of each slide, one for each figure, and the notes."""
    cells = []
    for slide in re.split(r"(?m)^---$", text):
        seen, _, spoken = slide.strip().partition("\nNote:")
        words, *pictures = re.split(r"(?m)^(?=figure: )", seen)
        cells.append(_cell("slide", words.strip()))
        for picture in pictures:
            found = FIGURE.match(picture)
            if found is None:
                raise ValueError(f"a figure is named like 'figure: 02, 5, 1', not {picture.splitlines()[0]!r}")
            png, said = figure(found[1], found[2], int(found[3]))
            said = re.sub(r"([\[\]*_])", r"\\\1", said)
            shown = f"![{said}](attachment:figure.png)\n\n<small>{shorten(said, 180, placeholder=' …')}</small>"
            waits = "\n" in words.strip()  # something stands before it, besides the title
            cells.append(_cell("fragment" if waits else "-", shown + picture[found.end() :]))
            cells[-1].attachments = {"figure.png": {"image/png": png}}
        cells.append(_cell("notes", spoken.strip()))
    return nbformat.v4.new_notebook(cells=cells)


def _cell(kind: str, text: str) -> NotebookNode:
    return nbformat.v4.new_markdown_cell(text, metadata={"slideshow": {"slide_type": kind}})


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "output" / "slides", help="where the pages go")
    options = parser.parse_args(arguments)
    settings = Config(SlidesExporter={"reveal_number": "c/t", "reveal_scroll": True})
    options.folder.mkdir(parents=True, exist_ok=True)
    for source in sorted(HERE.glob("session_*.md")):
        page, _ = SlidesExporter(config=settings).from_notebook_node(slides(source.read_text(encoding="utf-8")))
        target = options.folder / f"{source.stem}.slides.html"
        target.write_text(page.replace("</head>", f"{FITS}</head>", 1), encoding="utf-8")
        print(target)


if __name__ == "__main__":
    main()
