"""The objective against references: divergence by hand in float64, states by original layer index, top-k as a bound."""

import numpy as np
import pytest
import torch
from small import build_tiny, random_batch

from shortgpt import decoder_layers, heal, hidden_states, remove_layers
from shortgpt.repair.objective import answer_divergence, answers_and_states, matching_depths, state_error


def by_hand(student, teacher, temperature):
    """KL(teacher || student) from probabilities, float64."""
    p, q = (np.exp(x / temperature) for x in (teacher, student))
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    return temperature**2 * (p * np.log(p / q)).sum(-1)


def logits(seed, shape=(2, 3, 7)):
    return np.random.default_rng(seed).normal(size=shape) * 2


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_the_divergence_is_what_one_computes_by_hand(temperature):
    student, teacher = logits(0), logits(1)
    found = answer_divergence(*map(torch.tensor, (student, teacher)), temperature=temperature)
    np.testing.assert_allclose(found.numpy(), by_hand(student, teacher, temperature), rtol=1e-5)


def test_top_k_tells_the_likeliest_apart_and_makes_one_event_of_the_rest():
    student, teacher = logits(2), logits(3)
    grouped = []
    for q, p in zip(student.reshape(-1, 7), teacher.reshape(-1, 7), strict=True):
        likeliest = np.argsort(-p)[:3]
        both = []
        for x in (q, p):
            share = np.exp(x) / np.exp(x).sum()
            both.append(np.log([*share[likeliest], 1 - share[likeliest].sum()]))
        grouped.append(by_hand(*both, 1.0))
    found = answer_divergence(torch.tensor(student), torch.tensor(teacher), top_k=3).numpy()
    np.testing.assert_allclose(found.ravel(), grouped, rtol=1e-4)
    whole = answer_divergence(torch.tensor(student), torch.tensor(teacher)).numpy()
    assert (found <= whole + 1e-6).all() and (found < 0.99 * whole).any()
    all_but_one = answer_divergence(torch.tensor(student), torch.tensor(teacher), top_k=6).numpy()
    np.testing.assert_allclose(all_but_one, whole, rtol=1e-4)


@pytest.mark.parametrize("certain", ["teacher", "student"])
def test_who_has_no_doubt_gives_numbers_too(certain):
    sure, unsure = (torch.tensor([[first, 0, 0, 0, 0, 0, 0]]) for first in (300.0, 0.3))  # e^-300 is 0 in float32
    student, teacher = (unsure, sure) if certain == "teacher" else (sure, unsure)
    student.requires_grad_()
    found = answer_divergence(student, teacher, top_k=3)
    found.sum().backward()
    assert found.isfinite().all() and student.grad.isfinite().all()
    if certain == "teacher":
        assert found.item() == pytest.approx(-float(unsure.detach().log_softmax(-1)[0, 0]), abs=1e-3)


@pytest.mark.parametrize("top_k", [None, 3])
def test_equal_answers_diverge_by_nothing_and_the_gradient_points_to_the_teacher(top_k):
    teacher = torch.tensor(logits(4))
    assert answer_divergence(teacher, teacher, top_k=top_k).abs().max() == 0
    student = torch.tensor(logits(5), requires_grad=True)
    answer_divergence(student, teacher, top_k=top_k).sum().backward()
    nearer = student.detach() - 0.01 * student.grad
    assert (
        answer_divergence(nearer, teacher, top_k=top_k).sum() < answer_divergence(student, teacher, top_k=top_k).sum()
    )


def test_a_token_that_the_teacher_rules_out_is_no_nan():
    teacher, student = torch.tensor(logits(6)), torch.tensor(logits(7))
    teacher[..., 2] = student[..., 2] = -torch.inf
    assert answer_divergence(student, teacher).isfinite().all()


def test_depths_match_by_original_index_also_after_a_second_removal():
    model = build_tiny()
    assert matching_depths(remove_layers(model, [3, 4]), model) == {1: 1, 2: 2, 3: 5, 4: 6}
    once = remove_layers(model, [1])  # layers 0 2 3 4 5
    twice = remove_layers(once, [2, 4])  # 0 2 4
    assert matching_depths(twice, model) == {1: 2, 2: 4, 3: 6}
    assert matching_depths(twice, once) == {1: 1, 2: 3, 3: 5}
    assert matching_depths(model, model) == {i: i for i in range(1, 7)}
    assert matching_depths(remove_layers(model, [0, 1]), model) == {1: 3, 2: 4, 3: 5, 4: 6}
    for wrong in (once, build_tiny()):
        with pytest.raises(ValueError, match="was not made of this teacher"):
            matching_depths(model if wrong is once else twice, wrong if wrong is once else remove_layers(model, [0]))


@pytest.mark.parametrize("kind", ["fold", "linear"])
def test_states_are_those_of_the_layers_with_the_same_number(kind):
    model, batch = build_tiny(), random_batch()
    pruned = heal(model, [2, 3], [random_batch(4, 24, seed=s) for s in range(3)], kind=kind, progress=False)
    depths = matching_depths(pruned, model)
    own, dense = hidden_states(pruned, batch), hidden_states(model, batch)
    with torch.no_grad():
        answers, states = answers_and_states(pruned.eval(), batch["input_ids"], set(depths))
        _, goals = answers_and_states(model, batch["input_ids"], set(depths.values()))
        torch.testing.assert_close(answers, pruned(**batch).logits)
    assert {**depths} == {1: 1, 2: 4, 3: 5, 4: 6} and len(decoder_layers(pruned)) == 4
    found = state_error(states, goals, depths)
    errors = [
        (own[a] - dense[b]).double().norm(dim=-1) ** 2 / dense[b].double().norm(dim=-1) ** 2 for a, b in depths.items()
    ]
    torch.testing.assert_close(found.double(), torch.stack(errors).mean(0), rtol=1e-4, atol=1e-6)
    assert errors[0].max() == 0 < errors[1].min()
