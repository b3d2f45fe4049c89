"""Texts begin as the model was trained: by the tokenizer's own rule, once, in every window, and recorded with the numbers."""

import logging
import math
import time

import numpy as np
import pandas as pd
import pytest
import torch
from small import VOCABULARY, build_tiny
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from shortgpt import (
    built_in_text,
    calibration_batches,
    choice_and_generation,
    choose_layers,
    continue_text,
    generate_with_draft,
    generation_report,
    load,
    perplexity,
    perplexity_table,
    prefill_report,
    sampled_text,
    score_layers,
    size_quality_grid,
    token_paths,
)
from shortgpt.checkpoints.cache import cache_folder
from shortgpt.evaluation.records import fingerprint
from shortgpt.model.logits import cross_entropy, divergence, log_probabilities
from shortgpt.model.tokens import bare_tokens, begin_tokens, encode, prompt_tokens
from shortgpt.utils.data import data_folder

BOS, EOS = 1, 2
GEMMA = cache_folder() / "gemma-3-270m"
RULES = {"none": ([], []), "front": ([BOS], []), "end": ([], [EOS]), "both": ([BOS], [EOS])}
TEXT = "the river rose in the night and took the old bridge with it. nobody had seen it go."


def tokenizer_that_adds(rule: str, **more) -> PreTrainedTokenizerFast:
    """A token a letter, with BOS and EOS in the vocabulary whatever the rule puts around a text."""
    alphabet = "abcdefghijklmnopqrstuvwxyz .\n?"
    names = ["<pad>", "<s>", "</s>", *alphabet]
    backend = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="?"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()
    front, end = RULES[rule]
    if front or end:
        backend.post_processor = processors.TemplateProcessing(
            single=" ".join([*("<s>" for _ in front), "$A", *("</s>" for _ in end)]),
            special_tokens=[("<s>", BOS), ("</s>", EOS)],
        )
    options = {"unk_token": "?", "pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"} | more
    return PreTrainedTokenizerFast(tokenizer_object=backend, **options)


@pytest.fixture(params=RULES)
def rule(request) -> str:
    return request.param


@pytest.fixture
def begun() -> PreTrainedTokenizerFast:
    return tokenizer_that_adds("front")


# ---- the rule ------------------------------------------------------------------------------------------------------------


def test_the_tokenizers_own_rule_decides_and_an_end_token_stays_out(rule):
    tokenizer, bare = tokenizer_that_adds(rule), tokenizer_that_adds("none")(TEXT)["input_ids"]
    front, end = RULES[rule]
    assert tokenizer(TEXT)["input_ids"] == [*front, *bare, *end]  # what the fixture is there for
    assert begin_tokens(tokenizer) == front
    assert encode(tokenizer, TEXT) == [*front, *bare]
    assert encode(tokenizer, TEXT, bos=True) == [BOS, *bare]
    assert encode(tokenizer, TEXT, bos=False) == bare
    assert prompt_tokens(tokenizer, TEXT)["input_ids"].tolist() == [[*front, *bare]]


def test_a_text_that_starts_with_the_begin_token_gets_no_second_one(begun):
    """As texts from a chat template do."""
    assert encode(begun, "<s>" + TEXT) == encode(begun, TEXT)
    assert prompt_tokens(begun, "<s>" + TEXT)["input_ids"].tolist()[0].count(BOS) == 1
    table = perplexity_table(build_tiny(), begun, pd.DataFrame({"text": ["<s>" + TEXT, TEXT]}))
    assert table["tokens"].item() == 2 * len(TEXT)
    for batch in calibration_batches(begun, ["<s>" + TEXT] * 3, length=50):
        assert (batch["input_ids"][:, 1] != BOS).all()


def test_forcing_what_is_not_there_and_odd_values_are_refused():
    tokenizer = tokenizer_that_adds("none", bos_token=None)
    assert begin_tokens(tokenizer) == begin_tokens(tokenizer, False) == []
    with pytest.raises(ValueError, match="no begin token .bos_token.: leave that out"):
        begin_tokens(tokenizer, True)
    for value in ("yes", 1, [1]):
        with pytest.raises(TypeError, match="bos must be True, False, or None"):
            begin_tokens(tokenizer, value)


