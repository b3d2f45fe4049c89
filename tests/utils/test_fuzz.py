"""Every file that we read, spoiled in a hundred ways: what comes out is a result, or one sentence of ours, and soon.

The files are valid ones whose values are replaced by hostile ones, whose keys are dropped, whose bytes are cut or turned
over; the same ones in every run. SHORTGPT_FUZZ=20 tries twenty times as many.
"""

import copy
import json
import math
import os
import shutil
import struct
import time
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, Phase, event, given, settings, strategies as st
from small import LAYERS, build_tiny, tiny_gguf
from transformers import AutoModelForCausalLM

from shortgpt import PruningPlan, prune_checkpoint, read_grid, remove_layers, save
from shortgpt.checkpoints.card import licence_lines, model_card
from shortgpt.checkpoints.facts import model_facts, plan_beside, plan_in_words
from shortgpt.checkpoints.gguf import read_gguf, sha256_of
from shortgpt.checkpoints.gguf_header import number_of_weights
from shortgpt.checkpoints.own_format import restore
from shortgpt.checkpoints.shards import read_shard
from shortgpt.cli.info import in_words
from shortgpt.course.answer_book import AnswerBook
from shortgpt.evaluation.records import KEY, known
from shortgpt.pruning.sublayers import remove_sublayers
from shortgpt.utils.untrusted import raised_here

pytestmark = pytest.mark.slow
SECONDS = 20  # of the slowest example on a machine with much else to do; here it is below 2


def examples(count: int) -> settings:
    return settings(
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        max_examples=count * int(os.environ.get("SHORTGPT_FUZZ", 1)),
        suppress_health_check=list(HealthCheck),
    )


DEEP = "@deep@"  # stands for 100,000 lists in each other, which Python can neither write nor print
HOSTILE = [
    None, True, -1, 0, 1, 3, 7, 10**9, 10**18, 10**30, 10**400, 0.5, 1e308, math.inf, -math.inf, math.nan,
    "", "x", "x" * 5000, "../../../etc/passwd", "/etc/passwd", "a\0b", "a\nb", "\x1b[31m", "\ud800", "model.layers.0.x",
    "<img src=x onerror=alert(1)>", "int64", "Trainer", DEEP, [], {}, [1, "x"], [[[]]], {"a": None}, [10**9],
    list(range(3000)), [None] * LAYERS,
]  # fmt: skip
hostile = st.sampled_from(HOSTILE).map(copy.deepcopy)


