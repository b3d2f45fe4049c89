"""Score a model three times larger than the memory it may use, beside the same model in memory.

    python benchmarks/offload.py [--layers 22] [--batches 2] [--tokens 512] [--folder FOLDER]

A random Llama-shaped checkpoint (float32; 4.4 GB by default) is written to `folder` and scored in two fresh processes,
one with everything in memory and one with ``load(..., device_map="auto", max_memory=...)`` under a *real* limit of a
third of the checkpoint: a memory control group, which counts the page cache too, so that what was read must be given
back. Before each run the checkpoint's pages are dropped from the page cache: both start from the disk.

Both run with ``MALLOC_MMAP_THRESHOLD_=1048576``: by default glibc keeps freed states and weights for later, up to a few
hundred MiB more each time they don't fit (1,190 instead of 410 MiB after seven layers), and the limit is real.

Prints, and writes to docs/benchmarks.md, seconds to load and to score, the peak of anonymous memory (``RssAnon``: what
the kernel can't give back; the pages of the mapped checkpoint are not in it), and whether the scores are equal bit by
bit. Without root or systemd no limit can be set: then memory is only measured, and the table says so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from report import machine, markdown, write_section

MIB = 2**20


def build(folder: Path, layers: int) -> None:
    """Write a random model of TinyLlama's shape with `layers` layers (176 MB each in float32) and a tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from shortgpt import load

    torch.manual_seed(0)
    shape = {"hidden_size": 2048, "intermediate_size": 5632, "num_attention_heads": 32, "num_key_value_heads": 4}
    shape |= {"vocab_size": 49_152, "tie_word_embeddings": True}
    model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=layers, **shape))
    model.save_pretrained(folder, max_shard_size="500MB")
    load(device="cpu")[1].save_pretrained(folder)


def score(folder: Path, batches: int, tokens: int, memory: int | None) -> dict[str, object]:
    """Load and score in this process; `memory` is what the weights may take (bytes), None for all of them."""
    from shortgpt import calibration_batches, load, score_layers
    from shortgpt.utils.peak import highest

    options = {} if memory is None else {"device_map": "auto", "max_memory": {"cpu": memory}}
    with highest(lambda: anonymous_bytes(os.getpid()), 0.02) as peak:
        start = time.perf_counter()
        model, tokenizer = load(folder, device="cpu", **options)
        loaded, cpu = time.perf_counter(), time.process_time()
        text = calibration_batches(tokenizer, samples=4 * batches, length=tokens, batch_size=4)
        scores = score_layers(model, text, progress=False)
        seconds, cpu = time.perf_counter() - loaded, time.process_time() - cpu
    on_disk = sum(p.device.type == "meta" for p in model.parameters()) / len(list(model.parameters()))
    return {
        "load": loaded - start,
        "score": seconds,
        "cpu": cpu,
        "anonymous": peak[0],
        "on_disk": on_disk,
        "values": scores.values.tolist(),
    }


