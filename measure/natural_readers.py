"""How each kind of source becomes paragraphs: used by build_natural_text.py.

A reader takes the unpacked package and paths in it, and yields ``(title, paragraphs)`` for each section or article.
"""

import bz2
import gettext
import gzip
import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from bs4 import BeautifulSoup, XMLParsedAsHTMLWarning

warnings.filterwarnings("ignore", category=XMLParsedAsHTMLWarning)

Section = tuple[str, list[str]]


def tidy(text: str, chinese: bool = False) -> str:
    """One paragraph on one line: white space joined, and none left between two Chinese characters."""
    text = re.sub(r"\s+", " ", text.replace("\u200b", "").replace("\ufeff", "").replace("\u00ad", "")).strip()
    if chinese:
        text = re.sub(
            r"(?<=[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]) (?=[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef])", "", text
        )
    return text


def read_html(
    files: list[Path],
    *,
    chinese: bool = False,
    body: str = "body",
    drop: str = "",
    heading: str = "h1, h2, h3, title",
    block: str = "p, li, dd, div.para",
) -> Iterator[Section]:
    """Paragraphs and items of HTML pages, a page a section; code, tables, figures and navigation are left out."""
    for file in files:
        page = BeautifulSoup(file.read_bytes(), "lxml", from_encoding="utf-8")
        first = page.select_one(heading)
        title = (
            re.sub(r"^(第\s*)?[\dA-Z]*[\d.]+\s*(章|节)?\s*[.:、]?\s*", "", tidy(first.get_text(), chinese))
            if first
            else file.stem
        )
        title = re.split(r" [|—-] (?=Anarchist Writers|developers-reference|The Rust Programming)", title)[0]
        content = page.select_one(body)
        if content is None:
            continue
        unwanted = (
            "pre, table, figure, script, style, nav, dl.toc, div.toc, header, footer, .docnav, #title, .title, .figure"
            + (f", {drop}" if drop else "")
        )
        for tag in content.select(unwanted):
            tag.decompose()
        paragraphs = []
        blocks = [tag for tag in content.select(block) if tag.select_one(block) is None]
        paragraphs = [text for tag in blocks if (text := tidy(re.sub(r"\[\d+\]|</?key>", "", tag.get_text()), chinese))]
        yield title, paragraphs


def read_plain(
    files: list[Path], *, chinese: bool = False, one_line: bool = False, sentences: bool = False
) -> Iterator[Section]:
    """Plain text: paragraphs stand between empty lines (`one_line`: on one line each).

    `sentences`: the text has no paragraphs, so they are made here, of 100 words or more, at the ends of sentences.
    """
    for file in files:
        parts = re.split("\n" if one_line else r"\n\s*\n", file.read_text(encoding="utf-8"))
        paragraphs = [p for p in (tidy(p, chinese) for p in parts) if p]
        if sentences:
            paragraphs = [
                tidy(p) for p in re.findall(r"(?:\S+\s+){100,}?\S*[.?!](?=\s+[A-Z])|\S.+$", " ".join(paragraphs))
            ]
        yield file.stem, paragraphs


def read_wiki(files: list[Path], *, titles: list[str]) -> Iterator[Section]:
    """Articles of a MediaWiki dump: prose of the sections before the references."""
    dump = bz2.decompress(files[0].read_bytes()).decode("utf-8")
    pages = dict(re.findall(r"<title>(.*?)</title>.*?<text[^>]*>(.*?)</text>", dump, flags=re.S))
    for title in titles:
        yield title, wiki_paragraphs(pages[title])


