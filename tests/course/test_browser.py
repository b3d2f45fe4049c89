"""Open a lesson in JupyterLab with headless Chromium, run all cells, move the slider, and see the figure change.

The three explorers are put into a cell below the lesson, since starting another browser and loading the model again would
take longer: they are clicked and worked by keyboard, and what they say is read.

As a script it runs any notebook and photographs it from top to bottom, for looking at a lesson by eye:

    python tests/course/test_browser.py notebooks/03_pruning.ipynb /tmp/screens           run all cells, then take pictures
    python tests/course/test_browser.py notebooks/03_pruning.ipynb /tmp/screens --as-is   the outputs as they are in the file
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

LESSON = Path(__file__).resolve().parents[2] / "notebooks" / "03_pruning.ipynb"
EXPLORERS = """
from IPython.display import display
from shortgpt import read_grid
from shortgpt.course.explorers import explore_frontier, explore_pruning, explore_token
from shortgpt.utils.data import data_folder
grid = read_grid(data_folder() / "grid.csv")
display(explore_pruning(model, tokenizer, range(10, 20)), explore_token(model, tokenizer), explore_frontier(grid))
"""
TOKEN = "lesson"
START_SECONDS = 120
RUN_SECONDS = 12 * 60
REDRAW_SECONDS = 120
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SETTINGS = {  # no question about news, every cell in the page, no files beside it
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}
ERRORS = "[data-mime-type='application/vnd.jupyter.error'], [data-mime-type='application/vnd.jupyter.stderr']"
FINISHED = """errors => {
    const shown = cell => cell.querySelector('.jp-InputPrompt') && cell.querySelector('.cm-content');  // not folded
    const cells = [...document.querySelectorAll('.jp-Notebook .jp-CodeCell')].filter(shown);
    const prompts = cells.map(cell => cell.querySelector('.jp-InputPrompt').textContent.trim());
    const empty = cells.map(cell => !cell.querySelector('.cm-content').textContent.trim());
    const texts = [...document.querySelectorAll(errors)].map(node => node.textContent);
    const stopped = texts.some(text => text.includes('Traceback')) && !prompts.includes('[*]:');
    return stopped || prompts.every((prompt, index) => empty[index] || /^\\[\\d+\\]:$/.test(prompt));
}"""
FIGURE = """handle => {
    const images = [...handle.closest('.jp-Cell').querySelectorAll('.jp-OutputArea img')];
    const drawn = images.length && images.every(image => image.complete && image.naturalWidth);
    return drawn ? images.map(image => image.src).join() : null;
}"""

BLANK = """images => images.filter(image => {
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [image.naturalWidth || 1, image.naturalHeight || 1];
    const context = canvas.getContext('2d');
    context.drawImage(image, 0, 0);
    const pixels = new Uint32Array(context.getImageData(0, 0, canvas.width, canvas.height).data.buffer);
    return pixels.every(pixel => pixel === pixels[0]);
}).length"""


def find_browser() -> str | None:
    """Return the path of an installed Chromium, if any."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def ask(url: str):
    """Return the JSON that the server answers, or None while it does not."""
    try:
        with urllib.request.urlopen(f"{url}?token={TOKEN}", timeout=10) as answer:
            return json.load(answer)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None


def wait_until(condition, seconds: float, what: str):
    """Return what ``condition`` returns as soon as that is true; fail after ``seconds``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.5)
    raise TimeoutError(f"{what}: not within {seconds:.0f} s")


@contextlib.contextmanager
def jupyter_lab(root: Path) -> Iterator[str]:
    """Serve ``root`` with JupyterLab, apart from the user's settings, and yield the address; stop it at the end."""
    with tempfile.TemporaryDirectory() as home:
        settings = Path(home, "JUPYTERLAB_SETTINGS_DIR", "@jupyterlab")
        for name, values in SETTINGS.items():
            file = settings / f"{name}.jupyterlab-settings"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(values), encoding="utf-8")
        environment = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}
        environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        environment.setdefault("OMP_NUM_THREADS", "2")
        folders = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
        for name in (*folders, "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR"):
            environment[name] = str(Path(home, name))
        port = free_port()
        command = [sys.executable, "-m", "jupyterlab", "--allow-root", "--no-browser", "--ip=127.0.0.1"]
        command += [f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}"]
        command += [f"--ServerApp.root_dir={root}"]
        with Path(home, "server.log").open("w+") as log:
            server = subprocess.Popen(command, env=environment, cwd=root, stdout=log, stderr=subprocess.STDOUT)
            try:
                address = f"http://127.0.0.1:{port}"

                def up():
                    if server.poll() is not None:
                        log.seek(0)
                        raise RuntimeError(f"JupyterLab stopped:\n{log.read()[-3000:]}")
                    return ask(f"{address}/api/status")

                wait_until(up, START_SECONDS, "JupyterLab answers")
                yield address
            finally:
                server.terminate()
                try:
                    server.wait(30)
                except subprocess.TimeoutExpired:
                    server.kill()
                    server.wait()


