"""Models that accelerate spread over memory and disk: scored, pruned, saved like any other, and nothing is left behind."""

import gc

import numpy as np
import pytest
import torch
from accelerate import cpu_offload
from small import FAMILIES, build_tiny
from transformers import AutoConfig, AutoModelForCausalLM

from shortgpt import decoder_layers, describe, load, perplexity, remove_layers, save, score_layers, size
from shortgpt.checkpoints import loading, saving
from shortgpt.checkpoints.cache import cache_folder
from shortgpt.model.offload import input_device, keep_in_device_map, layers_on_disk

SOME, NONE = 150_000, 1  # bytes of memory: room for two layers beside the embeddings, for nothing at all


@pytest.fixture
def folder(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setenv("SHORTGPT_CACHE", str(tmp_path / "cache"))
    build_tiny().save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(params=[SOME, NONE], ids=["some in memory", "all on disk"])
def spread(folder, request):
    return load(folder, device="cpu", max_memory={"cpu": request.param})[0]


def on_disk(model) -> int:
    return sum(p.numel() for p in model.parameters() if p.device.type == "meta")


def logits(model, batch):
    with torch.inference_mode():
        return model(**batch).logits


def test_scores_are_those_of_the_model_in_memory(spread, batch):
    assert on_disk(spread) > 0.5 * sum(p.numel() for p in build_tiny().parameters())
    for metric in ("block_influence", "relative_magnitude"):
        expected = score_layers(build_tiny(), [batch], metric=metric, progress=False)
        np.testing.assert_array_equal(score_layers(spread, [batch], metric=metric, progress=False).sums, expected.sums)
    before = on_disk(spread)
    score_layers(spread, [batch], progress=False)
    assert on_disk(spread) == before  # what was read is given back


@pytest.mark.parametrize("removed", [[0], [1, 4], [5, 2, 3]])
def test_a_pruned_view_computes_what_the_pruned_model_in_memory_computes(spread, batch, removed):
    expected, view = remove_layers(build_tiny(), removed), remove_layers(spread, removed)
    torch.testing.assert_close(logits(view, batch), logits(expected, batch), atol=0, rtol=0)
    again, wanted = remove_layers(view, [1]), remove_layers(expected, [1])  # a view of a view
    torch.testing.assert_close(logits(again, batch), logits(wanted, batch), atol=0, rtol=0)
    torch.testing.assert_close(logits(spread, batch), logits(build_tiny(), batch), atol=0, rtol=0)
    np.testing.assert_array_equal(
        score_layers(view, [batch], progress=False).sums, score_layers(expected, [batch], progress=False).sums
    )
    assert on_disk(view) > 0


def test_a_pruned_view_is_saved_verified_and_reloads_anywhere(spread, batch, tmp_path):
    view = remove_layers(spread, [1, 3])
    save(view, tmp_path / "pruned")
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / "pruned")
    torch.testing.assert_close(logits(reloaded, batch), logits(view, batch), atol=1e-6, rtol=0)
    assert on_disk(reloaded) == 0 and not list(tmp_path.glob(".pruned*"))


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_can_be_left_on_disk_and_nothing_else(tmp_path, family, batch):
    model = build_tiny(family)
    model.save_pretrained(tmp_path / "model")
    places = layers_on_disk(model, "cpu")
    there = AutoModelForCausalLM.from_pretrained(tmp_path / "model", device_map=places, offload_folder=tmp_path / "o")
    assert on_disk(there) == sum(p.numel() for p in decoder_layers(model).parameters())
    torch.testing.assert_close(logits(there, batch), logits(model, batch), atol=0, rtol=0)


def test_what_was_saved_is_read_again_layer_by_layer_or_else_as_a_whole(tmp_path, monkeypatch):
    places, real = [], saving.read_model

    def noted(folder, **options):
        places.append(options["device_map"])
        return real(folder, **options)

    monkeypatch.setattr(saving, "read_model", noted)
    save(build_tiny(), tmp_path / "one")
    assert [place.get("model.layers") for place in places] == ["disk"]
    monkeypatch.setattr(saving, "layers_on_disk", lambda model, device: {"model.layers": "disk"})  # not all of it
    save(build_tiny(), tmp_path / "two")
    assert [list(place) for place in places[1:]] == [["model.layers"], [""]]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["one", "two"]