@st.composite
def spoiled(draw, value, times=2):
    """`value` (of dicts and lists) with up to so many places replaced, dropped or added."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, times))):
        place = value
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(place[key], dict | list) and place[key] and draw(st.booleans()):
                place = place[key]
                continue
            what = draw(st.integers(0, 9))
            if what == 0:
                del place[key]
            elif what == 1 and isinstance(place, dict):
                place[draw(st.sampled_from(["__class__", "to_dict", "extra", "schema", "model_type"]))] = draw(hostile)
            elif what in (2, 3):  # what stands elsewhere
                place[key] = copy.deepcopy(place[draw(st.sampled_from(keys))])
            elif what == 4 and isinstance(place[key], int | float):
                place[key] += draw(st.sampled_from([-1, 1, 0.5]))
            else:
                place[key] = draw(hostile)
            break
    return value


def text_of(value: object) -> str:
    return json.dumps(value).replace(json.dumps(DEEP), "[" * 100_000 + "]" * 100_000)


@st.composite
def torn(draw, data):
    """`data` (bytes) cut, or with a few bytes turned over."""
    if draw(st.booleans()):
        return data[: draw(st.integers(0, len(data)))]
    data = bytearray(data)
    for place in draw(st.lists(st.integers(0, len(data) - 1), min_size=1, max_size=4)):
        data[place] = draw(st.integers(0, 255))
    return bytes(data)


def files(value, *, whole=None):
    """Bytes of a JSON file that holds `value`, spoiled."""
    either = spoiled(value).map(lambda v: text_of(v).encode())
    return st.one_of(
        either, either, either, torn(whole or text_of(value).encode()), hostile.map(lambda v: text_of(v).encode())
    )


@contextmanager
def one_sentence():
    """What is raised must be ours and one line, and nothing may take long."""
    start = time.monotonic()
    try:
        yield
        event("a result")
    except (ValueError, OSError) as error:
        assert isinstance(error, OSError) or raised_here(error), repr(error)
        assert "\n" not in str(error) and str(error).isprintable() and len(str(error)) < 1500, repr(error)
    assert time.monotonic() - start < SECONDS


PLAN = asdict(
    PruningPlan(
        layers=6,
        removed=(2, 3),
        criterion="block_influence",
        scores={i: 0.1 * i for i in range(6)},
        calibration={"tokens": 100, "samples": 4, "sha256": "ab" * 32},
        model="owner/name@abc",
        search={"value": 0.1, "seed": 3},
    )
) | {"schema": 1}


@examples(400)
@given(files(PLAN))
def test_plans(tmp_path, data):
    file = tmp_path / "plan.json"
    file.write_bytes(data)
    with one_sentence():
        plan = PruningPlan.from_json(file)
        words, card, mergekit = plan_in_words(plan), model_card(plan), plan.to_mergekit(model=plan.model or "x")
        assert words.replace("\n", "").isprintable() and "\x1b" not in card and "<img" not in card
        assert yaml.safe_load(mergekit)["slices"] and yaml.safe_load(card.split("---")[1])["tags"]
        assert len(plan.kept) == plan.layers - len(plan.removed)
        assert PruningPlan.from_json(plan.to_json(tmp_path / "again.json")).removed == plan.removed


RESULT = dict(zip(KEY, ("f", "t", 3, 0, 1, "d"), strict=True)) | {
    "task": "t", "metric": "acc", "value": 50.0, "standard_error": None, "chance": 25.0, "items": 3, "subset": True,
    "rows": 1,
}  # fmt: skip


@examples(400)
@given(st.lists(files(RESULT), min_size=1, max_size=2))
def test_results(tmp_path, data):
    file = tmp_path / "results.jsonl"
    file.write_bytes(b"\n".join([*data, text_of(RESULT).encode()]) + b"\n")
    with one_sentence():
        found = known(file, {name: RESULT[name] for name in KEY})
        assert found and all(isinstance(row["value"], float | int) for row in found)


GRID = {
    "removed": 1, "method": "none", "order": "either", "gone": [2], "layers": 5, "bits": 32, "memory_bytes": 1000,
    "disk_bytes": None, "losses": [1.0, 2.0], "tokens": [3, 4], "physical": 50.0, "settings": "s1a",
}  # fmt: skip


@examples(150)
@given(spoiled([GRID, GRID], 3), st.none() | torn(b"x" * 400))
def test_grids(tmp_path, rows, torn_at):
    file = tmp_path / "grid.csv"
    whole = [{**GRID, **row} if isinstance(row, dict) else GRID for row in rows]
    cells = [{k: text_of(v) if isinstance(v, list | dict) else v for k, v in row.items()} for row in whole]
    cells = [{k: v.replace("\ud800", "") if isinstance(v, str) else v for k, v in row.items()} for row in cells]
    text = pd.DataFrame(cells)  # which takes no half characters
    data = text.to_csv(index=False).replace(DEEP, "[" * 100_000).encode("utf-8", "surrogatepass")
    file.write_bytes(data[: len(torn_at)] if torn_at else data)
    with one_sentence():
        table = read_grid(file)
        assert table["perplexity"].dtype == float and len(table)


@examples(150)
@given(files({"1": "because", "2": "so"}))
def test_answers(tmp_path, data):
    file = tmp_path / "answers.json"
    file.write_bytes(data)
    with one_sentence():
        book = AnswerBook({"1": "Why?", "2": "How?"}, file)
        assert "<img" not in book.kept("1").value
        book.keep("2", "so")


CARD = "---\nlicense: apache-2.0\nlicense_name: some name\nlicense_link: https://x/y\ntags:\n- a\n---\n# Title\n"


@examples(150)
@given(
    st.one_of(torn(CARD.encode()), hostile.map(lambda v: CARD.replace("apache-2.0", str(v)).encode("utf-8", "replace")))
)
def test_cards(data):
    text = data.decode("utf-8", "replace")
    for card in (text, text.replace("name: ", "name: " + " " * 100_000 + "x")):
        with one_sentence():
            lines = licence_lines(card)
            front = yaml.safe_load(model_card(PruningPlan(3, (1,)), inherited=lines).split("\n---\n")[0][4:])
            assert {*front} <= {"library_name", "pipeline_tag", "license", "license_name", "license_link", "tags"}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Tiny checkpoints: a family each in one file, one in several, one in our own format."""
    folder = tmp_path_factory.mktemp("fuzz")
    for family in ("llama", "gemma3_text", "gpt2"):
        build_tiny(family).save_pretrained(folder / family)
    build_tiny().save_pretrained(folder / "sharded", max_shard_size="50KB")
    own = remove_layers(
        remove_sublayers(build_tiny(), attention=[1], ffn=[3], outputs={"LlamaAttention": 2, "LlamaMLP": 0}), [0]
    )
    save(own, folder / "own", plan=PruningPlan(6, (0,)))
    return folder