@contextlib.contextmanager
def open_notebook(notebook: Path, *, keep_outputs: bool = False, below: str | None = None) -> Iterator:
    """Open a copy of ``notebook``, alone in a temporary folder, and yield the browser page once its kernel is ready.

    A code cell with the source ``below`` is put at its end.
    """
    from playwright.sync_api import sync_playwright

    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        copy = nbformat.read(notebook, as_version=4)
        for cell in copy.cells:  # else the stored numbers would look like finished cells
            if cell.cell_type == "code" and not keep_outputs:
                cell.outputs, cell.execution_count = [], None
        if below:
            copy.cells.append(nbformat.v4.new_code_cell(below.strip()))
        nbformat.write(copy, root / notebook.name)
        address = stack.enter_context(jupyter_lab(root))
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=find_browser(), args=FLAGS)
        stack.callback(browser.close)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(f"{address}/doc/tree/{notebook.name}?token={TOKEN}&reset", timeout=START_SECONDS * 1000)
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=START_SECONDS * 1000)

        def ready():
            kernels = [session["kernel"] for session in ask(f"{address}/api/sessions") or []]
            return any(kernel["execution_state"] == "idle" and kernel["connections"] >= 1 for kernel in kernels)

        wait_until(ready, START_SECONDS, "the kernel is idle and connected")
        yield page


