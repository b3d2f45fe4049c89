"""Perplexity against closed forms and plain loops, tasks through the harness, sizes that count real storage."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from rigged import letters
from small import VOCABULARY, build_tiny
from torch.nn.functional import log_softmax

from shortgpt import (
    compare,
    continue_text,
    evaluate,
    perplexity,
    perplexity_table,
    remove_layers,
    repetition,
    save,
    size,
    speed,
)
from shortgpt.evaluation.comparing import OFFLINE_TASKS
from shortgpt.evaluation.likelihood import token_losses


def test_a_model_that_knows_nothing_has_the_vocabulary_as_perplexity(tiny, tokenizer):
    with torch.no_grad():
        tiny.lm_head.weight.zero_()
    table = perplexity_table(tiny, tokenizer, pd.DataFrame({"text": ["abc def", "the end."]}))
    assert table["perplexity"].item() == pytest.approx(VOCABULARY, rel=1e-6)
    # one token is one byte here, so bits per byte = bits per token
    assert table["bits_per_byte"].item() == pytest.approx(math.log2(VOCABULARY), rel=1e-6)
    assert table["tokens"].item() == 6 + 7 and table["documents"].item() == 2


def test_losses_equal_a_plain_loop(tiny):
    ids = torch.randint(3, VOCABULARY, (30,), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = [-log_softmax(tiny.double()(ids[None, :i]).logits[0, -1], -1)[ids[i]].item() for i in range(1, 30)]
        np.testing.assert_allclose(token_losses(build_tiny(), ids).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize(("window", "stride"), [(8, 4), (8, 7), (10, 1), (29, 28), (31, 3)])
def test_every_token_is_scored_once_with_the_stated_context(tiny, window, stride):
    ids = torch.randint(3, VOCABULARY, (30,), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        losses = token_losses(tiny, ids, window=window, stride=stride)
        assert losses.shape == (29,)
        for i in range(1, 30):
            start = 0 if i < window else math.ceil((i - window + 1) / stride) * stride
            assert i - start >= min(i, window - stride)
            expected = -log_softmax(tiny(ids[None, start:i]).logits[0, -1], -1)[ids[i]]
            assert losses[i - 1].item() == pytest.approx(expected.item(), abs=1e-4)


def test_perplexity_is_weighted_by_tokens_not_by_documents(tiny, tokenizer):
    texts = ["abcabcabcabcabcabc", "the"]
    losses = [token_losses(tiny, torch.tensor(tokenizer(t)["input_ids"])) for t in texts]
    with torch.inference_mode():
        assert perplexity(tiny, tokenizer, texts) == pytest.approx(torch.cat(losses).mean().exp().item(), rel=1e-5)


def test_groups_have_a_row_each(tiny, tokenizer):
    documents = pd.DataFrame({"genre": ["a", "b", "a"], "text": ["abc.", "def.", "ghi."]})
    table = perplexity_table(tiny, tokenizer, documents, by="genre")
    assert table["genre"].tolist() == ["a", "b"] and table["documents"].tolist() == [2, 1]
    assert table["standard_error"].isna().tolist() == [False, True]


def test_groups_by_two_columns_at_once(tiny, tokenizer):
    """Each row is that of its documents alone, in whatever order they stand; missing labels are a group of their own."""
    documents = pd.DataFrame(
        {
            "language": ["en", "zh", "en", "en"],
            "genre": ["news", "news", "story", None],
            "text": ["abc.", "def.", "ghi.", "the end."],
            "tokens": [1, 2, 3, 4],  # a column that is called as one of ours
        }
    )
    table = perplexity_table(tiny, tokenizer, documents, by=["language", "genre"])
    assert len(table) == 4 and list(table)[:3] == ["language", "genre", "perplexity"]
    for row in table.itertuples():
        same = documents["genre"].isna() if pd.isna(row.genre) else documents["genre"] == row.genre
        alone = perplexity(tiny, tokenizer, documents.loc[same & (documents["language"] == row.language), "text"])
        assert row.perplexity == pytest.approx(alone)
    assert perplexity_table(tiny, tokenizer, documents, by=["language"])["documents"].tolist() == [3, 1]


def test_bits_per_byte_count_bytes_by_hand(tiny):
    """Under a uniform model a token costs log2 V bits. Tokens are letters here; a Chinese one is three bytes."""
    with torch.no_grad():
        tiny.lm_head.weight.zero_()
    tokenizer = letters("abc水土é")
    documents = pd.DataFrame({"language": ["zh", "en", "fr"], "text": ["水土水", "abcab", "aéa"]})
    table = perplexity_table(tiny, tokenizer, documents, by="language").set_index("language")
    bits = math.log2(VOCABULARY)
    # the first letter is context: two letters in six bytes, four in four, two in three (é is two bytes)
    assert table["bits_per_byte"].to_dict() == pytest.approx({"zh": 2 * bits / 6, "en": bits, "fr": 2 * bits / 3})
    assert table["perplexity"].tolist() == pytest.approx([VOCABULARY] * 3)  # which tells the languages apart in no way


def test_bits_per_byte_compare_two_tokenizers(tiny):
    """One model reads letters, another pairs of letters: twice the bits a token are the same bits a byte."""
    with torch.no_grad():
        tiny.lm_head.weight.zero_()
    small, large = letters("ab"), letters("ab")
    large.add_tokens(["ab"])
    documents = pd.DataFrame({"text": ["abababab"]})
    ones, pairs = (perplexity_table(tiny, each, documents).iloc[0] for each in (small, large))
    assert (ones["tokens"], pairs["tokens"]) == (7, 3) and ones["perplexity"] == pytest.approx(pairs["perplexity"])
    assert ones["bits_per_byte"] == pytest.approx(math.log2(VOCABULARY))  # 7 tokens in 7 bytes
    assert pairs["bits_per_byte"] == pytest.approx(math.log2(VOCABULARY) / 2)  # 3 tokens in 6 bytes


def test_bad_perplexity_input_is_one_clear_sentence(tiny, tokenizer):
    with pytest.raises(ValueError, match="no text to measure perplexity on"):
        perplexity(tiny, tokenizer, ["a", ""])
    with pytest.raises(ValueError, match="stride must be 1 to window - 1"):
        perplexity(tiny, tokenizer, ["abc"], window=8, stride=8)


def test_repetition_counts_repeated_word_triples():
    assert repetition("one two three four five") == 0
    assert repetition("go on and go on and go on and") == pytest.approx(1 - 3 / 7)
    assert repetition("short") == 0


def test_size_counts_shared_and_viewed_weights_once(tiny, tmp_path):
    tied = build_tiny("gemma3_text")
    assert tied.lm_head.weight is tied.model.embed_tokens.weight
    for model in (tiny, tied, remove_layers(tiny, [1])):
        by_hand = sum(p.numel() for p in model.parameters())
        cost = size(model, save(model, tmp_path / f"m{id(model)}"))
        assert cost["parameters"] == by_hand
        buffers = sum(b.numel() * b.element_size() for b in {b.data_ptr(): b for b in model.buffers()}.values())
        assert cost["memory_bytes"] == 4 * by_hand + buffers
        assert 0 < cost["disk_bytes"] - 4 * by_hand < 40_000
    with pytest.raises(FileNotFoundError, match="no such folder"):
        size(tiny, tmp_path / "nowhere")


def test_speed_reports_both_phases(tiny):
    table = speed(tiny, prompt_tokens=16, new_tokens=4, repeats=2)
    assert table["phase"].tolist() == ["prefill", "decode"]
    assert (table["slowest"] <= table["tokens_per_second"]).all() and (table["slowest"] > 0).all()


@pytest.mark.slow
def test_unknown_tasks_are_named(tiny, tokenizer):
    with pytest.raises(ValueError, match="unknown task no_such_task: offline there are chinese, grammar"):
        evaluate(tiny, tokenizer, ["no_such_task"])


@pytest.mark.real
def test_harness_accuracy_equals_our_own_likelihoods(real):
    """Ten grammar pairs: the sentence with the lower total loss, counted without the harness."""
    import json

    from shortgpt.utils.data import data_folder

    model, tokenizer = real
    rows = [json.loads(line) for line in (data_folder() / "tasks" / "grammar.jsonl").open()][:10]
    right = 0
    for row in rows:
        totals = []
        for sentence in row["choices"]:
            ids = torch.tensor([0, *tokenizer(sentence)["input_ids"]])  # 0 is <|endoftext|>
            with torch.inference_mode():
                totals.append(token_losses(model, ids).sum().item())
        right += int(np.argmin(totals) == row["answer"])
    result = evaluate(model, tokenizer, "grammar", limit=10).iloc[0]
    assert result["value"] == pytest.approx(100 * right / 10) and result["items"] == 10 and result["subset"]
    assert result["chance"] == 50 and result["standard_error"] >= 0


@pytest.mark.real
@pytest.mark.parametrize("task", OFFLINE_TASKS)
def test_every_offline_task_runs_and_beats_chance(real, task):
    """24 items: enough to see that prompts and answers are wired up, far too few to rank models."""
    result = evaluate(*real, task, limit=24).iloc[0]
    assert result["value"] > (15 if task == "last_word" else result["chance"])


@pytest.mark.real
def test_removal_costs_perplexity_and_the_table_says_how_much(real):
    model, tokenizer = real
    texts = [
        "The river rose in the night, and by morning the lower bridge had gone. Nobody in the village was surprised."
    ]
    models = {"dense": model, "pruned": remove_layers(model, [13, 14, 25]), "blind": remove_layers(model, [27, 28, 29])}
    table = compare(models, tokenizer, tasks=["grammar"], texts=texts, limit=16, errors=True)
    assert table["perplexity"].is_monotonic_increasing and table.loc["blind", "perplexity"] > 100
    assert table["retention"].iloc[0] == 100 and table["layers"].tolist() == [30, 27, 27]
    expected = 100 * table.loc["pruned", "grammar"] / table.loc["dense", "grammar"]
    assert table.loc["pruned", "retention"] == pytest.approx(expected)
    share = table["grammar"] / 100  # the standard error of a share from 16 items, as the harness computes it
    assert table["grammar_error"].tolist() == pytest.approx((100 * (share * (1 - share) / 15) ** 0.5).tolist())
    assert table["average_error"].equals(table["grammar_error"])  # of one task


@pytest.mark.real
def test_the_dense_model_continues_text_sensibly(real):
    assert "Paris" in continue_text(*real, "The capital of France is", new_tokens=6)


def test_whatever_is_wrong_is_told_before_perplexity_is_measured(tiny, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr("shortgpt.evaluation.benchmarks._index", lambda *args: SimpleNamespace(all_tasks=["piqa"]))
    monkeypatch.setattr("shortgpt.evaluation.comparing.perplexity", lambda *args: pytest.fail("measured"))
    tokenizer.eos_token = "?"
    (tmp_path / "r.jsonl").write_text("{}\n")
    for options, says in [
        ({"tasks": ["grammar", "pica"]}, "unknown task pica"),
        ({"tasks": "pica"}, "unknown task pica"),
        ({"results": tmp_path / "r.jsonl"}, "line 1, is no result of evaluate"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ]:
        with pytest.raises(ValueError, match=says):
            compare({"dense": tiny}, tokenizer, texts=["the river"], **options)


def test_all_models_of_a_table_share_a_file_of_results(tiny, tokenizer, tmp_path, monkeypatch):
    tokenizer.eos_token = "?"
    models = {"dense": tiny, "pruned": remove_layers(tiny, [2])}
    options = {"tasks": ["grammar"], "texts": ["the river"], "limit": 4, "results": tmp_path / "r.jsonl"}
    first = compare(models, tokenizer, **options)
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 2
    monkeypatch.setattr("shortgpt.evaluation.comparing.run_task", lambda *args, **options: pytest.fail("run again"))
    assert compare(models, tokenizer, **options).equals(first)


def test_losses_keep_no_graph_in_memory(tiny):
    """Whoever calls it, in training mode or not: a graph would hold the activations of the whole text."""
    tiny.train()
    losses = token_losses(tiny, torch.arange(3, 40))
    assert losses.is_inference() and not losses.requires_grad and tiny.training