# ---- calibration ---------------------------------------------------------------------------------------------------------


def test_every_sample_and_every_document_begins_with_it(begun):
    documents = ["a" * 20, "b" * 7, "c" * 30]
    rows = torch.cat([b["input_ids"] for b in calibration_batches(begun, documents, length=16, seed=3)])
    assert (rows[:, 0] == BOS).all() and rows.shape[1] == 16
    # each document stands there whole but for the dropped tail, with a begin token before it wherever it starts
    order = "".join(documents[i] for i in np.random.default_rng(3).permutation(3))
    letters = begun.decode(rows.flatten()).replace("<s>", "")
    assert order.startswith(letters) and len(letters) > 40
    changed = rows[:, 1:] != rows[:, :-1]
    assert (changed == ((rows[:, 1:] == BOS) | (rows[:, :-1] == BOS))).all()  # never from one document into the next
    assert not ((rows[:, 1:] == BOS) & (rows[:, :-1] == BOS)).any()


def test_a_sample_that_begins_where_a_document_does_has_one_begin_token(begun):
    rows = torch.cat([b["input_ids"] for b in calibration_batches(begun, ["a" * 15] * 4, length=16)])
    assert rows.shape == (4, 16) and ((rows == BOS).sum(1) == 1).all()


def test_without_a_rule_the_batches_are_what_they_were():
    """Documents joined by an empty line and cut: the reference is written out here."""
    tokenizer, texts = tokenizer_that_adds("none"), ["a" * 20, "b" * 7, "c" * 30]
    order = [texts[i] for i in np.random.default_rng(0).permutation(3)]
    stream = [i for text in order for i in tokenizer(text + "\n\n")["input_ids"]][:-2]
    expected = [stream[i : i + 16] for i in range(0, len(stream) - 15, 16)]
    assert torch.cat([b["input_ids"] for b in calibration_batches(tokenizer, texts, length=16)]).tolist() == expected


def test_unpacked_documents_begin_with_it_inside_their_length(begun):
    (batch,) = calibration_batches(begun, ["a" * 5, "b" * 30], length=10, pack=False)
    begins = batch["input_ids"][torch.arange(2), batch["attention_mask"].argmax(1)]
    assert begins.tolist() == [BOS, BOS] and sorted(batch["attention_mask"].sum(1).tolist()) == [6, 10]


def test_a_length_without_room_for_text_is_refused(begun):
    with pytest.raises(ValueError, match="length must be at least 2: the begin token takes a place, got 1"):
        calibration_batches(begun, [TEXT], length=1)


@pytest.mark.parametrize("bos", [None, True, False])
def test_plans_say_whether_texts_began_with_it(rule, bos):
    tokenizer = tokenizer_that_adds(rule)
    plan = choose_layers(score_layers(build_tiny(), calibration_batches(tokenizer, [TEXT] * 4, length=32, bos=bos)), 1)
    assert plan.calibration["bos"] is (bool(RULES[rule][0]) if bos is None else bos)


def test_a_model_without_a_begin_token_reads_none(begun):
    model = build_tiny()
    model.config.bos_token_id = None
    assert not score_layers(model, calibration_batches(begun, [TEXT], length=32), progress=False).bos


def test_the_begin_token_changes_the_scores_and_their_fingerprint(begun):
    model = build_tiny()
    with_it, without = (
        score_layers(model, calibration_batches(begun, [TEXT] * 4, length=32, bos=bos), progress=False)
        for bos in (None, False)
    )
    assert with_it.sha256 != without.sha256
    assert np.abs(with_it.values - without.values).max() > 1e-3


# ---- perplexity ----------------------------------------------------------------------------------------------------------


