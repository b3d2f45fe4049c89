"""How far choices agree: closed forms, a brute-force rank correlation, and text that a model samples for itself."""

import itertools
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from small import LAYERS, VOCABULARY, build_tiny, random_batch

from shortgpt import (
    built_in_text,
    calibration_batches,
    choose_layers,
    plan_agreement,
    sampled_text,
    score_layers,
    tokens_needed,
)
from shortgpt.course import plots
from shortgpt.model.text import Batch
from shortgpt.model.tokens import begin_token
from shortgpt.scoring.influence import LayerScores
from shortgpt.scoring.stability import LEAST, _spearman


def scored(*values: float) -> LayerScores:
    """Scores of one sample of one token."""
    return LayerScores(np.array([values]), np.array([1]))


def noisy(samples: int, noise: float, depth: int = 12, seed: int = 0) -> LayerScores:
    rng = np.random.default_rng(seed)
    counts = rng.integers(5, 50, samples)
    return LayerScores(counts[:, None] * (np.arange(depth) + noise * rng.normal(size=(samples, depth))), counts)


# ---- between texts ---------------------------------------------------------------------------------------------------
def test_pairs_by_hand():
    table = plan_agreement({"a": scored(1, 2, 3, 4), "b": scored(4, 3, 2, 1), "c": scored(1, 3, 2, 4)}, 2)
    assert list(zip(table["first"], table["second"], strict=True)) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert table["overlap"].tolist() == [0, 0.5, 0.5]  # {0, 1}, {2, 3}, {0, 2}
    np.testing.assert_allclose(table["jaccard"], [0, 1 / 3, 1 / 3])
    np.testing.assert_allclose(table["rank_correlation"], [-1, 0.8, -0.8])  # 1 - 6 * sum(d²) / (n³ - n)
    assert table["chance"].tolist() == [0.5] * 3


@pytest.mark.parametrize("n", [1, 3, 7])
def test_overlap_is_that_of_the_plans(n):
    rng = np.random.default_rng(n)
    scores = {name: LayerScores(rng.integers(0, 4, (3, 8)).astype(float), np.full(3, 2)) for name in "abcd"}
    for row in plan_agreement(scores, n).itertuples():
        first, second = (set(choose_layers(scores[name], n).removed) for name in (row.first, row.second))
        assert row.overlap == pytest.approx(len(first & second) / n)
        assert row.jaccard == pytest.approx(len(first & second) / len(first | second))


def test_rank_correlation_with_ties_is_that_of_ranks_counted_one_by_one():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, (2, 20, 9)).astype(float)
    for x, y, got in zip(a, b, _spearman(a, b), strict=True):
        ranks = [[sum(v < u for v in z) + (1 + sum(v == u for v in z)) / 2 for u in z] for z in (x, y)]
        assert got == pytest.approx(np.corrcoef(*ranks)[0, 1])


def test_scores_that_are_all_equal_have_no_order():
    assert np.isnan(plan_agreement({"a": scored(1, 1, 1), "b": scored(1, 2, 3)}, 1)["rank_correlation"].item())


def test_random_scores_agree_as_chance_says():
    rng = np.random.default_rng(0)
    table = plan_agreement({str(i): scored(*rng.random(10)) for i in range(60)}, 3)
    assert table["overlap"].mean() == pytest.approx(table["chance"].iloc[0], abs=0.02)


# ---- how much text ---------------------------------------------------------------------------------------------------
def test_sizes_double_up_to_half_and_end_with_all():
    scores = noisy(21, 1)
    table = tokens_needed(scores, 4, resamples=3)
    assert table["samples"].tolist() == [1, 2, 4, 8, 21]
    assert table["draws"].tolist() == ["disjoint"] * 4 + ["bootstrap"]
    assert tokens_needed(noisy(16, 1), 4, resamples=3)["samples"].tolist() == [1, 2, 4, 8, 16]
    assert tokens_needed(noisy(2, 1), 4, resamples=3)["samples"].tolist() == [1, 2]


def test_samples_that_say_the_same_agree_at_once_and_tokens_are_counted():
    table = tokens_needed(LayerScores(np.tile(np.arange(6.0), (8, 1)), np.full(8, 10)), 2, resamples=5)
    assert (table[["overlap", "low", "high", "rank_correlation", "overlap_with_all"]] == 1).all(axis=None)
    assert table["tokens"].tolist() == [10, 20, 40, 80]


