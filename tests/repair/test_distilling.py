"""Distilling: it learns, nothing to learn is nothing lost, the dense model stays, a stopped run goes on."""

import errno
import json
import math
import os
import subprocess
import sys
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from small import LAYERS, build_tiny, random_batch
from transformers import AutoModelForCausalLM

from shortgpt import distill, heal, load, remove_layers, save
from shortgpt.checkpoints.card import model_card
from shortgpt.pruning.plan import PruningPlan
from shortgpt.pruning.repair_record import repairs_so_far
from shortgpt.repair import distilling, training
from shortgpt.repair.reading import HOLD_BACK, TEXT_FILE, split, teacher_text
from shortgpt.repair.training import LONGEST_STEP, STATE_FILE, learning_rate, step_rows

TEXTS = [
    f"the {a} came in over the {b} and the {c} rose with it, slowly. " * 4
    for a in ("tide", "rain", "crowd")
    for b in ("flats", "hills", "square")
    for c in ("boats", "river", "noise")
]
needs_peft = pytest.mark.skipif(not find_spec("peft"), reason="needs peft")
full_and_lora = pytest.mark.parametrize("lora", [None, pytest.param(4, marks=needs_peft)])
QUICK = {"length": 16, "batch_size": 4, "at_once": 4, "evaluations": 3, "progress": False}
STEPS = {"tokens": 16 * 4 * 12} | QUICK  # twelve steps


def logits(model):
    with torch.no_grad():
        return model.eval()(**random_batch()).logits


def weights(model):
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(weights(first).values(), weights(second).values(), strict=True))


@pytest.fixture
def dense():
    return build_tiny()


@full_and_lora
def test_it_learns_and_changes_neither_model(dense, tokenizer, lora):
    pruned = remove_layers(dense, [2, 3])
    before = weights(dense)
    rows = []
    healed, history = distill(
        pruned, dense, tokenizer, TEXTS, lora=lora, report=rows.append, **STEPS | {"tokens": 64 * 40}
    )
    assert all(torch.equal(before[name], weight) for name, weight in dense.named_parameters())
    assert {id(p) for p in healed.parameters()}.isdisjoint(id(p) for p in pruned.parameters())
    assert type(healed) is type(pruned) and weights(healed).keys() == weights(pruned).keys()
    assert not any("peft" in type(module).__module__ for module in healed.modules())
    assert history["divergence"].iloc[-1] < 0.9 * history["divergence"].iloc[0]
    assert history["states"].iloc[-1] < history["states"].iloc[0]
    assert history["tokens"].tolist() == [0, 64 * 13, 64 * 27, 64 * 40] and len(rows) == 4
    step = repairs_so_far(healed.config)[-1]
    assert step["kind"] == "distill" and step["layers"] == [0, 1, 4, 5] and not repairs_so_far(pruned.config)
    assert step["tokens"] == history.loc[history["best"], "tokens"].item() == 16 * step["samples"]
    assert healed.config.name_or_path == "" and all(p.grad is None for p in healed.parameters())


@pytest.mark.parametrize("top_k", [None, 8])
def test_identical_models_have_nothing_to_lose(dense, tokenizer, top_k):
    same_model, history = distill(dense, dense, tokenizer, TEXTS, top_k=top_k, **STEPS | {"tokens": 64})
    assert history["loss"].iloc[1] == history["divergence"].iloc[0] == history["states"].iloc[0] == 0
    assert same(same_model, dense) and not repairs_so_far(same_model.config)


@full_and_lora
def test_a_learning_rate_of_zero_changes_nothing(dense, tokenizer, lora):
    pruned = remove_layers(dense, [2])
    healed, history = distill(pruned, dense, tokenizer, TEXTS, lora=lora, learning_rate=0, **STEPS)
    torch.testing.assert_close(logits(healed), logits(pruned), rtol=0, atol=0 if lora is None else 1e-5)
    assert history["divergence"].nunique() == 1 and history["divergence"].iloc[0] > 0