def test_perplexity_and_generation_work_from_disk(spread, tokenizer, batch):
    text = ["the quick brown fox. " * 5]
    assert perplexity(spread, tokenizer, text) == pytest.approx(perplexity(build_tiny(), tokenizer, text), rel=1e-6)
    options = {"max_new_tokens": 4, "do_sample": False}
    written = [model.generate(**batch, **options) for model in (spread, build_tiny())]
    assert torch.equal(*written)


def test_the_device_map_of_a_view_names_its_own_layers(folder):
    model, _ = load(folder, device="cpu", max_memory={"cpu": SOME})
    assert [model.hf_device_map[f"model.layers.{i}"] for i in range(6)] == ["cpu"] * 2 + ["disk"] * 4
    view = remove_layers(model, [0, 5])
    assert [view.hf_device_map[f"model.layers.{i}"] for i in range(4)] == ["cpu"] + ["disk"] * 3
    assert "model.layers.4" not in view.hf_device_map and view.hf_device_map["model.norm"] == "disk"
    keep_in_device_map(view, "model.layers", [1])
    assert [n for n in view.hf_device_map if ".layers" in n] == [
        "model.layers.0"
    ] and "model.layers.5" in model.hf_device_map


def test_weights_that_hooks_keep_in_memory_are_shared_not_copied(batch):
    """A GPU with layers in main memory keeps those in its hooks; the same hooks on a CPU show it."""
    model = cpu_offload(build_tiny(), execution_device=torch.device("cpu"))
    view = remove_layers(model, [2])
    kept = [layer.mlp.up_proj._hf_hook.weights_map["weight"].data_ptr() for layer in model.model.layers]
    of_view = [layer.mlp.up_proj._hf_hook.weights_map["weight"].data_ptr() for layer in view.model.layers]
    assert of_view == kept[:2] + kept[3:]
    torch.testing.assert_close(logits(view, batch), logits(remove_layers(build_tiny(), [2]), batch), atol=0, rtol=0)


def test_moving_a_view_does_not_move_or_return_the_original(folder):
    device_map = {"model.embed_tokens": "cpu", "model.layers": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    device_map["model.norm"] = "disk"
    model = AutoModelForCausalLM.from_pretrained(folder, device_map=device_map)
    assert "to" in vars(model)  # accelerate's own, bound to this very model
    view = remove_layers(model, [2])
    assert view.to(view.dtype) is view and len(view.model.layers) == 5


def test_the_view_outlives_the_model_it_was_cut_from(folder, batch):
    view = remove_layers(load(folder, device="cpu", max_memory={"cpu": NONE})[0], [2])
    gc.collect()
    torch.testing.assert_close(logits(view, batch), logits(remove_layers(build_tiny(), [2]), batch), atol=0, rtol=0)


def test_weights_on_disk_need_no_copy_and_leave_no_folder(spread):
    assert not list(cache_folder().glob("offload-*"))


@pytest.fixture
def experts(tmp_path, tokenizer, monkeypatch):
    """A tiny mixture of experts: transformers fuses the experts' weights on loading, so they can't be read in place."""
    monkeypatch.setenv("SHORTGPT_CACHE", str(tmp_path / "cache"))
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "num_local_experts": 4, "vocab_size": 96, "initializer_range": 0.3}
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.for_model("mixtral", **sizes)).save_pretrained(tmp_path / "experts")
    tokenizer.save_pretrained(tmp_path / "experts")
    return tmp_path / "experts"


