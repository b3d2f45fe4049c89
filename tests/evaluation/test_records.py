"""`evaluate` goes on where it was stopped, and only with results of the same model: what is read equals what was measured."""

import copy
import errno
import json
import os
import threading

import numpy as np
import pandas as pd
import pytest
import torch
from small import build_tiny
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM

from shortgpt import evaluate, heal, quantize, remove_layers, remove_sublayers
from shortgpt.evaluation import comparing, harness, records
from shortgpt.evaluation.records import fingerprint
from shortgpt.utils.atomic import file_written_beside

TASKS = ["grammar", "physical"]
KEY = {"fingerprint": "f", "asked": "t", "limit": 3, "shots": 0, "seed": 1, "definition": "d"}
ROW = {"task": "t", "metric": "acc", "value": 1.0, "standard_error": 1.0, "chance": 25.0, "items": 3, "subset": False}


@pytest.fixture
def tokenizer(tokenizer):
    tokenizer.eos_token = "?"
    return tokenizer


@pytest.fixture
def runs(monkeypatch):
    """The tasks that were really run."""
    done, run_task = [], harness.run_task

    def counted(model, tokenizer, name, *args, **options):
        done.append(name)
        return run_task(model, tokenizer, name, *args, **options)

    monkeypatch.setattr(comparing, "run_task", counted)
    return done


@pytest.fixture
def run(tokenizer, tmp_path):
    def run(model=None, tasks=TASKS, limit=3, **options):
        model = build_tiny() if model is None else model
        return evaluate(model, tokenizer, tasks, limit=limit, results=tmp_path / "r.jsonl", progress=False, **options)

    return run


def test_what_is_known_is_not_run_again(run, runs, tokenizer):
    first, second = run(), run()
    assert runs == TASKS
    pd.testing.assert_frame_equal(first, second)
    pd.testing.assert_frame_equal(first, evaluate(build_tiny(), tokenizer, TASKS, limit=3, progress=False))


def test_the_file_is_a_table(run, tmp_path):
    expected = run()
    table = pd.read_json(tmp_path / "r.jsonl", lines=True)
    pd.testing.assert_frame_equal(table[list(expected)], expected, check_dtype=False)
    assert table["fingerprint"].nunique() == 1 and table["limit"].tolist() == [3, 3]


def test_anything_that_changes_the_result_is_run_anew(run, runs, monkeypatch):
    run(tasks=["grammar"])
    run(remove_layers(build_tiny(), [2]), tasks=["grammar"])
    run(tasks=["grammar"], limit=4)
    run(tasks=["grammar"], seed=7)
    run(tasks=["grammar"], shots=0)
    with monkeypatch.context() as patch:  # somebody edited the items
        patch.setattr(comparing, "definition_of", lambda name: "another")
        run(tasks=["grammar"])
    assert len(runs) == 6
    run(tasks=["grammar"])
    assert len(runs) == 6  # and the first result is still there