def reference_losses(model, ids: list[int], begin: list[int], window: int, stride: int) -> list[float]:
    """Each token from the first window that holds it, in float64 throughout, one forward pass per token."""
    losses, room = {}, window - len(begin)
    for start in range(0, len(ids), stride):
        some = ids[start : start + room]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*begin, *some]]), use_cache=False).logits[0].double()
        log_p = logits.log_softmax(-1)
        for place, token in enumerate(some):
            if start + place not in losses and place + len(begin) > 0:
                losses[start + place] = -log_p[len(begin) + place - 1, token].item()
        if start + room >= len(ids):
            break
    return [losses[i] for i in sorted(losses)]


@pytest.mark.parametrize("bos", [None, True, False])
@pytest.mark.parametrize(("window", "stride"), [(1024, 512), (16, 8), (9, 7)])
def test_perplexity_is_that_of_a_loop_with_the_begin_token_before_each_window(rule, bos, window, stride):
    model, tokenizer = build_tiny(), tokenizer_that_adds(rule)
    begin = RULES[rule][0] if bos is None else [BOS] if bos else []
    if stride >= window - len(begin):
        pytest.skip("refused, see below")
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    losses = reference_losses(model, ids, begin, window, stride)
    assert len(losses) == len(ids) - (not begin)
    row = perplexity_table(
        model, tokenizer, pd.DataFrame({"text": [TEXT]}), window=window, stride=stride, bos=bos
    ).iloc[0]
    assert row["perplexity"] == pytest.approx(math.exp(sum(losses) / len(losses)), rel=1e-6)
    assert row["tokens"] == len(losses) and row["bos"] == bool(begin)
    scored = TEXT if begin else TEXT[1:]
    assert row["bits_per_byte"] == pytest.approx(sum(losses) / math.log(2) / len(scored.encode()), rel=1e-6)
    assert perplexity(model, tokenizer, [TEXT], window=window, stride=stride, bos=bos) == row["perplexity"]


def test_windows_must_overlap_behind_the_begin_token(begun):
    with pytest.raises(
        ValueError, match=r"stride must be 1 to window - 1 \(begin token\) - 1, got stride 7 and window 8"
    ):
        perplexity(build_tiny(), begun, [TEXT], window=8, stride=7)


def test_behind_a_begin_token_one_token_is_a_document(begun):
    assert perplexity_table(build_tiny(), begun, pd.DataFrame({"text": ["a"]}))["tokens"].item() == 1
    with pytest.raises(ValueError, match="at least two tokens"):
        perplexity(build_tiny(), begun, ["a"], bos=False)


# ---- writing, grid, results ----------------------------------------------------------------------------------------------


def test_whatever_writes_begins_its_prompt_alike(rule):
    model, tokenizer = build_tiny(), tokenizer_that_adds(rule)
    bare = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    for bos, front in ((None, RULES[rule][0]), (True, [BOS]), (False, [])):
        ids = torch.tensor([[*front, *bare]])
        with torch.no_grad():
            new = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
        expected = tokenizer.decode(new[0, ids.shape[1] :], skip_special_tokens=True)
        assert continue_text(model, tokenizer, TEXT, new_tokens=8, bos=bos) == expected
        assert generate_with_draft(model, tokenizer, TEXT, [2], new_tokens=8, bos=bos).text == expected
        report = generation_report({"a": model}, tokenizer, [TEXT], new_tokens=8, bos=bos, progress=False)
        assert report["text"].item() == expected


def test_the_studies_of_lesson_10_and_the_lens_begin_texts_too(begun):
    model = build_tiny()
    paths = token_paths(model, begun, "the river")
    assert paths["token"].iloc[0] == "<s>" and paths["position"].nunique() == 1 + len("the river")
    seen = []
    handle = model.register_forward_pre_hook(lambda m, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True)
    prefill_report(model, begun, [[2]], [TEXT], prompt_tokens=8, new_tokens=4, repeats=1, progress=False)
    handle.remove()
    prompts = [ids for ids in seen if ids.shape[1] == 8]
    assert prompts and all((ids[:, 0] == BOS).all() for ids in prompts)


