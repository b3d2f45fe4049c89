"""Speed is arithmetic on clock readings (a clock of ours, so nothing is timed); memory is bytes that can be counted."""

import gc
import math
import mmap
import time
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from architectures import tiny_model
from small import HIDDEN, LAYERS, build_tiny
from transformers import DynamicCache, StaticCache

from shortgpt import key_value_bytes, remove_heads, remove_layers, remove_sublayers, speed, speed_table
from shortgpt.evaluation import cost
from shortgpt.evaluation.cost import timed
from shortgpt.evaluation.memory import memory_peak

MB = 2**20


class Machine:
    """A clock that only `generate` moves, and what it was asked for; `slow` multiplies the time of everything."""

    def __init__(self, monkeypatch) -> None:
        self.now, self.calls, self.slow = 0.0, [], 1.0
        monkeypatch.setattr(cost, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def model(self, name: str, read: float = 2.0, write: float = 0.5, after=lambda machine, call: None):
        """A model whose prefill takes `read` seconds a row, and each further token `write`."""
        model = build_tiny()

        def generate(prompt, **options):
            tokens = options["max_new_tokens"]
            assert options["min_new_tokens"] == tokens and not model.training
            self.calls.append((name, len(prompt), tokens))
            self.now += self.slow * (read * len(prompt) + write * (tokens - 1))
            after(self, len(self.calls))

        model.generate = generate
        return model.train()


def test_ways_take_turns_and_every_other_round_goes_backwards(monkeypatch):
    machine, order = Machine(monkeypatch), []

    def way(name, seconds):
        def run():
            order.append(name)
            machine.now += seconds * len(order)  # ever slower

        return run

    bar = SimpleNamespace(update=lambda: order.append("|"))
    seconds = timed({"a": way("a", 1.0), "b": way("b", 2.0)}, repeats=3, warmup=2, bar=bar)
    assert "".join(order) == "abab" + "a|b|" + "b|a|" + "a|b|"
    assert seconds == {"a": [5.0, 11.0, 13.0], "b": [14.0, 18.0, 30.0]}
    with pytest.raises(ValueError, match="ways is empty"):
        timed({}, repeats=1)


@pytest.mark.parametrize("collects", [True, False])
def test_nobody_collects_garbage_while_the_clock_runs_and_it_is_left_as_it_was(collects):
    def way():
        states.append(gc.isenabled())
        if len(states) == 3:
            raise KeyError("stopped")

    before, states = gc.isenabled(), []
    (gc.enable if collects else gc.disable)()
    try:
        timed({"a": way}, repeats=2, warmup=0)
        assert states == [False, False] and gc.isenabled() is collects
        with pytest.raises(KeyError):
            timed({"a": way}, repeats=2, warmup=0)
        assert gc.isenabled() is collects
    finally:
        (gc.enable if before else gc.disable)()


def test_the_clock_waits_for_the_gpus_in_use_and_wakes_no_other(monkeypatch):
    events = []
    monkeypatch.setattr(cost, "time", SimpleNamespace(perf_counter=lambda: events.append("clock") or 0.0))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda gpu: [1, 0, 1][gpu])
    monkeypatch.setattr(torch.cuda, "synchronize", events.append)
    timed({"a": lambda: events.append("run")}, repeats=1, warmup=0)
    assert events == [0, 2, "clock", "run", 0, 2, "clock"]


def test_seconds_and_rates_are_those_of_the_clock(monkeypatch):
    machine = Machine(monkeypatch)
    table = speed(machine.model("a"), prompt_tokens=16, new_tokens=4, batch_size=2, repeats=3).set_index("phase")
    assert table["seconds"].to_dict() == {"prefill": 4.0, "decode": 0.5}
    assert table["tokens_per_second"].to_dict() == {"prefill": 2 * 16 / 4.0, "decode": 2 / 0.5}
    assert machine.calls == [("a", 2, tokens) for tokens in (5, 1, 5, 5, 1, 1, 5)]  # a warm-up, and forth, and back
    assert (table["batch_size"] == 2).all() and (table["repeats"] == 3).all()
    first = ["phase", "tokens_per_second", "slowest", "fastest", "batch_size", "repeats"]
    assert list(table.reset_index().columns)[:6] == first  # as ever