def wiki_paragraphs(text: str) -> list[str]:
    """The prose of wiki markup."""
    for before, after in {
        "&lt;": "<",
        "&gt;": ">",
        "&quot;": '"',
        "&amp;": "&",
        "&nbsp;": " ",
        "&ndash;": "–",
        "&mdash;": "—",
    }.items():
        text = text.replace(before, after)
    text = re.split(
        r"\n==\s*(?:See also|References|Notes|Footnotes|Further reading|External links|Bibliography|Sources)\b", text
    )[0]
    text = re.sub(
        r"<!--.*?-->|<ref[^>/]*/>|<ref.*?</ref>|<(math|gallery|timeline|source|blockquote)[^>]*>.*?</\1>",
        "",
        text,
        flags=re.S,
    )
    text = re.sub(r"\{\{(?:lang|transl|IAST)\|[^{}|]*\|([^{}|]*)\}\}", r"\1", text)
    for _ in range(9):  # from the innermost pair outwards
        text = re.sub(r"\{\{[^{}]*\}\}|\{\|(?:(?!\{\|).)*?\n\|\}", "", text, flags=re.S)
        text = re.sub(r"\[\[(?:File|Image|Category):(?:[^\[\]]|\[\[[^\[\]]*\]\])*\]\]", "", text, flags=re.S | re.I)
    text = re.sub(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]", r"\1", text)
    text = re.sub(r"\[https?://\S+ ?([^\]]*)\]|<[^<>]+>|'{2,}", r"\1", text)
    text = re.sub(r"\((?:[;,]\s*)+", "(", text)
    text = re.sub(r" ?\(\s*[;,]?\s*\)", "", text)
    lines = [tidy(line) for line in text.split("\n")]
    return [re.sub(r" +([,.;:])", r"\1", line) for line in lines if len(line) > 80 and line[0] not in "*#:;=|!{}["]


def read_wesnoth(files: list[Path], *, catalogue: Path | None = None) -> Iterator[Section]:
    """Story and spoken lines of scenarios, in their order; in the language of the catalogue, without it in English."""
    translated = gettext.GNUTranslations(catalogue.open("rb")).gettext if catalogue else None
    for file in files:
        text = re.sub(r"^\s*#(?!po).*$", "", file.read_text(encoding="utf-8"), flags=re.M)
        name = re.search(r'^\s*name=\s*_\s*"([^"]*)"', text, flags=re.M)
        spoken = []
        for found in re.finditer(
            r'\b(?:story|message)\s*=\s*(_\s*"(?:[^"]|"")*"(?:\s*\+\s*_\s*"(?:[^"]|"")*")*)', text
        ):
            said = "".join(re.findall(r'_\s*"((?:[^"]|"")*)"', found[1])).replace('""', '"')
            line = translated(said) if translated else said
            if translated and line == said:
                continue
            line = re.sub(r"^[a-z_ ]+\^", "", re.sub(r"<[^>]*>|\$[\w.|]+", "", line))
            spoken += [tidy(part, bool(translated)) for part in line.split("\n")]
        title = name[1] if name else file.stem
        title = re.sub(r"^[a-z_ ]+\^", "", translated(title) if translated else title)
        yield title, list(dict.fromkeys(line for line in spoken if len(line) > 3))  # a branch repeats lines of another


def read_code(files: list[Path], *, comment: str = "#") -> Iterator[Section]:
    """Source files as they are, without the licence at the top."""
    for file in files:
        text = file.read_text(encoding="utf-8").expandtabs(4)
        text = re.sub(r"\A\s*(?:/\*(?:(?!\*/).)*?(?:[Cc]opyright|[Ll]icen[sc]e).*?\*/\s*)+", "", text, flags=re.S)
        head = re.match(rf"\A(?:{re.escape(comment)}[^\n]*\n)+", text)
        if head and re.search("copyright|licen[sc]e", head[0], flags=re.I):
            text = text[head.end() :]
        yield (
            file.name,
            [block for block in re.split(r"\n(?=\n*\S)(?<=\n\n)|\n\n(?=\S)", text.strip("\n")) if block.strip()],
        )


