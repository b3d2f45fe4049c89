"""docs/slides: three sessions of slides, with notes, and every figure out of a lesson."""

from __future__ import annotations

import base64
import importlib.util
import re

import pytest
from test_setup import ROOT

SESSIONS = sorted((ROOT / "docs" / "slides").glob("session_*.md"))
_spec = importlib.util.spec_from_file_location("build_slides", ROOT / "docs" / "slides" / "build.py")
build = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(build)
each_session = pytest.mark.parametrize("path", SESSIONS, ids=lambda path: path.stem)


def test_there_are_three_sessions():
    assert [path.stem for path in SESSIONS] == ["session_1", "session_2", "session_3"]


@each_session
def test_ten_to_fourteen_slides_each_with_a_title_notes_and_few_words(path):
    parts = re.split(r"(?m)^---$", path.read_text(encoding="utf-8"))
    assert 10 <= len(parts) <= 14
    for part in parts:
        seen, _, spoken = part.strip().partition("\nNote:")
        assert re.match(r"##? \S", seen) and len(spoken.split()) >= 10
        assert len(seen.split()) <= 80, "a slide is no page"
        assert not re.search(r"\d\.\d|\d ?%|±", seen), "results come from the lessons, below their figures"


@each_session
def test_every_figure_is_the_lessons_and_says_what_it_shows(path):
    text = path.read_text(encoding="utf-8")
    wanted = build.FIGURE.findall(text)
    assert len(wanted) == text.count("figure:") >= 6 and len(set(wanted)) == len(wanted)
    pictures = [cell for cell in build.slides(text).cells if cell.get("attachments")]
    found = [data["image/png"] for cell in pictures for data in cell.attachments.values()]
    assert len(found) == len(wanted)
    assert all(base64.b64decode(png).startswith(b"\x89PNG") for png in found)
    assert all(len(alt) > 30 for cell in pictures for alt in re.findall(r"!\[(.+)\]\(attachment:", cell.source))


def test_a_figure_that_is_not_there_is_told():
    with pytest.raises(ValueError, match="lesson 02 has 2 figures in section 5, not 3"):
        build.figure("02", "5", 3)


def test_pages_are_built_without_network(tmp_path):
    build.main(["--folder", str(tmp_path)])
    for path in SESSIONS:
        page = (tmp_path / f"{path.stem}.slides.html").read_text(encoding="utf-8")
        titles = re.findall(r"(?m)^##? (.+)$", path.read_text(encoding="utf-8").replace("**", ""))
        assert page.count('class="notes"') + page.count("class=notes") >= len(titles)
        assert "/dist/reveal" in page and page.count("data:image/png;base64,") >= 6
        assert all(title.split(":")[0].split('"')[0] in page for title in titles)