@needs_peft
def test_merged_adapters_answer_as_they_did(dense, tokenizer, monkeypatch):
    pruned, held = remove_layers(dense, [2]), {}
    merge = distilling._finished

    def look(run, wrapper, *more):
        training.put_back(run, run.best)
        held["before"] = logits(wrapper)
        held["adapters"] = max(float(w.detach().abs().max()) for n, w in run.weights().items() if "lora_B" in n)
        return merge(run, wrapper, *more)

    monkeypatch.setattr(distilling, "_finished", look)
    healed, _ = distill(pruned, dense, tokenizer, TEXTS, lora=4, **STEPS)
    assert held["adapters"] > 0
    torch.testing.assert_close(logits(healed), held["before"], rtol=1e-4, atol=1e-4)
    assert (logits(healed) - logits(pruned)).abs().max() > 1e-2


@full_and_lora
def test_killed_and_continued_is_as_never_stopped(dense, tokenizer, tmp_path, monkeypatch, lora):
    pruned, call = remove_layers(dense, [2, 3]), {"lora": lora, **STEPS}
    whole, history = distill(pruned, dense, tokenizer, TEXTS, **call)

    class Killed(BaseException):
        """As a signal would: nothing in the package catches it."""

    steps, real_step = [], training._one_step

    def dying(run):
        if len(steps) == 6:  # measured and kept after 4
            raise Killed
        steps.append(run.step)
        return real_step(run)

    monkeypatch.setattr(training, "_one_step", dying)
    with pytest.raises(Killed):
        distill(pruned, dense, tokenizer, TEXTS, folder=tmp_path / "run", **call)
    steps.clear()
    monkeypatch.setattr(training, "_one_step", lambda run: steps.append(run.step) or real_step(run))
    again, continued = distill(pruned, dense, tokenizer, TEXTS, folder=tmp_path / "run", **call)
    assert steps == list(range(4, 12)) and same(whole, again)
    measured = ["step", "tokens", "loss", "divergence", "states", "perplexity", "best"]
    assert continued[measured].equals(history[measured])
    with pytest.raises(ValueError, match="holds a run with seed 0, not 1: call it as before, or name another folder"):
        distill(pruned, dense, tokenizer, TEXTS, folder=tmp_path / "run", seed=1, **call)


def test_ctrl_c_leaves_the_best_so_far_and_says_so(dense, tokenizer, tmp_path, monkeypatch):
    pruned, real_step = remove_layers(dense, [2, 3]), training._one_step
    call = {"folder": tmp_path, "learning_rate": 3e-3} | STEPS

    def pressed(run):
        if run.step == 9:
            raise KeyboardInterrupt
        return real_step(run)

    with monkeypatch.context() as patch, pytest.warns(UserWarning, match="interrupted: stopped after 576 of 768"):
        patch.setattr(training, "_one_step", pressed)
        healed, history = distill(pruned, dense, tokenizer, TEXTS, **call)
    assert history["step"].tolist() == [0, 4, 8] and "the same call goes on" in history.attrs["stopped"]
    kept = torch.load(tmp_path / STATE_FILE, weights_only=True)
    assert all(torch.equal(kept["best"][name], weight) for name, weight in healed.named_parameters())
    _, history = distill(pruned, dense, tokenizer, TEXTS, **call)
    assert history["step"].tolist() == [0, 4, 8, 12] and history.attrs["stopped"] == ""


def test_a_loss_that_is_no_number_ends_the_run_with_the_best(dense, tokenizer, monkeypatch):
    pruned, real_step = remove_layers(dense, [2, 3]), training._one_step

    def diverging(run):
        return real_step(run) if run.step < 5 else math.nan

    monkeypatch.setattr(training, "_one_step", diverging)
    with pytest.warns(UserWarning, match="the loss is no number any more: lower learning_rate: stopped after 384 of"):
        healed, history = distill(pruned, dense, tokenizer, TEXTS, **STEPS)
    assert all(weight.isfinite().all() for weight in healed.parameters()) and history["step"].tolist() == [0, 4]
    monkeypatch.setattr(training, "_one_step", lambda run: math.nan)
    with pytest.raises(ValueError, match="lower learning_rate, and nothing better"):
        distill(pruned, dense, tokenizer, TEXTS, **STEPS)


