"""The packaged models against what their makers publish: sizes, special tokens, how a text begins, how a chat is written.

The default is always there; the others where they are in the cache. Their GGUF files are not, so what kinds of blocks those
hold is in data/README.md only.
"""

from collections import Counter

import pytest
from transformers import AutoConfig, AutoTokenizer

from shortgpt.checkpoints.cache import cache_folder
from shortgpt.checkpoints.facts import model_facts
from shortgpt.checkpoints.packaged import DEFAULT_MODEL, PACKAGED
from shortgpt.model.tokens import begin_tokens
from shortgpt.utils.data import data_folder

CODER, GEMMA = "qwen2.5-coder-1.5b-instruct", "gemma-3-270m"
# config.json of each original (Gemma's as its fine-tune functiongemma-270m-it publishes it): what decides the computation
PUBLISHED = {
    DEFAULT_MODEL: {
        "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_attention_heads": 9,
        "num_key_value_heads": 3, "vocab_size": 49152, "max_position_embeddings": 8192, "tie_word_embeddings": True,
        "rope_theta": {100000.0}, "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
    },
    GEMMA: {
        "model_type": "gemma3_text", "hidden_size": 640, "intermediate_size": 2048, "num_attention_heads": 4,
        "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 262144, "max_position_embeddings": 32768,
        "sliding_window": 512, "query_pre_attn_scalar": 256, "tie_word_embeddings": True, "final_logit_softcapping": None,
        "layer_types": (5 * ["sliding_attention"] + ["full_attention"]) * 3, "hidden_activation": "gelu_pytorch_tanh",
        "rope_theta": {1e6, 1e4}, "rms_norm_eps": 1e-6, "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0,
    },
    CODER: {  # the original ties its output matrix; the file holds it apart
        "model_type": "qwen2", "hidden_size": 1536, "intermediate_size": 8960, "num_attention_heads": 12,
        "num_key_value_heads": 2, "vocab_size": 151936, "max_position_embeddings": 32768, "tie_word_embeddings": False,
        "rope_theta": {1e6}, "rms_norm_eps": 1e-6, "bos_token_id": 151643, "eos_token_id": 151645,
        "use_sliding_window": False,
    },
}  # fmt: skip


def here(name: str):
    marks = [pytest.mark.real] if name == DEFAULT_MODEL else []
    there = name == DEFAULT_MODEL or (cache_folder() / name).is_dir()
    return pytest.param(name, marks=[*marks, pytest.mark.skipif(not there, reason=f"{name} is not in the cache")])


def tokenizer_of(name):
    return AutoTokenizer.from_pretrained(cache_folder() / name)


@pytest.mark.parametrize("name", map(here, PACKAGED))
def test_the_configuration_is_the_published_one(name):
    config = AutoConfig.from_pretrained(cache_folder() / name)
    fields = config.to_dict()
    nested = [each for each in config.rope_parameters.values() if isinstance(each, dict)] or [config.rope_parameters]
    fields["rope_theta"] = {each["rope_theta"] for each in nested}
    fields["rms_norm_eps"] = pytest.approx(fields["rms_norm_eps"], rel=1e-6)  # GGUF has it in float32
    assert {key: fields[key] for key in PUBLISHED[name]} == PUBLISHED[name]


@pytest.mark.parametrize("name", map(here, PACKAGED))
def test_the_row_says_what_is_kept(name):
    row, facts = PACKAGED[name], model_facts(name)
    assert (facts["layers"], facts["parameters"], facts["dtype"]) == (row.layers, row.parameters, row.dtype)
    assert facts["disk_bytes"] == pytest.approx(row.size, rel=1e-3) and facts["prunable"]


