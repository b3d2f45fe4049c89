"""`make tutorial` tells what stopped it in one sentence: what failed, what is done, how to go on. Small lessons stand in."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

pytestmark = pytest.mark.slow  # each runs lessons in processes of their own
ROOT = Path(__file__).parents[2]
SLOW = "from pathlib import Path\nPath('begun').touch()\nimport time; time.sleep(60)"
FAILS = {
    "raise ValueError('one\\n\\x1b[31mtwo')": "ValueError: one two",
    "import os, signal; os.kill(os.getpid(), signal.SIGKILL)": "most likely because memory ran out",
    "import os; os._exit(3)": "ended by itself (exit status 3)",
    SLOW: "took longer than 2 seconds",
}


@pytest.fixture
def repository(tmp_path):
    """With a copy of the runner, one lesson that works, and the model's part done."""
    (tmp_path / "notebooks").mkdir()
    for name in ("tutorial.py", "patient_client.py"):
        shutil.copy(ROOT / "notebooks" / name, tmp_path / "notebooks")
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "results.csv").touch()
    lesson(tmp_path, "00_works", "print(1)")
    return tmp_path


def lesson(repository, name, *code):
    v4 = nbformat.v4
    cells = [v4.new_markdown_cell("# Title\n\n## The part\n\ntext"), *map(v4.new_code_cell, code)]
    nbformat.write(v4.new_notebook(cells=cells), repository / "notebooks" / f"{name}.ipynb")


def start(repository, *arguments, **environment):
    command = [sys.executable, "notebooks/tutorial.py", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    heed = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    return subprocess.Popen(command, cwd=repository, env=environment, **pipes, **heed)


def ended(process):
    """Exit status, and what stands on standard error without the progress bars."""
    _, err = process.communicate(timeout=120)
    lines = [line.split("\r")[-1] for line in err.splitlines()]
    return process.returncode, [line for line in lines if line and "cell/s" not in line and "s/cell" not in line]


@pytest.mark.parametrize("code", FAILS)
def test_a_lesson_that_stops_is_one_sentence(repository, code):
    lesson(repository, "01_stops", "1", code)
    status, (line,) = ended(start(repository, "--from", "00", TUTORIAL_CELL_SECONDS="2"))
    assert status == 1 and 'tutorial: 01_stops stopped at code cell 2 ("The part"): ' in line and FAILS[code] in line
    assert line.endswith(
        f"done before: pruned_model/, results.csv, 00_works.ipynb, in {repository}/output; go on with: make tutorial FROM=01"
    )
    assert "Error" in (repository / "output" / "tutorial.log").read_text() and "\x1b" not in line
    assert (repository / "output" / "00_works.ipynb").exists()
    lesson(repository, "01_stops", "1")
    assert ended(start(repository, "--from", "1")) == (0, [])


def test_ctrl_c_in_a_lesson_is_one_line_and_130(repository):
    lesson(repository, "01_stops", SLOW)
    process = start(repository, "--from", "01")
    while not (repository / "notebooks" / "begun").exists():
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    status, (line,) = ended(process)
    assert status == 130 and line.startswith("tutorial: interrupted; done before: ") and line.endswith("FROM=01")


@pytest.mark.parametrize("missing", ["nbclient", "ipykernel"])
def test_without_jupyter_it_says_how_to_install_it(repository, missing):
    code = "raise ModuleNotFoundError(\"No module named 'nbclient'\")"
    environment = {"PYTHONPATH": f"{repository}:{ROOT}"}
    if missing == "nbclient":
        (repository / "nbclient.py").write_text(code)
    else:
        (repository / "sitecustomize.py").write_text(
            "import jupyter_client.kernelspec as k\nk.KernelSpecManager.ensure_native_kernel = False\n"
            "k.KernelSpecManager.get_kernel_spec = lambda self, name: (_ for _ in ()).throw(k.NoSuchKernel(name))"
        )
    status, (line,) = ended(start(repository, "--from", "00", **environment))
    assert status == 1 and line.startswith("tutorial: 00_works")
    assert f"{sys.executable} -m pip install -e '.[notebooks]'" in line and line.endswith("FROM=00")


def test_an_output_folder_that_cannot_be_is_one_sentence(repository):
    shutil.rmtree(repository / "output")
    (repository / "output").touch()
    status, (line,) = ended(start(repository))
    assert status == 1 and line.startswith("tutorial: the default model: ") and str(repository / "output") in line
    assert line.endswith("done before: nothing; go on with: make tutorial")


def test_make_hands_from_on(repository):
    command = ["make", "-n", "tutorial", "READY=", "FROM=03"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "notebooks/tutorial.py --from 03" in shown
    status, (line,) = ended(start(repository, "--from", "09"))
    assert status == 2 and "no lesson is called 09" in line
