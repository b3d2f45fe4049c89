"""benchmarks/gpu.py on the CPU: everything but the card."""

import importlib.util
import time
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 96,
}


@pytest.fixture(scope="module")
def gpu():
    spec = importlib.util.spec_from_file_location("gpu_script", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_the_same_numbers_pass_and_other_numbers_do_not(gpu, monkeypatch):
    checks = list(gpu.same("cpu", torch.bfloat16, layers=6))
    assert [check.name for check in checks] == [f"{name}, bfloat16" for name in gpu.WAYS]
    assert all(check.passed for check in checks), checks
    real = gpu.shortgpt.remove_layers
    monkeypatch.setattr(
        gpu.shortgpt, "remove_layers", lambda m, gone: real(m, gone if m.dtype == torch.float32 else [1, 3])
    )

    def broken(*args, **options):
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(gpu.shortgpt, "merge_layers", broken)
    wrong = {
        check.name.partition(",")[0]: check for check in gpu.same("cpu", torch.bfloat16, layers=6) if not check.passed
    }
    assert {"remove_layers", "save and load", "merge_layers"} == {*wrong}
    assert "no kernel image" in wrong["merge_layers"].value
    assert not gpu.compared("x", torch.tensor([float("nan")]), torch.ones(1), 1).passed


def test_kernels_pass_memory_and_speed_give_their_lines(gpu):
    pytest.importorskip("torchao")
    pytest.importorskip("bitsandbytes")
    assert [check.name for check in gpu.kernels("cpu", layers=2) if check.passed] == ["int8", "nf4"]
    model = gpu.random_model("cpu", torch.float32, 8, **SIZES)
    assert model.dtype == torch.float32 and torch.get_default_dtype() == torch.float32
    ratio = gpu.bi_pass(model, rows=1, tokens=16, repeats=3)
    assert 0.1 < float(ratio.value) < 100 and ratio.passed == (float(ratio.value) <= 1.02)
    names = [check.name for check in [*gpu.memory(model), *gpu.speeds(model, prompt=8, new=2, repeats=1)]]
    assert names[0] == "weights, GB" and sum("tokens/s" in name for name in names) == 4 and len(names) == 9


def test_all_checks_are_those_and_on_the_big_model(gpu, monkeypatch):
    for name in ("same", "kernels", "memory", "speeds"):
        monkeypatch.setattr(gpu, name, lambda *args, name=name: [gpu.Check(name, str(args[-1]))])
    monkeypatch.setattr(gpu, "bi_pass", lambda model: gpu.Check("pass", str(model.config.hidden_size)))
    checks = list(gpu.all_checks("cpu", 2, **SIZES))
    assert [check.name for check in checks] == ["same", "same", "kernels", "pass", "memory", "speeds"]
    assert [check.value for check in checks[:2]] == ["torch.bfloat16", "torch.float16"] and checks[3].value == "64"


def test_no_check_begins_after_the_time_is_over(gpu):
    def slow():
        for number in range(3):
            time.sleep(0.02)
            yield gpu.Check(str(number), "1")

    assert [check.name for check in gpu.within(slow(), 10)] == ["0", "1", "2"]
    short = list(gpu.within(slow(), 0.03))
    assert [check.name for check in short] == ["0", "1", "what follows"] and not short[-1].passed


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_without_a_card_it_says_so_in_one_sentence(gpu, capsys):
    assert gpu.main([]) == 1
    assert capsys.readouterr().err == "There is no card that torch can use here, so nothing was checked.\n"
