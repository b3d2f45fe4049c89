"""The page that prunes in the browser: what gguf.js writes against what Python writes, and the page opened and used.

gguf.js is run by node. The browser test builds the page (npm, and the model) and works it in headless Chromium.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import gguf
import numpy as np
import pandas as pd
import pytest
import torch
from small import LAYERS, tiny_gguf
from transformers import AutoModelForCausalLM

from shortgpt import remove_layers, save_gguf

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "book" / "prune"
CUT = """
import { removeLayers } from "./gguf.mjs";
import { readFile, writeFile } from "node:fs/promises";
const [from, to, ...removed] = process.argv.slice(2);
try {
  const cut = await removeLayers(new Blob([await readFile(from)]), removed.map(Number));
  await writeFile(to, Buffer.from(await cut.arrayBuffer()));
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
"""
# In place of llama.cpp's converter, which is no package: a Llama's checkpoint as GGUF, by llama.cpp's own library gguf
CONVERTER = """
import argparse, json, pathlib
import gguf
from safetensors.numpy import load_file
parser = argparse.ArgumentParser()
parser.add_argument("model", type=pathlib.Path)
for name in ("--outfile", "--outtype", "--model-name"):
    parser.add_argument(name, required=True)
said = parser.parse_args()
config = json.loads((said.model / "config.json").read_text())
layers = config["num_hidden_layers"]
writer = gguf.GGUFWriter(said.outfile, "llama")
writer.add_name(said.model_name)
writer.add_context_length(config["max_position_embeddings"])
writer.add_embedding_length(config["hidden_size"])
writer.add_block_count(layers)
writer.add_feed_forward_length(config["intermediate_size"])
writer.add_rope_dimension_count(config["head_dim"])
writer.add_head_count(config["num_attention_heads"])
writer.add_head_count_kv(config["num_key_value_heads"])
writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
writer.add_vocab_size(config["vocab_size"])
names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, layers)
for name, values in load_file(said.model / "model.safetensors").items():
    writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), values)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
