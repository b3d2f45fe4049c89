"""Hostile files, one by one: nothing outside a folder is read, limits come before work, names are only names."""

import json
import os
import time
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from small import LAYERS, build_tiny, random_batch, tiny_gguf
from transformers import AutoConfig, AutoModelForCausalLM

from shortgpt import PruningPlan, load, prune_checkpoint, read_grid, remove_layers, remove_sublayers, save
from shortgpt.checkpoints.card import licence_lines, model_card
from shortgpt.checkpoints.facts import model_facts, plan_in_words
from shortgpt.checkpoints.gguf import read_gguf, sha256_of
from shortgpt.checkpoints.own_format import restore
from shortgpt.checkpoints.shards import read_shard
from shortgpt.cli import main
from shortgpt.course import plots
from shortgpt.course.answer_book import read_answers
from shortgpt.course.explorers.frontier import budget_html
from shortgpt.evaluation import records
from shortgpt.pruning.plan import check_indices
from shortgpt.repair.patches import add_patches
from shortgpt.utils.untrusted import MOST_LAYERS, inside, one_line, parse_json

EVIL = "<img src=x onerror=alert(1)>|`a`\n---\n![x](http://e) \x1b[31m $x^$"
DEEP = "[" * 100_000


@pytest.fixture
def dense(tmp_path):
    build_tiny().save_pretrained(tmp_path / "dense", max_shard_size="50KB")
    return tmp_path / "dense"


@pytest.fixture
def own(tmp_path, tokenizer):
    """A model in our own format."""
    return save(remove_sublayers(build_tiny(), attention=[1]), tmp_path / "own", tokenizer=tokenizer)


@pytest.fixture
def soon():
    """What is refused is refused before any work."""
    start = time.monotonic()
    yield
    assert time.monotonic() - start < 10  # well below 1 where nothing else runs


def rewrite(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refused(folder: Path, message: str, error: type[Exception] = ValueError) -> None:
    with pytest.raises(error, match=message) as caught:
        prune_checkpoint(folder, folder.parent / "pruned", [1], progress=False)
    assert "\n" not in str(caught.value) and not (folder.parent / "pruned").exists()


# ---- nothing outside the folder --------------------------------------------------------------------------------------
def moved_out(dense: Path) -> Path:
    """The first weight file of `dense`, beside it."""
    shard = sorted(dense.glob("*.safetensors"))[0]
    (dense.parent / "elsewhere").mkdir()
    return shard.rename(dense.parent / "elsewhere" / shard.name)


@pytest.mark.parametrize(
    "name", ["../elsewhere/{}", "{folder}/elsewhere/{}", "a/../../elsewhere/{}", "..\\elsewhere\\{}"]
)
def test_an_index_names_files_of_its_folder(dense, name):
    shard = moved_out(dense)
    file = dense / "model.safetensors.index.json"
    home = json.loads(file.read_text())["weight_map"]
    there = name.format(shard.name, folder=dense.parent)
    rewrite(file, weight_map={tensor: there if place == shard.name else place for tensor, place in home.items()})
    refused(dense, "names a file outside of itself")
    with pytest.raises(ValueError, match="names a file outside of itself"):
        load(dense)


def test_weights_behind_a_link_are_refused(dense):
    shard = moved_out(dense)
    (dense / shard.name).symlink_to(shard)
    refused(dense, "is a link that leads out of the folder: put a copy")


@pytest.mark.parametrize(
    "name", ["extra.json", "config.json", "README.md", "pruning_plan.json", "additional_chat_templates"]
)
def test_what_a_link_points_to_outside_is_not_copied(dense, tmp_path, name):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "x.jinja").write_text("secret")
    PruningPlan(LAYERS, (1,), model="secret").to_json(tmp_path / "secret" / "file")
    (dense / name).unlink(missing_ok=True)
    (dense / name).symlink_to(tmp_path / "secret" if name.startswith("additional") else tmp_path / "secret" / "file")
    refused(dense, "is a link that leads out of the folder")


