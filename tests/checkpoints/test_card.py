"""The model card says what was done, and nothing that was not measured."""

import re

import pytest
import yaml
from small import build_tiny

from shortgpt import PruningPlan, choose_layers, prune_checkpoint, remove_layers, save, score_layers
from shortgpt.checkpoints.card import MARK, licence_lines, model_card


def front_matter(card):
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", card, flags=re.DOTALL)[1])


def test_the_card_states_the_plan_and_nothing_that_was_not_measured(tiny, batch, tmp_path):
    tiny.config._name_or_path, tiny.config._commit_hash = "owner/tiny", "abc123"
    plan = choose_layers(score_layers(tiny, [batch], progress=False), 2)
    folder = save(remove_layers(tiny, plan), tmp_path / "model", plan=plan)
    card = (folder / "README.md").read_text()
    assert front_matter(card) == {
        "base_model": "owner/tiny",
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["shortgpt", "pruned", "depth-pruning"],
    }
    rows = re.findall(r"^\| (\d+) \| ([\d.]+) \| (removed|kept) \|$", card, flags=re.MULTILINE)
    ranked = sorted(plan.scores, key=plan.scores.get)
    assert [int(i) for i, _, _ in rows] == ranked[:4] and [what for *_, what in rows] == ["removed"] * 2 + ["kept"] * 2
    assert all(abs(float(score) - plan.scores[int(i)]) < 1e-5 for i, score, _ in rows)
    assert "commit abc123" in card and plan.calibration["sha256"] in card and "block influence" in card
    assert "has not been measured" in card and "from_pretrained(folder)" in card
    assert not (save(tiny, tmp_path / "no plan") / "README.md").exists()


@pytest.mark.parametrize(
    "model", ["", "/home/me/secret/llama", "./llama", "C:\\secret\\llama", "smollm2-135m-instruct"]
)
def test_a_card_names_no_hub_model_where_there_is_none_and_no_private_path(model):
    card = model_card(PruningPlan(layers=6, removed=(2,), model=model))
    assert "base_model" not in front_matter(card) and "secret" not in card
    assert card.count("by hand") == 1 and "| layer |" not in card


def test_the_cards_of_earlier_steps_are_kept_beside_ours(tmp_path):
    build_tiny().save_pretrained(tmp_path / "dense")
    theirs = "---\nlicense: other\nlicense_name: 'my licence'\nlicense_link: LICENSE\nlanguage: en\n---\n# Dense\n"
    (tmp_path / "dense" / "README.md").write_text(theirs)
    once = prune_checkpoint(tmp_path / "dense", tmp_path / "once", [1], progress=False)
    again = prune_checkpoint(once, tmp_path / "again", [1], progress=False)
    for folder in (once, again):
        assert (folder / "README.original.md").read_text() == theirs
        card = (folder / "README.md").read_text()
        assert MARK in card and len(list(folder.glob("*.md"))) == 2
        matter = front_matter(card)
        assert (matter["license"], matter["license_name"], matter["license_link"]) == ("other", "my licence", "LICENSE")
        assert "language" not in matter
    assert "2 of its 6 layers" in (again / "README.md").read_text()
    (once / "README.md").write_text("notes of mine")
    third = prune_checkpoint(once, tmp_path / "third", [0], progress=False)
    assert (third / "README.original.md").read_text() == theirs
    assert (third / "README.original2.md").read_text() == "notes of mine"


def test_only_the_front_matter_states_a_licence():
    assert licence_lines("# Title\nlicense: mit\n") == []
    assert licence_lines("---\ntags:\n- a\n---\nlicense: mit\n") == []
    assert licence_lines('---\nlicense: "mit"\n---\n') == ['license: "mit"']