def test_a_stopped_run_goes_on(run, runs, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        counted = comparing.run_task

        def stopped(model, tokenizer, name, *args, **options):
            if name == "physical":
                raise KeyboardInterrupt
            return counted(model, tokenizer, name, *args, **options)

        patch.setattr(comparing, "run_task", stopped)
        with pytest.raises(KeyboardInterrupt):
            run()
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 1
    assert run()["task"].tolist() == TASKS and runs == TASKS


DAMAGE = {
    "cut": lambda text: text[:-20],
    "foreign": lambda text: "years of work\n",
    "a line between": lambda text: text + "\n" + text,
    "other fields": lambda text: text + json.dumps({"a": 1}) + "\n",
    "a list": lambda text: text + "[1, 2]\n",
    "bytes": lambda text: "\x00" * len(text),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_one_sentence_and_stays_as_it_is(damage, run, runs, tmp_path):
    file = tmp_path / "r.jsonl"
    run()
    file.write_text(damage(file.read_text()))
    before = file.read_bytes()
    with pytest.raises(ValueError, match=r"r.jsonl, line \d, is no result of evaluate\(\): .*left as it is$"):
        run(limit=4)
    assert file.read_bytes() == before and runs == TASKS  # and nothing was measured


def test_a_half_written_task_is_run_again(run, runs, tmp_path):
    """A task with two metrics has two lines; one of them alone is not the task's result."""
    rows = [ROW | {"metric": name} for name in ("acc", "acc_norm")]
    key = KEY
    file = tmp_path / "two.jsonl"
    records.add(file, key, rows)
    assert [row["metric"] for row in records.known(file, key)] == ["acc", "acc_norm"]
    file.write_text(file.read_text().splitlines()[0] + "\n")
    assert records.known(file, key) is None
    records.add(file, key, rows)
    assert records.known(file, key) == rows


def test_writing_that_fails_leaves_the_old_file(run, tmp_path, monkeypatch):
    run()
    before = (tmp_path / "r.jsonl").read_bytes()

    def full(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="the disk is full"):
        run(limit=4)
    assert (tmp_path / "r.jsonl").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == ["r.jsonl"]


def test_a_full_disk_is_one_sentence_and_the_tasks_before_stay(run, runs, tmp_path, monkeypatch):
    run(tasks=["grammar"])
    before = (tmp_path / "r.jsonl").read_bytes()

    def full(*args):  # what is written so far is on the disk, then it has no more room
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"the disk is full: .*r.jsonl was not written; free some space$"):
            run()
    assert (tmp_path / "r.jsonl").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [".r.jsonl.lock", "r.jsonl"]
    assert run()["task"].tolist() == TASKS and runs == [*TASKS, "physical"]


def test_whatever_a_library_says_of_a_full_disk_is_one_sentence(tmp_path):
    """NumPy tells only how many bytes it could not write; an error that is none of these stays itself."""
    file = tmp_path / "a.bin"
    file.write_text("before")
    for error in (
        OSError("12720 requested and 672 written"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ):
        with (
            pytest.raises(OSError, match=r"the disk is full: .*a.bin was not written"),
            file_written_beside(file) as new,
        ):
            new.write_text("half")
            raise error
    with pytest.raises(OSError, match="^3 requested and 2 written by hand$"), file_written_beside(file):
        raise OSError("3 requested and 2 written by hand")
    assert file.read_text() == "before" and list(tmp_path.iterdir()) == [file]


def test_two_writers_lose_nothing(tmp_path):
    rows = [ROW]
    keys = [KEY | {"seed": i} for i in range(24)]
    threads = [threading.Thread(target=records.add, args=(tmp_path / "r.jsonl", key, rows)) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(records.known(tmp_path / "r.jsonl", key) == rows for key in keys)


def test_numbers_that_are_none_come_back(tmp_path):
    row = ROW | {"value": 0.1 + 0.2, "standard_error": float("nan"), "subset": True}
    key = KEY | {"limit": None, "shots": None}
    records.add(tmp_path / "new" / "r.jsonl", key, [row])
    (back,) = records.known(tmp_path / "new" / "r.jsonl", key)
    assert np.isnan(back.pop("standard_error")) and back == {k: v for k, v in row.items() if k != "standard_error"}


# ---- the same model? -------------------------------------------------------------------------------------------------
def test_a_fingerprint_is_that_of_the_model_and_not_of_the_object(tokenizer, tmp_path):
    model = build_tiny()
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    mark = fingerprint(model, tokenizer)
    assert mark == fingerprint(build_tiny(), tokenizer) == fingerprint(again, tokenizer)
    assert len(mark) == 16 and all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_every_change_has_a_fingerprint_of_its_own(tokenizer, batch):
    def changed(change):
        model = build_tiny()
        with torch.no_grad():
            change(model)
        return model

    def down(model):
        return model.model.layers[3].mlp.down_proj.weight

    models = {
        "dense": build_tiny(),
        "seed": build_tiny(seed=1),
        "layer": remove_layers(build_tiny(), [3]),
        "another layer": remove_layers(build_tiny(), [4]),
        "ffn": remove_sublayers(build_tiny(), ffn=[3]),
        "healed": heal(remove_layers(build_tiny(), [3]), [3], [batch], progress=False),
        "half": build_tiny().bfloat16(),
        "one weight": changed(lambda m: down(m)[7, 11].add_(1e-6)),
        "order": changed(lambda m: down(m).copy_(down(m).flip(0))),
        "not in the weights": changed(lambda m: m.model.layers[2].register_forward_hook(lambda a, b, out: 2 * out)),
        "configuration": changed(lambda m: setattr(m.config, "rms_norm_eps", 1e-3)),
    }  # fmt: skip
    marks = {name: fingerprint(model, tokenizer) for name, model in models.items()}
    assert len(set(marks.values())) == len(models), marks
    tokenizer.add_tokens(["zz"])
    assert fingerprint(models["dense"], tokenizer) != marks["dense"]


def test_quantized_weights_count(tokenizer):
    marks = [fingerprint(quantize(build_tiny(seed=seed)), tokenizer) for seed in (0, 0, 1)]
    assert marks[0] == marks[1] != marks[2]


@pytest.mark.real
def test_the_real_model_goes_on_after_an_interruption(real, runs, tmp_path, monkeypatch):
    options = {"limit": 5, "progress": False}
    expected = evaluate(*real, **options)
    with monkeypatch.context() as patch:
        counted = comparing.run_task

        def stopped(model, tokenizer, name, *args, **settings):
            if name == "last_word":  # in the middle of it: a few prompts are read already
                patch.setattr(model, "forward", interrupt_after(3, model.forward))
            return counted(model, tokenizer, name, *args, **settings)

        patch.setattr(comparing, "run_task", stopped)
        with pytest.raises(KeyboardInterrupt):
            evaluate(*real, results=tmp_path / "r.jsonl", batch_size=1, **options)
    del runs[:]
    again = evaluate(*real, results=tmp_path / "r.jsonl", **options)
    assert runs == ["last_word", "physical", "science"]
    pd.testing.assert_frame_equal(again, expected, check_exact=True)


def interrupt_after(calls, forward):
    def interrupted(*args, **options):
        nonlocal calls
        calls -= 1
        if calls < 0:
            raise KeyboardInterrupt
        return forward(*args, **options)

    return interrupted


@pytest.mark.parametrize("task", ["piqa", "chid", "cmmlu"])
def test_without_a_network_one_sentence_says_so(task, tokenizer):
    with pytest.raises(ConnectionError, match=f"^the data of {task} is .*can't be reached: use offline tasks"):
        evaluate(build_tiny(), tokenizer, task, progress=False)


def test_a_tokenizer_that_cuts_otherwise_is_another_one(tokenizer):
    """The same vocabulary, so only what it makes of a text tells them apart."""
    model, other = build_tiny(), copy.deepcopy(tokenizer)
    other.backend_tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    assert other.get_vocab() == tokenizer.get_vocab()
    assert fingerprint(model, other) != fingerprint(model, tokenizer)
