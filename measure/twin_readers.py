"""How packages become paragraphs for the twins, where natural_readers.py has no reader, or one too slow for so many pages."""

import gzip
import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from lxml import html
from natural_readers import Section, read_plain, read_wesnoth, tidy

__all__ = ["read_plain", "read_wesnoth"]  # used by name, as the readers below are
UNWANTED = (
    "//pre|//table|//figure|//script|//style|//nav|//header|//footer|//*[contains(@class,'navheader')]"
    "|//*[contains(@class,'navfooter')]|//*[contains(@class,'sphinxsidebar')]|//*[contains(@class,'related')]"
    "|//*[contains(@class,'footer')]|//*[contains(@class,'toc')]|//a[contains(@class,'headerlink')]"
)
BLOCKS = ".//p|.//li[not(.//p)]|.//dd[not(.//p)]"


def read_page(files: list[Path]) -> Iterator[Section]:
    """HTML pages: paragraphs and items in their order, without code, tables and navigation."""
    for file in files:
        page = html.document_fromstring(file.read_bytes(), parser=html.HTMLParser(encoding="utf-8"))
        for tag in page.xpath(UNWANTED):
            tag.drop_tree()
        yield file.stem, [tidy(block.text_content()).replace("¶", "") for block in page.xpath(BLOCKS)]


def read_vim(files: list[Path]) -> Iterator[Section]:
    """Vim's help: one preformatted text a page; prose stands at the left edge or behind one tab."""
    for file in files:
        text = html.document_fromstring(file.read_bytes(), parser=html.HTMLParser(encoding="utf-8")).text_content()
        yield file.stem, [tidy(part) for part in re.split(r"\n\s*\n|\n(?=\S+\t)", text) if "\t" not in part.strip()]


def read_speech(files: list[Path]) -> Iterator[Section]:
    """Speeches without paragraphs: made of 100 words or more, at ends of sentences."""
    return read_plain(files, sentences=True)


def seeded(text: str) -> str:
    """A key that brings texts into an order which depends on nothing but them."""
    return hashlib.sha256(text.encode()).hexdigest()


def grouped(file: Path) -> list[str]:
    """A dictd file, eight entries (each begun by a word at the left edge) after another, the eights in a seeded order."""
    entries = re.split(r"\n(?=\S)", gzip.decompress(file.read_bytes()).decode("utf-8", "replace"))
    return sorted(("\n\0".join(entries[i : i + 8]) for i in range(0, len(entries), 8)), key=seeded)


def entry(text: str) -> str:
    """An entry on one line, without marks of links, dates and lists of synonyms."""
    return tidy(re.sub(r"[{}]|\(\d{4}-\d\d-\d\d\)|\[(?:syn|ant):[^\]]*\]", "", text))


def gcide_entry(text: str) -> str:
    """An entry of GCIDE without pronunciation, etymology and editors' marks."""
    text = re.sub(r"\A([^\\]{1,60}?) +\\[^\\]*\\[^\n\[]*(?:\[[^\]]*\])?", r"\1:", text)
    text = re.sub(r"\[(?:1913 Webster|PJC|WordNet|Webster)[^\]]*\]", "", text)
    return entry(text)


def read_dictd(files: list[Path], clean: Callable[[str], str] = entry) -> Iterator[Section]:
    """A dictd dictionary: entries of ten words or more."""
    for group in grouped(files[0]):
        entries = [clean(text) for text in group.split("\n\0")]
        yield entries[0], [text for text in entries if len(text.split()) >= 10]


def read_gcide(files: list[Path]) -> Iterator[Section]:
    """GCIDE, as read_dictd does it."""
    return read_dictd(files, gcide_entry)


def pod_paragraphs(text: str) -> list[str]:
    """Prose of Perl's pod: no code (indented), no commands, marks taken out."""
    parts = [part for part in re.split(r"\n\s*\n", text) if part[:1].strip() and part[0] != "="]
    for _ in range(3):  # marks nest
        parts = [re.sub(r"[BCFILSXZ]<(?:<+ )?([^<>]*?)(?: >+)?>", r"\1", part) for part in parts]
    return [tidy(part.replace("E<gt>", ">").replace("E<lt>", "<")) for part in parts]


def read_pod(files: list[Path]) -> Iterator[Section]:
    """Perl's manuals."""
    for file in files:
        yield file.stem, pod_paragraphs(file.read_text(encoding="utf-8", errors="replace"))


def man_paragraphs(text: str) -> list[str]:
    """Prose of a manual page in roff: paragraphs, words in fonts kept, examples and tables left out."""
    text = re.sub(r"^\.(EX|nf|TS)\b.*?^\.(EE|fi|TE)\b.*?$", "", text, flags=re.S | re.M)
    text = re.sub(r"^\.\\\".*$|^'\\\".*$", "", text, flags=re.M)
    text = re.sub(r"^\.(BR|IR|RB|RI|BI|IB) +(.*)$", lambda m: re.sub(r'(?<!") (?!")|"', "", m[2]), text, flags=re.M)
    text = re.sub(r"^\.(B|I|SM|SB) +(.*)$", lambda m: m[2].replace('"', ""), text, flags=re.M)
    text = re.sub(r"\\f[BIRP]|\\&|\\/|\\,|\\c", "", text).replace("\\-", "-").replace("\\(aq", "'").replace("\\ ", " ")
    text = re.sub(r"\\\(([lr])q", '"', text).replace("\\e", "\\").replace("\\(em", "—").replace("\\(en", "–")
    return [tidy(part) for part in re.split(r"^\..*$", text, flags=re.M)]


def read_man(files: list[Path]) -> Iterator[Section]:
    """Manual pages."""
    for file in files:
        yield file.stem, man_paragraphs(gzip.decompress(file.read_bytes()).decode("utf-8", "replace"))
