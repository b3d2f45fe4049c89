"""The command does what the functions do, prints JSON that parses, and fails in one sentence with the right code."""

import json

import pytest
from conftest import build_tiny
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from shortgpt.cli import app

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def folder(tmp_path, tokenizer):
    build_tiny().save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "text.txt").write_text("the tide came in over the flats and the boats rose with it. " * 40)
    return tmp_path


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_info_and_score_give_json(folder):
    info = run("info", folder / "model", "--json")
    assert info.exit_code == 0, info.output
    assert json.loads(info.stdout)["layers"] == 6
    scored = run("score", folder / "model", "--text", folder / "text.txt", "--json", "--device", "cpu")
    rows = json.loads(scored.stdout)
    assert [r["layer"] for r in rows] == list(range(6)) and all(0 <= r["score"] <= 2 for r in rows)
    assert "score" in run("score", folder / "model", "--text", folder / "text.txt").stdout


def test_prune_saves_a_checkpoint_and_its_plan_prunes_again(folder):
    out = run("prune", folder / "small", "--model", folder / "model", "-n", 2, "--text", folder / "text.txt", "--json")
    assert out.exit_code == 0, out.output
    removed = json.loads(out.stdout)["removed"]
    assert AutoModelForCausalLM.from_pretrained(folder / "small").config.num_hidden_layers == 4
    again = run(
        "prune", folder / "again", "--model", folder / "model", "--plan", folder / "small" / "pruning_plan.json"
    )
    assert again.exit_code == 0 and ", ".join(map(str, removed)) in again.stdout
    assert json.loads(run("info", folder / "small", "--json").stdout)["removed_layers"] == sorted(removed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prune", "OUT", "--model", "MODEL"], "either -n NUMBER or --plan FILE"),
        (["prune", "OUT", "--model", "MODEL", "-n", "9", "--text", "TEXT"], "n must be 0 to 5"),
        (["prune", "MODEL", "--model", "MODEL", "-n", "1", "--text", "TEXT"], "is not empty"),
        (["prune", "OUT", "--model", "MODEL", "--plan", "nothing.json"], "no such plan"),
        (["score", "MODEL", "--metric", "cosine"], "unknown metric"),
        (["score", "MODEL", "--text", "nothing.txt"], "no such calibration file"),
        (["info", "./nothing"], "no such folder"),
        (["eval", "MODEL", "--tasks", "nonsense"], "unknown task nonsense"),
    ],
)
def test_failures_are_one_sentence_and_exit_code_1(folder, arguments, message):
    places = {"MODEL": folder / "model", "TEXT": folder / "text.txt", "OUT": folder / "out"}
    result = run(*(places.get(a, a) for a in arguments))
    assert result.exit_code == 1 and message in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("shortgpt: ") and "Traceback" not in result.output
    assert not (folder / "out").exists()


def test_a_wrong_command_line_exits_2_and_help_teaches():
    assert run("prune").exit_code == 2
    help_text = run("prune", "--help").stdout
    assert "Example: shortgpt prune" in help_text and "calibration" in help_text.lower()
    assert run("--version").stdout.strip()
