"""`make colab`: run lessons 00 to 03 as Colab would, in an environment with the versions of its image (colab.json).

    .venv/bin/python tests/colab_lessons.py COLAB/bin/python          the four lessons
    .venv/bin/python tests/colab_lessons.py COLAB/bin/python 01 02    some of them

    .venv/bin/python tests/colab_lessons.py --list                    what to install in COLAB, for pip

This environment only drives: the kernel is COLAB's Python, where nothing but Colab's versions is installed. Each lesson
runs from its first cell on with a stand-in for the module `google.colab`, so its set-up cell really installs: pip clones
the address in the cell, which git is told to find in this working tree. The lessons' outputs go to a temporary folder. It
fails if pip moves anything that was there but `MAY_MOVE`, if a cell fails, or if a lesson takes more memory than Colab has.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "notebooks"))
import build  # noqa: E402
from nbformat.v4 import new_code_cell  # noqa: E402

COLAB_GB = 12  # memory of a runtime without a paid plan
MAY_MOVE = {"torchao"}  # Colab's is too old to quantize with; no kernel has imported it before the set-up cell runs
IMAGES = json.loads((ROOT / "tests" / "colab.json").read_text(encoding="utf-8"))["images"]
PRETEND = """
import sys
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec

sys.modules["google.colab"] = module_from_spec(ModuleSpec("google.colab", None))
"""


def image() -> dict[str, str]:
    """The newest image, filled up from the older whole list where its versions can still be true."""
    newest = IMAGES["2026-08-19"]
    old = {n: v for n, v in IMAGES["2026-02"]["packages"].items() if n not in newest["newer_since"]}
    return old | newest["packages"]


def versions(python: str) -> dict[str, str]:
    """What is installed for that Python now."""
    listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], check=True, capture_output=True, text=True)
    return {row["name"].lower().replace("_", "-"): row["version"] for row in json.loads(listed.stdout)}


def make_default_kernel(python: str, folder: Path) -> None:
    """Let the kernel that notebooks ask for be that Python, for this process."""
    kernel = folder / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    command = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": command, "display_name": "Python 3", "language": "python"}))
    os.environ["JUPYTER_PATH"] = str(folder)


def snapshot(folder: Path) -> None:
    """A git repository in `folder` with the working tree as it is, committed or not; the tree's own is left alone."""
    folder.mkdir()
    git = ["git", f"--git-dir={folder}/.git", f"--work-tree={ROOT}", "-c", "user.name=colab", "-c", "user.email=colab"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "working tree"]):
        subprocess.run([*git, *arguments], check=True, cwd=ROOT)
    subprocess.run(["git", f"--git-dir={folder}/.git", "config", "core.bare", "true"], check=True)


def main(python: str, wanted: list[str]) -> int:
    address = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
    before, failed = versions(python), False
    lessons = [
        p for p in sorted((ROOT / "notebooks" / "source").glob("0[0-3]_*.py")) if not wanted or p.name[:2] in wanted
    ]
    with tempfile.TemporaryDirectory() as folder:
        snapshot(Path(folder) / "repository")
        make_default_kernel(python, Path(folder) / "jupyter")
        os.environ |= {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.file://{folder}/repository/.git.insteadOf",
            "GIT_CONFIG_VALUE_0": address,
        }
        content = Path(folder) / "content"
        content.mkdir()
        for lesson in lessons:
            notebook, start = build.generate(lesson), time.perf_counter()
            notebook.cells.insert(0, new_code_cell(PRETEND))
            with build.peak_memory() as peak:
                build.execute(notebook, content, lesson.stem)
            gigabytes = peak[0] / 1e9
            failed |= gigabytes > COLAB_GB
            print(f"{lesson.stem}: {time.perf_counter() - start:.0f} s, peak {gigabytes:.2f} GB", flush=True)
    after = versions(python)
    added = {name: version for name, version in after.items() if name not in before}
    moved = {name: (version, after.get(name)) for name, version in before.items() if after.get(name) != version}
    print("installed by the set-up cell: " + ", ".join(f"{name} {version}" for name, version in sorted(added.items())))
    print("moved by the set-up cell: " + (", ".join(f"{n} {a} -> {b}" for n, (a, b) in moved.items()) or "nothing"))
    if "shortgpt-pruning" not in after:
        print("the set-up cell did not install the toolkit", file=sys.stderr)
        return 1
    return int(failed or bool(moved.keys() - MAY_MOVE))


if __name__ == "__main__":
    if sys.argv[1:] == ["--list"]:
        print(*(f"{name}=={version}" for name, version in image().items()))
        sys.exit()
    sys.exit(main(sys.argv[1], sys.argv[2:]))