def test_medians_quartiles_and_extremes_are_over_the_rounds(monkeypatch):
    """The rounds take 1, 2, 3, 4 and 10 times as long; a round is a pair of runs after the warm-up."""
    pace = {call: factor for i, factor in enumerate([1, 2, 3, 4, 10]) for call in (2 + 2 * i, 3 + 2 * i)}
    machine = Machine(monkeypatch)

    def after(machine, call):
        machine.slow = pace.get(call + 1, 1)

    table = speed(machine.model("a", after=after), prompt_tokens=8, new_tokens=4).set_index("phase")
    for phase, seconds, tokens in (("prefill", 2.0, 8), ("decode", 0.5, 1)):
        row = table.loc[phase]
        assert row[["seconds_low", "seconds", "seconds_high"]].tolist() == [2 * seconds, 3 * seconds, 4 * seconds]
        assert row[["slowest", "fastest"]].tolist() == pytest.approx([tokens / seconds / 10, tokens / seconds])
        assert row["tokens_per_second"] == pytest.approx(tokens / seconds / 3)


def test_models_take_turns_and_every_other_round_goes_backwards(monkeypatch):
    machine = Machine(monkeypatch)
    models = {name: machine.model(name) for name in "ab"}
    speed_table(models, prompt_tokens=8, new_tokens=4, batch_sizes=(1, 3), repeats=3, memory=False, progress=False)
    forward = [("a", 1), ("b", 1), ("a", 3), ("b", 3)]
    assert machine.calls[:4] == [(*each, 5) for each in forward]  # the warm-up
    turn = [(*each, tokens) for each in forward for tokens in (1, 5)]
    assert machine.calls[4:] == [*turn, *turn[::-1], *turn]


def test_a_machine_that_slows_down_changes_no_comparison(monkeypatch):
    machine = Machine(monkeypatch)

    def slower_each_round(machine, call):
        if call > 4 and call % 4 == 0:  # two warm-ups and two for memory are four runs more
            machine.slow *= 3

    models = {
        "dense": machine.model("dense", after=slower_each_round),
        "pruned": machine.model("pruned", 1.0, 0.125, slower_each_round),
    }
    options = {"prompt_tokens": 8, "new_tokens": 2, "batch_sizes": [2], "repeats": 4, "warm_up": 2}
    table = speed_table(models, **options, memory=False, progress=False).set_index(["model", "phase"])
    assert table.loc["dense", "relative"].tolist() == [1, 1]
    assert table.loc["pruned", "relative"].tolist() == pytest.approx([2, 4])
    spread = table["seconds_high"] / table["seconds_low"]
    assert (spread > 3).all() and (table["batch_size"] == 2).all()


def test_relative_speed_compares_within_rounds(monkeypatch):
    """Speeds 4, 2, 1 and 12, 2, 2: three times, once, twice as fast, so twice. Both medians are 2: that would say once."""
    pace = [4, 4, 12, 12, 2, 2, 2, 2, 1, 1, 2, 2, 1]  # of each run; the second round goes backwards
    machine = Machine(monkeypatch)
    machine.slow = 1 / pace[0]

    def after(machine, call):
        machine.slow = 1 / pace[call]

    models = {name: machine.model(name, after=after) for name in ("dense", "pruned")}
    options = {"prompt_tokens": 8, "new_tokens": 2, "batch_sizes": [1], "repeats": 3, "warm_up": 0, "memory": False}
    table = speed_table(models, **options, progress=False).set_index(["model", "phase"])
    assert table.loc["pruned", "relative"].tolist() == pytest.approx([2, 2])


