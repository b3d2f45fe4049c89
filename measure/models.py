"""What models other than the default one ask of a machine: download, memory, time of a Block Influence pass.

    OMP_NUM_THREADS=1 python measure/models.py      (about 25 minutes on one core; 14 GB of memory, 6 GB of disk)
    OMP_NUM_THREADS=1 python measure/models.py gemma-3-270m      (only the rows of these models; the others stay)

Writes `models.csv`, a row per model that the lessons suggest. No weights are downloaded: each architecture is built from its
published configuration with random weights, since neither time nor memory depend on their values. `parameters` is counted
on the model that was built, and must equal the count that its publisher's file states (of a packaged model: its GGUF file).

`cpu_bytes` and `gpu_bytes` are the bytes of a weight as `load` takes the model on either: 4 on a CPU and 2 on a GPU, but 4 on
both where the packaged file is kept in float32, and 2 on both for the packaged 1.5B, which is kept in bfloat16.

Time: `score_layers` on eight samples of 512 tokens, as in lesson 00, one thread, right after the default model has
read the same in the same process (`times_default` is the ratio; it travels better than the seconds). Memory: the peak of a
process of its own that does what lesson 00 does: load the checkpoint, score it, remove a fifth of the layers, take both
perplexities of four texts, save the result with the check that reloads it. A small tokenizer, trained here on the built-in
text, stands in for each model's own: its tokens exist in every vocabulary. Where `measured` is False the memory is computed
(weights of the model and of the reloaded one) and time was not measured.
"""

from __future__ import annotations

import multiprocessing
import re
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from shortgpt import (
    built_in_text,
    calibration_batches,
    choose_layers,
    decoder_layers,
    load,
    perplexity,
    remove_layers,
    save,
    score_layers,
)
from shortgpt.checkpoints.packaged import DEFAULT_MODEL, PACKAGED

FILE = Path(__file__).parents[1] / "data" / "models.csv"
TOO_LARGE = 1.7e9  # parameters; measuring a larger one takes too long here, and two copies in float32 fill the machine
SHARE = 5  # one layer in five goes
VOCABULARY = 16_000
CODER = "qwen2.5-coder-1.5b-instruct"
GEMMA = "gemma-3-270m"

