"""Text becomes the batches it should, the same ones for the same seed, and bad text is refused in one sentence."""

import json
from collections import Counter

import pytest
import torch

from shortgpt import built_in_text, calibration_batches
from shortgpt.cli.options import Calibration
from shortgpt.model.text import calibration_documents


def test_packing_joins_documents_and_drops_only_the_tail(tokenizer):
    batches = calibration_batches(tokenizer, ["a" * 25, "b" * 25], length=8, batch_size=4)
    ids = torch.cat([b["input_ids"] for b in batches])
    assert ids.shape == (6, 8)  # 25 + 2 ("\n\n") + 25 = 52 tokens: six samples of eight, four left over
    assert all(b["attention_mask"].all() for b in batches) and [len(b["input_ids"]) for b in batches] == [4, 2]


def test_short_text_is_one_short_sample(tokenizer):
    (batch,) = calibration_batches(tokenizer, ["a short text."], length=512)
    assert batch["input_ids"].shape == (1, 13)


def test_unpacked_documents_are_padded_and_masked(tokenizer):
    (batch,) = calibration_batches(tokenizer, ["a" * 5, "b" * 30], length=10, pack=False)
    assert sorted(batch["attention_mask"].sum(1).tolist()) == [5, 10]
    assert (batch["input_ids"][batch["attention_mask"] == 0] == tokenizer.pad_token_id).all()


def test_spread_deals_the_documents_out_and_mixes_none(tokenizer):
    texts = ["a" * 25, "b" * 17, "c" * 3]
    batches = calibration_batches(tokenizer, texts, length=8, batch_size=2, spread=True)
    rows = [row[mask.bool()] for b in batches for row, mask in zip(b["input_ids"], b["attention_mask"], strict=True)]
    read = [tokenizer.decode(row).replace(" ", "") for row in rows]
    assert sorted(read[:3]) == ["a" * 8, "b" * 8, "ccc"]  # one of each document first; the shortest is whole
    assert sorted(read[3:5]) == ["a" * 8, "b" * 8] and read[5:] == ["a" * 8]  # what is left of one is dropped
    few = calibration_batches(tokenizer, texts, length=8, samples=2, batch_size=2, spread=True)
    assert torch.equal(few[0]["input_ids"], batches[0]["input_ids"])
    with pytest.raises(ValueError, match="give one of the two"):
        calibration_batches(tokenizer, texts, spread=True, pack=False)


@pytest.mark.parametrize("how", [{}, {"spread": True}, {"pack": False}, {"bos": True}])
def test_a_sample_knows_the_document_it_begins_in(tokenizer, how):
    tokenizer.bos_token = "z"
    texts = [c * 21 for c in "abcdefg"]
    batches = calibration_batches(tokenizer, texts, length=8, batch_size=3, **how)
    marks = {}
    for batch in batches:
        assert len(batch.documents) == len(batch["input_ids"])
        assert isinstance(batch, dict) and [*batch] == ["input_ids", "attention_mask"]  # model(**batch)
        for ids, document in zip(batch["input_ids"], batch.documents, strict=True):
            text = tokenizer.decode(ids).replace(" ", "").replace("z", "").lstrip("\n?")
            marks.setdefault(document, set()).add(text[0])
    assert all(len(letters) == 1 for letters in marks.values()) and len(marks) == len(texts)


def test_the_seed_decides_the_order(tokenizer):
    texts = [c * 8 for c in "abcdefgh"]
    first, same, other = (calibration_batches(tokenizer, texts, length=8, seed=s) for s in (1, 1, 2))
    assert torch.equal(first[0]["input_ids"], same[0]["input_ids"])
    assert not torch.equal(first[0]["input_ids"], other[0]["input_ids"])


def test_files_and_lists_give_the_same_batches(tokenizer, tmp_path):
    text = "the tide came in over the flats."
    (tmp_path / "t.txt").write_text(text)
    (tmp_path / "t.jsonl").write_text(json.dumps({"text": text}) + "\n")
    expected = calibration_batches(tokenizer, [text])[0]["input_ids"]
    for name in ("t.txt", "t.jsonl"):
        assert torch.equal(calibration_batches(tokenizer, tmp_path / name)[0]["input_ids"], expected)


