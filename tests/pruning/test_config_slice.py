"""A configuration after removal: counts, lists with an entry a layer, and lists of layer numbers."""

import pytest
from hypothesis import given, strategies as st
from transformers import AutoConfig, Gemma3TextConfig, LlamaConfig

from shortgpt.pruning.config_slice import keep_in_config

DEPTH = 6
kept_layers = st.lists(st.integers(0, DEPTH - 1), min_size=1, max_size=DEPTH, unique=True).map(sorted)


@given(kept_layers)
def test_lists_are_sliced_by_surviving_index_and_numbers_follow(kept):
    kinds = ["full_attention" if i % 3 == 2 else "sliding_attention" for i in range(DEPTH)]
    config = Gemma3TextConfig(num_hidden_layers=DEPTH, layer_types=list(kinds))
    config.dropped_layers, config.stop_tokens = [1, 4, 5], [1] * DEPTH
    vocabulary = config.vocab_size
    keep_in_config(config, kept)
    assert config.num_hidden_layers == len(kept) and config.vocab_size == vocabulary
    assert config.layer_types == [kinds[i] for i in kept]
    assert config.dropped_layers == [kept.index(i) for i in (1, 4, 5) if i in kept]
    assert config.stop_tokens == [1] * DEPTH  # as long as the model is deep by chance: tokens, not layers


@given(kept_layers, st.data())
def test_twice_is_once(kept, data):
    again = data.draw(st.lists(st.sampled_from(range(len(kept))), min_size=1, unique=True).map(sorted))
    one, other = (Gemma3TextConfig(num_hidden_layers=DEPTH) for _ in range(2))
    keep_in_config(one, kept)
    keep_in_config(one, again)
    keep_in_config(other, [kept[i] for i in again])
    assert one.to_dict() == other.to_dict()


@pytest.mark.parametrize(("family", "name"), [("gpt2", "n_layer"), ("llama", "num_hidden_layers"), ("mpt", "n_layers")])
def test_the_count_has_the_name_that_the_class_gives_it(family, name):
    config = AutoConfig.for_model(family, **{name: DEPTH})
    keep_in_config(config, [0, 2, 5])
    assert getattr(config, name) == config.num_hidden_layers == 3


def test_all_kept_changes_nothing():
    config = LlamaConfig(num_hidden_layers=DEPTH)
    before = config.to_dict()
    keep_in_config(config, range(DEPTH))
    assert config.to_dict() == before


def test_a_record_as_long_as_the_model_is_deep_is_no_list_of_its_layers():
    config = LlamaConfig(num_hidden_layers=3)
    steps = [{"kind": "fold", "sites": "gaps", "layers": [i], "samples": 2} for i in range(3)]
    config.shortgpt_repair, config.shortgpt_removed_layers = list(steps), [0, 1, 2]
    keep_in_config(config, [0, 2])
    assert config.num_hidden_layers == 2 and config.shortgpt_repair == steps
    assert config.shortgpt_removed_layers == [0, 1, 2]