def run_all(page, seconds: float = RUN_SECONDS) -> None:
    """Choose Run All Cells from the menu and wait until each code cell has a number, or an error stopped it."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(FINISHED, arg=ERRORS, timeout=seconds * 1000, polling=500)
    page.wait_for_timeout(1500)  # widgets draw after their cell has ended


def errors(page) -> list[str]:
    """Return the text of every error and warning in the notebook; progress bars on stderr do not count."""
    texts = page.eval_on_selector_all(ERRORS, "nodes => nodes.map(node => node.textContent)")
    without_bars = [re.sub(r"[^\r\n]*\d%\|[^\r\n]*", "", text) for text in texts]
    return [text for text in without_bars if text.strip()]


def blank_figures(page) -> int:
    """Count the figures without any drawing. (Two threads that draw one pyplot figure leave such a picture behind.)"""
    return page.eval_on_selector_all(".jp-OutputArea img", BLANK)


def move_slider(page) -> tuple[str, str]:
    """Move the first slider one step by keyboard; return the figures of its cell before and after."""
    handle = page.locator(".jp-OutputArea .noUi-handle").first
    handle.scroll_into_view_if_needed()
    before = wait_until(lambda: handle.evaluate(FIGURE), REDRAW_SECONDS, "a figure beside the first slider")
    value = handle.get_attribute("aria-valuenow")
    for key in ("ArrowRight", "ArrowLeft"):  # left if it already stands at its right end
        handle.focus()
        page.keyboard.press(key)
        page.wait_for_timeout(300)
        if handle.get_attribute("aria-valuenow") != value:
            break
    assert handle.get_attribute("aria-valuenow") != value, "the slider did not move"

    def changed():
        after = handle.evaluate(FIGURE)
        return after if after != before else None

    after = wait_until(changed, REDRAW_SECONDS, "the figure beside the slider changes")
    page.wait_for_timeout(500)  # to paint it
    return before, after


def use_explorers(page, screenshots: Path) -> None:
    """Work the explorers of the last cell by mouse and by keyboard, and wait for what each must say then."""
    cell = page.locator(".jp-Notebook .jp-CodeCell").last
    layers = cell.locator(".shortgpt-layers button")

    def says(text: str) -> None:
        cell.get_by_text(text).first.wait_for(timeout=REDRAW_SECONDS * 1000)

    layers.nth(12).click()
    says("1 of 30 layers removed: 12.")
    layers.nth(12).focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    says("2 of 30 layers removed: 12, 13.")
    cell.get_by_role("button", name="layer 13 out").wait_for()
    cell.get_by_role("button", name="The algorithm's choice").click()
    says("2 of 30 layers removed: 10, 11.")
    cell.get_by_role("img", name="4 sets of layers tried").wait_for()
    page.screenshot(path=screenshots / "explore_pruning.png")
    cell.get_by_role("button", name="France", exact=True).click()
    says("The token 'France': layer 0 turns it most")
    says("layer 29: ")  # the last row of its table
    page.screenshot(path=screenshots / "explore_token.png")
    cell.locator(".noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    larger = cell.get_by_role("button", name="Next larger model")
    for _ in range(12):  # more often than there are steps: it stays at the last model
        larger.click()
    says("No larger model is better.")
    says(": not quantized, all layers")
    page.screenshot(path=screenshots / "explore_frontier.png")


def photograph(page, folder: Path) -> list[Path]:
    """Save pictures of the whole notebook, a screenful each, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    notebook = page.locator(".jp-WindowedPanel-outer").first
    overlap = 40
    height, step = notebook.evaluate(
        """(node, overlap) => {
            node.scrollTo({top: 0, behavior: 'instant'});
            const last = [...node.querySelectorAll('.jp-Cell')].at(-1).getBoundingClientRect().bottom;
            return [last - node.getBoundingClientRect().top, node.clientHeight - overlap];
        }""",
        overlap,
    )
    pictures = []
    for number, top in enumerate(range(0, max(int(height) - overlap, 1), int(step)), 1):
        notebook.evaluate("(node, top) => node.scrollTo({top, behavior: 'instant'})", top)
        page.wait_for_timeout(300)
        pictures.append(folder / f"page_{number:02}.png")
        page.screenshot(path=pictures[-1])
    return pictures


@pytest.mark.browser
def test_slider_redraws_its_figure_in_jupyterlab(tmp_path):
    if find_browser() is None:
        message = f"no Chromium: none of {', '.join(BROWSERS)} is on the PATH"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    screenshots = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    screenshots.mkdir(parents=True, exist_ok=True)
    with open_notebook(LESSON, below=EXPLORERS) as page:
        run_all(page)
        page.screenshot(path=screenshots / "all_cells_run.png")
        assert errors(page) == []
        page.locator(".jp-OutputArea .noUi-handle").first.scroll_into_view_if_needed()
        page.screenshot(path=screenshots / "slider_before.png")
        before, after = move_slider(page)
        page.screenshot(path=screenshots / "slider_after.png")
        assert before != after
        assert errors(page) == []
        assert blank_figures(page) == 0, "a figure is empty after the slider has moved: see slider_after.png"
        use_explorers(page, screenshots)
        assert errors(page) == []
        assert blank_figures(page) == 0, "a figure of an explorer is empty: see explore_*.png"


def main() -> int:
    """Photograph one notebook; the exit status is 1 if it shows an error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--as-is", action="store_true", help="show the stored outputs, run nothing")
    parser.add_argument("--dark", action="store_true", help="in JupyterLab's dark theme")
    options = parser.parse_args()
    if options.dark:
        SETTINGS["apputils-extension/themes"] = {"theme": "JupyterLab Dark"}
    with open_notebook(options.notebook, keep_outputs=options.as_is) as page:
        if not options.as_is:
            start = time.perf_counter()
            run_all(page)
            print(f"all cells ran in {time.perf_counter() - start:.0f} s")
        print(*photograph(page, options.folder), sep="\n")
        found = errors(page) + ["blank figure"] * blank_figures(page)
    print(*found, sep="\n", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