def read_cataclysm(
    files: list[Path], *, catalogue: Path | None = None, kinds: tuple[str, ...] = ("snippet",)
) -> Iterator[Section]:
    """Texts of game data in JSON: snippets by category, or descriptions by file."""
    translated = gettext.GNUTranslations(catalogue.open("rb")).gettext if catalogue else None
    for file in files:
        found: dict[str, list[str]] = {}
        for entry in json.loads(file.read_text(encoding="utf-8")):
            texts = entry.get("text", []) if entry.get("type") == "snippet" else [entry.get("description", "")]
            if entry.get("type") not in kinds:
                continue
            for text in [texts] if isinstance(texts, str) else texts:
                said = text.get("text", text.get("str", "")) if isinstance(text, dict) else text
                said = said.get("str", "") if isinstance(said, dict) else said
                line = translated(said) if translated and said else said
                if len(said) < 60 or "<" in line or (translated and line == said):
                    continue
                category = entry.get("category", file.stem) if "snippet" in kinds else file.stem
                found.setdefault(category, []).append(tidy(line, bool(translated)))
        for category, lines in found.items():
            yield category.replace("_", " "), list(dict.fromkeys(lines))


PLACES = {"<first>": "Alex", "<last>": "Reyes", "<ship>": "Meridian", "<planet>": "the planet", "<origin>": "the port"}


def read_endless_sky(files: list[Path]) -> Iterator[Section]:
    """Conversations of missions, a file a section, without the player's choices; player's and ship's names filled in."""
    for file in files:
        lines = []
        for line in file.read_text(encoding="utf-8").split("\n"):
            if found := re.match(r"\t+`(.*)`$", line):
                said = tidy(re.sub("<(first|last|ship|planet|origin)>", lambda m: PLACES[m[0]], found[1]))
                if len(said) > 90 and "<" not in said:
                    lines.append(said)
        yield file.stem.title(), list(dict.fromkeys(lines))


def read_recipes(files: list[Path]) -> Iterator[Section]:
    """Recipes: what they say about the dish, and the steps, by category."""
    by_category: dict[str, list[str]] = {}
    for recipe in json.loads(files[0].read_text(encoding="utf-8")):
        said = [line for line in recipe["description"].split("\n") if line[:1] not in ("#", "-", "!", ">", "预", "")]
        steps = [step["description"] for step in recipe["steps"]]
        text = "".join(
            re.sub(r"[*`]|\[([^\]]*)\]\([^)]*\)", r"\1", tidy(s, True)).rstrip("。；;") + "。" for s in said + steps
        )
        by_category.setdefault(recipe["category"], []).append(f"{recipe['name']}：{text}")
    yield from ((category, texts) for category, texts in by_category.items())


def read_dictionary(files: list[Path], *, between: str, start: str = "", least: int = 40) -> Iterator[Section]:
    """Entries of a dictionary in (compressed) plain text, those with enough to say, by first letter."""
    text = gzip.decompress(files[0].read_bytes()).decode("utf-8", "replace")
    text = text.partition(start)[2] if start else text
    letters: dict[str, list[str]] = {}
    for block in re.split(between, text):
        entry = tidy(re.sub(r"\n\s*\(\d{4}-\d\d-\d\d\)|[{}_]", "", block)).removeprefix(":").replace("&ellipsis;", "…")
        if len(entry.split()) >= least and "http" not in entry and entry[0].isalpha():
            letters.setdefault(entry[0].upper(), []).append(entry)
    yield from letters.items()


def read_mallard(files: list[Path], *, chinese: bool = False) -> Iterator[Section]:
    """GNOME help: a topic is a short page, so pages follow each other in one section, each opened by its title."""
    lines = []
    for file in files:
        for title, paragraphs in read_html(
            [file], chinese=chinese, drop="info, media, code, comment", heading="title", block="p"
        ):
            if sum(map(len, paragraphs)) > (150 if chinese else 400):
                lines += [title, *paragraphs]
    yield ("GNOME 帮助" if chinese else "GNOME Help"), lines
