"""What only a GPU shows, in at most eight minutes: the same numbers as on the CPU, kernels, memory and speed.

    python benchmarks/gpu.py [--layers 32] [--seconds 420]

  same     public functions that compute (`WAYS`), in bfloat16 and float16 on the card, against float32 on the CPU
  kernels  int8 and NF4 on the card against the same on the CPU
  pass     Block Influence against the backbone alone, on a random model shaped like a 7B: the median ratio, limit 1.02,
           for there must be no transfer and no synchronisation a layer
  memory   what that pass takes above the weights, and what removing layers takes
  speed    prefill and decode of that model, dense and without a quarter of its layers

Random weights: nothing is downloaded. A line a check; a table and the card's name go to docs/benchmarks.md. The exit code is
1 if a check failed, or if there is no card.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedModel

import shortgpt
from shortgpt.utils.data import data_folder

SIZES_7B = {"hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32, "num_key_value_heads": 32}
SIZES_SMALL = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2}
LIMITS = {torch.bfloat16: 0.05, torch.float16: 0.01, torch.float32: 0.001}  # largest difference by largest number
FITTED = 4  # times the limit for what is solved from rounded states
RATIO = 1.02
GONE = [2, 5]
Batches = list[dict[str, Tensor]]


class Check(NamedTuple):
    """A line of the report."""

    name: str
    value: str
    limit: str = ""
    passed: bool = True


def random_model(device: str, dtype: torch.dtype, layers: int, seed: int = 0, **sizes: int) -> PreTrainedModel:
    """A Llama with random weights, made where it stays and in its dtype: a 7B is never in float32."""
    config, before = LlamaConfig(num_hidden_layers=layers, **{"vocab_size": 32000, **sizes}), torch.get_default_dtype()
    torch.manual_seed(seed)
    try:
        torch.set_default_dtype(dtype)
        with torch.device(device):
            return LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)


def random_batch(vocabulary: int, rows: int, tokens: int, seed: int = 0) -> dict[str, Tensor]:
    """Token ids and mask, ``[rows, tokens]``."""
    ids = torch.randint(3, vocabulary, (rows, tokens), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@torch.inference_mode()
def logits(model: PreTrainedModel, batches: Batches) -> Tensor:
    """Of the first batch, ``[rows * tokens * vocabulary]``."""
    return model(input_ids=batches[0]["input_ids"].to(model.device), use_cache=False).logits.flatten()


def reloaded(model: PreTrainedModel, batches: Batches) -> Tensor:
    """The logits after a save, which compares too, and a load."""
    with tempfile.TemporaryDirectory() as folder:
        saved = shortgpt.save(shortgpt.remove_layers(model, GONE), Path(folder, "model"), tokenizer=tokenizer())
        return logits(shortgpt.load(saved, device=str(model.device), dtype=model.dtype)[0], batches)


def tokenizer():
    """A real tokenizer that comes along: that of the twins."""
    return AutoTokenizer.from_pretrained(data_folder() / "twins" / "tokenizer")


def text_losses(model: PreTrainedModel, batches: Batches) -> Tensor:
    texts = shortgpt.built_in_text("perplexity")["text"].str[:400].head(2)
    return torch.tensor([shortgpt.perplexity(model, tokenizer(), texts)]).log()


WAYS: dict[str, Callable[[PreTrainedModel, Batches], Tensor]] = {
    "score_layers": lambda m, b: torch.tensor(shortgpt.score_layers(m, b, progress=False).values),
    "score_sublayers": lambda m, b: torch.tensor(shortgpt.score_sublayers(m, b, progress=False)["ffn"].values),
    "span_distances": lambda m, b: torch.tensor(shortgpt.span_distances(m, b)["score"].to_numpy()),
    "remove_channels": lambda m, b: logits(shortgpt.remove_channels(m, 16, progress=False), b),
    "remove_heads": lambda m, b: logits(shortgpt.remove_heads(m, 1, progress=False), b),
    "remove_layers": lambda m, b: logits(shortgpt.remove_layers(m, GONE), b),
    "remove_sublayers": lambda m, b: logits(shortgpt.remove_sublayers(m, attention=[3], ffn=[4]), b),
    "merge_layers": lambda m, b: logits(shortgpt.merge_layers(m, [5]), b),
    "heal, fold": lambda m, b: logits(shortgpt.heal(m, GONE, b, progress=False), b),
    "heal, linear": lambda m, b: logits(shortgpt.heal(m, GONE, b, kind="linear", progress=False), b),
    "perplexity": text_losses,
    "save and load": reloaded,
}


def compared(name: str, found: Tensor, expected: Tensor, limit: float) -> Check:
    """The largest difference by the largest number, against a limit."""
    found, expected = found.double().cpu(), expected.double().cpu()
    off = ((found - expected).abs().max() / expected.abs().max()).item()
    return Check(name, f"{off:.4f}", f"{limit:g}", off <= limit)  # NaN is not


def same(device: str, dtype: torch.dtype, layers: int = 8) -> Iterator[Check]:
    """Each way on the card in `dtype`, against the same weights in float32 on the CPU."""
    words = len(tokenizer())
    there = random_model("cpu", dtype, layers, vocab_size=words, initializer_range=0.1, **SIZES_SMALL).to(device)
    here = random_model("cpu", dtype, layers, vocab_size=words, initializer_range=0.1, **SIZES_SMALL).float()
    batches = [random_batch(words, 4, 128, seed) for seed in range(4)]
    kind = str(dtype).removeprefix("torch.")
    for name, way in WAYS.items():
        limit = LIMITS[dtype] * (FITTED if name.startswith("heal") else 1)
        title = f"{name}, {kind}"
        yield guarded(title, lambda w=way, m=limit, t=title: compared(t, w(there, batches), w(here, batches), m))


def kernels(device: str, layers: int = 4) -> Iterator[Check]:
    """Quantized on the card, against quantized on the CPU."""
    dtype = torch.bfloat16
    models = {
        place: random_model("cpu", dtype, layers, initializer_range=0.1, **SIZES_SMALL) for place in (device, "cpu")
    }
    batches = [random_batch(32000, 2, 32)]
    for method, bits in (("int8", 8), ("nf4", 4)):

        def both(bits: int = bits, method: str = method) -> Check:
            there = logits(shortgpt.quantize(models[device].to(device), bits), batches)
            return compared(method, there, logits(shortgpt.quantize(models["cpu"].to("cpu"), bits), batches), 0.1)

        yield guarded(method, both)


def guarded(name: str, check: Callable[[], Check]) -> Check:
    """What the check gives; an exception is a check that failed, and the others go on."""
    try:
        return check()
    except Exception as error:
        return Check(name, f"{type(error).__name__}: {str(error)[:150]}", "", False)


@torch.inference_mode()
def bi_pass(model: PreTrainedModel, rows: int = 4, tokens: int = 1024, repeats: int = 7) -> Check:
    """Median of the ratios of neighbouring runs, in alternating order."""
    device = str(model.device)
    wait = torch.cuda.synchronize if device.startswith("cuda") else (lambda: None)
    batches = [random_batch(model.config.vocab_size, rows, tokens, seed) for seed in range(2)]

    def backbone() -> None:
        for batch in batches:
            model.model(**{name: values.to(device) for name, values in batch.items()}, use_cache=False)

    ways = [backbone, lambda: shortgpt.score_layers(model, batches, progress=False)]
    for way in ways:  # warm-up
        way()
    wait()
    ratios = []
    for repeat in range(repeats):
        taken = {}
        for i in (0, 1) if repeat % 2 == 0 else (1, 0):
            start = time.perf_counter()
            ways[i]()
            wait()
            taken[i] = time.perf_counter() - start
        ratios.append(taken[1] / taken[0])
    ratio = statistics.median(ratios)
    return Check("Block Influence by backbone", f"{ratio:.3f}", f"{RATIO:g}", ratio <= RATIO)


def memory(model: PreTrainedModel) -> Iterator[Check]:
    """Peaks above the weights. A pruned model is a view: removing layers takes nothing."""
    from shortgpt.evaluation.memory import memory_peak

    weights, layers = shortgpt.size(model)["memory_bytes"], len(model.model.layers)
    yield Check("weights, GB", f"{weights / 1e9:.2f}")
    batches = [random_batch(model.config.vocab_size, 4, 1024)]
    with memory_peak(model.device) as peak:
        shortgpt.score_layers(model, batches, progress=False)
    yield Check("Block Influence above the weights, GB", f"{peak[0] / 1e9:.2f}", "a fifth", peak[0] < weights / 5)
    with memory_peak(model.device) as peak:
        shortgpt.remove_layers(model, [1])
    yield Check("removing a layer, GB", f"{peak[0] / 1e9:.3f}", "half a layer", peak[0] < weights / layers / 2)


def speeds(model: PreTrainedModel, prompt: int = 512, new: int = 32, repeats: int = 3) -> Iterator[Check]:
    """Tokens a second, dense and without the quarter before the last layer, and the ratio within rounds."""
    count = len(model.model.layers)
    pruned = shortgpt.remove_layers(model, range(count - 1 - count // 4, count - 1))
    options = {"batch_sizes": [1], "prompt_tokens": prompt, "new_tokens": new, "repeats": repeats, "progress": False}
    table = shortgpt.speed_table({"dense": model, "pruned": pruned}, **options)
    for row in table.itertuples():
        yield Check(f"{row.phase}, {row.model}, tokens/s", f"{row.tokens_per_second:,.1f}")
        if row.model == "pruned":
            yield Check(f"{row.phase}, pruned by dense", f"{row.relative:.2f}", "above 1", row.relative > 1)


def all_checks(device: str, layers: int, **sizes: int) -> Iterator[Check]:
    """All of them, the cheap ones first."""
    for kind in (torch.bfloat16, torch.float16):
        yield from same(device, kind)
    yield from kernels(device)
    big = random_model(device, torch.bfloat16, layers, **(sizes or SIZES_7B))
    yield guarded("Block Influence by backbone", lambda: bi_pass(big))
    yield from memory(big)
    yield from speeds(big)


def within(checks: Iterator[Check], limit: float) -> Iterator[Check]:
    """The checks that begin within `limit` seconds; what was left out is a line, too."""
    end = time.monotonic() + limit
    for check in checks:
        yield check
        if time.monotonic() > end:
            yield Check("what follows", "left out: time is over", f"{limit:g} s", False)
            return


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=32, help="of the 7B-shaped model: fewer where memory is short")
    parser.add_argument("--seconds", type=float, default=420, help="no check begins later")
    chosen = parser.parse_args(words)
    if not torch.cuda.is_available():
        print("There is no card that torch can use here, so nothing was checked.", file=sys.stderr)
        return 1
    from report import machine, markdown, write_section

    checks = []
    for check in within(all_checks("cuda", chosen.layers), chosen.seconds):
        checks.append(check)
        print(f"{'ok    ' if check.passed else 'FAILED'} {check.name:42} {check.value:>12}  {check.limit}", flush=True)
    rows = [[c.name, c.value, c.limit, "yes" if c.passed else "NO"] for c in checks]
    card = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, {chosen.layers} layers of a 7B; {machine()}"
    write_section("gpu", markdown(["check", "value", "limit", "passed"], rows) + "\n\n" + card)
    return 0 if all(check.passed for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
