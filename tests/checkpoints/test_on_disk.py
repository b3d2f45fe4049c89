"""A checkpoint pruned on disk is the one that removal in memory saves: whatever its files, its names, its interruptions."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small import FAMILIES, LAYERS, VOCABULARY, build_tiny, random_batch
from transformers import AutoConfig, AutoModelForCausalLM, Gemma3Config

from shortgpt import PruningPlan, heal, prune_checkpoint, quantize, remove_layers, save
from shortgpt.model.anatomy import removed_so_far
from shortgpt.model.names import LayerNames, find_stack
from shortgpt.model.offload import layers_on_disk
from shortgpt.utils.atomic import written_beside

REMOVED = [0, 3]


def build(family):
    """A tiny model; mixtures of experts have other names on disk than in the model."""
    if family == "llama, tied":
        model = build_tiny()
        model.config.tie_word_embeddings = True
        model.tie_weights()
        return model
    if family not in ("mixtral", "qwen2_moe"):
        return build_tiny(family)
    experts = {"num_local_experts": 3} if family == "mixtral" else {"num_experts": 3, "moe_intermediate_size": 16}
    config = AutoConfig.for_model(
        family,
        **experts,
        **({"shared_expert_intermediate_size": 16} if family == "qwen2_moe" else {}),
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,
        num_experts_per_tok=2,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def reload(folder):
    model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    return model.eval()


def logits(model):
    with torch.inference_mode():
        return model(**random_batch()).logits


def tensors(folder):
    return {name: t for file in sorted(Path(folder).glob("*.safetensors")) for name, t in load_file(file).items()}


def listing(folder):
    return sorted((str(f.relative_to(folder)), f.stat().st_size) for f in Path(folder).rglob("*") if f.is_file())


@pytest.fixture
def dense(tmp_path):
    """A sharded tiny checkpoint."""
    build_tiny().save_pretrained(tmp_path / "dense", max_shard_size="50KB")
    return tmp_path / "dense"


@pytest.mark.parametrize("size", ["5GB", "50KB"], ids=["one file", "sharded"])
@pytest.mark.parametrize("family", [*FAMILIES, "llama, tied", "mixtral", "qwen2_moe"])
def test_the_result_is_what_removal_in_memory_saves(family, size, tmp_path):
    build(family).save_pretrained(tmp_path / "dense", max_shard_size=size)
    in_memory = remove_layers(AutoModelForCausalLM.from_pretrained(tmp_path / "dense").eval(), REMOVED)
    expected = save(in_memory, tmp_path / "expected")
    folder = prune_checkpoint(tmp_path / "dense", tmp_path / "pruned", REMOVED, progress=False)
    pruned = reload(folder)
    assert torch.equal(logits(pruned), logits(in_memory)) and removed_so_far(pruned) == tuple(REMOVED)
    theirs, ours = tensors(expected), tensors(folder)
    assert theirs.keys() == ours.keys() and all(torch.equal(t, ours[name]) for name, t in theirs.items())
    assert json.loads((folder / "config.json").read_text()) == json.loads((expected / "config.json").read_text())
    assert (len(list(folder.glob("*.safetensors"))) > 1) == (size == "50KB")
    assert sorted(os.listdir(tmp_path)) == ["dense", "expected", "pruned"]


def test_the_index_names_every_tensor_where_it_is_and_no_file_is_empty(dense, tmp_path):
    folder = prune_checkpoint(dense, tmp_path / "pruned", [0, 1, 2, 4], progress=False)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    found, size = {}, 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as shard:
            found |= dict.fromkeys(shard.keys(), file.name)
            size += sum(shard.get_tensor(name).nbytes for name in list(shard.keys()))
    count = len(set(found.values()))
    assert found == index["weight_map"] and size == index["metadata"]["total_size"]
    assert set(found.values()) == {f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)}
    assert count < len(list(dense.glob("*.safetensors")))


def test_one_remaining_file_needs_no_index(tmp_path):
    model = build_tiny()
    layer = {n: t for n, t in model.state_dict().items() if n.startswith("model.layers.1.")}
    rest = {n: t for n, t in model.state_dict().items() if n not in layer}
    model.save_pretrained(tmp_path / "dense")
    (tmp_path / "dense" / "model.safetensors").unlink()
    home = {}
    for file, part in (("a.safetensors", layer), ("b.safetensors", rest)):
        save_file(part, tmp_path / "dense" / file, metadata={"format": "pt"})
        home |= dict.fromkeys(part, file)
    (tmp_path / "dense" / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": home}))
    folder = prune_checkpoint(tmp_path / "dense", tmp_path / "pruned", [1], progress=False)
    assert [f.name for f in folder.glob("*.safetensors*")] == ["model.safetensors"]
    assert torch.equal(logits(reload(folder)), logits(remove_layers(model, [1])))


@pytest.mark.parametrize(("family", "prefix"), [("gpt2", "transformer."), ("llama", "model.")])
def test_names_without_the_base_models_prefix_work(family, prefix, tmp_path):
    """The original GPT-2 checkpoint says h.0, the model transformer.h.0."""
    model = build_tiny(family)
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.base_model.save_pretrained(tmp_path / "dense")
    names = tensors(tmp_path / "dense").keys()
    assert names and not any(name.startswith(prefix) for name in names)
    folder = prune_checkpoint(tmp_path / "dense", tmp_path / "pruned", REMOVED, progress=False)
    assert torch.equal(logits(reload(folder)), logits(remove_layers(model, REMOVED)))


def test_plans_count_in_dense_numbers_also_on_a_pruned_checkpoint(dense, tmp_path):
    once = prune_checkpoint(dense, tmp_path / "once", [1, 4], progress=False)  # original 0 2 3 5 stay
    plan = PruningPlan(layers=LAYERS, removed=(1, 4, 2))
    by_plan = prune_checkpoint(once, tmp_path / "by plan", plan, progress=False)
    by_index = prune_checkpoint(once, tmp_path / "by index", [1], progress=False)  # that is original layer 2
    expected = logits(remove_layers(build_tiny(), [1, 2, 4]))
    for folder in (by_plan, by_index):
        assert torch.equal(logits(reload(folder)), expected) and removed_so_far(reload(folder)) == (1, 2, 4)
        written = PruningPlan.from_json(folder / "pruning_plan.json")
        assert written.removed == (1, 4, 2) and written.layers == LAYERS
    assert PruningPlan.from_json(by_index / "pruning_plan.json").model == str(dense)  # through the plan of `once`
    with pytest.raises(ValueError, match=r"already lacks \[1, 4\]"):
        prune_checkpoint(once, tmp_path / "no", PruningPlan(layers=LAYERS, removed=(0,)), progress=False)


def test_other_stacks_of_layers_are_left_alone():
    names = [f"{stack}.{i}.w" for stack in ("vision.encoder.layers", "language_model.model.layers") for i in range(4)]
    assert find_stack(names, "model.language_model.layers", 4) == "language_model.model.layers"
    assert find_stack([*names, "x.layers.0.layers.1.w"], "language_model.model.layers", 4) == names[4][:-4]
    rename = LayerNames("language_model.model.layers", "model.language_model.layers", [0, 2, 3]).tensor
    assert rename("vision.encoder.layers.1.w") == "vision.encoder.layers.1.w"
    assert rename("language_model.model.layers.1.w") is None
    assert rename("language_model.model.layers.3.mlp.layers.1.w") == "language_model.model.layers.2.mlp.layers.1.w"
    with pytest.raises(ValueError, match=r"hold no 5 layers like model\.layers\.0.*has 4"):
        find_stack(names, "model.layers", 5)
    with pytest.raises(ValueError, match="several stacks of 2 layers that could be layers: a.layers, b.layers"):
        find_stack([f"{a}.layers.{i}.w" for a in "ab" for i in (0, 1)], "layers", 2)


def test_a_vision_tower_of_equal_depth_keeps_its_layers(tmp_path):
    text = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4}
    text |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    vision |= {"image_size": 28, "patch_size": 14}
    tokens = {"mm_tokens_per_image": 4, "image_token_id": 90, "boi_token_index": 91, "eoi_token_index": 92}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(Gemma3Config(text_config=text, vision_config=vision, **tokens)).eval()
    model.save_pretrained(tmp_path / "dense")
    pruned = reload(prune_checkpoint(tmp_path / "dense", tmp_path / "pruned", [1], progress=False))
    assert (pruned.config.text_config.num_hidden_layers, pruned.config.vision_config.num_hidden_layers) == (3, 4)
    assert torch.equal(logits(pruned), logits(remove_layers(model, [1])))
    ours, theirs = pruned.state_dict(), model.state_dict()
    assert all(torch.equal(ours[name], t) for name, t in theirs.items() if "vision" in name)


def test_layers_for_multi_token_prediction_are_not_taken_for_decoder_layers():
    names = [f"model.layers.{i}.w" for i in range(5)]
    assert find_stack(names, "model.layers", 4, extra=1) == "model.layers"
    assert LayerNames("model.layers", "model.layers", [0, 3]).tensor("model.layers.4.w") is None
    with pytest.raises(ValueError, match="hold no 4 layers"):
        find_stack(names, "model.layers", 4)


def on_disk(folder, dtype=torch.float32):
    places = layers_on_disk(AutoModelForCausalLM.from_pretrained(folder), "cpu")
    options = {"device_map": places, "offload_folder": folder.parent / "offload"}
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **options).eval()


def repaired(model, sites="all", plan=(2, 3), **options):
    return heal(model, list(plan), [random_batch(seed=s) for s in range(3)], sites=sites, progress=False, **options)


@pytest.mark.parametrize("sites", ["gaps", "all"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_repair_from_disk_is_written_as_the_one_in_memory_saves_it(family, sites, tmp_path):
    """Bit by bit: the same layers run on the same numbers, only read from elsewhere."""
    build(family).save_pretrained(tmp_path / "dense", max_shard_size="50KB")
    in_memory = repaired(AutoModelForCausalLM.from_pretrained(tmp_path / "dense").eval(), sites)
    expected = save(in_memory, tmp_path / "expected")
    for name, model in (("a", on_disk(tmp_path / "dense")), ("b", in_memory)):
        healed = model if model is in_memory else repaired(model, sites)
        folder = prune_checkpoint(tmp_path / "dense", tmp_path / name, [2, 3], repaired=healed, progress=False)
        theirs, ours = tensors(expected), tensors(folder)
        assert theirs.keys() == ours.keys() and all(torch.equal(t, ours[name]) for name, t in theirs.items())
        assert (folder / "config.json").read_text() == (expected / "config.json").read_text()
        assert "(shortgpt.heal)" in (folder / "README.md").read_text()
        assert torch.equal(logits(reload(folder)), logits(in_memory))


def test_a_repair_is_written_in_the_dtype_of_the_files_and_all_else_is_their_bytes(tmp_path):
    build_tiny().to(torch.bfloat16).save_pretrained(tmp_path / "dense", max_shard_size="50KB")
    plain = tensors(prune_checkpoint(tmp_path / "dense", tmp_path / "plain", [2, 3], progress=False))
    healed = repaired(on_disk(tmp_path / "dense"), "gaps")
    ours = tensors(prune_checkpoint(tmp_path / "dense", tmp_path / "out", [2, 3], repaired=healed, progress=False))
    changed = [name for name, t in ours.items() if not torch.equal(t, plain[name])]
    assert changed == ["model.layers.1.mlp.down_proj.weight"] and plain.keys() == ours.keys()
    assert torch.equal(ours[changed[0]], healed.get_parameter(changed[0]).to(torch.bfloat16))


def test_a_repair_that_files_cannot_hold_is_refused(dense, tmp_path):
    model = on_disk(dense)
    linear, other = (repaired(model, "gaps", kind="linear"), repaired(model, plan=[4]))
    family = repaired(build_tiny("qwen3"))
    for healed, message in (
        (linear, "no configuration of LlamaForCausalLM describes the repaired model: save it with save"),
        (other, r"LlamaForCausalLM without layers \[4\], and the files give a LlamaForCausalLM without \[2, 3\]"),
        (family, "the repaired model is a Qwen3ForCausalLM"),
    ):
        with pytest.raises(ValueError, match=message):
            prune_checkpoint(dense, tmp_path / "out", [2, 3], repaired=healed, progress=False)
    healed = repaired(model)
    healed.model.layers[0].odd = torch.nn.Parameter(torch.ones(1))
    with pytest.raises(
        ValueError, match="the files have no model.layers.0.odd, which the repaired model has in memory"
    ):
        prune_checkpoint(dense, tmp_path / "out", [2, 3], repaired=healed, progress=False)
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize("size", ["5GB", "100KB"])
@pytest.mark.parametrize("bits", [8, 4])
def test_quantized_checkpoints_are_pruned_with_their_scales(bits, size, tmp_path):
    from quantized import logits as probe, small_llama

    quantize(small_llama(), bits).save_pretrained(tmp_path / "dense", max_shard_size=size)
    expected = probe(remove_layers(AutoModelForCausalLM.from_pretrained(tmp_path / "dense").eval(), [1]))
    folder = prune_checkpoint(tmp_path / "dense", tmp_path / "pruned", [1], progress=False)
    assert torch.equal(probe(reload(folder)), expected)


def test_modules_left_unquantized_are_followed_to_their_new_place(tmp_path):
    from quantized import logits as probe, small_llama
    from transformers import BitsAndBytesConfig

    small_llama().save_pretrained(tmp_path / "plain")
    scheme = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
        llm_int8_skip_modules=["lm_head", "model.layers.0.mlp", "model.layers.3.mlp"],
    )
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "plain", quantization_config=scheme)
    model.save_pretrained(tmp_path / "dense")
    folder = prune_checkpoint(tmp_path / "dense", tmp_path / "pruned", [0, 1], progress=False)
    config = json.loads((folder / "config.json").read_text())
    assert config["quantization_config"]["llm_int8_skip_modules"] == ["lm_head", "model.layers.1.mlp"]
    assert type(reload(folder).model.layers[1].mlp.up_proj) is torch.nn.Linear
    pruned = remove_layers(model.eval(), [0, 1])
    assert torch.equal(probe(reload(folder)), probe(pruned))
    in_memory = save(pruned, tmp_path / "in_memory")
    assert torch.equal(probe(reload(in_memory)), probe(pruned))
    assert model.config.quantization_config.llm_int8_skip_modules[1] == "model.layers.0.mlp"  # the original's own


def test_quantization_patterns_that_number_layers_are_refused():
    names = LayerNames("model.layers", "model.layers", [0, 2])
    setting = {"ignore": ["lm_head", "model.layers.2.mlp", "model.layers.1.mlp", "re:.*mlp.gate$", "vision.layers.1"]}
    expected = {"ignore": ["lm_head", "model.layers.1.mlp", "re:.*mlp.gate$", "vision.layers.1"]}
    assert names.inside({"bits": 4, "model.layers.2.x": None, **setting}) == {
        "bits": 4,
        "model.layers.1.x": None,
        **expected,
    }
    assert names.inside(r"-:.*\.layers\.\d+\.mlp.*") == r"-:.*\.layers\.\d+\.mlp.*"
    for pattern in (r"re:.*layers\.(0|1)\.mlp", r"-:model\.layers\.2\..*", "model.layers.[0-3].*"):
        with pytest.raises(ValueError, match="can't be renumbered: remove the layers before quantizing"):
            names.inside([pattern])


def test_small_files_come_along_and_code_only_if_the_configuration_names_it(dense, tokenizer, tmp_path):
    tokenizer.chat_template = "{{ messages }}"
    tokenizer.save_pretrained(dense)
    for name in ("LICENSE", "modeling_evil.py", "pytorch_model.bin", "old.gguf", ".hidden", "merges.txt"):
        (dense / name).write_text("raise SystemExit")
    (dense / "original").mkdir()
    (dense / "original" / "consolidated.00.pth").write_text("x")
    small = {"LICENSE", "merges.txt", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    small |= {"generation_config.json", "config.json", "pruning_plan.json", "README.md"}
    folder = prune_checkpoint(dense, tmp_path / "pruned", [1], progress=False)
    assert {name for name, _ in listing(folder) if "safetensors" not in name} == small
    assert (folder / "tokenizer.json").read_bytes() == (dense / "tokenizer.json").read_bytes()
    config = json.loads((dense / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_evil.Model"}
    (dense / "config.json").write_text(json.dumps(config))
    folder = prune_checkpoint(dense, tmp_path / "with code", [1], progress=False)  # would exit if the code were run
    assert (folder / "modeling_evil.py").exists()
    assert json.loads((folder / "config.json").read_text())["auto_map"] == config["auto_map"]


def test_the_source_is_only_read(dense, tmp_path):
    before = {f.name: f.read_bytes() for f in dense.iterdir()}
    prune_checkpoint(dense, tmp_path / "pruned", [1], progress=False)
    assert {f.name: f.read_bytes() for f in dense.iterdir()} == before


def test_an_existing_folder_is_refused_or_replaced_whole(dense, tmp_path):
    target = tmp_path / "mine"
    target.mkdir()
    (target / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not empty: choose another folder, or pass overwrite to replace"):
        prune_checkpoint(dense, target, [1], progress=False)
    assert listing(target) == [("thesis.txt", 4)]
    prune_checkpoint(dense, target, [1], overwrite=True, progress=False)
    assert not (target / "thesis.txt").exists() and reload(target)
    assert sorted(os.listdir(tmp_path)) == ["dense", "mine"]


def damage(action):
    def apply(folder):
        shard = sorted(folder.glob("*.safetensors"))[0]
        action(folder, shard, shard.read_bytes())

    return apply


PICKLED = damage(lambda folder, shard, data: [f.unlink() for f in folder.glob("*.safetensors*")])


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (damage(lambda f, s, d: s.write_bytes(d[:-5])), ValueError, "cut short or damaged, download it again"),
        (damage(lambda f, s, d: s.write_bytes(d + b"x")), ValueError, "cut short or damaged"),
        (damage(lambda f, s, d: s.write_bytes(b"abc")), ValueError, "not a safetensors file, or is cut short"),
        (damage(lambda f, s, d: s.write_bytes(b"\xff" * 99)), ValueError, "not a safetensors file"),
        (damage(lambda f, s, d: s.write_bytes(d[:8] + b"?" + d[9:])), ValueError, "damaged safetensors header"),
        (
            damage(lambda f, s, d: s.write_bytes((2).to_bytes(8, "little") + b"[]")),
            ValueError,
            "damaged safetensors header",
        ),
        (damage(lambda f, s, d: s.unlink()), FileNotFoundError, "incomplete: model-00001-of.*missing"),
        (damage(lambda f, s, d: (f / "config.json").unlink()), FileNotFoundError, "it has no config.json"),
        (
            damage(lambda f, s, d: (f / "model.safetensors.index.json").write_text("{}")),
            ValueError,
            "index.json is damaged",
        ),
        (
            damage(
                lambda f, s, d: (f / "model.safetensors.index.json").write_text(
                    json.dumps({"weight_map": {"odd": s.name}})
                )
            ),
            ValueError,
            "lacks odd, which the index says is there",
        ),
        (PICKLED, FileNotFoundError, "holds no weights"),
        (
            lambda folder: (PICKLED(folder), (folder / "pytorch_model.bin").write_text("pickle")),
            ValueError,
            "pickled weights, which can run code: convert them to safetensors",
        ),
        (
            damage(lambda f, s, d: (f / "config.json").write_text('{"model_type": "brand_new"}')),
            ValueError,
            "no causal language model for dense .*'brand_new'.*: update transformers",
        ),
        (
            damage(
                lambda f, s, d: (f / "config.json").write_text(
                    json.dumps({**json.loads((f / "config.json").read_text()), "num_hidden_layers": 4})
                )
            ),
            ValueError,
            r"hold no 4 layers like model.layers.0.*model.layers has 6",
        ),
    ],
)
def test_damaged_sources_are_one_clear_sentence(dense, tmp_path, spoil, error, message):
    spoil(dense)
    with pytest.raises(error, match=message) as caught:
        prune_checkpoint(dense, tmp_path / "pruned", [1], progress=False)
    assert "\n" not in str(caught.value) and os.listdir(tmp_path) == ["dense"]


@pytest.mark.parametrize(
    ("place", "error", "message"),
    [
        ("dense", FileExistsError, "is, contains or lies inside the checkpoint"),
        ("dense/../dense", FileExistsError, "is, contains or lies inside"),
        ("dense/pruned", FileExistsError, "is, contains or lies inside"),
        (".", FileExistsError, "is, contains or lies inside"),
        ("file", FileExistsError, "is a file: name a folder"),
    ],
)
def test_bad_places_are_refused_before_anything_is_written(dense, tmp_path, place, error, message):
    (tmp_path / "file").write_text("x")
    before = listing(tmp_path)
    with pytest.raises(error, match=message):
        prune_checkpoint(dense, tmp_path / place, [1], overwrite=True, progress=False)
    assert listing(tmp_path) == before
    with pytest.raises(FileNotFoundError, match="no such folder: .*hf download"):
        prune_checkpoint("owner/name", tmp_path / "pruned", [1])
    with pytest.raises(ValueError, match="unknown layer 6"):
        prune_checkpoint(dense, tmp_path / "pruned", [6])


def test_a_configuration_that_contradicts_itself_is_one_clear_sentence(tmp_path):
    build_tiny("qwen3").save_pretrained(tmp_path / "dense")
    config = json.loads((tmp_path / "dense" / "config.json").read_text())
    (tmp_path / "dense" / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 4}))
    with pytest.raises(ValueError, match=r"configuration of \S*dense contradicts itself: .*\(4\).*layer_types. \(6\)$"):
        prune_checkpoint(tmp_path / "dense", tmp_path / "pruned", [1], progress=False)


def test_a_full_disk_is_noticed_before_and_while_writing(dense, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
        with pytest.raises(OSError, match="disk has 0.00 GB free: free some space"):
            prune_checkpoint(dense, tmp_path / "pruned", [1], progress=False)

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shortgpt.checkpoints.on_disk.shutil.copyfile", fail)
    with pytest.raises(OSError, match="the disk is full: .*pruned was not written"):
        prune_checkpoint(dense, tmp_path / "pruned", [1], progress=False)
    assert os.listdir(tmp_path) == ["dense"]


KILLED = """
import os, signal, sys
from shortgpt.checkpoints import on_disk
from shortgpt.utils import atomic
def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)
point = sys.argv[3]
if point == "in the weights":
    write, calls = on_disk.write_tensors, []
    def write_one(*arguments, **options):
        calls.append(1)
        (die if len(calls) == 3 else write)(*arguments, **options)
    on_disk.write_tensors = write_one