def test_the_table_has_a_row_per_model_batch_size_and_phase(monkeypatch):
    machine = Machine(monkeypatch)
    models = {"a": machine.model("a"), "b": machine.model("b", 1.0, 0.25)}
    table = speed_table(models, prompt_tokens=8, new_tokens=4, repeats=2, warm_up=3, progress=False)
    assert len(machine.calls) == 4 * (3 + 2 + 2 * 2)
    assert list(table.columns) == [
        "model", "batch_size", "phase", "seconds", "seconds_low", "seconds_high", "tokens_per_second", "slowest", "fastest",
        "relative", "peak_bytes", "repeats",
    ]  # fmt: skip
    rows = table.set_index(["model", "batch_size", "phase"])
    assert len(rows) == 8 and rows.index.is_unique
    assert rows["seconds"].to_dict() == {
        ("a", 1, "prefill"): 2.0, ("a", 8, "prefill"): 16.0, ("a", 1, "decode"): 0.5, ("a", 8, "decode"): 0.5,
        ("b", 1, "prefill"): 1.0, ("b", 8, "prefill"): 8.0, ("b", 1, "decode"): 0.25, ("b", 8, "decode"): 0.25,
    }  # fmt: skip
    assert rows.loc[("a", 8, "decode"), "tokens_per_second"] == 8 / 0.5
    assert (table.query("model == 'b'")["relative"] == 2).all()


def test_peaks_are_of_the_run_to_the_first_token_and_of_the_whole(monkeypatch):
    machine = Machine(monkeypatch)

    def allocate(machine, call):
        tokens = machine.calls[-1][2]
        use_and_return(40 if tokens == 1 else 80, hold=0.2)

    models = {"a": machine.model("a", after=allocate), "none": machine.model("none")}
    table = speed_table(models, prompt_tokens=4, new_tokens=3, batch_sizes=[1], repeats=1, progress=False)
    peaks = table.set_index(["model", "phase"])["peak_bytes"] / MB
    assert peaks["a"].tolist() == [pytest.approx(40, abs=3), pytest.approx(80, abs=3)]
    assert (peaks["none"] < 3).all()
    unseen = speed_table(models, new_tokens=3, batch_sizes=[1], repeats=1, memory=False, progress=False)
    assert unseen["peak_bytes"].isna().all()


def test_a_real_model_is_left_as_it_was():
    model = build_tiny("gpt2").train()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    table = speed_table({"a": model}, prompt_tokens=8, new_tokens=2, batch_sizes=[2], repeats=1, progress=False)
    assert (table["seconds"] > 0).all() and model.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


# ---- memory ----


def use(megabytes: int) -> np.ndarray:
    return np.ones(megabytes * MB, np.uint8)  # ones: pages that are only reserved are not resident


def use_and_return(megabytes: int, hold: float = 0) -> None:
    """Straight from the kernel and back: whether an allocator keeps what is freed depends on what the process did before."""
    with mmap.mmap(-1, megabytes * MB) as block:
        np.frombuffer(block, np.uint8)[:] = 1
        time.sleep(hold)


def test_a_block_that_comes_and_goes_is_the_peak():
    use_and_return(100)  # an earlier, higher peak is not ours
    with memory_peak() as peak:
        use_and_return(40)
        use_and_return(60, hold=0.2)
        assert peak == []
    assert peak[0] / MB == pytest.approx(60, abs=3)
    with memory_peak() as peak:
        pass
    assert 0 <= peak[0] < 3 * MB


def test_freed_pages_do_not_hide_a_peak():
    """After freeing a large block, glibc keeps freed blocks up to its size, and they stay resident."""
    use(31)
    use(20)
    with memory_peak() as peak:
        kept = use(20)
    del kept
    assert peak[0] / MB == pytest.approx(20, abs=3)


def test_on_gpus_the_peak_is_the_allocators_above_its_start(monkeypatch):
    statistics = {"allocated": [100, 50], "peak": [900, 900]}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda gpu: statistics["allocated"][gpu])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda gpu: statistics["peak"][gpu])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda gpu: statistics["peak"].__setitem__(gpu, 0))
    with memory_peak("cuda:1") as peak:
        assert statistics["peak"] == [0, 0]
        statistics["peak"] = [180, 60]
    assert peak == [90]


