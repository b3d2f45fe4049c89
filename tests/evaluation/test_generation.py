"""What models write is measured on the tokens they wrote: against plain loops, closed forms, and steps with a cache."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from small import VOCABULARY, build_tiny
from torch.nn.functional import log_softmax

from shortgpt import (
    continue_text,
    divergence_along,
    generation_report,
    generation_summary,
    remove_layers,
    repetition,
    side_by_side,
)
from shortgpt.evaluation.writing import distinct

PROMPTS = ["the river", "b", "once upon a time."]


def report_of(models, tokenizer, prompts=PROMPTS, **options):
    return generation_report(models, tokenizer, prompts, **{"new_tokens": 12, "progress": False} | options)


def written_ids(model, tokenizer, prompt: str, new_tokens: int) -> list[int]:
    """Greedy, without a cache, one whole forward pass a token; stops at the end token 2."""
    ids = tokenizer(prompt)["input_ids"]
    start = len(ids)
    while len(ids) < start + new_tokens:
        ids = [*ids, model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax().item()]
        if ids[-1] == 2:
            break
    return ids[start:]


def pushed_to_end(seed: int, bias: float) -> object:
    """A model that likes the end token more, by adding to its logit."""
    model = build_tiny(seed=seed)
    plain = model.lm_head.forward
    boost = torch.zeros(VOCABULARY)
    boost[2] = bias
    model.lm_head.forward = lambda states: plain(states) + boost
    return model


# ---- the report ----


def test_texts_are_those_of_greedy_writing_with_all_prompts_and_models(tokenizer):
    models = {"dense": build_tiny(), "pruned": remove_layers(build_tiny(), [2, 3])}
    report = report_of(models, tokenizer)
    assert report["prompt"].tolist() == [p for p in PROMPTS for _ in models]
    assert report["model"].tolist() == ["dense", "pruned"] * 3
    for row in report.itertuples():
        assert row.text == continue_text(models[row.model], tokenizer, row.prompt, new_tokens=12)
        assert row.repetition == repetition(row.text)


@torch.no_grad()
def test_perplexity_is_that_of_the_written_tokens_to_the_reference_given_the_prompt(tokenizer):
    models = {"dense": build_tiny(), "pruned": remove_layers(build_tiny(), [2, 3])}
    reports = {
        None: report_of(models, tokenizer, new_tokens=8),
        "pruned": report_of(models, tokenizer, reference="pruned", new_tokens=8),
        "other": report_of(models, tokenizer, reference=build_tiny(seed=5), new_tokens=8),
    }
    judges = {None: models["dense"], "pruned": models["pruned"], "other": build_tiny(seed=5)}
    for name, report in reports.items():
        judge = judges[name]
        for row in report.itertuples():
            ids, total = tokenizer(row.prompt)["input_ids"], 0.0
            written = written_ids(models[row.model], tokenizer, row.prompt, 8)
            for token in written:  # one whole forward pass a token
                total -= log_softmax(judge(torch.tensor([ids]), use_cache=False).logits[0, -1].double(), -1)[
                    token
                ].item()
                ids = [*ids, token]
            assert row.perplexity == pytest.approx(math.exp(total / len(written)), rel=1e-4)


@torch.no_grad()
def test_the_end_token_counts_as_written_and_says_who_stopped(tokenizer):
    models = {"stops": pushed_to_end(0, 2.0), "never": pushed_to_end(0, -1e4), "at once": pushed_to_end(0, 1e4)}
    report = report_of(models, tokenizer)
    for row in report.itertuples():
        written = written_ids(models[row.model], tokenizer, row.prompt, 12)
        assert row.tokens == len(written) and row.ended == (written[-1] == 2)
    by_model = report.groupby("model", sort=False)
    assert by_model["ended"].mean().loc[["never", "at once"]].tolist() == [0, 1]
    assert by_model["tokens"].mean().loc[["never", "at once"]].tolist() == [12, 1]
    assert 1 < report.query("model == 'stops'")["tokens"].min() < 12  # else "stops" tests nothing new
    once = report.query("model == 'at once'")
    assert once[["distinct_1", "distinct_2", "distinct_3"]].isna().all(axis=None) and (once["repetition"] == 0).all()


def test_a_text_that_ends_with_its_last_allowed_token_has_ended(tokenizer):
    model = pushed_to_end(0, 1e4)
    assert report_of({"a": model}, tokenizer, new_tokens=1)["ended"].all()
    model.generation_config.eos_token_id = [7, 2]
    assert report_of({"a": model}, tokenizer, new_tokens=1)["ended"].all()
    model.generation_config.eos_token_id = None
    assert not report_of({"a": model}, tokenizer, new_tokens=1)["ended"].any()


@torch.no_grad()
def test_distinct_counts_token_n_grams_without_the_end_token(tokenizer):
    assert distinct([1, 2, 3], 1) == 1 and distinct([5, 5, 5, 5], 1) == 0.25 and distinct([5, 5, 5, 5], 3) == 0.5
    assert distinct([1, 2, 1, 2, 1], 2) == 0.5 and math.isnan(distinct([1, 2], 3))
    model = pushed_to_end(0, 2.0)
    for row in report_of({"a": model}, tokenizer).itertuples():
        body = [t for t in written_ids(model, tokenizer, row.prompt, 12) if t != 2]
        for n in (1, 2, 3):
            grams = list(zip(*(body[i:] for i in range(n)), strict=False))
            expected = len(set(grams)) / len(grams) if grams else math.nan
            assert getattr(row, f"distinct_{n}") == pytest.approx(expected, nan_ok=True)


def test_sampling_depends_on_the_seed_alone_and_is_the_same_for_all_models(tokenizer):
    models = {"a": build_tiny(), "b": build_tiny()}
    torch.manual_seed(1)
    first = report_of(models, tokenizer, temperature=1.0, seed=3)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    again = report_of(models, tokenizer, temperature=1.0, seed=3)
    assert torch.equal(state, torch.get_rng_state())
    pd.testing.assert_frame_equal(first, again)
    assert first.query("model == 'a'")["text"].tolist() == first.query("model == 'b'")["text"].tolist()
    other = report_of({"a": build_tiny()}, tokenizer, temperature=1.0, seed=4)
    assert not set(other["text"]) & set(first["text"])
    twice = report_of({"a": build_tiny()}, tokenizer, ["the", "the"], temperature=1.0)  # a prompt's number counts
    assert twice["text"].nunique() == 2


def test_the_summary_has_means_and_standard_errors_over_prompts():
    report = pd.DataFrame(
        {
            "model": ["a", "a", "a", "b"],
            "prompt": ["p", "q", "r", "p"],
            "text": [""] * 4,
            "tokens": [10, 20, 30, 5],
            "ended": [True, False, False, True],
            "repetition": [0.0, 0.3, 0.6, 0.1],
            "distinct_1": [1.0, 0.5, np.nan, 1.0],
            "distinct_2": 1.0,
            "distinct_3": 1.0,
            "perplexity": [2.0, 4.0, 8.0, 3.0],
        }
    )
    summary = generation_summary(report).set_index("model")
    a = summary.loc["a"]
    assert a["prompts"] == 3 and a["tokens"] == 20 and a["tokens_error"] == pytest.approx(10 / math.sqrt(3))
    assert a["ended"] == pytest.approx(1 / 3) and a["ended_error"] == pytest.approx(1 / 3)
    assert a["repetition"] == pytest.approx(0.3) and a["repetition_error"] == pytest.approx(0.3 / math.sqrt(3))
    assert a["distinct_1"] == 0.75 and a["distinct_1_error"] == pytest.approx(0.25)
    mean = (10 * math.log(2) + 20 * math.log(4) + 30 * math.log(8)) / 60
    assert a["perplexity"] == pytest.approx(math.exp(mean))
    # the ratio's error, by the jackknife's linear form: residuals of sums, by the mean count
    residuals = np.array([10 * math.log(2), 20 * math.log(4), 30 * math.log(8)]) - mean * np.array([10, 20, 30])
    assert a["perplexity_error"] == pytest.approx(math.exp(mean) * residuals.std(ddof=1) / math.sqrt(3) / 20)
    assert summary.loc["b"].filter(like="_error").isna().all() and summary.loc["b", "perplexity"] == pytest.approx(3)


def test_side_by_side_holds_every_text_within_its_width(tokenizer):
    report = report_of({"dense": build_tiny(), "[bold]": build_tiny(seed=1)}, tokenizer, new_tokens=50)
    report.loc[0, "text"] = "one two three " * 20
    report.loc[1, "text"] = "  "
    shown = side_by_side(report, width=60)
    lines = shown.split("\n")
    assert all(len(line) <= 60 for line in lines if "tokens," not in line) and not any("<" in line for line in lines)
    flat = " ".join(shown.split())
    for text in report["text"]:
        assert (" ".join(text.split()) or "(nothing)").replace(" ", "") in flat.replace(" ", "")
    assert [line for line in lines if line and not line.startswith(" ")] == PROMPTS
    assert flat.count("[dense]") == flat.count("[[bold]]") == 3 and flat.count("50 tokens, cut off") >= 1


# ---- errors that accumulate ----


def along_of(dense, pruned, tokenizer, prompts=PROMPTS, new_tokens=10):
    return divergence_along(dense, pruned, tokenizer, prompts, new_tokens=new_tokens, progress=False)


def test_a_model_does_not_diverge_from_itself(tokenizer):
    table = along_of(build_tiny(), build_tiny(), tokenizer)
    assert (table["divergence"].abs() < 1e-9).all() and table["agree"].all()
    texts = table.groupby("written_by")["token"].agg(list)
    assert texts["dense"] == texts["pruned"]


@torch.no_grad()
def test_every_position_equals_a_plain_loop_over_prefixes(tokenizer):
    dense, pruned = build_tiny().double(), remove_layers(build_tiny().double(), [1, 4])
    table = along_of(dense, pruned, tokenizer)
    assert list(table.columns) == [
        "prompt", "written_by", "position", "token", "divergence", "agree", "loss", "perplexity"
    ]  # fmt: skip
    texts = {"dense": dense, "pruned": pruned}
    for (prompt, writer), rows in table.groupby(["prompt", "written_by"]):
        ids, losses = tokenizer(prompt)["input_ids"], []
        assert rows["token"].tolist() == written_ids(texts[writer], tokenizer, prompt, 10)
        assert rows["position"].tolist() == list(range(1, len(rows) + 1))
        for row in rows.itertuples():
            p, q = (m(torch.tensor([ids]), use_cache=False).logits[0, -1].softmax(-1) for m in (dense, pruned))
            assert row.divergence == pytest.approx((p * (p / q).log()).sum().item(), abs=1e-9)
            assert row.agree == (p.argmax() == q.argmax())
            losses.append(-p[row.token].log().item())
            assert row.loss == pytest.approx(losses[-1], abs=1e-9)
            assert row.perplexity == pytest.approx(math.exp(np.mean(losses)), rel=1e-9)
            ids = [*ids, row.token]
    assert not table["agree"].all() and table["agree"].any()  # else half of the test is empty
    assert len(table.groupby("written_by")["token"].agg(tuple).unique()) == 2


@torch.no_grad()
def test_one_pass_over_the_text_equals_writing_it_with_the_cache(tokenizer):
    dense, pruned = build_tiny().double(), remove_layers(build_tiny().double(), [1, 4])
    table = along_of(dense, pruned, tokenizer, PROMPTS[:1]).query("written_by == 'pruned'")
    caches, step = [None, None], tokenizer(PROMPTS[0], return_tensors="pt")["input_ids"]
    for row in table.itertuples():
        logs = []
        for i, model in enumerate((dense, pruned)):
            out = model(step, past_key_values=caches[i], use_cache=True)
            caches[i] = out.past_key_values
            logs.append(log_softmax(out.logits[0, -1], -1))
        assert row.divergence == pytest.approx((logs[0].exp() * (logs[0] - logs[1])).sum().item(), abs=1e-9)
        assert row.token == logs[1].argmax()
        step = torch.tensor([[row.token]])


@torch.no_grad()
@pytest.mark.parametrize("blind", ["dense", "pruned"])
def test_a_model_that_knows_nothing_gives_the_closed_form(tokenizer, blind):
    """KL(p || uniform) is log V minus the entropy; KL(uniform || q) is minus log V minus the mean log q."""
    models = {"dense": build_tiny(), "pruned": build_tiny(seed=1)}
    models[blind].lm_head.weight.zero_()
    table = along_of(models["dense"], models["pruned"], tokenizer, ["the"]).query("written_by == 'dense'")
    seeing = models["pruned" if blind == "dense" else "dense"]
    ids = torch.tensor([tokenizer("the")["input_ids"] + table["token"].tolist()])
    logs = log_softmax(seeing(ids).logits[0, 2:-1].double(), -1)
    if blind == "dense":
        expected = -math.log(VOCABULARY) - logs.mean(-1)
        np.testing.assert_allclose(table["perplexity"], VOCABULARY, rtol=1e-6)
        assert (table["token"] == 0).all()
    else:
        expected = math.log(VOCABULARY) + (logs.exp() * logs).sum(-1)
    np.testing.assert_allclose(table["divergence"], expected, rtol=1e-4)


@torch.no_grad()
def test_tokens_that_a_model_excludes_are_no_nan(tokenizer):
    """Some models set logits of unused tokens to minus infinity."""
    models = []
    for seed in (0, 1):
        model = build_tiny(seed=seed)
        plain = model.lm_head.forward
        model.lm_head.forward = lambda states, plain=plain: plain(states).index_fill(
            -1, torch.tensor([90, 91]), -torch.inf
        )
        models.append(model)
    table = along_of(*models, tokenizer)
    assert np.isfinite(table["divergence"]).all() and (table["divergence"] > 0).all()


@torch.no_grad()
def test_a_text_that_ends_sooner_has_fewer_rows(tokenizer):
    table = along_of(build_tiny(), pushed_to_end(0, 1e4), tokenizer)
    assert (table.query("written_by == 'pruned'")["token"] == 2).all()
    assert table.groupby("written_by").size()["pruned"] == len(PROMPTS)
    assert table.groupby("written_by").size()["dense"] == sum(
        len(written_ids(build_tiny(), tokenizer, prompt, 10)) for prompt in PROMPTS
    )
