"""Serve the built site on this machine, with the two headers that let the page use several threads.

    python book/prune/serve.py            serves book/_build/html; open the address that it prints
    python book/prune/serve.py FOLDER --port 8000

`python -m http.server` serves it as well; the model then runs on one thread.
"""

from __future__ import annotations

import argparse
import functools
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SITE = Path(__file__).parents[1] / "_build" / "html"


class Handler(SimpleHTTPRequestHandler):
    """Files, with the headers of cross-origin isolation."""

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing about each file."""


def server(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server of `folder` on this machine only; port 0 takes a free one."""
    return ThreadingHTTPServer(("127.0.0.1", port), functools.partial(Handler, directory=str(folder)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=SITE)
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    if not (options.folder / "prune" / "settings.json").exists():
        raise SystemExit(
            f"{options.folder} has no built page prune/: run make book first, or name the folder of the site"
        )
    with server(options.folder, options.port) as serving:
        print(f"open http://127.0.0.1:{options.port}/prune/ (Ctrl-C ends it)", flush=True)
        serving.serve_forever()


if __name__ == "__main__":
    main()