def test_two_samples_that_contradict_never_agree():
    """Disjoint sets of one are the two samples: overlap 0, although one of them agrees with their sum."""
    table = tokens_needed(LayerScores(np.array([[0, 1, 9, 9], [3, 3, 0, 1.0]]), np.array([1, 1])), 2, resamples=40)
    first = table.iloc[0]
    assert (first["overlap"], first["low"], first["high"]) == (0, 0, 0)
    assert 0.2 < first["overlap_with_all"] < 0.8
    assert 0 < table["overlap"].iloc[-1] < 1  # a bootstrap draw may be one sample twice


def test_against_a_brute_force_over_all_disjoint_pairs():
    scores, n = noisy(6, 4), 4
    plans = {}
    for two in itertools.combinations(range(6), 2):
        sums, counts = scores.sums[list(two)].sum(0), scores.counts[list(two)].sum()
        plans[two] = set(np.argsort(sums / counts)[:n])
    pairs = [(a, b) for a in plans for b in plans if not set(a) & set(b)]
    exact = np.array([len(plans[a] & plans[b]) / n for a, b in pairs])
    assert exact.std() > 0.05
    scores = LayerScores(scores.sums, scores.counts)
    table = tokens_needed(scores, n, resamples=4000)  # sizes 1, 2, 6
    row = table[table["samples"] == 2].iloc[0]
    assert row["overlap"] == pytest.approx(exact.mean(), abs=5 * exact.std() / 4000**0.5)
    assert (row["low"], row["high"]) == (np.quantile(exact, 0.1), np.quantile(exact, 0.9))


def test_more_text_agrees_better_and_all_flatters():
    table = tokens_needed(noisy(64, 6), 4)
    assert table["overlap"].is_monotonic_increasing and table["rank_correlation"].is_monotonic_increasing
    assert (table["overlap_with_all"] > table["overlap"]).all()


def test_the_bootstrap_row_is_what_independent_texts_of_that_size_do():
    independent = []
    for seed in range(0, 200, 2):
        pair = {"a": noisy(64, 6, seed=seed), "b": noisy(64, 6, seed=seed + 1)}
        independent.append(plan_agreement(pair, 4)["rank_correlation"].item())
    boot = np.mean([tokens_needed(noisy(64, 6, seed=s), 4)["rank_correlation"].iloc[-1] for s in range(10)])
    assert boot == pytest.approx(np.mean(independent), abs=0.03)


def test_the_seed_decides():
    scores = noisy(16, 6)
    first = tokens_needed(scores, 4, seed=3)
    pd.testing.assert_frame_equal(first, tokens_needed(scores, 4, seed=3))
    assert not first.equals(tokens_needed(scores, 4, seed=4))


# ---- documents: samples of one are not independent ---------------------------------------------------------------------
def clustered(documents: int, each: int, between: float, within: float, depth: int = 4, seed: int = 0) -> LayerScores:
    """Scores whose samples share what their document adds, of equal lengths."""
    rng = np.random.default_rng(seed)
    shared = between * rng.normal(size=(documents, 1, depth))
    sums = (np.arange(depth) + shared + within * rng.normal(size=(documents, each, depth))).reshape(-1, depth)
    names = tuple(str(i) for i in range(documents) for _ in range(each))
    return LayerScores(sums, np.ones(documents * each, int), documents=names)


def test_errors_over_documents_are_those_of_repeated_reading():
    """The spread of the scores over independent texts; over samples the error would be too small by a known factor."""
    many = [clustered(30, 8, 1.0, 1.0, seed=i) for i in range(400)]
    true = np.std([scores.values for scores in many], axis=0)
    np.testing.assert_allclose(true, np.sqrt(1 / 30 + 1 / 240), rtol=0.1)
    found = np.mean([scores.standard_errors for scores in many], axis=0)
    np.testing.assert_allclose(found, true, rtol=0.1)
    naive = np.mean([replace(scores, documents=()).standard_errors for scores in many], axis=0)
    np.testing.assert_allclose(naive / found, np.sqrt(2 / 240 / (1 / 30 + 1 / 240)), rtol=0.1)  # design effect 4.5
    differences = [scores.difference(0, 1) for scores in many]
    assert np.mean([error for _, error in differences]) == pytest.approx(np.std([d for d, _ in differences]), rel=0.1)


def test_a_sample_a_document_or_one_document_in_all_is_as_without_names():
    scores = noisy(12, 3)
    for names in (tuple("abcdefghijkl"), ("a",) * 12):
        named = replace(scores, documents=names)
        np.testing.assert_allclose(named.standard_errors, scores.standard_errors)
        pd.testing.assert_frame_equal(tokens_needed(named, 4), tokens_needed(scores, 4))
    pd.testing.assert_series_equal(named.selection_frequency(4), scores.selection_frequency(4))


