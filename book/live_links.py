"""Links to `book/prune/index.html` lead to the page beside the built site, not to a download of its source.

In the repository such a link opens the source. Sphinx would take the file for something to download, and the page works only
together with what build.py puts beside it.
"""

from __future__ import annotations

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

SOURCE, BUILT = "book/prune/index.html", "prune/index.html"


def lead_to_the_page(app: Sphinx, tree: nodes.document) -> None:
    """Make a plain link of each download of the page's source."""
    for link in list(tree.findall(addnodes.download_reference)):
        if link["reftarget"].endswith(SOURCE):
            up = "../" * app.env.docname.count("/")
            link.replace_self(nodes.reference("", "", *link.children, refuri=up + BUILT, internal=False))


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("doctree-read", lead_to_the_page, priority=100)  # before Sphinx collects what is to be downloaded
    return {"parallel_read_safe": True}
