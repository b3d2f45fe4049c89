"""How much memory `shortgpt prune` takes, against the weights of the model: in memory, and with its layers left on disk.

    python benchmarks/prune.py [--layers 10]

A random Llama of wide layers (117 MB each in float32, 1.2 GB in all) is written in bfloat16 and pruned by the command in
float32. Measured is anonymous memory (``RssAnon``), what the kernel can't take back, above what it was when the command
began. Pages of mapped checkpoints are not in it, and Python's libraries were imported before. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import io
import os
import re
import sys
import tempfile
from pathlib import Path

from offload import anonymous_bytes
from report import machine, markdown, write_section

import shortgpt

WAYS = {
    "-n 2": [],
    "-n 2 --repair fold": ["--repair", "fold"],
    "-n 2 --repair fold --on-disk": ["--repair", "fold", "--on-disk"],
}


def build(folder: Path, layers: int) -> int:
    """Write the model and a tokenizer with a token a character; return the bytes of the weights in float32."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = Tokenizer(models.WordLevel({chr(32 + i): i for i in range(95)}, unk_token="?"))
    letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=letters, unk_token="?").save_pretrained(folder)
    shape = {"hidden_size": 2048, "intermediate_size": 2048, "num_attention_heads": 16, "vocab_size": 4096}
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=layers, **shape)).bfloat16()
    model.save_pretrained(folder)
    return 4 * sum(p.numel() for p in model.parameters())


def peak_of(words: list[str]) -> tuple[int, str]:
    """Run the command in this process: the peak of anonymous memory above what it is now, and what was said before."""
    from shortgpt.cli import main as command
    from shortgpt.utils.peak import highest

    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    before, said = anonymous_bytes(os.getpid()), io.StringIO()
    with highest(lambda: anonymous_bytes(os.getpid()), 0.01) as peak, contextlib.redirect_stderr(said):
        code = command(words)
    if code:
        sys.exit(said.getvalue()[-2000:])
    return peak[0] - before, said.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=10)
    layers, rows = parser.parse_args().layers, []
    with tempfile.TemporaryDirectory(prefix="shortgpt-prune-") as temporary:
        folder = Path(temporary)
        weights = build(folder / "model", layers)
        [getattr(shortgpt, name) for name in ("choose_layers", "heal", "prune_checkpoint", "save")]  # imported now
        for number, (way, options) in enumerate(WAYS.items()):
            words = [
                "prune",
                str(folder / str(number)),
                "--model",
                str(folder / "model"),
                "-n",
                "2",
                "--dtype",
                "float32",
            ]
            peak, said = peak_of([*words, "--no-cost", "--samples", "4", "--length", "16", *options])
            told = re.findall(r"needs about ([\d.]+) GB", said)
            rows.append([f"`{way}`", *told, f"{peak / 1e9:.2f}", f"{peak / weights:.2f}"])
            print(rows[-1], flush=True)
    header = ["shortgpt prune", "said before, GB", "peak, GB", "peak / weights"]
    text = f"{layers} layers, {weights / 1e9:.2f} GB of weights in float32.\n\n{markdown(header, rows)}"
    write_section("prune", f"{text}\n\n{machine()}")


if __name__ == "__main__":
    main()
