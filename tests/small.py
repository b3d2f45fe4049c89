"""Tiny random models and batches. Not in conftest: lessons have a conftest too, and `import conftest` finds the last one."""

from pathlib import Path

import numpy as np
import torch
from gguf import GGUFWriter
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

VOCABULARY, HIDDEN, LAYERS = 96, 32, 6
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma3_text", "gpt2")


def build_tiny(family: str = "llama", seed: int = 0) -> PreTrainedModel:
    """A random model with weights large enough that every layer matters."""
    names = {"gpt2": {"n_embd": HIDDEN, "n_layer": LAYERS, "n_head": 4, "n_positions": 256}}
    sizes = names.get(
        family,
        {
            "hidden_size": HIDDEN,
            "intermediate_size": 64,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "max_position_embeddings": 256,
        },
    )
    config = AutoConfig.for_model(
        family, vocab_size=VOCABULARY, initializer_range=0.3, pad_token_id=0, bos_token_id=1, eos_token_id=2, **sizes
    )
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config).eval()


def random_batch(rows: int = 3, tokens: int = 16, seed: int = 0) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, VOCABULARY, (rows, tokens), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def letters_tokenizer() -> PreTrainedTokenizerFast:
    """A token a character: sizes can be counted by hand."""
    alphabet = "abcdefghijklmnopqrstuvwxyz .\n"
    backend = Tokenizer(
        models.WordLevel({c: i for i, c in enumerate(alphabet)} | {"?": 29, "<pad>": 30}, unk_token="?")
    )
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="?", pad_token="<pad>")


def tiny_gguf(folder: Path, **sizes: int) -> bytes:
    """A tiny Llama as GGUF, whose header may lie about its sizes."""
    file = folder / "tiny.gguf"
    sizes = {"block_count": 2, "context_length": 64, "embedding_length": 32, "feed_forward_length": 64} | sizes
    writer = GGUFWriter(file, "llama")
    writer.add_name("tiny")
    for name, value in sizes.items():
        getattr(writer, f"add_{name}")(value)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(16)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([*(chr(97 + i) for i in range(15)), "ab"])
    writer.add_token_types([1] * 16)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    shapes = {"token_embd.weight": (16, 32), "output_norm.weight": (32,), "output.weight": (16, 32)}
    for i in range(2):
        shapes |= {f"blk.{i}.{name}.weight": (32, 32) for name in ("attn_q", "attn_output")}
        shapes |= {f"blk.{i}.{name}.weight": (16, 32) for name in ("attn_k", "attn_v")}
        shapes |= {f"blk.{i}.{name}.weight": (32,) for name in ("attn_norm", "ffn_norm")}
        shapes |= {
            f"blk.{i}.ffn_gate.weight": (64, 32),
            f"blk.{i}.ffn_up.weight": (64, 32),
            f"blk.{i}.ffn_down.weight": (32, 64),
        }
    draw = np.random.default_rng(0)
    for name, shape in shapes.items():
        writer.add_tensor(name, draw.standard_normal(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file.read_bytes()


def joining(texts: list[str], *, begins: bool = False) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A random model, and a tokenizer that was trained on `texts`, each twice: its tokens reach over every border in them."""
    bpe = Tokenizer(models.BPE(unk_token="?"))
    bpe.train_from_iterator(texts * 2, trainers.BpeTrainer(vocab_size=4000, special_tokens=["?", "^"]))
    if begins:
        bpe.post_processor = processors.TemplateProcessing(single="^ $A", special_tokens=[("^", 1)])
    start = {"bos_token": "^"} if begins else {}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, unk_token="?", eos_token="?", **start)
    model = build_tiny()
    model.resize_token_embeddings(len(tokenizer))
    torch.manual_seed(0)
    torch.nn.init.normal_(model.get_input_embeddings().weight)
    return model, tokenizer