def anonymous_bytes(pid: int) -> int:
    """Memory of a process that only swapping could free, in bytes (Linux)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


@contextlib.contextmanager
def memory_limit(limit: int) -> Iterator[tuple[list[str], str]]:
    """Yield ``(command prefix, how)`` that runs a program in at most `limit` bytes, page cache included."""
    systemd = ["systemd-run", "--scope", "--quiet", "-p", f"MemoryMax={limit}", "-p", "MemorySwapMax=0"]
    for user in ([], ["--user"]):
        command = [systemd[0], *user, *systemd[1:]]
        if shutil.which("systemd-run") and subprocess.run([*command, "true"], capture_output=True).returncode == 0:
            yield command, "systemd scope"
            return
    group = Path("/sys/fs/cgroup/memory") / f"shortgpt-benchmark-{os.getpid()}"  # control groups, version 1
    try:
        group.mkdir()
    except OSError:
        yield [], "none: memory is measured, not limited"
        return
    try:
        (group / "memory.limit_in_bytes").write_text(str(limit))
        yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"], "control group"
    finally:
        with contextlib.suppress(OSError):
            group.rmdir()


def forget_pages(folder: Path) -> None:
    """Drop the checkpoint from the page cache, so that every run reads it from the disk."""
    for file in folder.glob("*.safetensors"):
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=22, help="176 MB each (default 22: 4.3 GB with the embeddings)")
    parser.add_argument("--batches", type=int, default=2, help="batches of 4 samples")
    parser.add_argument("--tokens", type=int, default=512, help="tokens a sample")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keep the checkpoint here, and use it if it is there")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(score(arguments.folder, arguments.batches, arguments.tokens, arguments.one["memory"])))
        return
    with tempfile.TemporaryDirectory(prefix="shortgpt-offload-") as temporary:
        folder = arguments.folder or Path(temporary)
        if not (folder / "config.json").exists():
            build_command = f"from offload import build, Path; build(Path({str(folder)!r}), {arguments.layers})"
            subprocess.run([sys.executable, "-c", build_command], check=True, cwd=Path(__file__).parent)
        compare(folder, arguments)


def compare(folder: Path, arguments: argparse.Namespace) -> None:
    """Run both ways, alternating, and print the table."""
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    limit = size // 3
    # Python, torch and the states of a batch need their share of the limit; the weights may have a third of it
    ways: dict[str, int | None] = {"in memory": None, "offloaded": limit // 3}
    results: dict[str, list[dict]] = {way: [] for way in ways}
    how, environment = "none", {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(MIB)}
    for repeat in range(arguments.repeats):
        for way in list(ways)[:: 1 if repeat % 2 == 0 else -1]:
            command = [sys.executable, "-W", "ignore", __file__, "--folder", str(folder)]
            command += ["--batches", str(arguments.batches), "--tokens", str(arguments.tokens)]
            command += ["--one", json.dumps({"memory": ways[way]})]
            forget_pages(folder)
            with memory_limit(limit) if way == "offloaded" else contextlib.nullcontext(([], "none")) as (prefix, kind):
                run = subprocess.run([*prefix, *command], env=environment, capture_output=True, text=True)
            how = kind if way == "offloaded" else how
            if run.returncode:
                sys.exit(f"{way} ended with {run.returncode} (-9: over the limit)\n{run.stderr[-2000:]}")
            results[way].append(json.loads(run.stdout.splitlines()[-1]))
    middle = {
        way: {key: sorted(run[key] for run in runs)[len(runs) // 2] for key in runs[0] if key != "values"}
        for way, runs in results.items()
    }
    values = [results[way][0]["values"] for way in ways]
    difference = max(abs(a - b) for a, b in zip(*values, strict=True))
    inside, outside = middle["in memory"], middle["offloaded"]
    ratios = {key: outside[key] / inside[key] for key in ("score", "cpu")}
    ratios["both"] = (outside["load"] + outside["score"]) / (inside["load"] + inside["score"])
    header = ["way", "load, s", "score, s", "score, CPU s", "anonymous memory, MiB", "weights on disk"]
    rows = [
        [
            way,
            *(f"{m[key]:.1f}" for key in ("load", "score", "cpu")),
            f"{m['anonymous'] / MIB:,.0f}",
            f"{m['on_disk']:.0%}",
        ]
        for way, m in middle.items()
    ]
    text = (
        f"Checkpoint {size / MIB:,.0f} MiB, limit {limit / MIB:,.0f} MiB ({how}), {arguments.batches} batches of 4 × "
        f"{arguments.tokens} tokens, {arguments.repeats} repeats.\n\n{markdown(header, rows)}\n\nOffloaded / in memory: "
        f"{ratios['both']:.2f} with loading, {ratios['score']:.2f} scoring alone, {ratios['cpu']:.2f} in CPU time "
        f"(target: at most 1.30). Largest difference between scores: "
        f"{difference:.1e}{' (equal bit by bit)' if not difference else ''}."
    )
    print(text)
    write_section("offload", f"{text}\n\n{machine()}")


if __name__ == "__main__":
    main()