@pytest.mark.parametrize(
    ("template", "begins"), [("{{ messages[0]['content'] }}", 0), ("<s>{{ messages[0]['content'] }}", 1)]
)
def test_a_chat_template_says_itself_how_a_text_begins(begun, template, begins):
    model, seen = build_tiny(), []
    model.config.max_position_embeddings = 4096
    begun.chat_template = template
    handle = model.register_forward_pre_hook(lambda m, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True)
    choice_and_generation(model, begun, limit=1, new_tokens=1, progress=False)
    handle.remove()
    assert seen and all(int((ids == BOS).sum()) == begins == int(ids[0, 0] == BOS) for ids in seen if ids.shape[1] > 1)


def test_sampling_starts_from_what_the_tokenizer_puts_in_front(begun):
    model, seen = build_tiny(), []
    handle = model.register_forward_pre_hook(lambda m, args, kwargs: seen.append(kwargs["input_ids"]), with_kwargs=True)
    sampled_text(model, begun, 2, 4, progress=False)
    handle.remove()
    assert (seen[0] == BOS).all()


def test_grid_and_fingerprint_know_the_begin_token(begun, tmp_path):
    model = build_tiny()
    plain = tokenizer_that_adds("none")
    assert fingerprint(model, begun) == fingerprint(model, begun, True) != fingerprint(model, begun, False)
    assert fingerprint(model, plain) == fingerprint(model, plain, False) != fingerprint(model, plain, True)
    options = {"order": [3], "counts": [0, 1], "methods": ["none"], "texts": [TEXT], "progress": False}
    table = size_quality_grid(model, begun, **options, path=tmp_path / "grid.csv")
    assert table["perplexity"].iloc[0] == pytest.approx(perplexity(model, begun, [TEXT]), rel=1e-9)
    with pytest.raises(ValueError, match="holds measurements of another model, with other text"):
        size_quality_grid(model, begun, **options, bos=False, path=tmp_path / "grid.csv")


@pytest.mark.real
def test_the_harness_begins_prompts_like_perplexity_does(real):
    """What lm-evaluation-harness gives the model, caught on its way in."""
    from shortgpt import evaluate

    model, tokenizer = real
    begins = {}
    for name, bos in {"own rule": None, "forced": True, "forbidden": False}.items():
        seen = []
        handle = model.register_forward_pre_hook(
            lambda m, args, kwargs, seen=seen: seen.append(args[0]), with_kwargs=True
        )
        evaluate(model, tokenizer, ["science"], limit=1, bos=bos, progress=False)
        handle.remove()
        begins[name] = bool((seen[-1][:, 0] == tokenizer.bos_token_id).all())
    assert begins == {"own rule": False, "forced": True, "forbidden": False}
    assert begin_tokens(tokenizer) == []  # the user's tokenizer is as it was


# ---- long texts ----------------------------------------------------------------------------------------------------------


@pytest.mark.real
def test_the_first_tokens_of_a_long_text_are_those_of_the_whole(real_tokenizer):
    for language in ("en", "zh"):
        text = "\n\n".join(built_in_text("calibration", language=language)["text"])
        whole = real_tokenizer(text, add_special_tokens=False)["input_ids"]
        for most in (1, 7, 100, 1500):
            assert bare_tokens(real_tokenizer, text, most) == whole[:most]


@pytest.mark.real
def test_a_long_document_costs_what_is_used_of_it(real_tokenizer):
    text = "The sea is wide. " * 240_000  # 4 MB

    def cost(some: str) -> float:
        start = time.process_time()
        calibration_batches(real_tokenizer, [some], samples=4, length=64)
        return time.process_time() - start

    read = []
    real_tokenizer_call = type(real_tokenizer).__call__
    try:
        type(real_tokenizer).__call__ = lambda self, text, *a, **k: (
            read.append(len(text)) or real_tokenizer_call(self, text, *a, **k)
        )
        cost(text)
    finally:
        type(real_tokenizer).__call__ = real_tokenizer_call
    assert sum(read) < 20_000


@pytest.mark.real
def test_no_warning_about_length_for_windows_that_we_cut(real, caplog):
    model, tokenizer = real
    text = "The sea is wide. " * 3_000  # more tokens than the model's 8,192
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    try:
        calibration_batches(tokenizer, [text], samples=1, length=16)
        calibration_batches(tokenizer, [text])
        prefill_report(model, tokenizer, [[2]], [text], prompt_tokens=8, new_tokens=2, repeats=1, progress=False)
    finally:
        logger.removeHandler(caplog.handler)
    assert not [record for record in caplog.records if "longer than" in record.getMessage()]


