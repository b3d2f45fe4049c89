"""Collect the documents in `data/text/documents/` into the files that the toolkit reads.

    python measure/build_text.py

A document is a text file ``documents/<language>/<part>/<genre>_<n>_<slug>.txt``: its title, an empty line, paragraphs.
The output, ``calibration.jsonl`` and so on, is one JSON object a line; tests check that it is current.
"""

import json
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "data" / "text"
PARTS = ("calibration", "perplexity", "repair")


def collect(part: str) -> list[dict[str, str]]:
    """All documents of one part, sorted by language, genre and file name."""
    rows = []
    for file in sorted(FOLDER.glob(f"documents/*/{part}/*.txt")):
        title, _, text = file.read_text(encoding="utf-8").strip().partition("\n\n")
        genre = file.name.split("_")[0]
        rows.append({"part": part, "language": file.parts[-3], "genre": genre, "title": title, "text": text.strip()})
    return rows


def render(part: str) -> str:
    """The JSONL file of one part."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in collect(part))


if __name__ == "__main__":
    for part in PARTS:
        (FOLDER / f"{part}.jsonl").write_text(render(part), encoding="utf-8")
        print(f"{part}: {len(collect(part))} documents")