def test_redrawing_takes_documents_as_a_whole():
    """Eight samples of two documents that contradict each other: drawn one by one, a draw of one kind alone is rare."""
    sums = np.array([[0.0, 1, 9]] * 4 + [[9.0, 1, 0]] * 4)
    scores = LayerScores(sums, np.ones(8, int), documents=("a",) * 4 + ("b",) * 4)
    frequency = scores.selection_frequency(1, resamples=2000)
    assert frequency[0] == pytest.approx(1 / 4, abs=0.05) and frequency[2] == pytest.approx(1 / 4, abs=0.05)
    alone = replace(scores, documents=()).selection_frequency(1, resamples=2000)
    assert alone[0] < 0.02


def test_merged_scores_count_a_document_of_both_once():
    scores = clustered(6, 4, 1.0, 0.5)
    halves = [
        LayerScores(scores.sums[i::2], scores.counts[i::2], documents=scores.documents[i::2]) for i in range(2)
    ]  # as two processes share batches
    merged = halves[0].merge(halves[1])
    np.testing.assert_allclose(merged.standard_errors, scores.standard_errors)
    unnamed = halves[0].merge(replace(halves[1], documents=()))
    assert unnamed.documents == () and len(unnamed.by_document.counts) == 24


def test_stability_is_the_share_that_is_chosen_again():
    scores = clustered(20, 2, 1.5, 1.0)
    frequency = scores.selection_frequency(2)
    assert scores.stability(2) == pytest.approx(frequency[np.argsort(scores.values)[:2]].mean())
    assert scores.stability(0) == 1 and 0.5 < scores.stability(2) < 1
    apart = LayerScores(np.tile(np.arange(4.0), (20, 1)), np.ones(20, int))
    assert apart.stability(2) == 1


# ---- reading until it is stable --------------------------------------------------------------------------------------
@pytest.fixture
def reads(tiny, monkeypatch):
    """``reads(means, noise, batches, n)``: scores of samples drawn about `means`, two a batch, and how many were read."""

    def run(means, noise, batches, n, seed=0, **options):
        rng, asked = np.random.default_rng(seed), []

        def sums(model, batch, metric, watch):
            size = len(batch["input_ids"])
            return means + noise * rng.normal(size=(size, len(means))), np.ones(size, int), [b"x"] * size, False

        def stream():
            for i in range(batches):
                asked.append(i)
                batch = Batch(random_batch(2, 4, seed=i))
                batch.documents = (f"{i}a", f"{i}b")
                yield batch

        monkeypatch.setattr("shortgpt.scoring.influence._score_batch", sums)
        return score_layers(tiny, stream(), until_stable=n, progress=False, **options), len(asked)

    return run


def test_a_clear_choice_stops_after_the_fewest_documents_and_asks_for_no_more(reads):
    scores, asked = reads(np.arange(LAYERS) * 1.0, 0.01, 500, 3)
    assert asked == LEAST // 2 and len(scores.counts) == LEAST and len(scores.documents) == LEAST


def test_a_tie_reads_all_and_is_not_stable(reads):
    means = np.array([0, 1, 2, 2, 3, 4.0])
    scores, asked = reads(means, 0.3, 12, 3, seed=3)
    assert asked == 12 and len(scores.counts) == 24 and scores.stability(3) < 0.95
    torn = scores.selection_frequency(3)
    assert set(torn.index[(torn > 0.05) & (torn < 0.95)]) == {2, 3}


def test_the_noisier_the_longer_and_confidence_is_what_it_costs(reads):
    means = np.arange(LAYERS) * 1.0
    read = [np.mean([reads(means, noise, 300, 3, seed=s)[1] for s in range(6)]) for noise in (0.5, 1.5, 3)]
    assert read[0] < read[1] < read[2] < 300
    sure = np.mean([reads(means, 1.5, 300, 3, seed=s, confidence=0.999)[1] for s in range(6)])
    assert sure > read[1]


def test_what_stops_agrees_with_the_truth_as_often_as_it_says(reads):
    means = np.arange(LAYERS) * 1.0
    found = [reads(means, 2.0, 300, 3, seed=s, confidence=0.9)[0] for s in range(40)]
    agreement = np.mean([(np.argsort(scores.values)[:3] < 3).mean() for scores in found])
    assert agreement >= 0.9 - 2 * np.sqrt(0.1 * 0.9 / 40)


