"""The lens at the last depth is the model; turns are Block Influence; the figure says what the table holds."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from architectures import tiny_model
from matplotlib.figure import Figure
from small import LAYERS, build_tiny

from shortgpt import block_influence, hidden_states, remove_layers, token_paths
from shortgpt.course.plots.tokens import (
    _drawable,
    _layers,
    draw_token_path,
    least_moving,
    one_token,
    path_sentence,
    plot_token_path,
)
from shortgpt.course.studies.logit_lens import MOST_TOKENS

TEXT = "the door opened."


def ids_of(tokenizer) -> torch.Tensor:
    return torch.tensor(tokenizer(TEXT)["input_ids"])


@torch.inference_mode()
def test_the_last_depth_is_the_model_itself(family_model, tokenizer):
    paths = token_paths(family_model, tokenizer, TEXT, top=4)
    expected = family_model(ids_of(tokenizer)[None]).logits[0].softmax(-1)
    for position, rows in paths.groupby("position"):
        assert rows["depth"].tolist() == list(range(LAYERS + 1))
        best = expected[position].topk(4)
        np.testing.assert_allclose(rows["probabilities"].iloc[-1], best.values, rtol=1e-5)
        assert rows["words"].iloc[-1] == [repr(tokenizer.decode([i]))[1:-1].strip() or "␣" for i in best.indices]
        assert rows["final"].iloc[-1] == pytest.approx(float(best.values[0]))


@torch.inference_mode()
@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_each_depth_is_final_norm_and_head_of_its_state(family, tokenizer):
    """Another way to the same: the states from hooks, and the two modules called by name."""
    model = build_tiny(family)
    paths = token_paths(model, tokenizer, TEXT)
    batch = {"input_ids": ids_of(tokenizer)[None], "attention_mask": torch.ones(1, len(TEXT), dtype=torch.long)}
    states = hidden_states(model, batch)
    expected = model.lm_head(model.model.norm(states[:, 0])).softmax(-1)  # [layers + 1, tokens, vocabulary]
    answer = expected[-1].argmax(-1)
    for row in paths.itertuples():
        here = expected[row.depth, row.position]
        np.testing.assert_allclose(row.probabilities, here.topk(3).values, rtol=1e-5)
        assert row.final == pytest.approx(float(here[answer[row.position]]), rel=1e-5)
    turns = block_influence(states[:-1, 0], states[1:, 0])  # [layers, tokens]
    table = paths.pivot(index="depth", columns="position", values="moved")
    assert table.loc[0].isna().all()
    np.testing.assert_allclose(table.loc[1:], turns, atol=1e-6)


@pytest.mark.parametrize("name", ["bloom", "mamba", "gemma3n_text", "falcon_h1"])
def test_other_architectures_end_in_their_own_logits(name, tokenizer):
    model = tiny_model(name)
    with torch.inference_mode():
        expected = model(ids_of(tokenizer)[None], use_cache=False).logits[0].softmax(-1).max(-1).values
    last = token_paths(model, tokenizer, TEXT).groupby("position").tail(1)
    np.testing.assert_allclose(last["probabilities"].str[0], expected, rtol=1e-4)


def test_a_layer_that_adds_nothing_does_not_move_the_token(tokenizer):
    model = build_tiny()
    with torch.no_grad():
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            model.model.layers[2].get_submodule(name).weight.zero_()
    paths = token_paths(model, tokenizer, TEXT)
    moved = paths.pivot(index="depth", columns="position", values="moved")
    assert moved.loc[3].abs().max() < 1e-6 < moved.drop(3).min().min()
    rows = one_token(paths, 0)
    assert 2 in least_moving(rows, 1)
    assert rows["probabilities"][2] == rows["probabilities"][3]  # the lens reads the same before and after it


def test_the_path_of_a_pruned_model_is_shorter_and_the_model_is_left_as_it_was(tokenizer):
    model = build_tiny().train()
    paths = token_paths(remove_layers(model, [1, 4]), tokenizer, TEXT)
    assert paths["depth"].max() == LAYERS - 2
    token_paths(model, tokenizer, TEXT)
    assert model.training and not any(m._forward_hooks or "forward" in vars(m) for m in model.modules())


def test_one_token_is_found_from_either_end_and_a_wrong_one_is_named(tokenizer):
    paths = token_paths(build_tiny(), tokenizer, TEXT)
    assert one_token(paths)["token"].unique().tolist() == ["."]
    assert one_token(paths, 1).equals(one_token(paths, 1 - len(TEXT)))
    with pytest.raises(ValueError, match=f"position must be 0 to {len(TEXT) - 1} .*got {len(TEXT)}"):
        one_token(paths, len(TEXT))
    with pytest.raises(TypeError, match="paths must be from token_paths.*got None"):
        one_token(None)


def test_the_figure_has_the_turns_as_bars_hatches_the_least_and_says_so(tokenizer, capsys):
    paths = token_paths(build_tiny(), tokenizer, TEXT)
    top, bottom = plot_token_path(paths, 4)
    rows = one_token(paths, 4)
    bars = {round(b.get_x() + b.get_width() / 2 - 0.5): (b.get_height(), bool(b.get_hatch())) for b in top.patches}
    least = least_moving(rows)
    assert len(least) == LAYERS // 2
    for layer, moved in enumerate(rows["moved"][1:]):
        assert bars[layer] == (pytest.approx(moved), layer in least)
    np.testing.assert_allclose(bottom.lines[0].get_ydata(), rows["final"])
    labels = [label.get_text() for label in bottom.get_xticklabels()]
    assert [label.split()[-1] for label in labels] == [str(depth) for depth in rows["depth"]]
    said = capsys.readouterr().out
    assert said == path_sentence(rows) + "\n"
    assert f"{_layers(least)} turn it least" in said
    assert f"layer {rows['moved'].idxmax() - 1} turns it most" in said
    plt.close("all")


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ([4], "layer 4"),
        ([3, 4], "layers 3, 4"),
        ([3, 4, 5, 9, 11, 12], "layers 3 to 5, 9, 11, 12"),
        ([0, 2], "layers 0, 2"),
    ],
)
def test_rows_of_layers_are_named_by_their_ends(numbers, words):
    assert _layers(numbers) == words


def test_all_layers_that_turn_a_token_by_next_to_nothing_are_named(tokenizer):
    rows = one_token(token_paths(build_tiny(), tokenizer, TEXT))
    turns = [np.nan, 0.9, 1e-4, 2e-4, 5e-4, 1e-7, 0.3]
    assert least_moving(rows.assign(moved=turns), 2) == [1, 2, 3, 4]
    assert least_moving(rows.assign(moved=[np.nan, 0.9, 0.2, 0.1, 0.3, 0.4, 0.05]), 2) == [2, 5]
    assert "layers 1 to 4 turn it least (at most 0.001)" in path_sentence(rows.assign(moved=turns))


def test_since_when_the_answer_stands_is_counted_from_the_end(tokenizer):
    rows = one_token(token_paths(build_tiny(), tokenizer, TEXT))
    words = ["a", "b", "a", "b", "b", "b", "b"]
    said = path_sentence(rows.assign(words=[[word] for word in words]))
    assert "'b'" in said and said.endswith("from depth 3 on.")


@pytest.mark.filterwarnings("error")
def test_any_word_can_be_drawn(tokenizer):
    """Signs that the font lacks would draw warnings, and dollar signs would be read as formulas."""
    rows = one_token(token_paths(build_tiny(), tokenizer, TEXT))
    words = ["中文", "$x_{", r"$\frac$", "\N{GRINNING FACE}", "antidisestablishment", "\\n", "�"]
    figure = Figure(layout="constrained")
    (_, bottom), _ = draw_token_path(figure, rows.assign(words=[[word] for word in words]))
    figure.draw_without_rendering()
    labels = [label.get_text() for label in bottom.get_xticklabels()]
    assert labels[:3] == ["□□  0", "$x_{  1", r"$\frac$  2"] and labels[4] == "antidisesta…  4"
    assert _drawable("Paris") == "Paris"


def test_a_text_that_is_too_long_is_refused_before_it_runs(tokenizer):
    with pytest.raises(ValueError, match=f"has {MOST_TOKENS + 1} tokens, and {MOST_TOKENS} are the most"):
        token_paths(build_tiny(), tokenizer, "a" * (MOST_TOKENS + 1))
