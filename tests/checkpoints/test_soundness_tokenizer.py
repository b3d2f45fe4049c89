"""A checkpoint without a tokenizer, or with a damaged one, is refused before its weights are read, and rightly."""

import pytest
from small import build_tiny

from shortgpt import load, remove_sublayers, save
from shortgpt.checkpoints import loading


@pytest.fixture(autouse=True)
def no_weights_are_read(monkeypatch):
    for name in ("_read", "restore"):
        monkeypatch.setattr(loading, name, lambda *args, **options: pytest.fail("the weights were read"))


@pytest.mark.parametrize(
    "family", ["llama", "gpt2", "qwen2", "gemma3_text"]
)  # of the last three an empty one comes back
def test_no_tokenizer(family, tmp_path):
    folder = save(build_tiny(family), tmp_path / "model")
    with pytest.raises(ValueError, match=r"holds no tokenizer \(no tokenizer.json\): put .*save_pretrained") as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_no_tokenizer_beside_our_own_format(tiny, tmp_path):
    with pytest.raises(ValueError, match=r"holds no tokenizer \(no tokenizer.json\)"):
        load(save(remove_sublayers(tiny, ffn=[2]), tmp_path / "model"))


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("tokenizer.json", None, "holds no tokenizer"),
        ("tokenizer.json", '{"version": "1.0", "trunc', "tokenizer.json is damaged: download it again"),
        ("tokenizer.json", "{}", "tokenizer.json is damaged, or of a newer format"),
        ("tokenizer_config.json", '{"tokenizer_class": ', "tokenizer_config.json is damaged: download it again"),
    ],
)
def test_a_damaged_tokenizer(file, content, says, tiny, tokenizer, tmp_path):
    folder = save(tiny, tmp_path / "model", tokenizer=tokenizer)
    (folder / file).unlink() if content is None else (folder / file).write_text(content)
    with pytest.raises(ValueError, match=says) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_a_form_that_needs_another_package(tiny, tmp_path):
    folder = save(tiny, tmp_path / "model")
    (folder / "tokenizer.model").write_bytes(b"\x0a\x0e" * 30)
    with pytest.raises(
        ValueError, match="no tokenizer that can be read here .*pip install sentencepiece tiktoken"
    ) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