def test_real_batches_bring_their_documents_along(tiny, tokenizer):
    batches = calibration_batches(tokenizer, [c * 40 for c in "abcdefghij"], length=16, spread=True)
    scores = score_layers(tiny, batches, progress=False)
    assert len(set(scores.documents)) == 10 and len(scores.by_document.counts) == 10 < len(scores.counts)
    stopped = score_layers(tiny, batches, until_stable=1, confidence=0.01, progress=False)
    assert len(stopped.counts) == 8 and stopped.documents == scores.documents[:8]
    np.testing.assert_array_equal(stopped.sums, scores.sums[:8])
    plain = score_layers(tiny, [dict(batch) for batch in batches], progress=False)
    assert plain.documents == () and np.array_equal(plain.values, scores.values)


def test_several_processes_do_not_stop_together(tiny, monkeypatch):
    monkeypatch.setattr("shortgpt.scoring.influence.this_process", lambda: (0, 2))
    with pytest.raises(ValueError, match="stops one process, and here are several"):
        score_layers(tiny, [random_batch()], until_stable=2)


# ---- text of the model's own -----------------------------------------------------------------------------------------
@pytest.fixture
def talker(tokenizer):
    tokenizer.eos_token = "?"
    model = build_tiny()
    model.generation_config.eos_token_id = None  # never ends: lengths can be counted
    return model, tokenizer


def test_sampled_text_is_decided_by_the_seed_alone_and_leaves_the_global_state(talker):
    torch.manual_seed(7)
    np.random.seed(7)
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()
    texts = sampled_text(*talker, 5, 12, progress=False)
    assert torch.equal(torch.get_rng_state(), before) and (np.random.get_state()[1] == before_numpy).all()
    torch.manual_seed(8)
    assert sampled_text(*talker, 5, 12, batch_size=2, progress=False) == texts
    assert len(texts) == len(set(texts)) == 5
    assert sampled_text(*talker, 5, 12, seed=1, progress=False)[1:] != texts[:-1]
    assert not set(sampled_text(*talker, 5, 12, seed=1, progress=False)) & set(texts)
    assert sampled_text(*talker, 3, 12, progress=False) == texts[:3]


def test_it_samples_the_models_distribution(talker):
    """First tokens, counted, against the softmax of the logits after the begin token (those the tokenizer knows)."""
    model, tokenizer = talker
    logits = model(torch.tensor([[tokenizer.eos_token_id]])).logits[0, -1].detach().double()
    assert len(tokenizer) < VOCABULARY
    for temperature in (0.5, 2.0):
        expected = (logits[: len(tokenizer)] / temperature).softmax(0).numpy()
        texts = sampled_text(model, tokenizer, 3000, 1, temperature=temperature, batch_size=500, progress=False)
        letters = [i for i in range(len(tokenizer)) if i not in tokenizer.all_special_ids]
        counts = np.array([texts.count(tokenizer.decode([i])) for i in letters]) / len(texts)
        error = np.sqrt(expected[letters] * (1 - expected[letters]) / len(texts))
        assert (np.abs(counts - expected[letters]) < 4.5 * error + 1e-4).all()


def test_a_sample_ends_where_the_model_ends_it(talker):
    model, tokenizer = talker
    full = sampled_text(model, tokenizer, 6, 40, progress=False)  # decoded with a space between letters
    assert 60 < max(map(len, full)) <= 79
    model.generation_config.eos_token_id = list(range(20))
    short = sampled_text(model, tokenizer, 6, 40, progress=False)
    assert max(map(len, short)) < 40
    assert all(long.startswith(text) for text, long in zip(short, full, strict=True))


def test_it_begins_with_the_token_that_evaluate_takes(tokenizer, real_tokenizer):
    tokenizer.eos_token = "?"
    assert begin_token(tokenizer, "sampling") == "?"
    tokenizer.bos_token = "a"
    assert begin_token(tokenizer, "sampling") == "a"
    assert begin_token(real_tokenizer, "sampling") == "<|endoftext|>" != real_tokenizer.bos_token


@pytest.mark.real
def test_real_texts_agree_far_better_than_chance(real):
    model, tokenizer = real
    own = sampled_text(model, tokenizer, 2, 48, progress=False)
    assert sum(len(text.split()) for text in own) > 20
    texts = {"built in": built_in_text()["text"][:4], "own": own}
    scores = {
        name: score_layers(model, calibration_batches(tokenizer, text, length=48, samples=4), progress=False)
        for name, text in texts.items()
    }
    row = plan_agreement(scores, 9).iloc[0]
    assert row["rank_correlation"] > 0.8 and row["overlap"] > row["chance"] + 0.2


