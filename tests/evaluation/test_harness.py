"""How the harness is run: settings, the screen, and that everything is as it was afterwards."""

import json
import logging
import random
import re

import datasets
import numpy as np
import pytest
import torch
from small import build_tiny, joining

from shortgpt import evaluate
from shortgpt.evaluation import harness
from shortgpt.utils.data import data_folder


@pytest.fixture
def tokenizer(tokenizer):
    tokenizer.eos_token = "?"
    return tokenizer


@pytest.mark.parametrize(
    ("asked", "device", "given"), [(16, "cpu", 16), (3, "cuda", 3), ("auto", "cpu", 16), ("auto", "cuda", "auto")]
)
def test_automatic_batches_are_for_a_gpu(asked, device, given, monkeypatch):
    monkeypatch.setattr(harness, "input_device", lambda model: torch.device(device))
    assert harness._batch_size(build_tiny(), asked) == given


def test_the_batch_size_changes_no_answer(tokenizer):
    tables = [
        evaluate(build_tiny(), tokenizer, "grammar", limit=9, batch_size=n, progress=False) for n in (1, 4, "auto")
    ]
    assert tables[0].equals(tables[1]) and tables[0].equals(tables[2])


def test_bars_are_shown_or_not(tokenizer, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no repository: the harness would let git complain
    evaluate(build_tiny(), tokenizer, "grammar", limit=2, progress=False)
    assert capfd.readouterr().err == ""
    evaluate(build_tiny(), tokenizer, "grammar", limit=2)
    shown = capfd.readouterr().err
    assert "benchmarks" in shown and "loglikelihood" in shown


def test_the_seed_reaches_the_harness_and_leaves_the_random_state(tokenizer, monkeypatch):
    from lm_eval import evaluator

    given, simple_evaluate = [], evaluator.simple_evaluate

    def noted(**options):
        given.append({name: value for name, value in options.items() if name.endswith("seed")})
        return simple_evaluate(**options)

    monkeypatch.setattr(evaluator, "simple_evaluate", noted)
    model = build_tiny()
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    evaluate(model, tokenizer, "grammar", limit=2, seed=11, progress=False)
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected
    assert list(given[0].values()) == [11] * 4


def test_log_probabilities_of_a_model_in_half_precision_are_not_rounded(tokenizer, monkeypatch):
    """The harness computes them in the model's dtype by itself: steps of 0.1, in which answers tie."""
    from lm_eval.models.huggingface import HFLM

    seen, original = [], HFLM.loglikelihood

    def watched(self, requests, **options):
        found = original(self, requests, **options)
        seen.extend(value for value, _ in found)
        return found

    monkeypatch.setattr(HFLM, "loglikelihood", watched)
    tokenizer.eos_token = "?"
    evaluate(build_tiny().to(torch.bfloat16), tokenizer, "grammar", limit=4, progress=False)
    values = torch.tensor(seen)
    assert len(values) == 8 and (values != values.bfloat16().float()).all()


@pytest.mark.parametrize("task", ["grammar", "last_word"])
def test_without_progress_nothing_is_shown_not_even_while_data_is_read(task, tokenizer, capfd, tmp_path, monkeypatch):
    """A fresh cache: `datasets` reads the items, and would draw a bar."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    evaluate(build_tiny(), tokenizer, task, limit=2, progress=False)
    assert capfd.readouterr() == ("", "") and any((tmp_path / "cache").iterdir())


def test_the_harness_says_nothing_about_settings_that_were_asked_for(tokenizer, caplog):
    """It warns of each worked example more than a task's file has."""
    evaluate(build_tiny(), tokenizer, "grammar", limit=2, shots=1, progress=False)
    assert not [record for record in caplog.records if record.name.startswith("lm_eval")]


def test_with_progress_data_and_prompts_have_a_bar_and_a_task_has_none(tokenizer, capfd, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    evaluate(build_tiny(), tokenizer, "grammar", limit=2)
    shown = capfd.readouterr().err
    for name in ("benchmarks: ", "Generating test split: ", "Running loglikelihood requests: "):
        assert name in shown
    assert not re.search(r"(^|[\r\n]) *\d+%", shown), "the bar of a task has no name"


def test_other_libraries_are_as_they_were(tokenizer):
    from lm_eval import evaluator
    from lm_eval.api import task

    loggers = [logging.getLogger(name) for name in ("lm_eval", "lm_eval.models.huggingface", "datasets")]

    def state():
        patched = task.tqdm, evaluator.add_env_info, evaluator.get_git_commit_hash
        return *patched, datasets.are_progress_bars_disabled(), *((each.level, *each.filters) for each in loggers)

    before = state()
    evaluate(build_tiny(), tokenizer, "grammar", limit=2, progress=False)
    assert state() == before and logging.getLogger("lm_eval").level == logging.NOTSET


@pytest.mark.parametrize("begins", [False, True])
def test_a_choice_is_scored_whole_where_its_tokens_join_those_of_the_prompt(begins):
    """Chinese has no space between prompt and choice. The reference takes the tokens of each alone, whatever joins."""
    items = [json.loads(line) for line in (data_folder() / "tasks/chinese.jsonl").read_text().splitlines()[:40]]
    joined = [item["context"] + choice for item in items for choice in item["choices"]]
    model, tokenizer = joining(joined, begins=begins)
    right = 0
    for item in items:
        losses = []
        for choice in item["choices"]:
            before, after = (tokenizer.encode(t, add_special_tokens=False) for t in (item["context"], choice))
            assert len(tokenizer.encode(item["context"] + choice, add_special_tokens=False)) < len(before + after)
            ids = torch.tensor([[1] * begins + before + after])
            logits = model(ids).logits.double().log_softmax(-1)[0, -len(after) - 1 : -1]
            losses.append(-logits[range(len(after)), after].sum().item())
        right += losses[item["answer"]] < losses[1 - item["answer"]]
    assert evaluate(model, tokenizer, "chinese", limit=40, progress=False)["value"].item() == 100 * right / 40


def test_a_space_before_the_choice_goes_with_it_also_where_tokens_join():
    model, tokenizer = joining(["吃 两碗", "吃两碗"])
    split = harness._wrapped(model, tokenizer, 64, 1, None, False)._encode_pair
    for prompt, choice in (("吃 ", "两碗"), ("吃", "两碗")):
        before, after = (tokenizer.decode(ids).replace(" ", "") for ids in split(prompt, choice))
        assert (before, after) == ("吃", "两碗")
    assert split("吃 ", "两碗")[1] != split("吃", "两碗")[1], "one of them has a space"
