"""Training the twins: the shortcuts compute the same, and a run that was stopped ends with the same weights."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from small import VOCABULARY, random_batch
from transformers.models.mamba2.modeling_mamba2 import causal_conv1d_fn, mamba2_chunk_scan
from transformers.models.rwkv.modeling_rwkv import rwkv_linear_attention_cpu
from twins_small import small_config

from shortgpt import decoder_layers
from shortgpt.checkpoints.twins import KINDS, WINDOW

sys.path.insert(0, str(Path(__file__).parents[1] / "measure"))
import train_twins
import twin_kinds
import twin_recipe
from twin_recipe import BATCH

sys.path.pop(0)


def gradients(function, inputs, weight):
    output = function(*inputs)
    return output, torch.autograd.grad((output * weight).sum(), inputs)


def test_rwkv_in_chunks_is_rwkv_token_by_token():
    torch.manual_seed(0)
    decay, first = torch.linspace(-5, 3, 8), torch.randn(8)
    key, value, weight = 8 * torch.randn(2, 150, 8), torch.randn(2, 150, 8), torch.randn(2, 150, 8)
    inputs = [x.double().requires_grad_() for x in (decay, first, key, value)]
    wanted, slopes = gradients(lambda *x: rwkv_linear_attention_cpu(*x)[0], inputs, weight)
    single = [x.detach().float().requires_grad_() for x in inputs]
    got, found = gradients(lambda *x: twin_kinds.wkv(*x)[0], single, weight)
    torch.testing.assert_close(got.double(), wanted, atol=1e-5, rtol=1e-5)
    for a, b in zip(found, slopes, strict=True):
        torch.testing.assert_close(a.double(), b, atol=1e-4 * b.abs().max().item(), rtol=1e-4)


def test_rwkv_keys_far_apart_give_numbers():
    key = torch.tensor([-90.0, 90, -90, 30]).repeat(40)[None, :, None].repeat(1, 1, 8).requires_grad_()
    mean = twin_kinds.wkv(torch.full((8,), 3.0), torch.zeros(8), key, torch.ones(1, 160, 8))[0]
    torch.testing.assert_close(mean, torch.ones_like(mean))  # of equal values
    assert torch.autograd.grad(mean.sum(), key)[0].isfinite().all()


@pytest.mark.parametrize("kind", ["rwkv", "mamba"])
def test_with_shortcuts_a_model_gives_the_same_logits_at_any_length(kind):
    model = twin_kinds.build(kind, 0, small_config(kind)).eval()
    for tokens in (128, 100):
        batch = random_batch(2, tokens)
        with torch.no_grad(), twin_kinds.quick():
            quick = model(**batch).logits, model(**batch, use_cache=False).logits
        with torch.no_grad():
            wanted = model(**batch).logits
        for got in quick:
            torch.testing.assert_close(got, wanted, atol=1e-5 * wanted.abs().max().item(), rtol=1e-4)


def test_mamba_with_shared_products_is_mamba():
    torch.manual_seed(0)
    sizes = ((2, 128, 6, 8), (2, 128, 6), (2, 128, 1, 16), (2, 128, 1, 16))
    inputs = [torch.randn(size, requires_grad=True) for size in sizes]
    A, D, bias, weight = -torch.arange(1.0, 7), torch.randn(6), torch.randn(6) - 3, torch.randn(2, 128, 6, 8)

    def run(scan):
        return lambda x, dt, B, C: scan(x, dt, A, B, C, 64, D=D, dt_bias=bias, dt_softplus=True)

    wanted, slopes = gradients(run(mamba2_chunk_scan), inputs, weight)
    got, found = gradients(run(twin_kinds.chunk_scan), inputs, weight)
    for a, b in zip((got, *found), (wanted, *slopes), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5 * b.abs().max().item(), rtol=1e-4)


def test_attention_in_parts_is_attention():
    torch.manual_seed(0)
    inputs = [(3 * torch.randn(2, 4, 200, 8)).requires_grad_() for _ in range(3)]
    weight = torch.randn(2, 4, 200, 8)
    wanted, slopes = gradients(lambda *x: F.scaled_dot_product_attention(*x, is_causal=True), inputs, weight)
    with twin_kinds.quick():
        got, found = gradients(lambda *x: F.scaled_dot_product_attention(*x, is_causal=True), inputs, weight)
        mask = torch.rand(200, 200) > 0.5
        masked = F.scaled_dot_product_attention(*inputs, attn_mask=mask)  # torch's own, as all that has a mask
    for a, b in zip((got, *found), (wanted, *slopes), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5 * b.abs().max().item(), rtol=1e-4)
    assert not torch.equal(got, wanted), "ours has not run"
    assert torch.equal(masked, F.scaled_dot_product_attention(*inputs, attn_mask=mask))


def test_mamba_with_its_convolution_as_sums_is_mamba():
    torch.manual_seed(0)
    inputs = [torch.randn(size, requires_grad=True) for size in ((2, 8, 20), (8, 4), (8,))]
    weight = torch.randn(2, 8, 20)
    wanted, slopes = gradients(lambda *x: causal_conv1d_fn(*x, activation="silu"), inputs, weight)
    got, found = gradients(lambda *x: twin_kinds.causal_conv(*x, activation="silu"), inputs, weight)
    for a, b in zip((got, *found), (wanted, *slopes), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_twins_of_one_seed_begin_alike_and_read_the_same():
    states = {kind: twin_kinds.build(kind, 3, small_config(kind)).state_dict() for kind in KINDS}
    alike = "model.layers.2.mlp.down_proj.weight"
    for kind in ("post-norm", "scaled-norm", "layer-dropout"):
        assert torch.equal(states[kind][alike], states["pre-norm"][alike])
    assert not torch.equal(
        twin_kinds.build("pre-norm", 4, small_config("pre-norm")).state_dict()[alike], states["pre-norm"][alike]
    )
    tokens = np.arange(WINDOW * 10 + 1, dtype=np.uint16)
    steps = [twin_recipe.windows(tokens, 0, step, 2) for step in range(5)]
    assert sorted(torch.cat(steps)[:, 0].tolist()) == list(range(0, WINDOW * 10, WINDOW))  # each once
    assert torch.equal(twin_recipe.windows(tokens, 0, 3, 2), steps[3])
    assert not torch.equal(twin_recipe.windows(tokens, 1, 3, 2), steps[3])


def test_scaled_norms_fold_into_a_llama_of_exactly_the_same_function():
    model, batch = twin_kinds.build("scaled-norm", 0, small_config("scaled-norm")).eval(), random_batch()
    layer = decoder_layers(model)[2]
    seen = []
    layer.input_layernorm.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
    with torch.no_grad():
        before = model(**batch).logits
        x, output = seen[0]
        normal = x / (x.square().mean(-1, keepdim=True) + model.config.rms_norm_eps).sqrt()
        torch.testing.assert_close(output, normal / 3**0.5)  # the third layer, at the start of training
        after = twin_kinds.folded(model)(**batch).logits
    assert torch.equal(before, after)
    plain = twin_kinds.build("pre-norm", 0, small_config("pre-norm"))
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert type(layer.input_layernorm) is type(decoder_layers(plain)[2].input_layernorm)


@pytest.mark.parametrize("kind", KINDS)
def test_float16_keeps_more_of_a_twin_than_bfloat16(kind):
    batch, model = random_batch(), twin_kinds.build(kind, 0, small_config(kind)).eval()
    with torch.no_grad():
        whole = model(**batch, use_cache=False).logits
        lost = []
        for dtype in (torch.float16, torch.bfloat16):
            rounded = twin_kinds.build(kind, 0, small_config(kind)).eval().to(dtype).float()
            lost.append((rounded(**batch, use_cache=False).logits - whole).abs().mean().item())
    assert lost[0] < lost[1] / 4


def test_layers_are_dropped_in_training_steps_only():
    model = twin_kinds.build("layer-dropout", 0, small_config("layer-dropout"))
    whole, lengths = decoder_layers(model), []
    for step in range(200):
        with twin_kinds.dropped(model, "layer-dropout", 0, step):
            lengths.append(len(model.model.layers))
        assert model.model.layers is whole
        with twin_kinds.dropped(model, "pre-norm", 0, step):
            assert len(model.model.layers) == 4
    assert np.mean(lengths) == pytest.approx(4 * 0.8, abs=0.2) and min(lengths) < 3
    seen = []
    whole[1].register_forward_hook(lambda *_: seen.append(1))
    train_twins.validation_loss(model, np.arange(WINDOW * BATCH + 1, dtype=np.uint16) % VOCABULARY, "cpu")
    assert len(seen) == 1, "validation reads with all layers"


def test_the_rate_goes_up_then_down_to_nothing():
    rates = [twin_recipe.rate(step, 100) for step in range(100)]
    assert max(rates) == rates[9] == twin_recipe.RATE and rates[0] == twin_recipe.RATE / 10
    assert rates[10:] == sorted(rates[10:], reverse=True) and rates[-1] < 0.02 * twin_recipe.RATE


@pytest.mark.parametrize("kind", ["layer-dropout", "scaled-norm", "rwkv"])
def test_a_run_that_was_stopped_ends_with_the_same_weights(kind, tmp_path, monkeypatch, capsys):
    text = np.random.default_rng(0).integers(0, VOCABULARY, WINDOW * 12 + 1).astype(np.uint16)
    monkeypatch.setattr(train_twins, "NOTE_STEPS", 4)

    def run(place):
        sizes = small_config(kind, num_hidden_layers=2)
        return train_twins.Run(
            kind, 0, 6, text, text, tmp_path / place, tmp_path / place / "build", batch=2, config=sizes
        )

    assert train_twins.train(run("whole"))
    monkeypatch.setattr(train_twins, "SAVE_SECONDS", 0)  # keep every step
    step_of = train_twins._step

    def killed(run, model, optimizer, step):
        if step == 3:
            raise KeyboardInterrupt
        return step_of(run, model, optimizer, step)

    monkeypatch.setattr(train_twins, "_step", killed)
    with pytest.raises(KeyboardInterrupt):
        train_twins.train(run("stopped"))
    assert not run("stopped").folder.exists()
    monkeypatch.setattr(train_twins, "_step", step_of)
    assert train_twins.train(run("stopped"))
    one, other = (load_file(run(place).folder / "model.safetensors") for place in ("whole", "stopped"))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    curves = [pd.read_csv(tmp_path / place / "losses.csv") for place in ("whole", "stopped")]
    pd.testing.assert_frame_equal(*curves)
    assert curves[0]["step"].tolist() == [4, 6] and curves[0]["final"].notna().tolist() == [False, True]
    assert not [*(tmp_path / "stopped" / "build" / "state").iterdir()]
    assert f'"twin-{kind}-0": "' in capsys.readouterr().out


def test_the_command_trains_what_is_missing_seed_by_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(train_twins, "DATA", tmp_path / "data")
    monkeypatch.setattr(sys, "argv", ["train_twins.py", "--tokens", "1e5", "--device", "cpu"])
    with pytest.raises(SystemExit, match="make the text first, with python measure/twin_text.py"):
        train_twins.main()
    build = tmp_path / "build" / "twins"
    for folder in (tmp_path / "data" / "twins" / "twin-mamba-0", build / "twin-deep-1"):  # these are finished
        folder.mkdir(parents=True)
        (folder / "model.safetensors").touch()
    for part in ("train", "validation", "practice"):
        np.save(build / f"{part}.npy", np.zeros(WINDOW * 4 + 1, dtype=np.uint16))
    asked = []
    monkeypatch.setattr(train_twins, "train", asked.append)
    train_twins.main()
    names = [run.name for run in asked]
    assert len(names) == 25 and names[:2] == ["twin-pre-norm-0", "twin-post-norm-0"]
    assert [int(name[-1]) for name in names] == sorted(int(name[-1]) for name in names)
    assert not {"twin-mamba-0", "twin-deep-1"} & {*names} and {run.steps for run in asked} == {
        round(1e5 / (BATCH * WINDOW))
    }
    monkeypatch.setattr(sys, "argv", ["train_twins.py", "twin-rwkv-2"])
    train_twins.main()
    assert asked[-1].folder == build / "twin-rwkv-2" and asked[-1].compiled and asked[-1].start is None
    monkeypatch.setattr(sys, "argv", ["train_twins.py", "practised-2"])
    with pytest.raises(SystemExit, match="practised-2 goes on from twin-pre-norm-2: name pre-norm-2 in front of it"):
        train_twins.main()


def test_practice_goes_on_from_a_trained_twin(tmp_path):
    text = np.random.default_rng(0).integers(0, VOCABULARY, WINDOW * 12 + 1).astype(np.uint16)
    sizes = small_config("pre-norm", num_hidden_layers=2)
    first = train_twins.Run("pre-norm", 0, 6, text, text, tmp_path, tmp_path / "build", batch=2, config=sizes)
    assert train_twins.train(first)
    second = first._replace(kind="practised", steps=1, start=first.folder)
    assert train_twins.train(second)
    before, after = (load_file(run.folder / "model.safetensors") for run in (first, second))
    moved = max((after[name].float() - before[name].float()).abs().max() for name in before)
    assert 0.5 * twin_recipe.RATE < moved < 1.5 * twin_recipe.RATE, (
        "one step of AdamW from there, and from nowhere else"
    )
