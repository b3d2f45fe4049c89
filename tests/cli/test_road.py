"""The rest of the road in the shell: fewer bits, text side by side, files for other tools, a cut's cost, a config file."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
import torch
from command import LAYERS, data, ok, run
from transformers import AutoModelForCausalLM

from shortgpt import PruningPlan, built_in_text, generation_report, load, perplexity_table, quantize, remove_layers
from shortgpt.cli import cost_of_cut
from shortgpt.cli.export import LLAMA_CPP_WARNING
from shortgpt.pruning.plan import PLAN_FILE

pytestmark = pytest.mark.filterwarnings("ignore")
IDS = torch.arange(5, 25)[None]
TEXT = ("--text", "text.txt", "--samples", 2, "--length", 32)


# --- what a cut cost ---


def small_text(language="en"):
    """The first 1,500 characters of two documents of each genre that people wrote."""
    table = built_in_text("natural_test", language=language)
    return [text[:1500] for _, group in table.groupby("genre") for text in group["text"][:2]]


def test_prune_says_what_the_cut_cost(folder):
    done = data("prune", "cut", "--plan", "plan.json")["cost"]
    dense, tokenizer = load("model", device="cpu")
    texts = pd.DataFrame({"text": small_text()})
    for key, model in (("before", dense), ("after", remove_layers(dense, [1, 2]))):
        row = perplexity_table(model, tokenizer, texts).iloc[0]
        assert done[key] == pytest.approx(row["perplexity"], rel=1e-5) and done["tokens"] == row["tokens"]
    assert done["before"] != done["after"] and not done["why_not"]
    told = ok("prune", "again", "--plan", "plan.json").stdout
    assert f"perplexity {done['before']:,.1f} before, {done['after']:,.1f} after" in told
    chinese = data("prune", "zh", "--model", "model", "-n", 1, "--language", "zh", "--samples", 2)["cost"]
    assert chinese["tokens"] == sum(len(text) - 1 for text in small_text("zh"))  # a token a character


def test_the_cost_is_not_measured_where_that_is_not_wanted_or_not_possible(folder, monkeypatch):
    quiet = ok("prune", "one", "--plan", "plan.json", "--no-cost")
    assert "perplexity" not in quiet.output and "saved" not in quiet.stderr
    assert data("prune", "two", "--plan", "plan.json", "--on-disk")["cost"] is None  # nothing is ever built

    def refuses(*args, **options):
        raise ValueError("layer 3 gives NaN")

    monkeypatch.setattr(cost_of_cut.shortgpt, "perplexity_table", refuses)
    told = ok("prune", "three", "--plan", "plan.json").stdout
    assert "verified" in told and "what it cost was not measured: layer 3 gives NaN" in told


# --- fewer bits ---


@pytest.mark.parametrize(
    ("options", "how"),
    [
        ([], {"bits": 8}),
        (["--bits", 4], {"bits": 4, "method": "nf4"}),
        (["--bits", 4, "--method", "rtn", "--group-size", 32], {"bits": 4, "method": "rtn", "group_size": 32}),
    ],
)
def test_quantize_writes_what_the_library_makes_and_transformers_reads_it(folder, options, how):
    if not find_spec("bitsandbytes" if how.get("method") == "nf4" else "torchao"):
        pytest.skip("needs the extra [quant]")
    ok("prune", "cut", "--plan", "plan.json", "--no-cost")
    done = data("quantize", "cut", "-o", "small", *options)
    pruned, _ = load("cut", device="cpu")
    expected = quantize(pruned, **how)
    plain = AutoModelForCausalLM.from_pretrained("small", dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(plain(IDS).logits, expected(IDS).logits, atol=2e-2, rtol=2e-2)
        assert not torch.equal(plain(IDS).logits, pruned(IDS).logits)
    assert done["method"] == how.get("method", "int8") and done["bits"] == how["bits"] and done["verified"]
    assert done["memory_bytes"] < done["memory_bytes_before"]
    assert PruningPlan.from_json(f"small/{PLAN_FILE}").removed == (1, 2)  # what was removed is not forgotten
    assert data("info", "small")["removed_layers"] == [1, 2]


def test_quantize_reads_text_for_gptq_alone(folder, monkeypatch):
    given = {}

    def noted(model, bits, **options):
        given.update(options, bits=bits)
        return model

    monkeypatch.setattr("shortgpt.quantize", noted)
    ok("quantize", "model", "-o", "out", "--bits", 4, "--method", "gptq", *TEXT)
    assert given["method"] == "gptq" and [batch["input_ids"].shape for batch in given["calibration"]] == [(2, 32)]
    ok("quantize", "model", "-o", "out2")
    assert given["calibration"] is None and given["bits"] == 8


def test_what_no_configuration_describes_is_refused_before_it_is_loaded(folder, monkeypatch):
    ok("prune", "own", "--model", "model", "--layers", 3, "--sublayers", "ffn")
    monkeypatch.setattr("shortgpt.load", lambda *args, **options: pytest.fail("loaded"))
    refused = run("quantize", "own", "-o", "out")
    assert (
        refused.exit_code == 1 and "own is saved in shortgpt's own format, which holds no quantized" in refused.stderr
    )
    assert not Path("out").exists()


# --- side by side ---


def test_generate_puts_the_dense_model_before_the_pruned_one(folder):
    ok("prune", "cut", "--plan", "plan.json", "--no-cost")
    line = ("generate", "cut", "-p", "the tide", "-p", "a boat", "--tokens", 8)
    rows = pd.DataFrame(data(*line))
    assert (
        rows["prompt"].tolist() == ["the tide"] * 2 + ["a boat"] * 2 and rows["model"].tolist() == ["model", "cut"] * 2
    )
    (dense, tokenizer), (cut, _) = load("model", device="cpu"), load("cut", device="cpu")
    expected = generation_report(
        {"model": dense, "cut": cut}, tokenizer, ["the tide", "a boat"], new_tokens=8, progress=False
    )
    assert rows["text"].tolist() == expected["text"].tolist() and rows["tokens"].max() == 8
    page = ok(*line).stdout
    assert page.index("the tide") < page.index("[model]") < page.index("[cut]") < page.index("a boat")
    assert rows["text"][0].split()[0] in page and "repetition" in page


def test_generate_samples_as_the_seed_says(folder):
    line = ("generate", "model", "-p", "the tide", "--tokens", 12)
    drawn = [data(*line, "--temperature", 1, "--seed", seed)[0]["text"] for seed in (3, 3, 4)]
    assert drawn[0] == drawn[1] != drawn[2] and drawn[0] != data(*line)[0]["text"]
    model, tokenizer = load("model", device="cpu")
    report = generation_report(
        {"m": model}, tokenizer, ["the tide"], new_tokens=12, temperature=1, seed=3, progress=False
    )
    assert drawn[0] == report["text"][0]
    assert "sampled at temperature 1, seed 3" in ok(*line, "--temperature", 1, "--seed", 3).stderr


def test_generate_asks_a_chat_model_through_its_template(folder, tokenizer, monkeypatch):
    tokenizer.chat_template = "ask {{ messages[0]['content'] }}{% if add_generation_prompt %} say {% endif %}"
    tokenizer.save_pretrained("model")
    seen = []
    real = generation_report
    monkeypatch.setattr(
        "shortgpt.generation_report",
        lambda m, t, prompts, **o: seen.append((prompts, o["bos"])) or real(m, t, prompts, **o),
    )
    assert data("generate", "model", "-p", "who", "--chat", "--tokens", 4)[0]["prompt"] == "who"
    data("generate", "model", "-p", "who", "--tokens", 4)
    assert seen == [(["ask who say "], False), (["who"], None)]


# --- other tools ---


def test_export_repeats_the_cut_for_mergekit_and_llama_cpp(folder):
    plan = PruningPlan.from_json("plan.json")
    ok("prune", "cut", "--plan", "plan.json", "--no-cost")
    listed = ok("export", "cut", "--llama-cpp")
    assert listed.stdout == "1,2\n" and LLAMA_CPP_WARNING in listed.stderr and "27976" in LLAMA_CPP_WARNING
    assert "27976" in ok("prune", "--plan", "plan.json", "--to-llama-cpp").stderr  # the older way says so too
    for source in ("cut", "plan.json"):
        assert data("export", source, "--mergekit", "cut.yml", "--overwrite")["mergekit"] == "cut.yml"
        assert Path("cut.yml").read_text() == plan.to_mergekit()
    refused = run("export", "cut", "--mergekit", "cut.yml")
    assert (
        refused.exit_code == 1 and "cut.yml exists already: choose another name, or pass --overwrite" in refused.stderr
    )


def test_export_gguf_is_save_gguf(folder, monkeypatch):
    ok("prune", "cut", "--plan", "plan.json", "--no-cost")
    given = {}

    def noted(model, tokenizer, path, **options):
        given.update(options, layers=model.config.num_hidden_layers, path=path)

    monkeypatch.setattr("shortgpt.save_gguf", noted)
    ok("export", "cut", "--gguf", "cut.gguf", "--outtype", "q8_0", "--converter", "there", "--no-verify")
    assert given == {"layers": LAYERS - 2, "path": Path("cut.gguf"), "outtype": "q8_0"} | {
        "converter": Path("there"),
        "overwrite": False,
        "verify": False,
    }


# --- one config file ---

RUN = """
[score]
number = 2
text = "text.txt"
samples = 2
length = 32