@pytest.mark.parametrize(
    ("text", "options", "error", "message"),
    [
        ([], {}, ValueError, "calibration text is empty"),
        (["  \n"], {}, ValueError, "calibration text is empty"),
        ("no_such.txt", {}, FileNotFoundError, "no such calibration file"),
        ("just a sentence", {}, ValueError, "must be a .txt or .jsonl file or a list"),
        (["a"], {"length": 0}, ValueError, "length must be at least 1"),
        (["a"], {"samples": 0}, ValueError, "samples must be at least 1"),
    ],
)
def test_bad_text_is_one_clear_sentence(tokenizer, text, options, error, message):
    with pytest.raises(error, match=message):
        calibration_batches(tokenizer, text, **options)


def test_a_broken_jsonl_file_is_named(tokenizer, tmp_path):
    (tmp_path / "t.jsonl").write_text('{"body": "x"}\n')
    with pytest.raises(ValueError, match=r't.jsonl, line 1: every line must be a JSON object with a "text" field'):
        calibration_batches(tokenizer, tmp_path / "t.jsonl")


def test_a_tokenizer_without_pad_says_what_to_do(tokenizer):
    tokenizer.pad_token = None
    assert calibration_batches(tokenizer, ["abc", "abcdef"], length=4)  # packing needs no pad
    with pytest.raises(ValueError, match=r"no pad token: set `tokenizer\.pad_token = tokenizer\.eos_token`"):
        calibration_batches(tokenizer, ["abc", "abcdef"], length=8, pack=False)


def test_built_in_text_is_chosen_by_part_language_and_genre():
    letters = built_in_text("perplexity", genre="letter")
    assert set(letters["genre"]) == {"letter"} and set(letters["part"]) == {"perplexity"}
    with pytest.raises(ValueError, match="no genre 'poem' here: choose one of"):
        built_in_text(genre="poem")
    with pytest.raises(ValueError, match="no language 'fr' here: choose one of en, zh"):
        built_in_text(language="fr")


@pytest.mark.real
def test_the_built_in_text_is_long_enough(real_tokenizer):
    tokens = {
        (part, language): sum(
            len(real_tokenizer(t)["input_ids"]) for t in built_in_text(part, language=language)["text"]
        )
        for part in ("calibration", "perplexity")
        for language in ("en", "zh")
    }
    assert tokens["calibration", "en"] >= 12_000 and tokens["perplexity", "en"] >= 8_000
    assert tokens["calibration", "zh"] >= 4_000 and tokens["perplexity", "zh"] >= 4_000
    assert built_in_text()["genre"].nunique() >= 8


@pytest.mark.parametrize("language", ["en", "zh"])
def test_without_a_text_the_beginnings_of_peoples_documents_are_read(language):
    documents = calibration_documents(language)
    whole = built_in_text("natural", language=language)
    genres = [whole["genre"][whole["text"].str.startswith(document)].tolist() for document in documents]
    assert all(len({*found}) == 1 for found in genres), "each is the beginning of a document of one genre"
    counts = Counter(found[0] for found in genres)
    assert {*counts} == {*whole["genre"]} and len({*counts.values()}) == 1, "as many of each genre"
    assert len(documents) >= 30 and max(map(len, documents)) <= 2200


def test_the_default_text_is_what_the_command_reads_too(tokenizer):
    by_hand = calibration_batches(tokenizer, calibration_documents(), samples=3, length=64)
    for batches in (
        calibration_batches(tokenizer, samples=3, length=64),
        Calibration(samples=3, length=64).batches(tokenizer, Calibration().documents("calibration")),
    ):
        assert torch.equal(batches[0]["input_ids"], by_hand[0]["input_ids"])
    assert Calibration(language="zh").documents("calibration") == calibration_documents("zh")