def test_a_full_disk_ends_the_run_with_the_best_and_leaves_the_last_state(dense, tokenizer, tmp_path, monkeypatch):
    pruned, save_state, kept = remove_layers(dense, [2, 3]), torch.save, []

    def full(state, file):
        if state["step"] == 8:
            Path(file).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save_state(state, file)
        kept.append(state["step"])

    monkeypatch.setattr(torch, "save", full)
    with pytest.warns(UserWarning, match="the disk is full: .*state.pt was not written; free some space: stopped"):
        healed, _ = distill(pruned, dense, tokenizer, TEXTS, folder=tmp_path, **STEPS)
    assert kept == [0, 4] and [file.name for file in tmp_path.iterdir()] == [STATE_FILE]
    assert torch.load(tmp_path / STATE_FILE, weights_only=True)["step"] == 4 and not same(healed, pruned)


def test_parts_of_a_step_and_checkpointing_add_up_to_the_step(dense, tokenizer):
    pruned = remove_layers(dense, [2, 3])
    whole, _ = distill(pruned, dense, tokenizer, TEXTS, **STEPS)
    for change in ({"at_once": 1}, {"at_once": 3}, {"checkpointing": True}):
        parts, _ = distill(pruned, dense, tokenizer, TEXTS, **STEPS | change)
        torch.testing.assert_close(logits(parts), logits(whole), rtol=1e-3, atol=1e-3)
        assert not parts.is_gradient_checkpointing


def test_dropout_is_off_and_modes_and_flags_come_back(tokenizer):
    dense = build_tiny("gpt2").train()  # its configuration has dropout 0.1
    pruned = remove_layers(dense, [2])
    pruned.transformer.wte.weight.requires_grad_(False)
    pruned.transformer.h[1].eval()
    healed, history = distill(dense, dense, tokenizer, TEXTS, **STEPS | {"tokens": 64})
    assert history["loss"].iloc[1] == 0
    healed, _ = distill(pruned, dense, tokenizer, TEXTS, **STEPS | {"checkpointing": True})
    assert [m.training for m in healed.modules()] == [m.training for m in pruned.modules()]
    assert [p.requires_grad for p in healed.parameters()] == [p.requires_grad for p in pruned.parameters()]


@pytest.mark.parametrize("family", ["gemma3_text", "gpt2", "qwen3"])
@full_and_lora
def test_the_result_is_saved_as_what_it_was_made_of(tokenizer, tmp_path, family, lora):
    build_tiny(family).save_pretrained(tmp_path / "dense")
    dense = AutoModelForCausalLM.from_pretrained(tmp_path / "dense", dtype=torch.bfloat16)
    healed, _ = distill(remove_layers(dense, [2, 3]), dense, tokenizer, TEXTS, lora=lora, **STEPS)
    assert {p.dtype for p in healed.parameters()} == {torch.bfloat16}
    again, _ = load(save(healed, tmp_path / "whole", tokenizer=tokenizer), device="cpu", dtype=torch.bfloat16)
    torch.testing.assert_close(logits(again), logits(healed), rtol=0, atol=0)
    assert repairs_so_far(again.config)[-1]["kind"] == "distill"


def test_a_linear_patch_is_trained_along_and_the_card_tells_both(dense, tokenizer, tmp_path):
    batches = [random_batch(4, 24, seed=s) for s in range(3)]
    pruned = heal(dense, [2, 3], batches, kind="linear", progress=False)
    healed, _ = distill(pruned, dense, tokenizer, TEXTS, **STEPS)
    patch = [name for name in weights(healed) if "linear_patch" in name]
    assert patch and any(not torch.equal(weights(healed)[name], weights(pruned)[name]) for name in patch)
    again, _ = load(save(healed, tmp_path / "out", tokenizer=tokenizer), device="cpu")
    torch.testing.assert_close(logits(again), logits(healed))
    card = model_card(PruningPlan(LAYERS, (2, 3)), repairs=repairs_so_far(healed.config))
    assert "a linear module was added behind layer 1" in card and "; then what stayed was trained on " in card
    assert "(shortgpt.distill, all weights)" in card