def test_the_hubs_cache_links_to_its_own_blobs_and_the_folder_may_be_a_link(dense, tmp_path):
    cache = tmp_path / "models--a--b"
    (cache / "blobs").mkdir(parents=True)
    (cache / "snapshots" / "abc").mkdir(parents=True)
    for i, file in enumerate(sorted(dense.iterdir())):
        file.rename(cache / "blobs" / f"{i:064}")
        (cache / "snapshots" / "abc" / file.name).symlink_to(f"../../blobs/{i:064}")
    (tmp_path / "link").symlink_to(cache / "snapshots" / "abc")
    for folder in (cache / "snapshots" / "abc", tmp_path / "link"):
        pruned = prune_checkpoint(folder, tmp_path / "pruned", [1], overwrite=True, progress=False)
        assert not any(file.is_symlink() for file in pruned.iterdir())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").write_text("secret")
    (cache / "snapshots" / "abc" / "x.json").symlink_to("../../../other/x")  # blobs of another model
    with pytest.raises(ValueError, match="leads out of the folder"):
        prune_checkpoint(cache / "snapshots" / "abc", tmp_path / "no", [1], progress=False)


def test_inside_is_inside(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "a").mkdir()
    assert inside(tmp_path, "a/b.json") == tmp_path / "a" / "b.json"
    for name in ("../x", "/etc/passwd", "a/../../x", "a\\..\\x", "C:\\x", "C:x", "", "a\0b", None, 5, "loop"):
        with pytest.raises(ValueError, match="outside of itself|leads out of the folder"):
            inside(tmp_path, name)


def test_pipes_are_not_waited_for(dense, own, soon):
    (dense / "pipe.json").parent.mkdir(exist_ok=True)
    os.mkfifo(dense / "pipe.json")
    prune_checkpoint(dense, dense.parent / "pruned", [1], progress=False)
    assert not (dense.parent / "pruned" / "pipe.json").exists()
    for folder in (dense, own):
        (folder / "config.json").unlink()
        os.mkfifo(folder / "config.json")
        with pytest.raises(OSError):
            load(folder)
    for read in (PruningPlan.from_json, read_grid, read_answers, records.read):
        with pytest.raises(ValueError):
            read(dense / "pipe.json")


def test_weights_of_our_own_format_behind_a_link_are_refused(own):
    (file,) = own.glob("*.safetensors")
    file.rename(own.parent / "elsewhere")
    file.symlink_to(own.parent / "elsewhere")
    with pytest.raises(ValueError, match="leads out of the folder"):
        restore(own)


# ---- limits before work ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("layers", [10**9, 200_000, MOST_LAYERS + 1, 1e9])
def test_too_many_layers_are_refused_before_a_model_is_built(dense, own, soon, layers):
    rewrite(dense / "config.json", num_hidden_layers=layers)
    config = json.loads((own / "config.json").read_text())
    rewrite(own / "config.json", base_config=config["base_config"] | {"num_hidden_layers": layers})
    message = r"asks for [\d,.]+ num_hidden_layers, and 1,000 is the most"
    refused(dense, message)
    for folder in (dense, own):
        for use in (load, model_facts):
            with pytest.raises(ValueError, match=message):
                use(folder)


@pytest.mark.parametrize("change", [{"num_nextn_predict_layers": 10**9}, {"vision_config": {"depths": [1, 10**9]}}])
def test_other_counts_of_layers_are_limited_too(dense, soon, change):
    rewrite(dense / "config.json", **change)
    refused(dense, "asks for 1,000,000,000 (num_nextn_predict_layers|depths)")


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": 64, "head_dim": 8},
        {"hidden_size": 10**12, "head_dim": 8},
        {"vocab_size": 95},
        {"intermediate_size": 63},
        {"num_key_value_heads": 4},
    ],
)
def test_a_configuration_of_other_weights_is_refused(dense, change):
    rewrite(dense / "config.json", **change)
    refused(dense, "of shape .*, and config.json describes one of|contradicts itself")


def test_weights_that_are_missing_in_the_source_are_told(dense):
    """Its result would lack them too, and load() refuses such a folder."""
    model = AutoModelForCausalLM.from_pretrained(dense)
    for file in dense.glob("*.safetensors*"):
        file.unlink()
    save_file({n: t for n, t in model.state_dict().items() if "layers.5.mlp.up" not in n}, dense / "model.safetensors")
    refused(
        dense,
        r"lacks weights that LlamaForCausalLM needs .model.layers.5.mlp.up_proj.weight.: the checkpoint is incomplete",
    )


