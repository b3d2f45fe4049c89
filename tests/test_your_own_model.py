"""docs/your-own-model.md: its commands are those of the command, and its table is computed."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from shortgpt.cli import app
from shortgpt.cli.config_file import options_from
from shortgpt.repair.equations import fit_bytes
from shortgpt.utils.data import data_folder

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "your-own-model.md").read_text(encoding="utf-8")
CALIBRATION, TERAFLOPS = 15_000, 50  # tokens of the built-in text; expected of a card
COMMANDS = {"score", "prune", "heal", "quantize", "eval", "generate", "export", "info"}


def commands(page: str) -> list[list[str]]:
    """The words of each `shortgpt` line, in blocks and between backticks; $(…) is left to the shell."""
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", page, re.DOTALL)).replace("\\\n", " ")
    lines = [line.partition("  #")[0] for line in blocks.splitlines() if line.startswith("shortgpt ")]
    lines += re.findall(r"`(shortgpt \w+ [^`]*)`", page)
    return [shlex.split(line.partition(" # ")[0])[1:] for line in lines if "…" not in line and "COMMAND" not in line]


def parsed(words: list[str]) -> str:
    """The command that a command line names; every option in it is known, and every value is one."""
    _, bound, _ = app.meta.parse_args(words, exit_on_error=False, print_error=False)
    with options_from(bound.arguments.get("config"), app):
        app.parse_args(bound.arguments["words"], exit_on_error=False, print_error=False)
    return words[0]


@pytest.mark.parametrize("name", ["your-own-model.md", "exchange.md", "toolkit.md"])
def test_every_command_of_the_page_is_one(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (DOCS / name).read_text(encoding="utf-8")
    for block in re.findall(r"```toml\n(.*?)```", page, re.DOTALL):
        Path("run.toml").write_text(block)
    seen = {parsed(words) for words in commands(page)}
    assert "prune" in seen and (name != "your-own-model.md" or seen == COMMANDS)


def test_a_command_that_is_none_would_be_noticed():
    assert commands("```bash\nshortgpt prune ./x -m y  # a\n```\n`shortgpt info z`") == [
        ["prune", "./x", "-m", "y"],
        ["info", "z"],
    ]
    with pytest.raises(Exception, match="Unknown option: -m"):
        parsed(["prune", "./x", "-m", "y"])


def models() -> dict[str, tuple[int, int]]:
    """Parameters of the dense models and of those with a fifth fewer layers: from the file, the 70B from its shape."""
    import pandas as pd

    table = pd.read_csv(data_folder() / "models.csv", index_col="model")
    names = ["meta-llama/Llama-2-7b-hf", "Qwen/Qwen2.5-7B", "meta-llama/Llama-3.1-8B"]
    found = {name: tuple(table.loc[name, ["parameters", "parameters_left"]]) for name in names}
    sizes = {"hidden_size": 8192, "intermediate_size": 28672, "num_attention_heads": 64, "num_key_value_heads": 8}
    with torch.device("meta"):
        both = [
            LlamaForCausalLM(LlamaConfig(vocab_size=128256, num_hidden_layers=layers, **sizes)) for layers in (80, 64)
        ]
    return found | {"Llama-3.1-70B": tuple(sum(p.numel() for p in model.parameters()) for model in both)}


def row(name: str, dense: int, left: int) -> str:
    """The row of a model, computed."""
    two, train = 2 * dense / 1e9, 20 * left / 1e9
    small = 2 * left / 1e9
    score = 2 * dense * CALIBRATION / (TERAFLOPS * 1e12)
    heal = (2 * dense + 6 * left) * 1e6 / (TERAFLOPS * 1e12) / 60
    cells = [f"{two:.0f}", f"{small:.0f}", f"{two + small:.0f}", f"{two + small + train:,.0f}"]
    return f"| {name} | {' | '.join(cells)} | {score:.0f} s | {heal:.0f} min |"


def test_the_table_is_computed():
    table = PAGE.partition("<!-- needs -->")[2].partition("<!-- end of needs -->")[0]
    expected = [row(name.partition("/")[2] or name, *counts) for name, counts in models().items()]
    assert table.strip().splitlines()[2:] == expected, "\n".join(expected)
    assert "expected, not measured" in PAGE


def test_what_a_repair_needs_is_computed():
    sizes = {"7B": fit_bytes(11008, 4096), "8B": fit_bytes(14336, 4096)}
    assert ", ".join(f"{size / 1e9:.1f} GB for a{'n' * (name == '8B')} {name}" for name, size in sizes.items()) in PAGE


def test_the_page_is_short_and_linked():
    words = re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL).split()
    assert 700 < len(words) <= 1500
    for page in ("README.md", "docs/toolkit.md", "book/_toc.yml", "myst.yml"):
        assert "your-own-model" in (DOCS.parent / page).read_text(encoding="utf-8"), page
