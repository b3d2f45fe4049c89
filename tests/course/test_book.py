"""Pages that are read as text, and the site made of them: headings, links, alternative text, and nothing left out.

Nothing is built here. Lessons have the same checks in test_notebooks.py; `make book` builds the site.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [
    *(REPOSITORY / page for page in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((REPOSITORY / "docs").glob("*.md")),
    *sorted(REPOSITORY.glob("data/**/README.md")),
    *sorted(REPOSITORY.glob("data/*/SOURCES.md")),
]
TOC = yaml.safe_load((REPOSITORY / "book" / "_toc.yml").read_text(encoding="utf-8"))

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))


def prose(text: str) -> str:
    """The text without code blocks, inline code and comments."""
    return re.sub(r"```.*?```|`[^`\n]*`|<!--.*?-->", "", text, flags=re.DOTALL)


def headings(text: str) -> list[tuple[int, str]]:
    """Level and title of each heading."""
    return [
        (len(marks), title) for marks, title in re.findall(r"^(#{1,6})[ \t]+(.+)$", prose(text), flags=re.MULTILINE)
    ]


def anchors(text: str) -> set[str]:
    """The names under which GitHub reaches the headings of a page."""
    plain = [re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for _, title in headings(text)]
    return set(plain)


@every_page
def test_one_title_and_headings_without_jumps(page):
    levels = [level for level, _ in headings(page.read_text(encoding="utf-8"))]
    assert levels.count(1) == 1 and levels[0] == 1, levels
    assert not [(a, b) for a, b in itertools.pairwise(levels) if b > a + 1], levels


@every_page
def test_links_inside_the_repository_resolve(page):
    text, broken = prose(page.read_text(encoding="utf-8")), []
    for target in re.findall(r"\]\(<?([^)>\s]+)", text) + re.findall(r"(?:href|src)=[\"']([^\"']+)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.is_file() or (anchor and file.suffix == ".md" and anchor not in anchors(file.read_text())):
            broken.append(target)
    assert not broken, f"nothing is at {broken}"


@every_page
def test_a_linked_page_is_a_page_of_the_site(page):
    """The site is built with warnings as errors, and a link to a page that it lacks is one."""
    text = re.sub(r"<!--.*?-->", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    linked = [page.parent / path for path in re.findall(r"\]\((?!\w+:)([^)#\s]+\.md)", prose(text))]
    assert [str(path) for path in linked if path.resolve() not in PAGES] == []


@every_page
def test_images_have_alternative_text(page):
    assert not re.findall(r"!\[\s*\]\([^)]*\)", prose(page.read_text(encoding="utf-8")))


def entries() -> list[str]:
    """The files and patterns of the site's table of contents, in order."""
    chapters = [chapter for part in TOC["parts"] for chapter in part["chapters"]]
    return [TOC["root"], *(chapter.get("file") or chapter["glob"] for chapter in chapters)]


def test_every_page_and_every_notebook_is_in_the_site_once():
    found = [
        file.relative_to(REPOSITORY)
        for entry in entries()
        for file in sorted(REPOSITORY.glob(entry if entry.endswith("*") else f"{entry}.*"))
        if file.suffix in (".md", ".ipynb")
    ]
    notebooks = [file for file in REPOSITORY.glob("notebooks/**/*.ipynb") if ".ipynb_checkpoints" not in file.parts]
    assert sorted(found) == sorted(path.relative_to(REPOSITORY) for path in [*PAGES, *notebooks])
    lessons = [file.name for file in found if file.parent == Path("notebooks")]
    assert lessons == sorted(lessons), "lessons stand in the order of their numbers"


def test_mystmd_gets_the_same_pages():
    """myst.yml, for those with a network. Seen here: mystmd 1.8.3 reads all pages, warns only of
    badges that it can't fetch, then wants its theme."""
    table = yaml.safe_load((REPOSITORY / "myst.yml").read_text(encoding="utf-8"))["project"]["toc"]
    pages = [page for part in table for page in part.get("children", [part])]
    found = [
        file.relative_to(REPOSITORY) for page in pages for file in REPOSITORY.glob(page.get("file") or page["pattern"])
    ]
    notebooks = [file for file in REPOSITORY.glob("notebooks/**/*.ipynb") if ".ipynb_checkpoints" not in file.parts]
    assert sorted(found) == sorted(path.relative_to(REPOSITORY) for path in [*PAGES, *notebooks])
    assert [part.get("title") for part in table[1:]] == [part["caption"] for part in TOC["parts"]]


def test_the_site_executes_nothing_and_its_output_is_ignored():
    config = yaml.safe_load((REPOSITORY / "book" / "_config.yml").read_text(encoding="utf-8"))
    assert config["execute"]["execute_notebooks"] == "off"
    assert "/book/_build/" in (REPOSITORY / ".gitignore").read_text(encoding="utf-8").splitlines()
    styles = [REPOSITORY / "book" / "static" / name for name in config["sphinx"]["config"]["html_css_files"]]
    assert styles and all(style.exists() for style in styles)
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^BOOK := jupyter-book==[\w.]+$", makefile, re.MULTILINE), (
        "the version that builds the site is named"
    )
