"""Time and memory of scoring layers, side by side in one run: ours, a plain forward, and the usual loop.

    python benchmarks/bi_pass.py [--batches 4] [--repeats 3]

Three ways through the same batches of 4 x 512 tokens of the default model, each in a fresh process per repeat, in
alternating order so that a busy machine treats them alike:

  backbone       the model without its head, nothing captured: the least that any score can cost
  forward        an ordinary forward pass of the whole model, with logits
  score_layers   ours: backbone, hooks, one number per layer and sample
  hidden_states  the usual loop over ``output_hidden_states=True``, cosine between neighbouring entries

Prints medians, ratios to `forward`, and the peak memory above the loaded model. Ratios carry over to other machines,
seconds don't.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time

WAYS = ("backbone", "forward", "score_layers", "hidden_states")


def measure(way: str, count: int) -> dict[str, float]:
    """Run one way in this process; seconds and peak memory (bytes above the loaded model)."""
    import psutil
    import torch

    from shortgpt import calibration_batches, load, score_layers

    model, tokenizer = load(device="cpu")
    batches = calibration_batches(tokenizer, samples=4 * count)
    process, peak, done = psutil.Process(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], process.memory_info().rss)

    def usual_loop() -> list[float]:
        sums = torch.zeros(model.config.num_hidden_layers, dtype=torch.float64)
        for batch in batches:
            states = model(**batch, output_hidden_states=True).hidden_states
            for i in range(len(sums)):
                sums[i] += (1 - torch.cosine_similarity(states[i], states[i + 1], dim=-1)).double().mean() / len(
                    batches
                )
        return sums.tolist()

    ways = {
        "backbone": lambda: [model.model(**b, use_cache=False) and None for b in batches],
        "forward": lambda: [model(**b, use_cache=False) and None for b in batches],
        "score_layers": lambda: score_layers(model, batches, progress=False),
        "hidden_states": usual_loop,
    }
    with torch.inference_mode():
        model.model(**{k: v[:1, :64] for k, v in batches[0].items()})  # warm-up
        before = process.memory_info().rss
        watcher = threading.Thread(target=watch)
        watcher.start()
        start = time.perf_counter()
        ways[way]()
        seconds = time.perf_counter() - start
        done.set()
        watcher.join()
    return {"seconds": seconds, "bytes": max(peak[0] - before, 0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=4, help="batches of 4 x 512 tokens (default 4)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one, arguments.batches)))
        return
    from statistics import median

    results: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for repeat in range(arguments.repeats):
        for way in WAYS if repeat % 2 == 0 else reversed(WAYS):
            command = [sys.executable, "-W", "ignore", __file__, "--one", way, "--batches", str(arguments.batches)]
            run = subprocess.run(command, check=True, capture_output=True, text=True)
            results[way].append(json.loads(run.stdout.splitlines()[-1]))
    base = median(r["seconds"] for r in results["forward"])
    print(f"{'way':15}{'seconds':>9}{'x forward':>11}{'MiB above the model':>21}")
    for way in WAYS:
        seconds, memory = (median(r[key] for r in results[way]) for key in ("seconds", "bytes"))
        print(f"{way:15}{seconds:9.1f}{seconds / base:11.2f}{memory / 2**20:21.0f}")


if __name__ == "__main__":
    main()
