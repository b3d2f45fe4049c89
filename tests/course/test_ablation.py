"""A set of layers costs what the pruned model costs, whatever was tried before it."""

import numpy as np
import pytest
import torch
from small import LAYERS, build_tiny

from shortgpt import Ablation, Trials, continue_text, remove_layers, size
from shortgpt.course.studies.ablation import multiplications
from shortgpt.evaluation.likelihood import token_losses

TEXT = "the old keeper of the light opened the door and looked out over the grey water."
SETS = [[3], [3, 5], [1, 3, 5], [], [4], [0, 4], [3], [1, 2, 3, 4, 5]]


@pytest.fixture
def ablation(tokenizer):
    return Ablation(build_tiny(), tokenizer, TEXT, prompt="the door", new_tokens=4)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_perplexity_is_that_of_the_pruned_model_in_any_order_of_trying(family, tokenizer):
    model = build_tiny(family)
    ablation = Ablation(model, tokenizer, TEXT)
    ids = torch.tensor(tokenizer(TEXT)["input_ids"])
    dense = np.exp(token_losses(model, ids).mean().item())
    for layers in SETS:
        with torch.inference_mode():
            expected = np.exp(token_losses(remove_layers(model, layers), ids).mean().item())
        found = ablation(layers)
        assert found["perplexity"] == pytest.approx(expected, rel=1e-4)
        assert found["times_dense"] == pytest.approx(expected / dense, rel=1e-4)
        assert found["layers"] == layers and found["removed"] == len(layers)


def test_size_and_text_are_those_of_the_pruned_model(ablation):
    for layers in ([], [2], [1, 4]):
        pruned = remove_layers(ablation.model, layers)
        assert ablation(layers)["memory_mb"] == size(pruned)["memory_bytes"] / 1e6
        assert ablation.writes(layers) == continue_text(pruned, ablation.tokenizer, "the door", new_tokens=4)
    assert ablation([2])["memory_mb"] < ablation([])["memory_mb"]


def test_only_layers_behind_the_first_that_differs_run_again_and_no_set_twice(ablation, monkeypatch):
    def ran(layers) -> float:
        before = ablation._trials.forward_passes
        ablation(layers)
        return (ablation._trials.forward_passes - before) * LAYERS

    assert ran([1]) == pytest.approx(4)  # 2, 3, 4 and 5
    assert ran([1, 5]) == pytest.approx(0)  # behind layer 5 is nothing but the head
    assert ran([1, 3, 5]) == pytest.approx(1)
    assert ran([3, 5]) == pytest.approx(3)
    monkeypatch.setattr(Trials, "__call__", lambda self, removed: pytest.fail("measured again"))
    assert ablation((5, 1))["layers"] == [1, 5]


def test_work_counts_every_matrix_that_a_token_meets():
    """Counted by hand: hidden 32, 4 heads of 8 and 2 for keys and values, FFN 64, vocabulary 96, two norms a layer."""
    layer = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 64 + 2 * 32
    for tied in (False, True):
        model = build_tiny()
        if tied:
            model.lm_head.weight = model.model.embed_tokens.weight
        assert multiplications(model) == LAYERS * layer + 32 + 96 * 32
    model = build_tiny()
    whole = multiplications(model)
    assert multiplications(remove_layers(model, [0, 3])) == whole - 2 * layer


def test_a_model_whose_trials_cannot_resume_gives_the_same(tokenizer, monkeypatch):
    resumed = Ablation(build_tiny(), tokenizer, TEXT)
    monkeypatch.setattr(Trials, "_can_resume", lambda self: False)
    plain = Ablation(build_tiny(), tokenizer, TEXT)
    assert not plain._trials.resumes and resumed._trials.resumes
    for layers in SETS[:4]:
        assert plain(layers)["perplexity"] == pytest.approx(resumed(layers)["perplexity"], rel=1e-4)


def test_the_table_has_a_row_for_each_choice(ablation):
    table = ablation.table({"dense": [], "mine": [5, 1]})
    assert list(table.index) == ["dense", "mine"] and table.loc["mine", "layers"] == [1, 5]
    assert table.loc["dense", ["times_dense", "work"]].tolist() == [1, 100]
    assert table.loc["mine", "text"] == ablation.writes([1, 5])


def test_the_text_is_cut_at_the_number_of_tokens_and_can_be_read(tokenizer):
    ablation = Ablation(build_tiny(), tokenizer, TEXT, tokens=7)
    assert ablation.text.replace(" ", "") == TEXT[:7].replace(" ", "")