# ---- what is read ----------------------------------------------------------------------------------------------------
def test_every_sample_comes_before_any_comes_again():
    read = [row for step in range(10) for row in step_rows(7, step, 4, seed=3)]
    assert all(sorted(read[start : start + 7]) == list(range(7)) for start in range(0, 35, 7))
    assert read[:7] != read[7:14] and read[:4] != step_rows(7, 0, 4, seed=4)


def test_the_learning_rate_rises_then_falls_to_a_tenth():
    rates = [learning_rate(step, 100, 2.0) for step in range(100)]
    assert rates[:5] == pytest.approx([0.4, 0.8, 1.2, 1.6, 2.0]) and max(rates) == pytest.approx(2.0)
    assert all(a >= b for a, b in pairwise(rates[4:])) and 0.2 < rates[-1] < 0.202


def test_held_back_text_is_never_read():
    read, held = split(TEXTS)
    assert not set(read) & set(held) and len(held) == -(-len(TEXTS) // HOLD_BACK) and {*read, *held} == {*TEXTS}
    (read,), (held,) = split(["abcdefghij" * 10])
    assert read + held == "abcdefghij" * 10 and len(held) == 10


def test_the_teacher_writes_what_the_seed_says_and_goes_on_writing(dense, tokenizer, tmp_path):
    tokenizer.eos_token = "a"
    call = {"length": 8, "seed": 0, "progress": False}
    whole = teacher_text(dense, tokenizer, 600, folder=None, **call)
    teacher_text(dense, tokenizer, 100, folder=tmp_path, **call)
    assert teacher_text(dense, tokenizer, 600, folder=tmp_path, **call) == whole
    kept = [json.loads(line)["text"] for line in (tmp_path / TEXT_FILE).read_text().splitlines()]
    assert kept == whole and teacher_text(dense, tokenizer, 600, folder=None, **call | {"seed": 1}) != whole
    healed, history = distill(remove_layers(dense, [2]), dense, tokenizer, **STEPS)
    assert len(history) == 4 and healed.config.num_hidden_layers == LAYERS - 1


@pytest.mark.slow
def test_two_processes_learn_what_one_does(dense, tokenizer, tmp_path):
    tokenizer.eos_token = "."
    dense.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    script = tmp_path / "run.py"
    script.write_text(
        "import json, sys, torch\n"
        "from pathlib import Path\n"
        "from shortgpt import distill, load, remove_layers\n"
        "from shortgpt.utils.distributed import this_process\n"
        f"model, tokenizer = load({str(tmp_path / 'model')!r}, device='cpu')\n"
        f"healed, history = distill(remove_layers(model, [2, 3]), model, tokenizer, {TEXTS!r}, **{STEPS!r})\n"
        f"folder = Path({str(tmp_path)!r}) / f'rank{{this_process()[0]}}'\n"
        "folder.mkdir()\n"
        "torch.save(healed.state_dict(), folder / 'weights.pt')\n"
        "history.to_csv(folder / 'history.csv')\n"
    )
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    subprocess.run(run, check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    one, _ = distill(remove_layers(dense, [2, 3]), dense, tokenizer, TEXTS, **STEPS)
    for rank in (0, 1):
        two = remove_layers(build_tiny(seed=1), [2, 3])
        two.load_state_dict(torch.load(tmp_path / f"rank{rank}" / "weights.pt"))
        torch.testing.assert_close(logits(two), logits(one), rtol=1e-3, atol=1e-3)


def test_gradients_are_cut_to_the_longest_step(dense, tokenizer, monkeypatch):
    norms, real = [], torch.optim.AdamW.step

    def look(optimizer, *args, **options):
        gradients = [weight.grad for group in optimizer.param_groups for weight in group["params"]]
        norms.append(torch.stack([gradient.norm() for gradient in gradients if gradient is not None]).norm().item())
        return real(optimizer, *args, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", look)
    distill(remove_layers(dense, [2, 3]), dense, tokenizer, TEXTS, states=1e4, **STEPS | {"tokens": 64 * 2})
    assert norms == pytest.approx([LONGEST_STEP] * 2, rel=1e-4), "far longer without"