"""


def module(name: str, folder: Path = PAGE):
    """A script beside the page, or in another folder, imported."""
    spec = importlib.util.spec_from_file_location(f"prune_page_{name}", folder / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture
def cut(tmp_path):
    """Cuts layers out of a GGUF file by gguf.js; returns the new file, or raises ValueError with what was said."""
    if shutil.which("node") is None:
        pytest.skip("node is not on this machine, and gguf.js is run by it")
    shutil.copyfile(PAGE / "gguf.js", tmp_path / "gguf.mjs")
    (tmp_path / "cut.mjs").write_text(CUT)

    def run(file: Path, removed) -> Path:
        to = tmp_path / "cut.gguf"
        command = ["node", "cut.mjs", str(file), str(to), *map(str, removed)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        if done.returncode:
            raise ValueError(done.stderr)
        return to

    return run


def content(file: Path) -> dict:
    """What a GGUF file says and holds: fields with their kinds, and tensors in order with kind, shape and bytes."""
    reader = gguf.GGUFReader(file)
    fields = {name: ([*field.types], field.contents()) for name, field in reader.fields.items()}
    tensors = [(t.name, t.tensor_type, t.shape.tolist(), t.data.tobytes()) for t in reader.tensors]
    return {"fields": fields, "tensors": tensors}


@pytest.mark.slow
@pytest.mark.parametrize("removed", [[1, 3], [0], [LAYERS - 1], [4, 0, 2, 1, 5]], ids=str)
def test_the_cut_file_is_the_one_that_save_gguf_writes_of_the_same_cut(removed, cut, tiny, tokenizer, tmp_path):
    converter = tmp_path / "convert_hf_to_gguf.py"
    converter.write_text(CONVERTER)
    whole = save_gguf(tiny, tokenizer, tmp_path / "dense" / "x.gguf", converter=converter, verify=False)
    pruned = remove_layers(tiny, removed)
    theirs = save_gguf(pruned, tokenizer, tmp_path / "pruned" / "x.gguf", converter=converter, verify=False)
    ours = cut(whole, removed)
    expected = content(theirs)
    assert content(ours) == expected
    assert expected["fields"]["llama.block_count"][1] == LAYERS - len(removed)
    assert len(expected["tensors"]) == len(content(whole)["tensors"]) - 9 * len(removed)

    def logits(file: Path) -> torch.Tensor:
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
        with torch.inference_mode():
            return model(torch.arange(3, 20)[None]).logits

    torch.testing.assert_close(logits(ours), logits(theirs), rtol=0, atol=0)


def layered(file: Path, layers: list[int], *, alignment: int = 64, **numbers: int) -> Path:
    """A GGUF file of layers that differ in all that a list says of them; `layers` are the numbers they once had.

    Tensors are of 24 or 40 bytes, so that there is padding between them; the last one ends the file.
    """
    writer = gguf.GGUFWriter(file, "odd")
    writer.add_custom_alignment(alignment)
    writer.add_block_count(len(layers))
    writer.add_head_count_kv([10 + layer for layer in layers])
    writer.add_array("odd.attention.sliding_window_pattern", [layer % 2 == 0 for layer in layers])
    writer.add_array("odd.xielu.beta", [layer / 4 for layer in layers])
    writer.add_rope_dimension_sections([1, 2, 3, 4])  # four, as layers, and no list of layers
    writer.add_array("general.tags", ["a", "b", "c", "d"])
    for name, number in numbers.items():
        writer.add_uint32(f"odd.{name}", number)
    writer.add_tensor("token_embd.weight", np.arange(10, dtype=np.float32))
    for number, layer in enumerate(layers):
        writer.add_tensor(f"blk.{number}.attn_q.weight", np.full((3, 4), layer, np.float16))
        writer.add_tensor(f"blk.{number}.ffn.blk.7.bias", np.full(10, layer, np.float32))
    writer.add_tensor("output_norm.weight", np.arange(6, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.mark.parametrize("removed", [[0], [1, 2], [0, 1, 3], []], ids=str)
def test_lists_with_an_entry_a_layer_lose_those_of_the_removed_layers(removed, cut, tmp_path):
    whole = layered(tmp_path / "whole.gguf", [0, 1, 2, 3])
    wanted = layered(tmp_path / "wanted.gguf", [layer for layer in range(4) if layer not in removed])
    assert content(cut(whole, removed)) == content(wanted)


@pytest.mark.parametrize(
    ("removed", "change", "says"),
    [
        ([0, 1, 2, 3], None, "At least one layer must stay"),
        ([4], None, "There is no layer 4: this model has layers 0 to 3"),
        ([1.5], None, "There is no layer 1.5"),
        ([1], lambda data: data[:300], "damaged, or was cut short"),
        ([1], lambda data: b"NOPE" + data[4:], "no GGUF file: it doesn't begin with GGUF"),
        ([1], lambda data: data[:4] + b"\x09" + data[5:], "version 9; 2 and 3 can be read here"),
        ([1], lambda data: data.replace(b"odd.block_count", b"odd.block_maybe"), "doesn't say how many layers"),
    ],
)
def test_what_cannot_be_cut_is_said_in_a_sentence(removed, change, says, cut, tmp_path):
    file = layered(tmp_path / "whole.gguf", [0, 1, 2, 3])
    file.write_bytes((change or bytes)(file.read_bytes()))
    with pytest.raises(ValueError, match=says):
        cut(file, removed)


def test_a_model_that_counts_its_layers_is_refused_and_not_cut_wrongly(cut, tmp_path):
    file = layered(tmp_path / "whole.gguf", [0, 1, 2, 3], leading_dense_block_count=1)
    with pytest.raises(ValueError, match=r"odd\.leading_dense_block_count tells its layers apart by counting"):
        cut(file, [2])


def test_a_file_by_another_writer_stays_as_it_is_where_nothing_is_removed(cut, tmp_path):
    whole = tmp_path / "tiny.gguf"
    assert tiny_gguf(tmp_path) and content(cut(whole, [])) == content(whole)
    assert cut(whole, []).read_bytes() == whole.read_bytes()


def test_the_scores_of_the_page_are_those_of_the_data_file(tmp_path):
    build = module("build")
    packaged = build.default_model()
    (tmp_path / "wllama.wasm").write_bytes(b"1234")
    told = build.settings(packaged, tmp_path / "wllama.wasm")
    table = pd.read_csv(REPOSITORY / "data" / "layers.csv")
    assert [entry["score"] for entry in told["layers"]] == table["block_influence"].tolist()
    assert [entry["layer"] for entry in told["layers"]] == list(range(packaged.layers))
    assert told["model"]["bytes"] == packaged.gguf_size and told["wasm_bytes"] == 4


def test_without_npm_the_build_says_what_to_do_and_writes_nothing(tmp_path, monkeypatch):
    build = module("build")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        build.NotReachableError, match="from npm is needed once .* npm is not installed: install Node.js"
    ):
        build.build(tmp_path / "site", tmp_path / "cache")
    assert not (tmp_path / "site").exists()


def test_an_index_that_does_not_answer_is_a_sentence_too(tmp_path):
    build = module("build")
    command = [sys.executable, "-c", "import sys; sys.exit('npm error network no route')"]
    with pytest.raises(build.NotReachableError, match=r"no route\): connect to the internet, and try again"):
        build.download(command, "a file", tmp_path, "*.tgz")


def test_the_page_asks_no_other_host():
    text = "".join((PAGE / name).read_text(encoding="utf-8") for name in ("index.html", "page.js", "style.css"))
    assert not re.findall(r"https?://", text)
    assert "default-src 'self'" in text and "setCompat(null)" in text


@contextlib.contextmanager
def served(folder: Path, *, headers: bool = True):
    """The address of `folder`, served as serve.py does it, or without its headers."""
    script = module("serve")
    if not headers:
        del script.Handler.end_headers
    server = script.server(folder, 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


def test_the_server_sends_the_headers_that_threads_need(tmp_path):
    (tmp_path / "x.wasm").write_bytes(b"\0asm")
    with served(tmp_path) as address, urllib.request.urlopen(f"{address}x.wasm") as answer:
        assert answer.headers["Content-Type"] == "application/wasm"
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    with served(tmp_path, headers=False) as address, urllib.request.urlopen(f"{address}x.wasm") as answer:
        assert answer.headers["Cross-Origin-Opener-Policy"] is None


# ---- in the browser

NO_WEBASSEMBLY = "delete self.WebAssembly"
NO_MEMORY = "WebAssembly.Memory = function () { throw new RangeError('could not allocate memory') }"
NO_64_BITS = "WebAssembly.Memory = function () { throw new TypeError('Cannot convert a BigInt') }"
SECONDS = 300


def installed_chromium() -> dict:
    """How playwright starts the Chromium of this machine, as in test_browser.py."""
    lessons = module("test_browser", Path(__file__).parent)
    if lessons.find_browser() is None:
        message = f"no Chromium: none of {', '.join(lessons.BROWSERS)} is on the PATH"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return {"executable_path": lessons.find_browser(), "args": lessons.FLAGS}


def status(page, pattern: str) -> str:
    """The status line, as soon as it matches."""
    script = "pattern => new RegExp(pattern).test(document.getElementById('status').textContent)"
    page.wait_for_function(script, arg=pattern, timeout=SECONDS * 1000)
    return page.inner_text("#status")


def pressed(page) -> list[int]:
    """The layers that are on, as a screen reader is told."""
    states = page.eval_on_selector_all("#layers button", "all => all.map(one => one.getAttribute('aria-pressed'))")
    return [layer for layer, state in enumerate(states) if state == "true"]


def what_it_lacks(browser, address: str, script: str) -> str:
    """What the page says in a browser that lacks something."""
    page = browser.new_page()
    page.add_init_script(script)
    page.goto(address)
    page.wait_for_selector("#status.wrong")
    assert page.is_hidden("#load") and page.is_disabled("#write")
    said = page.inner_text("#status")
    page.close()
    return said


@pytest.mark.browser
@pytest.mark.slow
def test_the_page_is_opened_pruned_and_read(tmp_path):
    chromium = installed_chromium()
    build = module("build")
    try:
        build.build(tmp_path / "site" / "prune")
    except build.NotReachableError as error:
        pytest.skip(str(error))
    from playwright.sync_api import sync_playwright

    pictures = Path(os.environ.get("SCREENSHOTS") or tmp_path)
    pictures.mkdir(parents=True, exist_ok=True)
    with served(tmp_path / "site") as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(**chromium)
        here = f"{address}prune/"
        assert "has no WebAssembly" in what_it_lacks(browser, here, NO_WEBASSEMBLY)
        assert "did not get enough memory" in what_it_lacks(browser, here, NO_MEMORY)
        assert "no 64-bit memory" in what_it_lacks(browser, here, NO_64_BITS)

        page = browser.new_page(viewport={"width": 1280, "height": 1250})
        asked, wrong = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(here)
        page.wait_for_selector("#load:not([hidden])")
        depth = len(json.loads((tmp_path / "site" / "prune" / "settings.json").read_text())["layers"])
        assert pressed(page) == list(range(depth))

        page.focus("#load")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "prompt", (
            "the focus goes on, and is not lost with the button"
        )
        page.wait_for_selector("#progress", state="visible")
        said = status(page, "^With all 30 layers, [0-9.]+ tokens a second: In the autumn")
        dense = page.inner_text("#before")
        assert len(dense.split()) > 20 and dense.startswith("In the autumn, the leaves of the trees")
        assert dense.split()[-1] in said, "a screen reader hears the text"
        page.screenshot(path=pictures / "prune_before.png", full_page=True)

        page.focus("#all")  # from here by keyboard: the bars are one stop, and arrows move along them
        for key in ("Tab", "ArrowRight", "ArrowRight", "Space", "End", "Enter", "ArrowLeft", "Space"):
            page.keyboard.press(key)
        assert set(range(depth)) - set(pressed(page)) == {2, depth - 2, depth - 1}
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "write"

        lowest = pd.read_csv(REPOSITORY / "data" / "layers.csv").nsmallest(6, "block_influence")["layer"].tolist()
        page.click("#choice")
        assert set(range(depth)) - set(pressed(page)) == set(lowest)
        page.focus("#write")
        page.keyboard.press("Enter")
        status(page, "^Without 6 layers")
        page.wait_for_function("document.activeElement.id === 'write'", timeout=5000)  # the focus is where it was
        well = page.inner_text("#after")
        assert page.inner_text("#after-numbers").startswith("24 layers, 85 MB")
        page.screenshot(path=pictures / "prune_well.png", full_page=True)

        page.click("#last")
        page.click("#write")
        status(page, "^(Cutting|Writing)")
        status(page, "^Without 6 layers")
        badly = page.inner_text("#after")
        assert page.inner_text("#before") == dense and len({dense, well, badly}) == 3
        page.screenshot(path=pictures / "prune_badly.png", full_page=True)

        page.click("#all")
        page.fill("#prompt", "The history of bread begins")
        page.click("#write")
        status(page, "^With all 30 layers[^]*: The history of bread begins[^]*Now switch layers off")
        assert not wrong and {url.split("/")[2] for url in asked if url.startswith("http")} == {address.split("/")[2]}
        browser.close()


@pytest.mark.browser
@pytest.mark.slow
def test_how_many_threads_is_said(tmp_path):
    chromium = installed_chromium()
    from playwright.sync_api import sync_playwright

    build = module("build")
    for name in build.OURS:
        shutil.copyfile(PAGE / name, tmp_path / name)
    (tmp_path / "no.wasm").touch()
    (tmp_path / "settings.json").write_text(json.dumps(build.settings(build.default_model(), tmp_path / "no.wasm")))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**chromium)
        for headers, says in ((True, r"runs on \d+ of"), (False, "on one thread .* this one does not")):
            with served(tmp_path, headers=headers) as address:
                page = browser.new_page()
                page.goto(address)
                page.wait_for_selector("#load:not([hidden])")
                assert re.search(says, page.inner_text("#threads"))
                page.click("#load")  # and the model isn't there
                page.wait_for_selector("#status.wrong")
                assert "is not beside this page (the server says 404): run make book again" in page.inner_text(
                    "#status"
                )
                assert page.is_visible("#load"), "it can be tried again"
                page.close()
        browser.close()
