"""Time and memory of `prune_checkpoint` on a 7B-shaped checkpoint, beside plain copying of as many bytes.

    python benchmarks/checkpoint.py                          # 13.5 GB in bfloat16; needs 35 GB of disk
    python benchmarks/checkpoint.py --layers 8 --hidden 512  # small

The checkpoint has the shapes of Llama-2 7B and random bytes. Both ways read the same files and are timed until the data
is on the disk (`sync`), in alternating order. The page cache is not dropped: on a machine with much memory reading is
cheap for both.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from transformers import LlamaConfig

from shortgpt import prune_checkpoint

GB = 1e9
CHUNK = 1 << 24
SHARD_BYTES = 5_000_000_000


def shapes(config: LlamaConfig) -> dict[str, list[int]]:
    hidden, wide, vocabulary = config.hidden_size, config.intermediate_size, config.vocab_size
    layer = {f"self_attn.{name}_proj": [hidden, hidden] for name in "qkvo"}
    layer |= {"mlp.gate_proj": [wide, hidden], "mlp.up_proj": [wide, hidden], "mlp.down_proj": [hidden, wide]}
    layer |= {"input_layernorm": [hidden], "post_attention_layernorm": [hidden]}
    found = {"model.embed_tokens.weight": [vocabulary, hidden]}
    for i in range(config.num_hidden_layers):
        found |= {f"model.layers.{i}.{name}.weight": shape for name, shape in layer.items()}
    return found | {"model.norm.weight": [hidden], "lm_head.weight": [vocabulary, hidden]}


def write_random_checkpoint(config: LlamaConfig, folder: Path) -> int:
    """Write shards of at most `SHARD_BYTES` with random bytes; return the number of bytes of all tensors."""
    config.architectures, config.dtype = ["LlamaForCausalLM"], "bfloat16"
    config.save_pretrained(folder)
    shards: list[dict[str, list[int]]] = [{}]
    size = 0
    for name, shape in shapes(config).items():
        count = shape_bytes(shape)
        if size + count > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = shape
        size += count
    noise, total, weight_map = os.urandom(CHUNK), 0, {}
    for number, shard in enumerate(shards, start=1):
        header, end = {}, 0
        for name, shape in shard.items():
            count = shape_bytes(shape)
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + count]}
            end += count
        text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
        text += b" " * (-len(text) % 8)
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        with (folder / file).open("wb") as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            for start in range(0, end, CHUNK):
                stream.write(noise[: min(CHUNK, end - start)])
        weight_map |= dict.fromkeys(shard, file)
        total += end
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return total


def copy_bytes(source: Path, target: Path, count: int) -> None:
    """Copy the first `count` bytes of the weight files: whole files the way `shutil` does, the last one in part."""
    target.mkdir()
    for file in sorted(source.glob("*.safetensors")):
        size = file.stat().st_size
        if size <= count:
            shutil.copyfile(file, target / file.name)
        else:
            with file.open("rb", buffering=0) as reader, (target / file.name).open("wb", buffering=0) as writer:
                left = count
                while left:
                    left -= writer.write(reader.read(min(CHUNK, left)))
        count -= min(size, count)


def timed(action) -> float:
    os.sync()
    start = time.perf_counter()
    action()
    os.sync()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=2, help="each is a pruning and a copy; the order alternates")
    parser.add_argument("--folder", type=Path, help="where to work; default: the system's temporary folder")
    arguments = parser.parse_args()
    config = LlamaConfig(
        num_hidden_layers=arguments.layers,
        hidden_size=arguments.hidden,
        intermediate_size=arguments.hidden * 43 // 16,  # 11008 for 4096
        num_attention_heads=max(1, arguments.hidden // 128),
    )
    removed = list(range(arguments.layers // 2, arguments.layers * 3 // 4))  # a quarter of the layers
    with tempfile.TemporaryDirectory(prefix="shortgpt-benchmark-", dir=arguments.folder) as folder:
        source, pruned, copied = (Path(folder) / name for name in ("dense", "pruned", "copied"))
        total = write_random_checkpoint(config, source)
        times: dict[str, list[float]] = {"prune": [], "copy": []}
        kept = sum(shape_bytes(shape) for name, shape in shapes(config).items() if layer_of(name) not in removed)
        before = peak_mb()

        def prune() -> None:
            prune_checkpoint(source, pruned, removed, progress=False)

        for round_ in range(arguments.rounds):
            order = ["prune", "copy"] if round_ % 2 == 0 else ["copy", "prune"]
            for way in order:
                times[way].append(timed(prune if way == "prune" else lambda: copy_bytes(source, copied, kept)))
                shutil.rmtree(pruned if way == "prune" else copied)
        print(
            f"checkpoint {total / GB:.2f} GB, {arguments.layers} layers; {len(removed)} removed, {kept / GB:.2f} GB kept"
        )
        for way, seconds in times.items():
            each = ", ".join(f"{s:.1f}" for s in seconds)
            print(f"{way:6} {each} s; median {statistics.median(seconds):.1f} s")
        print(f"ratio  {statistics.median(times['prune']) / statistics.median(times['copy']):.2f}")
        print(f"peak memory of the process {peak_mb():.0f} MB ({before:.0f} MB of it before pruning: Python, torch)")


def layer_of(name: str) -> int:
    parts = name.split(".")
    return int(parts[2]) if parts[1] == "layers" else -1


def shape_bytes(shape: list[int]) -> int:
    return 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)


def peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3  # bytes there, kilobytes here


if __name__ == "__main__":
    main()
