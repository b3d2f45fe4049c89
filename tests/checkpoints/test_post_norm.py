"""The post-norm twin is what its formula says, and goes through the toolkit like any model."""

import sys

import numpy as np
import pytest
import torch
from small import random_batch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM
from twins_small import small_config

import shortgpt.checkpoints
from shortgpt import PruningPlan, decoder_layers, load, remove_layers, save, score_layers
from shortgpt.checkpoints.post_norm import PostNormForCausalLM


def post_norm(seed: int = 0) -> PostNormForCausalLM:
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(small_config("post-norm", initializer_range=0.3)).eval()
    for name, weight in model.named_parameters():
        if "norm" in name:  # so that leaving out a norm's weight is seen
            torch.nn.init.uniform_(weight, 0.5, 1.5)
    return model


def logits_by_hand(model: PostNormForCausalLM, ids: np.ndarray) -> np.ndarray:
    """``[tokens, vocabulary]`` from the formula, in float64."""
    weight = {name: p.detach().double().numpy() for name, p in model.named_parameters()}
    config, tokens = model.config, len(ids)
    heads, width = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    frequencies = 10_000.0 ** -(np.arange(0, width, 2) / width)
    angle = np.tile(np.outer(np.arange(tokens), frequencies), 2)  # [tokens, width]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + config.rms_norm_eps) * weight[name]

    def turned(x: np.ndarray) -> np.ndarray:
        half = np.concatenate([-x[..., width // 2 :], x[..., : width // 2]], -1)
        return x * np.cos(angle) + half * np.sin(angle)

    def split(x: np.ndarray) -> np.ndarray:
        return x.reshape(tokens, heads, width).transpose(1, 0, 2)

    x = weight["model.embed_tokens.weight"][ids]
    for i in range(config.num_hidden_layers):
        at = f"model.layers.{i}."
        q, k, v = (split(x @ weight[f"{at}self_attn.{part}_proj.weight"].T) for part in "qkv")
        scores = turned(q) @ turned(k).transpose(0, 2, 1) / np.sqrt(width)
        scores = np.exp(np.where(np.tri(tokens, dtype=bool), scores, -np.inf))
        mixed = ((scores / scores.sum(-1, keepdims=True)) @ v).transpose(1, 0, 2).reshape(tokens, -1)
        x = norm(x + mixed @ weight[f"{at}self_attn.o_proj.weight"].T, f"{at}input_layernorm.weight")
        gate, up = (x @ weight[f"{at}mlp.{part}_proj.weight"].T for part in ("gate", "up"))
        ffn = (gate / (1 + np.exp(-gate)) * up) @ weight[f"{at}mlp.down_proj.weight"].T
        x = norm(x + ffn, f"{at}post_attention_layernorm.weight")
    return x @ weight["model.embed_tokens.weight"].T


def test_the_model_is_its_formula():
    model, ids = post_norm(), np.array([5, 17, 3, 88, 41, 5, 9])
    with torch.no_grad():
        logits = model(torch.from_numpy(ids)[None]).logits[0].double().numpy()
    wanted = logits_by_hand(model, ids)
    np.testing.assert_allclose(logits, wanted, atol=1e-5 * np.abs(wanted).max())


def test_every_state_that_leaves_a_layer_has_the_norm_of_its_last_weight():
    model, batch = post_norm(), random_batch()
    scores = score_layers(model, [batch], progress=False)
    assert scores.sums.shape[1] == len(decoder_layers(model)) == 4
    with torch.no_grad():
        states = model(**batch, output_hidden_states=True).hidden_states
    for state, layer in zip(states[1:], decoder_layers(model), strict=True):
        normal = (state / layer.post_attention_layernorm.weight).square().mean(-1)
        torch.testing.assert_close(normal, torch.ones_like(normal), atol=1e-3, rtol=0)


def test_cached_writing_is_what_writing_again_from_the_start_gives():
    model, ids = post_norm(), random_batch(1, 5)["input_ids"]
    cached = model.generate(ids, max_new_tokens=6, do_sample=False, eos_token_id=None, pad_token_id=0)
    for _ in range(6):
        ids = torch.cat([ids, model(ids, use_cache=False).logits[:, -1:].argmax(-1)], -1)
    assert cached.tolist() == ids.tolist()


def test_a_pruned_one_comes_back_by_our_loader_and_says_so(tmp_path, tokenizer, monkeypatch):
    plan = PruningPlan(4, (1, 2))
    pruned = remove_layers(post_norm(), plan)
    save(pruned, tmp_path / "pruned", tokenizer=tokenizer, plan=plan)
    assert "from shortgpt import load" in (tmp_path / "pruned" / "README.md").read_text(encoding="utf-8")
    # as in a process that has not asked for it
    monkeypatch.delitem(CONFIG_MAPPING._extra_content, "shortgpt_post_norm")
    monkeypatch.delitem(sys.modules, "shortgpt.checkpoints.post_norm")
    monkeypatch.delattr(shortgpt.checkpoints, "post_norm", raising=False)
    with pytest.raises(ValueError, match="shortgpt_post_norm"):
        AutoConfig.from_pretrained(tmp_path / "pruned")
    again = load(tmp_path / "pruned", device="cpu")[0]
    batch = random_batch()
    with torch.no_grad():
        assert torch.equal(again(**batch).logits, pruned(**batch).logits)
