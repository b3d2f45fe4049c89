"""The last matrix is refitted so that the distributions come nearer to the dense model's, and nothing else is."""

import pytest
import torch
from small import build_tiny, random_batch

from shortgpt import heal, remove_layers
from shortgpt.course.studies.logit_refit import Kept, _frozen, _loss, refit_on_logits
from shortgpt.model.anatomy import decoder_layers


def batches(count=6):
    return [random_batch(4, 24, seed=seed) for seed in range(count)]


def divergence(model, other, batch):
    with torch.no_grad():
        log_p, log_q = (each(**batch).logits.double().log_softmax(-1) for each in (model, other))
    return float((log_p.exp() * (log_p - log_q)).sum(-1).mean())


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_loss_is_the_divergence_of_the_model_with_the_changed_matrix(family):
    model = build_tiny(family)
    pruned = remove_layers(model, [2, 3])
    name = {"llama": "mlp.down_proj", "gpt2": "mlp.c_proj"}[family]
    projection = decoder_layers(pruned)[-1].get_submodule(name)
    row = random_batch(1, 24, seed=5)
    kept: Kept = _frozen(model, pruned, row, projection)
    change = 0.3 * torch.randn(kept.z.shape[-1], 32, generator=torch.Generator().manual_seed(0))
    found = float(_loss(pruned, change, kept).detach())
    weight = projection.weight
    projection.weight = torch.nn.Parameter(weight + (change if family == "gpt2" else change.T))
    assert found == pytest.approx(divergence(model, pruned, row), rel=2e-3)
    assert found != pytest.approx(float(_loss(pruned, 0 * change, kept).detach()), rel=2e-2)


def test_unseen_text_comes_nearer_and_only_one_matrix_changes():
    model = build_tiny()
    healed = heal(model, [2, 3], batches(), progress=False)
    before = {name: weight.clone() for name, weight in healed.named_parameters()}
    was = divergence(model, healed, random_batch(8, 24, seed=99))
    refitted, seen = refit_on_logits(model, healed, batches(12))
    assert len(seen) > 1 and seen == sorted(seen, reverse=True)
    changed = [name for name, weight in refitted.named_parameters() if not torch.equal(weight, before[name])]
    assert changed == ["model.layers.3.mlp.down_proj.weight"]
    assert divergence(model, refitted, random_batch(8, 24, seed=99)) < was


def test_one_sample_is_too_few():
    model = build_tiny()
    with pytest.raises(ValueError, match="at least two samples"):
        refit_on_logits(model, remove_layers(model, [2]), [random_batch(1)])
