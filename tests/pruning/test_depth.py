"""Removal equals skipping, survives caching, saving and re-pruning, and never touches the model it came from."""

import copy
import json
import os
from functools import partial
from pathlib import Path

import pytest
import torch
from references import identity_logits, logits
from small import LAYERS, build_tiny, random_batch
from transformers import AutoModelForCausalLM, GenerationConfig, T5Config, T5ForConditionalGeneration

from shortgpt import PruningPlan, choose_layers, decoder_layers, remove_layers, save, score_layers
from shortgpt.choosing.orders import removal_order
from shortgpt.model.anatomy import removed_so_far
from shortgpt.pruning.depth import renumber

REMOVALS = [[2, 3], [0], [LAYERS - 1], [0, 2, 5]]


@pytest.mark.parametrize("removed", REMOVALS)
def test_removal_equals_forcing_the_layers_to_identity(family_model, batch, removed):
    expected = identity_logits(family_model, batch, removed)
    torch.testing.assert_close(logits(remove_layers(family_model, removed), batch), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.real
def test_removal_equals_identity_on_the_real_model(real):
    model, tokenizer = real
    batch = dict(tokenizer("The river rose in the night and took the bridge with it.", return_tensors="pt"))
    removed = [12, 13, 25]
    torch.testing.assert_close(
        logits(remove_layers(model, removed), batch), identity_logits(model, batch, removed), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("removed", REMOVALS)
def test_cached_generation_equals_uncached(family_model, removed):
    pruned = remove_layers(family_model, removed)
    batch = random_batch(rows=2, tokens=7)
    settings = GenerationConfig(max_new_tokens=12, do_sample=False, pad_token_id=0, eos_token_id=-1)
    cached, uncached = (pruned.generate(**batch, generation_config=settings, use_cache=use) for use in (True, False))
    assert torch.equal(cached, uncached) and cached.shape[1] == 19


def test_stale_layer_indices_would_break_the_cache(batch):
    """The test above means something: without renumbering it fails."""
    broken = build_tiny()
    broken.model.layers = torch.nn.ModuleList(broken.model.layers[i] for i in (0, 1, 4, 5))
    broken.config.num_hidden_layers = 4
    with pytest.raises(IndexError):
        broken.generate(**batch, max_new_tokens=4, do_sample=False, pad_token_id=0)


@pytest.mark.parametrize("removed", REMOVALS)
def test_a_saved_checkpoint_reloads_with_equal_logits(family_model, batch, removed, tmp_path):
    pruned = remove_layers(family_model, removed)
    folder = save(pruned, tmp_path / "pruned")
    reloaded, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert len(decoder_layers(reloaded)) == LAYERS - len(removed)
    torch.testing.assert_close(logits(reloaded.eval(), batch), logits(pruned, batch), atol=0, rtol=0)
    assert removed_so_far(reloaded) == tuple(removed)


def test_per_layer_lists_keep_the_surviving_entries(batch):
    model = build_tiny("gemma3_text")
    kinds = [
        "sliding_attention",
        "full_attention",
        "sliding_attention",
        "sliding_attention",
        "full_attention",
        "sliding_attention",
    ]
    model.config.layer_types = kinds
    pruned = remove_layers(model, [0, 3])
    assert pruned.config.layer_types == [kinds[i] for i in (1, 2, 4, 5)]
    assert model.config.layer_types == kinds


def test_the_original_is_untouched_and_weights_are_shared(family_model, batch):
    before_state = {name: tensor.clone() for name, tensor in family_model.state_dict().items()}
    before_config, before_logits = family_model.config.to_dict(), logits(family_model, batch)
    pruned = remove_layers(family_model, [1, 4])
    assert family_model.config.to_dict() == before_config
    assert all(torch.equal(before_state[n], t) for n, t in family_model.state_dict().items())
    torch.testing.assert_close(logits(family_model, batch), before_logits, atol=0, rtol=0)
    own = {p.data_ptr() for p in family_model.parameters()}
    assert all(p.data_ptr() in own for p in pruned.parameters())
    assert pruned.get_output_embeddings().weight.data_ptr() in own


def test_a_pruned_model_can_be_pruned_again_in_original_numbers(tiny, batch, tmp_path):
    once = remove_layers(tiny, [1, 4])  # original 0 2 3 5 stay
    by_index = remove_layers(once, [1])  # that is original layer 2
    plan = PruningPlan(layers=LAYERS, removed=(1, 2, 4))
    for again in (by_index, remove_layers(once, plan), remove_layers(tiny, plan)):
        assert removed_so_far(again) == (1, 2, 4)
        torch.testing.assert_close(logits(again, batch), identity_logits(tiny, batch, [1, 2, 4]), atol=1e-5, rtol=1e-5)
    scores = score_layers(once, [batch], progress=False)
    assert scores.table["original_layer"].tolist() == [0, 2, 3, 5]
    further = choose_layers(scores, 1)
    assert further.layers == LAYERS and set(further.removed) > {1, 4} and set(further.scores) == {0, 2, 3, 5}
    reloaded = AutoModelForCausalLM.from_pretrained(save(once, tmp_path / "once"))
    assert removed_so_far(remove_layers(reloaded, further)) == tuple(sorted(further.removed))


def test_a_plan_for_another_model_is_refused(tiny):
    with pytest.raises(ValueError, match="plan is for a dense model of 30 layers"):
        remove_layers(tiny, PruningPlan(layers=30, removed=(3,)))
    with pytest.raises(ValueError, match=r"already lacks \[1\]"):
        remove_layers(remove_layers(tiny, [1]), PruningPlan(layers=LAYERS, removed=(3,)))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([LAYERS], "unknown layer 6: this model has layers 0 to 5"),
        ([-1], "unknown layer -1"),
        ([2, 2], "layer 2 is named twice"),
        (list(range(LAYERS)), "leaves none: keep at least one"),
        ([1.5], "named by its number"),
        (["3"], "named by its number"),
    ],
)
def test_bad_layers_are_one_clear_sentence(tiny, layers, message):
    with pytest.raises(ValueError, match=message):
        remove_layers(tiny, layers)