# ---- figures ---------------------------------------------------------------------------------------------------------
@pytest.fixture
def said(capsys):
    yield lambda: capsys.readouterr().out.strip()
    plt.close("all")


def test_the_heat_map_has_its_numbers_in_the_cells(said):
    table = plan_agreement({"a": scored(1, 2, 3, 4), "b": scored(4, 3, 2, 1), "c": scored(1, 3, 2, 4)}, 2)
    ax = plots.plot_agreement(table)
    assert [text.get_text() for text in ax.texts] == [
        "1.00",
        "0.00",
        "0.50",
        "0.00",
        "1.00",
        "0.50",
        "0.50",
        "0.50",
        "1.00",
    ]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["a", "b", "c"]
    assert said() == (
        "Overlap is lowest between a and b (0.00) and highest between a and c (0.50), with a mean of 0.33 "
        "(two random choices: 0.50)."
    )


def test_the_curve_says_from_where_on_it_is_enough(said):
    table = pd.DataFrame({"tokens": [10, 20, 40, 80], "overlap": [0.5, 0.95, 0.8, 0.92], "chance": 0.3})
    table["low"], table["high"], table["draws"] = table["overlap"] - 0.1, table["overlap"] + 0.05, "disjoint"
    ax = plots.plot_tokens_needed(table)
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), table[["tokens", "overlap"]])
    assert said() == (
        "Two texts of 10 tokens share 50 % of the chosen layers, two of 80 share 92 %; 90 % takes 80 tokens."
    )
    plots.plot_tokens_needed(table, enough=0.99)
    assert said().endswith("99 % is not reached.")


def criteria(names: int) -> pd.DataFrame:
    rows = [
        {"criterion": f"c{i}", "removed": n, "perplexity": 20 * (1.05 + i / 20) ** n}
        for i in range(names)
        for n in range(0, 10 if i else 13, 3)
    ]
    return pd.DataFrame(rows)


def test_eleven_criteria_are_all_named_apart_and_the_extremes_stand_out(said):
    ax = plots.plot_criteria(criteria(11))
    lines = [line for line in ax.lines if line.get_label().startswith("c")]
    assert len({(line.get_marker(), line.get_linestyle(), line.get_color()) for line in lines}) == 11
    assert {line.get_label() for line in lines if line.get_linewidth() > 2} == {"c0", "c10"}
    places = sorted(text.xyann[1] for text in ax.texts if text.get_text() != "dense")
    assert len(places) == 11 and np.diff(places).min() > 0.05 and places[0] >= 0 and places[-1] <= 1 + 1e-9
    assert any(line.get_linestyle() == ":" and set(line.get_ydata()) == {20.0} for line in ax.lines)
    assert said() == (
        f"With 9 layers removed, c0 has the lowest perplexity ({20 * 1.05**9:.1f}) and c10 the highest "
        f"({20 * 1.55**9:,.0f}) of 11 criteria; the dense model has 20.0."
    )


def test_seeds_become_a_band_about_their_median(said):
    table = pd.DataFrame({"criterion": "random", "removed": 3, "perplexity": [30.0, 90.0, 40.0]})
    table = pd.concat([table, table.assign(removed=6, perplexity=[100.0, 300.0, 200.0])])
    ax = plots.plot_criteria(table)
    assert ax.lines[0].get_ydata().tolist() == [40, 200]
    corners = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert {30, 90, 100, 300} <= set(corners)
    assert "dense" not in said()
    banded = criteria(2).assign(low=lambda t: t["perplexity"] - 1, high=lambda t: t["perplexity"] + 1)
    assert {19, 21} <= set(plots.plot_criteria(banded).collections[0].get_paths()[0].vertices[:, 1])


def test_wrong_criteria_are_one_sentence():
    with pytest.raises(ValueError, match="no criterion 'x' to highlight: choose out of c0, c1"):
        plots.plot_criteria(criteria(2), highlight=["x"])
    table = pd.DataFrame({"criterion": ["a", "b"], "removed": [1, 2], "perplexity": [3.0, 4.0]})
    with pytest.raises(ValueError, match="no number of removed layers in common"):
        plots.plot_criteria(table)
    plt.close("all")
