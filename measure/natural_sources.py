"""The human-written texts in `data/text/natural*.jsonl`: which file of which package, under which licence.

Read by build_natural_text.py, which also writes data/text/SOURCES.md from it.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Source:
    """One work in one package."""

    key: str
    part: str
    language: str
    genre: str
    work: str
    author: str
    year: str
    licence: str  # SPDX
    package: str  # kind:name==version
    sha256: str
    paths: tuple[str, ...]  # patterns below the unpacked package
    reader: str
    options: dict[str, Any] = field(default_factory=dict)
    most: int = 4000  # words at most
    piece: int = 1000  # words in a document, about
    note: str = ""


DEB = "/usr/share"
WIKI = [
    "Aardvark", "Amateur astronomy", "Animation", "Apollo 8", "Aruba", "Asphalt", "Andrei Tarkovsky", "Atlantic Ocean", "Algae",
    "Abacus", "Arthur Schopenhauer", "Economy of Angola",
]  # fmt: skip
HANDBOOK = (
    "why-debian release-lifecycle how-to-migrate rights-management backup regular-upgrades user-group-databases "
    "becoming-package-maintainer dealing-with-compromised-machine manipulating-packages-with-dpkg remote-login "
    "task-scheduling-cron-atd package-authentication kernel-role-and-tasks user-space other-security-considerations "
    "common-procedures master-plan dist-upgrade hotplug syslog"
).split()
GAME = "wesnoth/1.16"

SOURCES = [
    Source(
        "enwiki-2016", "natural_test", "en", "encyclopedic", "English Wikipedia, articles of April 2016", "Wikipedia contributors", "2016",
        "CC-BY-SA-3.0", "pypi:gensim==4.3.3", "", ("gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2",),
        "wiki", {"titles": WIKI}, 9000, 750,
    ),
    Source(
        "handbook-en", "natural_test", "en", "handbook", "The Debian Administrator's Handbook", "Raphaël Hertzog, Roland Mas", "2003–2022",
        "GPL-2.0-or-later OR CC-BY-SA-3.0", "deb:debian-handbook==11.20220922", "",
        tuple(f"usr/share/doc/debian-handbook/html/en-US/sect.{name}.html" for name in HANDBOOK), "html", {}, 7000,
    ),
    Source(
        "handbook-zh", "natural_test", "zh", "handbook", "Debian 管理员手册, the Chinese edition of that book", "Raphaël Hertzog, Roland Mas; translated by volunteers", "2003–2022",
        "GPL-2.0-or-later OR CC-BY-SA-3.0", "deb:debian-handbook==11.20220922", "",
        tuple(f"usr/share/doc/debian-handbook/html/zh-CN/sect.{name}.html" for name in HANDBOOK), "html", {}, 9000,
    ),
    Source(
        "httt-en", "natural_test", "en", "fiction", "Heir to the Throne (a story told in a game's scenes)", "the Battle for Wesnoth authors", "2003–2022",
        "GPL-2.0-or-later", "deb:wesnoth-1.16-httt==1:1.16.9-1", "", ("usr/share/games/wesnoth/1.16/data/campaigns/*/scenarios/*.cfg",), "wesnoth", {}, 6000,
    ),
    Source(
        "httt-zh", "natural_test", "zh", "fiction", "王位继承人, the Chinese translation of that story", "the Battle for Wesnoth authors and translators", "2003–2022",
        "GPL-2.0-or-later", "deb:wesnoth-1.16-httt==1:1.16.9-1", "", ("usr/share/games/wesnoth/1.16/data/campaigns/*/scenarios/*.cfg",), "wesnoth",
        {"catalogue": "usr/share/games/wesnoth/1.16/locale/zh_CN/LC_MESSAGES/wesnoth-httt.mo"}, 9000,
    ),
    Source(
        "maint-guide-zh", "natural_test", "zh", "handbook", "Debian 新维护人员手册, the Chinese edition of the Debian New Maintainers' Guide", "Josip Rodin, Osamu Aoki; translated by volunteers", "1998–2021",
        "GPL-2.0-or-later", "deb:maint-guide-zh-cn==1.2.53", "", ("usr/share/doc/maint-guide-zh-cn/html/[a-hj-z]*.html",), "html", {}, 3600,
    ),
    Source(
        "click", "natural_test", "code", "python", "Click", "the Pallets team", "2014–2023", "BSD-3-Clause", "pypi:click==8.1.7", "",
        ("click/formatting.py", "click/parser.py", "click/utils.py", "click/types.py"), "code", {}, 3000,
    ),
    Source(
        "express", "natural_test", "code", "javascript", "Express", "TJ Holowaychuk, Roman Shtylman, Douglas Christopher Wilson", "2009–2024", "MIT", "npm:express==4.19.2", "",
        ("package/lib/request.js", "package/lib/view.js", "package/lib/utils.js", "package/lib/router/*.js"), "code", {"comment": "//"}, 2500,
    ),
    Source(
        "mux", "natural_test", "code", "go", "gorilla/mux", "the Gorilla authors", "2012–2020", "BSD-3-Clause", "deb:golang-github-gorilla-mux-dev==1.8.0-1", "",
        ("usr/share/gocode/src/github.com/gorilla/mux/mux.go", "usr/share/gocode/src/github.com/gorilla/mux/regexp.go", "usr/share/gocode/src/github.com/gorilla/mux/route.go"), "code", {"comment": "//"}, 2500,
    ),
    Source(
        "semver", "natural_test", "code", "rust", "semver", "David Tolnay", "2021–2022", "MIT OR Apache-2.0", "deb:librust-semver-dev==1.0.14-1", "",
        ("usr/share/cargo/registry/semver-1.0.14/src/*.rs",), "code", {"comment": "//"}, 2000,
    ),
    Source(
        "uthash", "natural_test", "code", "c", "uthash", "Troy D. Hanson", "2003–2021", "BSD-1-Clause", "deb:uthash-dev==2.3.0-1+b1", "",
        ("usr/include/utarray.h", "usr/include/utstring.h", "usr/include/utringbuffer.h"), "code", {"comment": "//"}, 2000,
    ),
]
