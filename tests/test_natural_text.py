"""The texts by people: sources named, licences kept, sizes reached, parts apart, languages right."""

import json
import re
import tomllib
from pathlib import Path

import pandas as pd
import pytest

from shortgpt import built_in_text
from shortgpt.utils.data import data_folder

TEXT = data_folder() / "text"
PARTS = ("natural", "natural_test")
HAN = re.compile(r"[\u4e00-\u9fff]")


@pytest.fixture(scope="module")
def documents() -> pd.DataFrame:
    return pd.concat([built_in_text(part, language=None) for part in PARTS], ignore_index=True)


@pytest.fixture(scope="module")
def sources() -> pd.DataFrame:
    table = (
        (TEXT / "SOURCES.md").read_text(encoding="utf-8").partition("<!-- table -->\n")[2].partition("<!-- end -->")[0]
    )
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return pd.DataFrame(rows, columns=head).set_index("key")


def size(text: str, language: str) -> float:
    return len(HAN.findall(text)) / 1.6 if language == "zh" else len(text.split())


def runs(text: str, language: str) -> set[tuple[str, ...]]:
    """Seven words in a row, eleven Chinese characters, or twenty words of code, within a paragraph."""
    found = set()
    for paragraph in text.split("\n\n"):
        units = HAN.findall(paragraph) if language == "zh" else re.findall(r"\w+", paragraph.lower())
        length = {"zh": 11, "code": 20}.get(language, 7)
        found |= {tuple(units[i : i + length]) for i in range(len(units) - length + 1)}
    return found


def test_both_parts_are_as_large_as_promised(documents):
    documents["size"] = [size(row.text, row.language) for row in documents.itertuples()]
    sizes = documents.groupby(["part", "language"])["size"].sum()
    assert sizes["natural", "en"] > 120_000 and sizes["natural", "zh"] > 60_000
    assert sizes["natural_test", "en"] > 20_000 and sizes["natural_test", "zh"] > 20_000
    assert sizes["natural", "code"] > 15_000 and sizes["natural_test", "code"] > 10_000
    assert documents["size"].between(195, 2500).all() and documents["size"].median() > 700
    assert sum((TEXT / f"{part}.jsonl").stat().st_size for part in PARTS) < 4e6
    genres = documents.groupby(["part", "language"])["genre"].nunique()
    assert genres["natural", "en"] >= 8 and genres["natural", "zh"] >= 3 and genres["natural_test", "en"] >= 3


def test_every_document_names_a_source_whose_row_agrees_with_it(documents, sources):
    assert set(documents["source"]) == set(sources.index) and sources.index.is_unique
    assert (sources != "").all(axis=None), "a cell of SOURCES.md is empty"
    for key, found in documents.groupby("source"):
        row = sources.loc[key]
        assert {(row["part"], row["language"], row["genre"])} == {
            *zip(found["part"], found["language"], found["genre"], strict=True)
        }
        assert int(row["documents"]) == len(found)
        assert int(row["words"]) == pytest.approx(
            sum(size(text, row["language"]) for text in found["text"]), abs=len(found)
        )


def test_licences_are_named_and_their_notices_kept(sources):
    known = "MIT|BSD-[13]-Clause|BSL-1.0|Unlicense|Apache-2.0|GPL-[23].0-(or-later|only)|CC-BY-SA-[34].0"
    known = rf"({known}|LicenseRef-(US-Government-)?public-domain)"
    for key, licence in sources["licence"].items():
        spdx = licence.partition(" [")[0]
        assert re.fullmatch(rf"{known}( OR {known})*", spdx), f"{key}: {spdx}"
        if sources.loc[key, "language"] == "code":
            assert re.search(
                "copyright|public domain", (TEXT / "licences" / f"{key}.txt").read_text(encoding="utf-8"), re.I
            )
    for version in "23":
        assert "GNU GENERAL PUBLIC LICENSE" in (TEXT / "licences" / f"GPL-{version}.0.txt").read_text()


def test_the_package_names_every_licence_that_a_text_in_it_has(sources):
    """Where a work is under one licence OR another, one of the two is enough."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = set(project["license"].split(" AND "))
    for licence in sources["licence"].str.replace(r" ?\[.*", "", regex=True):
        assert licence.startswith("LicenseRef-") or set(licence.split(" OR ")) & named, licence


def test_the_parts_share_no_package_and_no_run_of_words(documents, sources):
    packages = sources.groupby("part")["package"].agg(set)
    assert not packages["natural"] & packages["natural_test"]
    assert not documents["text"].duplicated().any() and not documents.duplicated(["source", "title"]).any()
    measured = pd.concat([documents[documents["part"] == "natural_test"], built_in_text("perplexity", language=None)])
    for language, found in documents[documents["part"] == "natural"].groupby("language"):
        other = measured[measured["language"] == language]["text"]
        here = set().union(*(runs(text, language) for text in found["text"]))
        there = set().union(*(runs(text, language) for text in other))
        assert len(here) > len(there) > 3_000
        assert not here & there


def test_no_document_repeats_much_of_another(documents):
    for (_, language), found in documents.groupby(["part", "language"]):
        seen: set[tuple[str, ...]] = set()
        for row in found.itertuples():
            here = runs(row.text, language)
            assert len(here & seen) < 0.34 * len(here), row.title
            seen |= here


def test_the_text_is_clean_and_in_its_language(documents):
    for row in documents.itertuples():
        letters = len(re.findall(r"[A-Za-z]", row.text))
        if row.language == "zh":
            assert len(HAN.findall(row.text)) > letters, row.title
        else:
            assert len(HAN.findall(row.text)) < 0.01 * letters, row.title
        assert row.title.strip()
        if row.language != "code":
            assert not re.search(r"�|\x1b|Ã.|â€", row.text), f"broken characters in {row.title}"
            tags = r"</?(p|b|i|em|div|span|ref|key|gui|br|li|ul|td)>|&(amp|lt|gt|quot|nbsp|ellipsis);"
            assert not re.search(rf"{tags}|\{{\{{|\]\]|\t|  |All rights reserved", row.text), row.title


def test_the_files_have_one_object_a_line_in_the_documented_columns():
    for part in PARTS:
        lines = (TEXT / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
        assert {tuple(json.loads(line)) for line in lines} == {("part", "language", "genre", "title", "text", "source")}


def test_built_in_text_reads_only_the_part_it_is_asked_for(monkeypatch):
    read = []
    real = pd.read_json
    monkeypatch.setattr(pd, "read_json", lambda file, **options: read.append(file.name) or real(file, **options))
    assert set(built_in_text("natural", language="code")["language"]) == {"code"}
    assert "source" not in built_in_text("calibration")
    assert read == ["natural.jsonl", "calibration.jsonl"]
    with pytest.raises(ValueError, match="no language 'code' here: choose one of en, zh"):
        built_in_text("calibration", language="code")