# ---- one precision -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_losses_are_those_of_a_softmax_in_float64(dtype):
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(64, 50_000, generator=generator)).to(dtype)
    targets = torch.randint(50_000, (64,), generator=generator)
    exact = torch.nn.functional.cross_entropy(logits.double(), targets, reduction="none")
    assert (cross_entropy(logits, targets) - exact).abs().max() < 5e-7  # torch's own in float32: 1e-5
    assert (log_probabilities(logits).double() - logits.double().log_softmax(-1)).abs().max() < 3e-6


def test_divergence_is_a_number_where_a_vocabulary_entry_is_masked():
    p, q = torch.randn(3, VOCABULARY).log_softmax(-1), torch.randn(3, VOCABULARY).log_softmax(-1)
    expected = (p.exp() * (p - q)).sum(-1)
    torch.testing.assert_close(divergence(p, q), expected)
    minus = torch.full((3, 1), -torch.inf)
    torch.testing.assert_close(divergence(torch.cat([p, minus], 1), torch.cat([q, minus], 1)), expected)


def test_trials_by_divergence_work_on_a_model_that_masks_a_token(batch):
    from shortgpt import Trials

    model = build_tiny()
    model.lm_head.register_forward_hook(lambda module, args, out: out.index_fill(-1, torch.tensor([5]), -torch.inf))
    assert Trials(model, [batch], objective="divergence")([2]) > 0


# ---- a model that was trained with a begin token --------------------------------------------------------------------------


def test_the_stored_table_says_what_the_docs_say_of_gemma():
    table = pd.read_csv(data_folder() / "bos.csv", dtype={"removed": str}, keep_default_na=False)
    dense = table[table["removed"] == ""].set_index("bos")
    with_it, without = (float(dense.loc[bos, "perplexity"]) for bos in (True, False))
    first_only = float(dense.loc[True, "bos_in_first_window_only"])
    assert without > 3 * with_it and with_it < first_only < without  # each window wants one
    assert "France" in dense.loc[True, "text"] and dense.loc[False, "text"].count("The") > 10
    plans = table[table["plan_read"] != ""].drop_duplicates("plan_read").set_index("plan_read")["removed"]
    assert plans["with BOS"] != plans["without"]
    page = (data_folder().parent / "docs" / "toolkit.md").read_text(encoding="utf-8")
    for removed, rows in table.groupby("removed", sort=False):
        each = rows.set_index("bos")
        line = [each.loc[True, "perplexity"], each.loc[True, "bos_in_first_window_only"], each.loc[False, "perplexity"]]
        assert " | ".join(f"{float(value):.1f}" for value in line) in page, removed
    pruned = table[table["bos"]].set_index("plan_read")["perplexity"].astype(float)
    assert pruned["without"] > 2 * pruned["with BOS"]  # the plan that was read without it is the worse one


@pytest.mark.slow
@pytest.mark.skipif(not GEMMA.is_dir(), reason="fetch it with: shortgpt score gemma-3-270m --accept-terms")
def test_gemma_is_measured_as_it_was_trained():
    model, tokenizer = load("gemma-3-270m", device="cpu")
    assert begin_tokens(tokenizer) == [tokenizer.bos_token_id]
    texts = [built_in_text("perplexity", genre=genre)["text"].iloc[0][:1500] for genre in ("encyclopedic", "story")]
    values = {bos: perplexity(model, tokenizer, texts, bos=bos) for bos in (None, True, False)}
    assert values[None] == values[True] < values[False] / 2
    assert continue_text(model, tokenizer, "The capital of France is", new_tokens=8).count("The") == 0
    batches = calibration_batches(tokenizer, samples=8, length=128)
    assert all((batch["input_ids"][:, 0] == tokenizer.bos_token_id).all() for batch in batches)
    assert set(choose_layers(score_layers(model, batches, progress=False), 3).removed) == {8, 9, 16}