def test_models_without_a_decoder_stack_are_refused():
    t5 = T5ForConditionalGeneration(T5Config(vocab_size=32, d_model=8, d_ff=8, d_kv=4, num_layers=2, num_heads=2))
    with pytest.raises(ValueError, match="encoder-decoder"):
        remove_layers(t5, [0])
    headless = build_tiny()
    headless.config.num_hidden_layers = 17
    with pytest.raises(ValueError, match="no decoder stack: no list of 17 layers"):
        remove_layers(headless, [0])


def test_save_refuses_to_overwrite_and_replaces_whole_when_asked(tiny, tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    (target / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty: choose another folder, or pass overwrite to replace"):
        save(tiny, target)
    assert (target / "thesis.txt").read_text() == "mine"
    plan = PruningPlan(layers=LAYERS, removed=(1,))
    save(remove_layers(tiny, plan), target, plan=plan, overwrite=True)
    assert not (target / "thesis.txt").exists() and PruningPlan.from_json(target / "pruning_plan.json") == plan
    assert os.listdir(tmp_path) == ["model"]


def test_an_interrupted_save_leaves_nothing_and_keeps_the_old(tiny, tmp_path, monkeypatch):
    target = save(tiny, tmp_path / "model")
    before = sorted((f.name, f.stat().st_size) for f in target.iterdir())
    pruned = remove_layers(tiny, [0])
    for error, message in ((KeyboardInterrupt(), None), (OSError(28, "No space left on device"), "disk is full")):

        def fail(folder, error=error, **options):
            os.makedirs(folder, exist_ok=True)
            (folder / "half.safetensors").write_text("half")
            raise error

        monkeypatch.setattr(pruned, "save_pretrained", fail)
        with pytest.raises(type(error), match=message):
            save(pruned, target, overwrite=True)
        assert sorted((f.name, f.stat().st_size) for f in target.iterdir()) == before
        assert os.listdir(tmp_path) == ["model"]


def test_save_notices_a_checkpoint_that_reloads_as_another_model(tiny, tmp_path, monkeypatch):
    pruned = remove_layers(tiny, [2])
    write = pruned.save_pretrained

    def write_wrong_depth(folder):
        write(folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": LAYERS}))

    monkeypatch.setattr(pruned, "save_pretrained", write_wrong_depth)
    with pytest.raises(OSError, match=r"does not reload as the same model .*missing_keys"):
        save(pruned, tmp_path / "model")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("write", [PruningPlan.to_json, partial(PruningPlan.to_mergekit, model="x")])
def test_a_full_disk_leaves_the_plan_that_was_there(write, tmp_path, monkeypatch):
    path, plan = tmp_path / "plan.json", PruningPlan(LAYERS, (1, 2))
    write(plan, path)
    before, whole = path.read_bytes(), Path.write_text

    def half(self, text, **options):
        whole(self, text[: len(text) // 2], **options)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="disk is full"):
        write(PruningPlan(LAYERS, (4,)), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_plans_round_trip_and_reject_what_is_no_plan(tiny, batch, tmp_path):
    tiny.config._name_or_path, tiny.config._commit_hash = "owner/tiny", "abc123"
    plan = choose_layers(score_layers(tiny, [batch], progress=False), 2)
    assert plan.model == "owner/tiny@abc123"
    path = plan.to_json(tmp_path / "plan.json")
    assert PruningPlan.from_json(path) == plan and json.loads(path.read_text())["schema"] == 1
    assert plan.kept == tuple(sorted(set(range(LAYERS)) - set(plan.removed)))
    path.write_text('{"a": 1}')
    with pytest.raises(ValueError, match="is not a pruning plan"):
        PruningPlan.from_json(path)
    path.write_text(json.dumps({"schema": 99, "layers": 6, "removed": [1]}))
    with pytest.raises(ValueError, match="schema 99"):
        PruningPlan.from_json(path)


def test_choosing_takes_the_lowest_scores_and_knows_the_baselines(tiny, batch):
    scores = score_layers(tiny, [batch], progress=False)
    by_hand = sorted(range(LAYERS), key=lambda i: scores.values[i])
    assert list(choose_layers(scores, 3).removed) == by_hand[:3]
    assert choose_layers(scores, ratio=0.5).removed == tuple(by_hand[:3])
    assert choose_layers(scores, 2, order="reverse").removed == (5, 4)
    assert choose_layers(scores, 2, order="sequential").removed == (0, 1)
    assert removal_order(scores, "random", seed=1) == removal_order(scores, "random", seed=1)
    assert sorted(removal_order(scores, "random", seed=2)) == list(range(LAYERS))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give either n"),
        ({"n": 1, "ratio": 0.1}, "give either n"),
        ({"n": LAYERS}, "n must be 0 to 5"),
        ({"n": -1}, "n must be 0 to 5"),
        ({"ratio": 1.0}, "ratio is a fraction"),
        ({"n": 1, "order": "best"}, "unknown order 'best': choose one of score"),
    ],
)
def test_bad_choices_are_one_clear_sentence(tiny, batch, arguments, message):
    scores = score_layers(tiny, [batch], progress=False)
    with pytest.raises(ValueError, match=message):
        choose_layers(scores, **arguments)


def test_deepcopy_frees_a_view_from_its_original(tiny):
    separate = copy.deepcopy(remove_layers(tiny, [0]))
    with torch.no_grad():
        separate.model.norm.weight.add_(1)
    assert not torch.equal(separate.model.norm.weight, tiny.model.norm.weight)


def test_every_module_of_a_layer_learns_its_new_number(tiny):
    """Each that keeps one: the cache is addressed by it. What only looks like a number of a layer stays."""
    tiny.model.layers[4].mlp.layer_number, tiny.model.layers[4].mlp.layer_id = 5, -1  # counted from 1; none
    tiny.model.layers[4].mlp.layer_weights = {0: "a", 2: "c", 4: "e"}
    tiny.model.layers[4].mlp.kinds = list("abcdef")
    kept = [0, 2, 4]
    renumber([tiny.model.layers[i] for i in kept], kept, LAYERS)
    assert [tiny.model.layers[i].self_attn.layer_idx for i in kept] == [0, 1, 2]
    mlp = tiny.model.layers[4].mlp
    assert (mlp.layer_number, mlp.layer_id) == (3, -1)
    assert mlp.layer_weights == {0: "a", 1: "c", 2: "e"} and mlp.kinds == ["a", "c", "e"]


def test_a_layer_with_two_places_in_the_cache_moves_by_two(tiny):
    layer = tiny.model.layers[3]
    layer.layer_idx, layer.self_attn.layer_idx, layer.mlp.layer_idx = 3, 6, 7  # LongCat
    renumber([layer], [3], LAYERS, per_layer=2)
    assert (layer.layer_idx, layer.self_attn.layer_idx, layer.mlp.layer_idx) == (0, 0, 1)


def test_a_view_without_a_removal_has_the_configuration_of_its_model(tiny):
    """It said that no layer was removed, and so counted as another model than the dense one where results are kept."""
    view = remove_layers(tiny, [])
    assert view.config.to_dict() | {"_name_or_path": ""} == tiny.config.to_dict() | {"_name_or_path": ""}
    again = remove_layers(remove_layers(tiny, [2]), [])
    assert again.config.shortgpt_removed_layers == [2]