[prune]
plan = "plan.json"
cost = false
device = "cpu"

[generate]
prompt = ["the tide", "a boat"]
tokens = 3
"""


def test_a_config_file_gives_options_and_the_command_line_wins(folder):
    Path("run.toml").write_text(RUN)
    flags = data("score", "model", "--number", 2, *TEXT)
    assert data("--config", "run.toml", "score", "model") == flags
    assert sum(row["remove"] for row in data("score", "model", "-n", 3, "--config", "run.toml")) == 3
    assert data("prune", "cut", "--config", "run.toml")["removed"] == [1, 2]
    assert [row["tokens"] for row in data("generate", "cut", "--config", "run.toml")] == [3] * 4
    assert data("score", "model", *TEXT)[0].keys() == flags[0].keys() - {"remove", "selection_frequency"}  # forgotten


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[prunes]\nplan = 'x'", "run.toml has 'prunes', and its sections are those of commands: score, prune, heal"),
        ("number = 3", "run.toml has 'number', and its sections"),
        ("[score]\nnunber = 3", 'Unknown option: "[nunber]"'),
        ("[score]\nnumber = 'many'", "[number] from"),
        ("[score", "run.toml is not TOML"),
    ],
)
def test_a_wrong_config_file_is_one_sentence(folder, text, message):
    Path("run.toml").write_text(text)
    refused = run("score", "model", "--config", "run.toml")
    assert refused.exit_code == 2 and message in refused.stderr and refused.stderr.count("\n") == 2
    assert json.dumps(refused.stdout) == '""'


def test_an_entry_to_the_challenge_is_scored(folder, monkeypatch):
    monkeypatch.setattr("shortgpt.cli.challenge.default_model", lambda: "model")
    for name, small in {"DOCUMENTS": 4, "LENGTH": 20, "GIVEN": 4, "ASKED": 3}.items():
        monkeypatch.setattr(f"shortgpt.evaluation.challenge.{name}", small)
    six = tuple(range(1, 7))
    PruningPlan(layers=LAYERS, removed=six, model="model").to_json("six.json")
    found = data("challenge", "six.json", "--word", "tide")
    ok("prune", "smaller", "--plan", "six.json", "--no-cost")
    assert data("challenge", "smaller", "--word", "tide") == found, "a plan and the folder that it makes"
    assert found["layers"] == LAYERS - 6 and found["nats_lost"] > 0 and found["word"] == "tide"
    assert data("challenge", "six.json", "--word", "ebb")["text"] != found["text"]
    assert re.search(r"^nats lost +[\d.]+ ± [\d.]+ a token", ok("challenge", "six.json", "--word", "tide").stdout)
    few = run("challenge", "plan.json", "--word", "tide")
    assert few.exit_code == 1 and "10 decoder layers are left, and the challenge allows 6: remove 4 more" in few.stderr