@pytest.mark.parametrize("name", map(here, PACKAGED))
def test_every_text_comes_back_and_begins_as_the_model_was_trained(name):
    tokenizer = tokenizer_of(name)
    texts = ["Hello  world\n\n\tx = 1990 <table>\n中国的首都是 👍🏽", "a   b , don't  ."]
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
        assert (ids[0] == tokenizer.bos_token_id) == (name == GEMMA) and tokenizer.eos_token_id not in ids
    assert begin_tokens(tokenizer) == ([2] if name == GEMMA else [])
    assert len(tokenizer) == PUBLISHED[name]["vocab_size"]  # rows that no text reaches have names such as [PAD151665]
    digits = tokenizer.convert_ids_to_tokens(tokenizer("1990")["input_ids"])[-4:]
    assert digits == list("1990"), "all three were trained with one token a digit"


@pytest.mark.parametrize(
    ("name", "special"),
    [
        (DEFAULT_MODEL, {"bos": "<|im_start|>", "eos": "<|im_end|>", "pad": "<|im_end|>", "unk": "<|endoftext|>"}),
        (GEMMA, {"bos": "<bos>", "eos": "<eos>", "pad": "<pad>", "unk": "<unk>"}),
        (CODER, {"eos": "<|im_end|>", "pad": "<|endoftext|>"}),
    ],
)
def test_special_tokens(name, special, request):
    if name == DEFAULT_MODEL:
        request.getfixturevalue("real")
    elif not (cache_folder() / name).is_dir():
        pytest.skip(f"{name} is not in the cache")
    tokenizer = tokenizer_of(name)
    assert {kind: getattr(tokenizer, f"{kind}_token") for kind in special} == special


@pytest.mark.real
def test_the_default_s_chat(real_tokenizer):
    text = real_tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("name", [here(CODER)])
def test_a_chat_of_the_coder_has_the_ids_that_its_original_gives(name):
    """Printed by users of Qwen2.5-Coder-32B-Instruct and Qwen2-VL, which have the same tokenizer and plain chats."""
    tokenizer = tokenizer_of(name)
    talk = [
        {"role": "system", "content": "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."},
        {"role": "user", "content": "write a quick sort algorithm."},
        {"role": "assistant", "content": "Here is the code:"},
    ]
    system = [151644, 8948, 198, 2610, 525, 1207, 16948, 11, 3465, 553, 54364, 14817, 13, 1446, 525, 264, 10950, 17847]
    system += [13, 151645, 198]
    question = [151644, 872, 198, 4934, 264, 3974, 3378, 12111, 13, 151645, 198]
    answer = [151644, 77091, 198, 8420, 374, 279, 2038, 25, 151645, 198]
    ids = tokenizer.apply_chat_template(talk, return_dict=False)
    assert ids == system + question + answer
    assert tokenizer.apply_chat_template(talk[1:], return_dict=False) == ids, "the template brings that system message"
    chinese = [{"role": "user", "content": "讲一个猫有关的笑话？"}]
    asked = [151644, 872, 198, 99526, 46944, 100472, 101063, 9370, 109959, 11319, 151645, 198, 151644, 77091, 198]
    assert tokenizer.apply_chat_template(chinese, add_generation_prompt=True, return_dict=False) == system + asked


@pytest.mark.parametrize("name", [here(GEMMA)])
def test_gemma_is_a_base_model_and_has_no_chat(name):
    assert tokenizer_of(name).chat_template is None


@pytest.mark.real
def test_the_kinds_of_blocks_in_the_default_s_file(real):
    import gguf

    file = gguf.GGUFReader(cache_folder() / PACKAGED[DEFAULT_MODEL].gguf)
    assert Counter(tensor.tensor_type.name for tensor in file.tensors) == {"Q4_1": 210, "F32": 61, "Q8_0": 1}


def test_the_page_has_a_row_for_each():
    page = (data_folder() / "README.md").read_text(encoding="utf-8")
    table = page.partition("## The packaged models")[2].partition("## ")[0]
    for name, row in PACKAGED.items():
        (line,) = (line for line in table.splitlines() if line.startswith(f"| `{name}`"))
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[1:3] == [str(row.layers), f"{row.parameters:,}"] and cells[6] == row.dtype
        assert f"{len(row.wheels)} × " in cells[4] or len(row.wheels) == 1