def test_long_plans_are_read_at_once(tmp_path, soon):
    fields = {"schema": 1, "layers": 200_001, "removed": list(range(200_000))}
    (tmp_path / "plan.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="not a pruning plan: layers must be at most 1,000, got 200001"):
        PruningPlan.from_json(tmp_path / "plan.json")
    with pytest.raises(ValueError, match="layer 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, … is named twice"):
        check_indices([*range(200_000), *range(200_000)], 10**6)
    assert len(check_indices(range(200_000), 10**6)) == 200_000
    with pytest.raises(ValueError, match="at most 1,000"):
        PruningPlan(layers=10**9, removed=(1,))


@pytest.mark.parametrize(
    "text",
    [DEEP, '{"a":' * 100_000, "[" * 50 + "]" * 50, '{"a": "\\ud800"}', "\xff", "{" + '"a":1,' * 1_000_000 + '"b":2}'],
)
def test_every_reader_refuses_what_can_not_be_read(tmp_path, dense, own, soon, text):
    file = tmp_path / "file"
    file.write_bytes(text.encode("latin-1"))
    for read in (PruningPlan.from_json, read_answers, read_grid, records.read):
        with pytest.raises(ValueError):
            read(file)
    file.write_bytes(len(text).to_bytes(8, "little") + text.encode("latin-1"))
    with pytest.raises(ValueError, match="safetensors"):
        read_shard(file)
    for folder in (own, dense):
        (folder / "config.json").write_bytes(text.encode("latin-1"))
        for use in (load, model_facts):
            with pytest.raises(ValueError, match="config.json is damaged: download"):
                use(folder)
    refused(dense, "config.json is damaged: download")


def test_numbers_that_no_file_needs_come_as_floats():
    assert parse_json("[1, 123456789012345678, 1000000000000000019884624838656]", "") == [1, 123456789012345678, 1e30]
    assert parse_json("[" + "9" * 5000 + "]", "") == [float("inf")]


# ---- values are checked where they are read --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("criterion", 5),
        ("model", None),
        ("calibration", [1]),
        ("calibration", {"tokens": "x", "samples": 1, "sha256": ""}),
        ("calibration", {"tokens": {}}),
        ("versions", [1]),
        ("versions", {"torch": 2}),
        ("search", {"value": [1]}),
        ("scores", {"1": "0.5"}),
        ("scores", {"1": None}),
        ("scores", {"1": True}),
        ("removed", [True]),
        ("layers", 6.0),
    ],
)
def test_fields_of_a_plan_have_their_kinds(tmp_path, name, value):
    fields = {"schema": 1, "layers": 6, "removed": [2], name: value}
    (tmp_path / "plan.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="plan.json is not a pruning plan: "):
        PruningPlan.from_json(tmp_path / "plan.json")


def test_a_plan_may_note_what_it_likes_about_its_text(tmp_path):
    plan = PruningPlan(6, (2,), calibration={"tokens": 5, "samples": 1, "sha256": "ab", "begin": True, "share": 0.5})
    assert PruningPlan.from_json(plan.to_json(tmp_path / "plan.json")) == plan


ROW = dict.fromkeys(("fingerprint", "asked", "definition", "task", "metric"), "t") | {
    "limit": None, "shots": None, "seed": 1, "value": 1.0, "standard_error": None, "chance": 25, "items": 3, "subset": True,
    "rows": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rows", -1),
        ("rows", 0),
        ("rows", "x"),
        ("rows", None),
        ("rows", True),
        ("value", "x"),
        ("value", []),
        ("items", -1),
    ],
)
def test_fields_of_results_have_their_kinds(tmp_path, name, value):
    file = tmp_path / "results.jsonl"
    file.write_text(json.dumps(ROW) + "\n")
    assert len(records.read(file)) == 1
    file.write_text(json.dumps(ROW | {name: value}) + "\n")
    with pytest.raises(ValueError, match="line 1, is no result of evaluate"):
        records.read(file)