def test_where_nothing_can_be_seen_the_peak_is_nan():
    with memory_peak("mps") as peak:
        pass
    assert math.isnan(peak[0])


# ---- the key-value cache ----
ONE = 2 * 2 * 8 * 4  # key and value, two heads, of width 8, in float32: what a layer of the tiny Llama keeps of a token


def test_a_llama_keeps_a_key_and_a_value_per_head_and_layer():
    model = build_tiny()
    assert key_value_bytes(model, 20) == key_value_bytes(model, 100) == LAYERS * ONE
    assert key_value_bytes(build_tiny().bfloat16(), 20) == LAYERS * ONE / 2
    assert key_value_bytes(remove_layers(model, [1, 2]), 20) == (LAYERS - 2) * ONE
    assert key_value_bytes(remove_heads(model, 1), 20) == LAYERS * ONE / 2
    assert key_value_bytes(build_tiny("gpt2"), 20) == LAYERS * 2 * HIDDEN * 4


def test_a_layer_without_attention_keeps_a_place_of_one_number():
    """transformers counts the cached tokens in some layer, so the stand-in stores one number each for key and value."""
    model = build_tiny()
    assert key_value_bytes(remove_sublayers(model, attention=[0, 3]), 20) == (LAYERS - 2) * ONE + 2 * 2 * 4
    assert key_value_bytes(remove_sublayers(model, ffn=[0, 3]), 20) == LAYERS * ONE


def test_a_sliding_window_keeps_its_own_tokens_only():
    model = build_tiny("gemma3_text")
    model.config.sliding_window = 8
    kinds = model.config.layer_types
    sliding, full = kinds.count("sliding_attention"), kinds.count("full_attention")
    assert sliding == 5 and full == 1
    for tokens in (5, 8, 40):
        assert key_value_bytes(model, tokens) == pytest.approx(ONE * (sliding * min(8, tokens) / tokens + full))


def test_a_static_cache_takes_all_its_room_at_once():
    model = build_tiny()
    assert key_value_bytes(model, 20, cache=StaticCache(model.config, max_cache_len=64)) == LAYERS * ONE * 64 / 20
    assert key_value_bytes(model, 20, cache=DynamicCache(config=model.config)) == LAYERS * ONE


def test_only_the_attention_layers_of_a_hybrid_keep_keys():
    model = tiny_model("qwen3_next")
    config = model.config
    full = config.layer_types.count("full_attention")
    assert 0 < full < len(config.layer_types)
    expected = full * 2 * config.num_key_value_heads * config.head_dim * 4
    assert key_value_bytes(model, 20) == key_value_bytes(model, 50) == expected


def test_a_used_cache_is_refused():
    model, cache = build_tiny(), DynamicCache()
    key_value_bytes(model, 20, cache=cache)
    with pytest.raises(ValueError, match="the cache must be empty, but it holds 20 tokens: make a new one"):
        key_value_bytes(model, 20, cache=cache)


@pytest.mark.parametrize("family", ["mamba", "rwkv", "xlstm"])
def test_a_model_without_keys_says_so(family):
    with pytest.raises(ValueError, match="keeps no key-value cache: its memory of a text has a fixed size"):
        key_value_bytes(tiny_model(family), 20)


def test_garbage_is_collected_between_rounds_and_never_at_the_clock():
    class Thing:
        pass

    left, seen = [], []

    def way() -> None:
        seen.append((gc.isenabled(), [one() is None for one in left]))
        thing = Thing()
        thing.itself = thing  # a circle: only the collector finds it
        left.append(weakref.ref(thing))

    timed({"a": way}, repeats=3, warmup=0)
    assert seen == [(False, []), (False, [True]), (False, [True, True])] and gc.isenabled()
