"""A plan is read aloud in a moment: no torch, no transformers, no pandas."""

import json
import subprocess
import sys

from shortgpt import PruningPlan
from shortgpt.pruning.plan_words import plan_beside, plan_in_words

PLAN = PruningPlan(
    layers=6,
    removed=(1, 2),
    criterion="block_influence",
    scores={0: 0.5, 1: 0.1, 2: 0.2, 3: 0.3},
    calibration={"tokens": 2048, "samples": 4, "sha256": "ab"},
    model="owner/name",
    versions={"torch": "2.0"},
)
WORDS = """\
Removes 2 of 6 layers of owner/name: 1, 2. 4 stay.
Chosen by block influence, over 2,048 tokens in 4 samples.
The last one chosen, layer 2, scores 0.20000; the next would have been layer 3 with 0.30000.
Written with torch 2.0."""


def test_a_plan_in_words():
    assert plan_in_words(PLAN) == WORDS
    assert plan_in_words(PruningPlan(layers=3, removed=(), versions={})) == (
        "Removes 0 of 3 layers: none. 3 stay.\nChosen by hand."
    )


def test_the_plan_beside_a_model(tmp_path):
    assert plan_beside(tmp_path) is None and plan_beside("owner/name") is None
    PLAN.to_json(tmp_path / "pruning_plan.json")
    assert plan_beside(tmp_path) == PLAN


def test_info_about_a_plan_needs_no_torch(tmp_path):
    PLAN.to_json(tmp_path / "plan.json")
    code = (
        "import json, sys; from shortgpt.cli.info import tell; "
        "print(json.dumps([tell(sys.argv[1]).text, sorted({'torch', 'transformers', 'pandas'} & set(sys.modules))]))"
    )
    run = [sys.executable, "-c", code, str(tmp_path / "plan.json")]
    out = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert json.loads(out) == [WORDS, []]