# From each model's config.json on the Hub (what decides shapes and cost), and the parameters that its weights' file states.
LLAMA = {"model_type": "llama", "rms_norm_eps": 1e-5}
QWEN2 = {
    "model_type": "qwen2",
    "rms_norm_eps": 1e-6,
    "vocab_size": 151936,
    "rope_theta": 1e6,
    "tie_word_embeddings": True,
}
MODELS = {
    DEFAULT_MODEL: ("Apache-2.0", False, 134_515_008, None),
    GEMMA: ("Gemma Terms of Use", False, 268_098_176, {
        "model_type": "gemma3_text", "hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18,
        "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "query_pre_attn_scalar": 256,
        "sliding_window": 512, "vocab_size": 262144, "tie_word_embeddings": True, "max_position_embeddings": 32768}),
    "HuggingFaceTB/SmolLM2-360M-Instruct": ("Apache-2.0", False, 361_821_120, LLAMA | {
        "hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": 32, "num_attention_heads": 15,
        "num_key_value_heads": 5, "vocab_size": 49152, "tie_word_embeddings": True, "max_position_embeddings": 8192}),
    "Qwen/Qwen2.5-0.5B": ("Apache-2.0", False, 494_032_768, QWEN2 | {
        "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
        "num_key_value_heads": 2, "max_position_embeddings": 32768}),
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": ("Apache-2.0", False, 1_100_048_384, LLAMA | {
        "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32,
        "num_key_value_heads": 4, "vocab_size": 32000, "tie_word_embeddings": False, "max_position_embeddings": 2048}),
    "meta-llama/Llama-3.2-1B": ("Llama 3.2 Community", True, 1_235_814_400, LLAMA | {
        "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": True, "max_position_embeddings": 131072}),
    "Qwen/Qwen2.5-1.5B": ("Apache-2.0", False, 1_543_714_304, QWEN2 | {
        "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
        "num_key_value_heads": 2, "max_position_embeddings": 131072}),
    CODER: ("Apache-2.0", False, 1_777_088_000, QWEN2 | {  # in this file the output matrix is not the embedding
        "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
        "num_key_value_heads": 2, "max_position_embeddings": 32768, "tie_word_embeddings": False}),
    "meta-llama/Llama-2-7b-hf": ("Llama 2 Community", True, 6_738_415_616, LLAMA | {
        "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 32, "vocab_size": 32000, "tie_word_embeddings": False, "max_position_embeddings": 4096}),
    "mistralai/Mistral-7B-Instruct-v0.3": ("Apache-2.0", False, 7_248_023_552, {
        "model_type": "mistral", "rms_norm_eps": 1e-5, "rope_theta": 1e6, "sliding_window": None,
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 32768, "tie_word_embeddings": False, "max_position_embeddings": 32768}),
    "Qwen/Qwen2.5-7B": ("Apache-2.0", False, 7_615_616_512, QWEN2 | {
        "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False, "max_position_embeddings": 131072}),
    "meta-llama/Llama-3.1-8B": ("Llama 3.1 Community", True, 8_030_261_248, LLAMA | {
        "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False, "max_position_embeddings": 131072}),
    "Qwen/Qwen3-8B": ("Apache-2.0", False, 8_190_735_360, {
        "model_type": "qwen3", "rms_norm_eps": 1e-6, "rope_theta": 1e6, "head_dim": 128,
        "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 151936, "tie_word_embeddings": False, "max_position_embeddings": 40960}),
}  # fmt: skip


def build(fields: dict) -> PreTrainedModel:
    """A model of this configuration with random weights in float32."""
    settings = dict(fields)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings)).eval()


def count(fields: dict | None) -> tuple[int, int, int]:
    """Layers, parameters, and parameters once a fifth of the layers is gone; nothing is allocated."""
    if fields is None:
        model = load()[0]
    else:
        with torch.device("meta"):
            model = build(fields)
    layers = decoder_layers(model)
    each, total = sum(p.numel() for p in layers[0].parameters()), sum(p.numel() for p in model.parameters())
    return len(layers), total, total - len(layers) // SHARE * each


def seconds(model: PreTrainedModel, batches: list) -> float:
    start = time.process_time()  # with one thread the time of the clock, less what other programs took of the core
    score_layers(model, batches, progress=False)
    return time.process_time() - start


def small_tokenizer() -> PreTrainedTokenizerFast:
    """Byte pairs of the built-in text: about as many tokens a word as the models' own, and a small vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(built_in_text("calibration")["text"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def times(fields: dict | None, dtype: torch.dtype) -> tuple[float, float]:
    """Seconds of a pass by the default model and by this one, both after a short warm-up."""
    default, tokenizer = load()[0], small_tokenizer()
    batches = calibration_batches(tokenizer, samples=8)
    model = default if fields is None else build(fields).to(dtype)
    for each in (default, model):
        score_layers(each, calibration_batches(tokenizer, samples=1), progress=False)
    return seconds(default, batches), seconds(model, batches)


def peak_bytes(name: str, dtype: torch.dtype) -> int:
    """Peak memory of this process after the whole walk: load, score, remove, compare, save with its check."""
    model, tokenizer = load(name, dtype=dtype)
    scores = score_layers(model, calibration_batches(tokenizer, samples=8), progress=False)
    plan = choose_layers(scores, len(decoder_layers(model)) // SHARE)
    pruned = remove_layers(model, plan)
    texts = built_in_text("perplexity").groupby("genre").head(1)["text"].tolist()[:4]
    for each in (model, pruned):
        perplexity(each, tokenizer, texts)
    with tempfile.TemporaryDirectory() as folder:
        save(pruned, f"{folder}/pruned", tokenizer=tokenizer, plan=plan)
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def apart(function, *arguments):
    """Call the function in a fresh process, so that its memory is its own and goes with it."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def write_checkpoint(fields: dict, folder: str) -> None:
    """The model as its publisher stores it, in 16 bits, with the small tokenizer."""
    build(fields).bfloat16().save_pretrained(folder)
    small_tokenizer().save_pretrained(folder)


def measure(name: str) -> dict:
    """One row of the table."""
    licence, gated, published, fields = MODELS[name]
    layers, parameters, left = count(fields)
    if parameters != published:
        raise ValueError(f"{name}: {parameters:,} parameters were built, but {published:,} are published")
    packaged = PACKAGED.get(name)
    download, stored = (packaged.download, packaged.size // packaged.parameters) if packaged else (2 * parameters, 2)
    on_cpu = stored if name in PACKAGED else 4  # `load` takes other models in float32 there
    row = {
        "model": name,
        "licence": licence,
        "gated": gated,
        "layers": layers,
        "parameters": parameters,
        "parameters_left": left,
        "cpu_bytes": on_cpu,
        "gpu_bytes": stored,
        "download_gb": download / 1e9,
    }
    if parameters > TOO_LARGE:
        return row | {"cpu_gb": on_cpu * (parameters + left) / 1e9, "measured": False}
    dtype = torch.bfloat16 if on_cpu == 2 else torch.float32
    default, own = apart(times, fields, dtype)
    with tempfile.TemporaryDirectory() as folder:
        if fields is not None:
            apart(write_checkpoint, fields, folder)
        memory = apart(peak_bytes, name if fields is None else folder, dtype) / 1e9
    return row | {"cpu_gb": memory, "measured": True, "seconds": own, "times_default": own / default}


def main(names: list[str]) -> None:
    kept = pd.read_csv(FILE).set_index("model").to_dict("index") if names else {}
    rows = []
    for name in MODELS:
        rows.append({"model": name} | kept[name] if names and name not in names else measure(name))
        print(rows[-1], flush=True)
    pd.DataFrame(rows).to_csv(FILE, index=False, float_format="%.5g")


if __name__ == "__main__":
    main(sys.argv[1:])
