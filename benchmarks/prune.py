"""How much memory `shortgpt prune` takes, against the weights of the model: in memory, and with its layers left on disk.

    python benchmarks/prune.py [--layers 10]

A random Llama of wide layers (117 MB each in float32, 1.2 GB in all) is written in bfloat16 and pruned by the command, each
way in a process of its own, in float32. Measured is anonymous memory (``RssAnon``), what the kernel can't take back, above
what Python and the libraries take when they are imported. Pages of mapped checkpoints are not in it. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from offload import anonymous_bytes
from report import machine, markdown, write_section

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


def run(words: list[str]) -> int:
    """Run the command in this process; return the peak of anonymous memory above the imported libraries."""
    import shortgpt.checkpoints.on_disk
    import shortgpt.checkpoints.saving
    import shortgpt.repair.healing  # noqa: F401
    from shortgpt.cli import main as command
    from shortgpt.utils.peak import highest

    before = anonymous_bytes(os.getpid())
    with highest(lambda: anonymous_bytes(os.getpid()), 0.01) as peak:
        code = command(words)
    if code:
        sys.exit(code)
    return peak[0] - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(f"peak {run(arguments.one)}")
        return
    rows = []
    with tempfile.TemporaryDirectory(prefix="shortgpt-prune-") as temporary:
        folder = Path(temporary)
        command = f"from prune import build, Path; print(build(Path({str(folder / 'model')!r}), {arguments.layers}))"
        weights = int(subprocess.check_output([sys.executable, "-c", command], cwd=Path(__file__).parent).split()[-1])
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
            words += ["--no-cost", "--samples", "4", "--length", "32", *options]
            line = [sys.executable, "-W", "ignore", __file__, "--one", json.dumps(words)]
            done = subprocess.run(line, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{way} ended with {done.returncode}\n{done.stderr[-2000:]}")
            peak = int(re.findall(r"peak (\d+)", done.stdout)[-1])
            told = re.search(r"needs about ([\d.]+) GB", done.stderr)
            rows.append([f"`{way}`", told[1] if told else "", f"{peak / 1e9:.2f}", f"{peak / weights:.2f}"])
            print(rows[-1], flush=True)
    header = ["shortgpt prune", "said before, GB", "peak, GB", "peak / weights"]
    text = f"{arguments.layers} layers, {weights / 1e9:.2f} GB of weights in float32.\n\n{markdown(header, rows)}"
    write_section("prune", f"{text}\n\n{machine()}")


if __name__ == "__main__":
    main()