@pytest.mark.parametrize(
    "header",
    [
        {"__metadata__": [1]},
        {"__metadata__": 5},
        {"__metadata__": {"a": 1}},
        {"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, float("inf")]}},
        {"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4.0]}},
        {"x": {"dtype": "F32", "shape": "x", "data_offsets": [0, 0]}},
        {"x": {"dtype": 5, "shape": [1], "data_offsets": [0, 0]}},
        {"a\nb": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}},
    ],
)
def test_headers_of_weight_files_have_their_kinds(tmp_path, header):
    text = json.dumps(header).encode()
    (tmp_path / "x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(ValueError, match="damaged safetensors header"):
        read_shard(tmp_path / "x.safetensors")


@pytest.mark.parametrize("removed", [[9], [1, 1], [-1], "x", 5, [None], None, [0.5], {"1": 1}])
def test_a_record_of_removed_layers_that_can_not_be(dense, removed):
    rewrite(dense / "config.json", shortgpt_removed_layers=removed)
    refused(dense, r"says that layers were removed which it can't have had \(shortgpt_removed_layers\)")
    with pytest.raises(ValueError, match="can't have had"):
        load(dense)


@pytest.mark.parametrize(
    "change",
    [
        {"architectures": ["pipeline"]},
        {"architectures": ["Trainer"]},
        {"architectures": ["AutoModelForCausalLM"]},
        {"architectures": [5]},
        {"architectures": []},
        {"dtype": "save"},
        {"dtype": None},
        {"base_config": None},
        {"base_config": {"model_type": "nothing"}},
        {"base_config": {"model_type": ["llama"]}},
        {"steps": [{"layers": "x"}]},
        {"steps": [{"patches": [1], "width": 10**6}]},
        {"steps": [{"attention": [1], "outputs": {"LlamaAttention": 10**9}}]},
        {"steps": [{"model": 1}]},
        {"steps": [{}]},
        {"steps": None},
    ],
)
def test_our_own_format_is_what_save_writes(own, change, soon):
    rewrite(own / "config.json", **change)
    for use in (load, model_facts, restore):
        with pytest.raises(ValueError, match="holds no model that save|contradicts itself|does not fit") as caught:
            use(own)
        assert "\n" not in str(caught.value)


def test_facts_about_a_model_with_patches_need_no_weights(tmp_path):
    """Its patches were copied from an empty model, which has nothing to copy."""
    patched = add_patches(build_tiny(), {2: torch.zeros(33, 32)})
    folder = save(patched, tmp_path / "patched")
    assert model_facts(folder)["steps"] == [{"patches": [2], "width": 32}]
    assert torch.equal(restore(folder)(**random_batch()).logits, patched(**random_batch()).logits)


@pytest.mark.parametrize(
    "spoil", [lambda d: d[:100], lambda d: d[:16] + b"\xff" * 8 + d[24:], lambda d: b"", lambda d: b"x" * 99]
)
def test_a_broken_gguf_file_with_the_right_checksum_is_one_sentence(tmp_path, spoil, soon):
    file = tmp_path / "x.gguf"
    file.write_bytes(spoil(tiny_gguf(tmp_path)))
    with pytest.raises(ValueError, match=r"x.gguf has a damaged GGUF header, or is cut short: download it again$"):
        load(file, sha256=sha256_of(file))


def test_a_gguf_header_of_a_larger_model_is_refused(tmp_path, soon):
    file = tmp_path / "x.gguf"
    for field, width in (("block_count", 10**9), ("feed_forward_length", 10**9)):
        file.write_bytes(tiny_gguf(tmp_path, **{field: width}))
        with pytest.raises(ValueError, match="is the most that is read|describes a larger model"):
            read_gguf(file, sha256_of(file))


def test_rwkv_says_that_it_needs_more_layers(tmp_path):
    sizes = {"vocab_size": 96, "hidden_size": 32, "attention_hidden_size": 32, "intermediate_size": 64}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("rwkv", num_hidden_layers=3, **sizes)).eval()
    model.save_pretrained(tmp_path / "dense")
    with pytest.raises(OSError, match="divides by zero when it builds this architecture with so few layers"):
        save(remove_layers(model, [1, 2]), tmp_path / "saved")
    with pytest.raises(OSError, match="divides by zero when it builds this architecture with so few layers"):
        prune_checkpoint(tmp_path / "dense", tmp_path / "pruned", [1, 2], progress=False)
    assert os.listdir(tmp_path) == ["dense"]


# ---- names are only names --------------------------------------------------------------------------------------------
def evil_plan() -> PruningPlan:
    return PruningPlan(
        LAYERS, (2,), EVIL, {2: 0.1, 3: 0.2}, {"tokens": 5, "samples": 1, "sha256": EVIL}, EVIL, versions={EVIL: EVIL}
    )


def test_nothing_in_a_card_is_a_tag_a_link_or_another_row():
    card = model_card(evil_plan(), repairs=[{"kind": "fold", "layers": [1], "samples": 4}])
    assert "<img" not in card and "![" not in card.replace("\\![", "").replace("!\\[", "") and "\x1b" not in card
    assert yaml.safe_load(card.split("---")[1])["tags"] == ["shortgpt", "pruned", "depth-pruning"]
    rows = [line for line in card.splitlines() if line.startswith("|")]
    plain = model_card(PruningPlan(LAYERS, (2,), scores={2: 0.1, 3: 0.2}, model="x")).splitlines()
    assert [row.replace("\\|", "").count("|") for row in rows] == [r.count("|") for r in plain if r.startswith("|")]


def test_a_licence_is_a_string_of_yaml():
    lines = licence_lines('---\nlicense: \'mit"\nlicense_name: "😀: # \x7f\\"\n---\n')
    assert yaml.safe_load("\n".join(lines)) == {"license": "mit", "license_name": "😀: # \\"}
    start = time.monotonic()
    assert licence_lines("---\nlicense: a" + " " * 200_000 + "b\n---\n")
    assert time.monotonic() - start < 1


def test_a_mergekit_configuration_holds_any_name():
    for name in (EVIL, "😀\x7f\x85\u2028", "a: b # c", "x" * 300):
        config = yaml.safe_load(PruningPlan(LAYERS, (2,), model=name).to_mergekit(dtype="a\nb: c"))
        assert config["slices"][0]["sources"][0]["model"] == name and set(config) == {"merge_method", "dtype", "slices"}


def test_names_do_not_command_a_terminal(tmp_path, dense, capsys):
    words = plan_in_words(evil_plan())
    assert words.replace("\n", "").isprintable() and len(words.splitlines()) == 4
    evil_plan().to_json(tmp_path / "plan.json")
    rewrite(dense / "config.json", model_type="bert", architectures=["\x1b[31m\x9b"])
    for arguments in (
        ("info", tmp_path / "plan.json"),
        ("info", dense),
        ("info", dense, "--json"),
        ("info", "\x1b[31m/a/b"),
    ):
        main([str(a) for a in arguments])
        shown = "".join(capsys.readouterr())
        assert shown and not {"\x1b", "\x9b"} & {*shown}


def test_a_sentence_holds_a_name_in_one_line():
    assert one_line("a\nb\t\x1b[0m c") == "a b [0m c" and len(one_line("x" * 10**6)) == 200


def test_dollars_in_a_name_are_no_formula(monkeypatch, capsys):
    name = r"$\nothing$"
    sweep = pd.DataFrame({"removed": [0, 3], "value": [30.0, 44.0], "order": [name, name]})
    table = pd.DataFrame(
        {"removed": [0, 3], "perplexity": [30.0, 44.0], "memory_mb": [9.0, 8.0], "method": [name, name]}
    )
    pairs = pd.DataFrame({"first": [name], "second": ["b"], "overlap": [0.5], "chance": [0.1]})
    axes = [
        plots.plot_sweep(sweep, hue="order"),
        plots.plot_retention(pd.DataFrame({name: [50.0, 60.0]}, index=[name, "b"])),
        plots.plot_layers(6, {name: [1]}),
        plots.plot_agreement(pairs),
        plots.plot_criteria(sweep.rename(columns={"order": "criterion"}), y="value"),
        plots.plot_frontier(table),
    ]
    for ax in axes:
        ax.figure.draw_without_rendering()
        plt.close(ax.figure)


def test_names_in_a_grid_are_no_html():
    grid = pd.DataFrame(
        {
            "removed": [0, 1],
            "method": [EVIL, EVIL],
            "memory_mb": [9.0, 8.0],
            "perplexity": [1.0, 2.0],
            EVIL: [50.0, 40.0],
        }
    )
    assert "<img" not in budget_html(grid, 8.5, "perplexity", [EVIL]) + budget_html(grid, 9.5, EVIL, [EVIL])


def test_a_tiny_checkpoint_is_still_pruned_as_before(dense):
    pruned = prune_checkpoint(dense, dense.parent / "pruned", [1], progress=False)
    assert load_file(next(pruned.glob("*.safetensors")))