def test_fused_experts_are_written_to_the_cache_until_the_last_view_goes(experts, batch, tmp_path):
    expected = load(experts, device="cpu")[0]
    model = load(experts, device="cpu", max_memory={"cpu": NONE})[0]
    assert len(list(cache_folder().glob("offload-*"))) == 1
    torch.testing.assert_close(logits(model, batch), logits(expected, batch), atol=1e-5, rtol=0)
    view = remove_layers(model, [1])
    del model
    gc.collect()
    torch.testing.assert_close(logits(view, batch), logits(remove_layers(expected, [1]), batch), atol=1e-5, rtol=0)
    save(view, tmp_path / "pruned")
    assert len(list(cache_folder().glob("offload-*"))) == 1
    del view
    gc.collect()
    assert not list(cache_folder().glob("offload-*"))


def test_loading_says_where_and_leaves_the_argument_alone(folder):
    room = {"cpu": "100KB"}
    model, _ = load(folder, device="cpu", max_memory=room)
    assert room == {"cpu": "100KB"} and model.dtype == torch.float32
    assert describe(model).iloc[0]["device"] == "cpu + disk" and describe(build_tiny()).iloc[0]["device"] == "cpu"
    in_memory = size(build_tiny())["memory_bytes"]
    assert size(model)["memory_bytes"] < in_memory / 2 and size(model)["parameters"] == size(build_tiny())["parameters"]


def test_bad_input_is_one_clear_sentence(folder, tmp_path, batch):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(
        ValueError, match="model.gguf: a GGUF file is unpacked in memory, so device_map and max_memory do"
    ):
        load(tmp_path / "model.gguf", max_memory={"cpu": "1GiB"})
    with pytest.raises(ValueError, match="max_memory names GPU 99, but this machine has"):
        load(folder, max_memory={99: "1GiB"})
    with torch.device("meta"):
        empty = build_tiny()
    with pytest.raises(ValueError, match="LlamaForCausalLM holds no weights"):
        score_layers(empty, [batch], progress=False)


def test_inputs_go_where_the_embeddings_run(folder, tiny):
    assert input_device(tiny) == torch.device("cpu")
    model = load(folder, device="cpu", max_memory={"cpu": NONE})[0]
    assert model.device.type == "meta" and input_device(model) == torch.device("cpu")
    model.get_input_embeddings()._hf_hook.execution_device = "cuda:1"
    assert input_device(model) == torch.device("cuda", 1)


def test_each_process_gets_its_own_gpu_and_old_gpus_get_float16(monkeypatch):
    """Decided before anything is loaded: what is on disk can't be converted afterwards."""
    assert loading.best_device() == "cpu" and loading._dtype_on_gpu(torch.bfloat16) == "auto"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert loading.best_device() == "cuda"
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert loading.best_device() == "cuda:1"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    assert loading._dtype_on_gpu(torch.bfloat16) == torch.float16
    assert loading._dtype_on_gpu(torch.float32) == "auto"  # a float32 checkpoint stays what it is


def test_a_model_is_not_saved_over_the_files_that_it_still_reads(spread, folder, batch, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    view = remove_layers(spread, [1, 2])
    before, names = logits(view, batch), sorted(path.name for path in folder.iterdir())
    for model in (spread, view):
        for target in (folder, tmp_path / "link", tmp_path):
            with pytest.raises(ValueError, match="still reads its weights from .*: save it to another folder"):
                save(model, target, overwrite=True)
    assert sorted(path.name for path in folder.iterdir()) == names
    save(view, tmp_path / "elsewhere")
    torch.testing.assert_close(logits(view, batch), before, atol=0, rtol=0)


def test_a_model_in_memory_may_replace_the_files_that_it_came_from(folder, batch):
    model = load(folder, device="cpu")[0]
    view = remove_layers(model, [1, 2])
    before = logits(model, batch), logits(view, batch)
    save(view, folder, overwrite=True)
    torch.testing.assert_close((logits(model, batch), logits(view, batch)), before, atol=0, rtol=0)
    reloaded = AutoModelForCausalLM.from_pretrained(folder)
    torch.testing.assert_close(logits(reloaded, batch), before[1], atol=0, rtol=0)