def copied(source: Path, target: Path, name: str, data: bytes) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    (target / name).write_bytes(data)
    return target


def pruned(folder: Path, target: Path) -> None:
    """Prune a checkpoint on disk: nothing is left, or a model that loads."""
    shutil.rmtree(target, ignore_errors=True)
    try:
        prune_checkpoint(folder, target, [1, 4], progress=False)
    finally:
        assert sorted(os.listdir(target.parent)) in (["source"], ["source", "target"])
    _, report = AutoModelForCausalLM.from_pretrained(target, output_loading_info=True)
    assert not report["missing_keys"] and not report["mismatched_keys"]


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
@examples(100)
@given(data=st.data())
def test_configurations(checkpoints, tmp_path, family, data):
    config = json.loads((checkpoints / family / "config.json").read_text()) | {
        "shortgpt_removed_layers": [2],
        "shortgpt_repair": {"kind": "fold", "layers": [1], "samples": 4},
        "num_nextn_predict_layers": 0,
    }
    folder = copied(checkpoints / family, tmp_path / "source", "config.json", data.draw(files(config)))
    with one_sentence():
        facts = model_facts(folder)
        assert "\n" not in "".join(in_words(facts).values())
    with one_sentence():
        pruned(folder, tmp_path / "target")


@examples(150)
@given(data=st.data())
def test_indices(checkpoints, tmp_path, data):
    index = json.loads((checkpoints / "sharded" / "model.safetensors.index.json").read_text())
    spoilt = data.draw(files(index))
    folder = copied(checkpoints / "sharded", tmp_path / "source", "model.safetensors.index.json", spoilt)
    with one_sentence():
        pruned(folder, tmp_path / "target")


@examples(200)
@given(data=st.data())
def test_headers(checkpoints, tmp_path, data):
    whole = (checkpoints / "llama" / "model.safetensors").read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header, rest = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    text = data.draw(files(header | {"__metadata__": {"format": "pt", "model.layers.1.x": '["model.layers.2.y"]'}}))
    spoilt = len(text).to_bytes(8, "little") + text + rest
    spoilt = data.draw(st.one_of(st.just(spoilt), torn(spoilt)))
    folder = copied(checkpoints / "llama", tmp_path / "source", "model.safetensors", spoilt)
    with one_sentence():
        read_shard(folder / "model.safetensors")
        pruned(folder, tmp_path / "target")


@examples(150)
@given(data=st.data())
def test_our_own_format(checkpoints, tmp_path, data):
    config = json.loads((checkpoints / "own" / "config.json").read_text())
    folder = copied(checkpoints / "own", tmp_path / "source", "config.json", data.draw(files(config)))
    with one_sentence():
        assert in_words(model_facts(folder)) and plan_beside(folder).removed == (0,)
    with one_sentence():
        restore(folder)


@pytest.fixture(scope="module")
def gguf(tmp_path_factory) -> bytes:
    return tiny_gguf(tmp_path_factory.mktemp("gguf"))


LENGTHS = st.sampled_from([0, 1, 2**16, 10**9, 2**31, 2**40, 2**63, 2**64 - 1])


@examples(120)
@given(data=st.data())
def test_gguf_files(gguf, tmp_path, data):
    file = tmp_path / "x.gguf"
    end = gguf.index(b"token_embd.weight") + 2000
    head = bytearray(gguf[:end])
    for place in data.draw(st.lists(st.integers(4, len(head) - 8), max_size=2)):
        head[place : place + 8] = struct.pack("<Q", data.draw(LENGTHS))
    spoilt = data.draw(st.one_of(st.just(bytes(head)), torn(bytes(head))))
    file.write_bytes(spoilt + (gguf[end:] if len(spoilt) == end else b""))
    with one_sentence():
        number_of_weights(file)
    with one_sentence():
        read_gguf(file, sha256_of(file))