elif point == "before the card":
    on_disk.write_card = die
elif point == "between the renames":
    replace, calls = os.replace, []
    def replace_one(source, target):
        calls.extend([1] * os.path.isdir(source))  # the plan is a file that is renamed, too
        (die if len(calls) == 2 else replace)(source, target)
    atomic.os.replace = replace_one
elif point == "after the renames":
    import types
    atomic.shutil = types.SimpleNamespace(**vars(atomic.shutil) | {"rmtree": die})  # not everybody's: tempfile uses it
on_disk.prune_checkpoint(sys.argv[1], sys.argv[2], [1], overwrite=True, progress=False)
"""


@pytest.mark.slow
@pytest.mark.parametrize("point", ["in the weights", "before the card", "between the renames", "after the renames"])
def test_a_killed_run_leaves_no_half_checkpoint_and_the_next_one_tidies_up(dense, tmp_path, point):
    target = tmp_path / "mine"
    target.mkdir()
    (target / "thesis.txt").write_text("mine")
    stranger = tmp_path / ".mine-notes"  # looks like one of our temporary folders
    stranger.mkdir()
    run = subprocess.run([sys.executable, "-c", KILLED, dense, target, point], capture_output=True, text=True)
    assert run.returncode == -signal.SIGKILL, run.stderr
    if point == "between the renames":
        assert not target.exists()
    elif point == "after the renames":
        assert reload(target)
    else:
        assert listing(target) == [("thesis.txt", 4)]
    assert len(os.listdir(tmp_path)) == (4 if target.exists() else 3)
    if point != "after the renames":
        with pytest.raises(FileExistsError, match="not empty"):  # the old content is there, or back again
            prune_checkpoint(dense, target, [1], progress=False)
        assert listing(target) == [("thesis.txt", 4)]
    prune_checkpoint(dense, target, [1], overwrite=True, progress=False)
    assert reload(target) and sorted(os.listdir(tmp_path)) == [".mine-notes", "dense", "mine"]


def test_a_run_that_still_lives_is_left_alone(dense, tmp_path):
    target = tmp_path / "mine"
    with written_beside(target, overwrite=False) as new:
        (new / "slow").write_text("still writing")
        prune_checkpoint(dense, target, [1], progress=False)
        assert (new / "slow").read_text() == "still writing"
        shutil.rmtree(target)
    assert listing(target) == [("slow", 13)] and sorted(os.listdir(tmp_path)) == ["dense", "mine"]
    with pytest.raises(FileExistsError, match="not empty"), written_beside(tmp_path / "other", overwrite=False):
        prune_checkpoint(
            dense, tmp_path / "other", [1], progress=False
        )  # was faster: the slower one must not replace it
    assert reload(tmp_path / "other") and sorted(os.listdir(tmp_path)) == ["dense", "mine", "other"]


@pytest.mark.slow
def test_a_run_killed_at_any_moment_leaves_the_old_or_the_new(tmp_path):
    """Without knowing where it is: a real signal at several times, in a process that prunes again and again."""
    build_tiny().save_pretrained(tmp_path / "dense", max_shard_size="50KB")
    prune_checkpoint(tmp_path / "dense", tmp_path / "pruned", [1], progress=False)
    forever = (
        "import sys, shortgpt; print('ready', flush=True)\n"
        "while True: shortgpt.prune_checkpoint(sys.argv[1], sys.argv[2], [1], overwrite=True, progress=False);"
        "print('round', flush=True)"
    )
    for wait in (0.03, 0.15, 0.3):
        process = subprocess.Popen(
            [sys.executable, "-c", forever, tmp_path / "dense", tmp_path / "pruned"], stdout=subprocess.PIPE, text=True
        )
        while process.stdout.readline().strip() != "round":  # it is at work
            assert process.poll() is None
        time.sleep(wait)
        process.kill()
        process.wait()
        prune_checkpoint(tmp_path / "dense", tmp_path / "other", [1], overwrite=True, progress=False)
        if (tmp_path / "pruned").exists():
            assert listing(tmp_path / "pruned") == listing(tmp_path / "other")
    prune_checkpoint(tmp_path / "dense", tmp_path / "pruned", [1], overwrite=True, progress=False)
    assert sorted(os.listdir(tmp_path)) == ["dense", "other", "pruned"]


@pytest.mark.parametrize("removed", [[1], [0, 3], [2, 3]], ids=str)
def test_layers_whose_kind_follows_from_their_number_are_never_mixed_up(removed, tmp_path):
    """Jamba's experts sit in every second layer: a removal either keeps each layer's kind or is refused."""
    sizes = {"num_experts": 2, "num_experts_per_tok": 1, "mamba_d_state": 8, "use_mamba_kernels": False}
    config = AutoConfig.for_model(
        "jamba",
        **sizes,
        attn_layer_offset=1,
        attn_layer_period=2,
        expert_layer_period=2,
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(tmp_path / "dense")
    try:
        folder = prune_checkpoint(tmp_path / "dense", tmp_path / "pruned", removed, progress=False)
    except (OSError, ValueError) as error:
        assert "\n" not in str(error) and os.listdir(tmp_path) == ["dense"]
    else:
        assert torch.equal(logits(reload(folder)), logits(remove_layers(model, removed)))


def test_a_result_that_would_load_with_random_weights_is_refused(dense, tmp_path, monkeypatch):
    tensor = LayerNames.tensor
    monkeypatch.setattr(LayerNames, "tensor", lambda self, name: None if "layers.3.mlp" in name else tensor(self, name))
    with pytest.raises(OSError, match=r"no fitting model.layers.2.mlp.*Nothing was written"):
        prune_checkpoint(dense, tmp_path / "pruned", [1], progress=False)
    assert os.listdir(tmp_path) == ["dense"]
