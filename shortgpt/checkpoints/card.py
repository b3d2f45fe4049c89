"""The model card (README.md) of a pruned checkpoint: what was removed, why, and what is not known about the result."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from shortgpt.pruning.plan import PruningPlan
from shortgpt.utils.untrusted import inside, one_line

CARD_FILE = "README.md"
MARK = "<!-- written by shortgpt -->"
_LOAD = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "path/to/this/folder"  # or its id on the Hub
model = AutoModelForCausalLM.from_pretrained(folder)
tokenizer = AutoTokenizer.from_pretrained(folder)"""
_LOAD_OWN_FORMAT = """\
from shortgpt import load  # pip install shortgpt-pruning: transformers has no configuration for this model

model, tokenizer = load("path/to/this/folder")"""
NEIGHBOURS = 2  # rows of kept layers in the table of scores: those that would have been next

_TEXT = """\
---
{front}
---
{mark}

# {name} without {count}

{what}

| | |
|---|---|
| base model | {name} |
| removed | {removed} |
| kept | {kept} of {layers} layers |
| criterion | {criterion} |
| calibration text | {calibration} |
| written with | {versions} |

Layers are numbered as in the dense model, from 0. The whole decision is in `pruning_plan.json`.
{scores}
## Load it

```python
{load}
```

## What to expect

Removing layers makes a model smaller and faster, and worse. How much worse has not been measured here: it depends on the
model and on what it is used for. Compare it with the dense model before relying on it, text generation included, for
instance with `shortgpt eval <dense model> <this folder>`.

## How to heal it

A short fine-tuning on text like that of the dense model's training, full or with LoRA adapters (`peft`), brings back
part of what was lost. Keep the dense model's result beside it, and a text that was not trained on to measure both.
"""


def model_card(
    plan: PruningPlan,
    *,
    inherited: Sequence[str] = (),
    repairs: Sequence[Mapping[str, Any]] = (),
    own_format: bool = False,
) -> str:
    """The card as Markdown with the Hub's front matter.

    Args:
        inherited: further lines of front matter, for instance the licence of the dense model (`licence_lines`).
        repairs: what the configuration records, if the model was repaired (`repairs_so_far`).
        own_format: whether only our own loader reads the checkpoint (see `saving`).
    """
    name = plan.model or "a model"
    hub_id, _, commit = plan.model.partition("@")
    is_on_hub = re.fullmatch(r"\w[\w.-]*/[\w.-]+", hub_id) is not None and not Path(hub_id).exists()
    if not is_on_hub and re.search(r"[/\\]", name):  # a folder: the rest of its path is nobody's business
        name = re.split(r"[/\\]", name.rstrip("/\\"))[-1]
    front = [f"base_model: {hub_id}"] if is_on_hub else []
    front += ["library_name: transformers", "pipeline_tag: text-generation", *inherited]
    front += ["tags:", "- shortgpt", "- pruned", "- depth-pruning"]
    removed = sorted(plan.removed)
    count = f"{len(removed)} of its {plan.layers} layers"
    calibration = plan.calibration
    return _TEXT.format(
        front="\n".join(front),
        mark=MARK,
        name=plain(name.partition("@")[0]),
        count=count,
        what=f"Depth pruning took {count} out of {plain(name.partition('@')[0])}"
        f"{f' (commit {plain(commit)})' if commit else ''}; "
        f"{_others(repairs)}.",
        load=_LOAD_OWN_FORMAT if own_format else _LOAD,
        removed=", ".join(map(str, removed)) or "none",
        kept=len(plan.kept),
        layers=plan.layers,
        criterion=plain(plan.criterion.replace("_", " ")),
        calibration=f"{calibration['tokens']:,} tokens, {calibration['samples']} samples, SHA-256 "
        f"`{re.sub('[^0-9a-f]', '', str(calibration['sha256']))}`"
        if {"tokens", "samples", "sha256"} <= calibration.keys()
        else "none",
        versions=plain(", ".join(f"{package} {version}" for package, version in plan.versions.items())),
        scores=_score_table(plan),
    )


def write_card(src: Path, new: Path, plan: PruningPlan, repairs: Sequence[Mapping[str, Any]] = ()) -> None:
    """The card of the checkpoint `new` that was made of `src`: README.md, because the Hub reads its front matter.

    The card of `src` speaks of another model, and stays beside it.
    """
    card = inside(src, CARD_FILE)
    old = ""
    if card.is_file():
        with card.open(encoding="utf-8", errors="replace") as file:
            old = file.read(1 << 20)
    (new / CARD_FILE).write_text(model_card(plan, inherited=licence_lines(old), repairs=repairs), encoding="utf-8")
    if old and MARK not in old:
        free = (f"README.original{suffix}.md" for suffix in ("", *range(2, 100)))
        shutil.copyfile(card, new / next(name for name in free if not (new / name).exists()))


def _others(repairs: Sequence[Mapping[str, Any]]) -> str:
    """What became of the weights that stayed."""
    return "; then ".join(map(_in_words, repairs)) or "the other weights are unchanged"


def _in_words(repair: Mapping[str, Any]) -> str:
    places = f"layer{'s' * (len(repair['layers']) > 1)} {', '.join(map(str, repair['layers']))}"
    what = {
        "fold": f"the output projection of the FFN was fitted again in {places}",
        "fold_both": f"the output projections of attention and FFN were fitted again in {places}",
        "linear": f"a linear module was added behind {places}",
        "merge": f"the weights of the removed layers were merged into {places} (shortgpt.merge_layers, after LaCo)",
        "distill": f"what stayed was trained on {repair.get('tokens', 0):,} tokens to answer as the dense model does "
        f"(shortgpt.distill, {plain(repair.get('sites', ''))})",
    }[repair["kind"]]
    if repair["kind"] in ("merge", "distill"):
        return what
    return f"{what}, in closed form on {repair['samples']} samples of text (shortgpt.heal)"


def licence_lines(card: str) -> list[str]:
    """The lines of a card's front matter that state its licence: the result of pruning stays under it."""
    front = re.match(r"---\n(.*?)\n---", card, flags=re.DOTALL)
    found = re.findall(r"^(license(?:_name|_link)?): *(\S.*)$", front[1], flags=re.MULTILINE) if front else []
    values = [(key, one_line(value).strip(chr(34) + chr(39))) for key, value in found]
    return [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values]


def plain(text: str) -> str:
    """`text` in one line of Markdown, also in a table, as it is: nothing in it is a tag, a link, an image or a formula."""
    return re.sub(r"([\\`*\[\]|~$!])", r"\\\1", escape(one_line(text), quote=False))


def _score_table(plan: PruningPlan) -> str:
    """Scores of the removed layers and of those that would have been next, lowest first."""
    if not plan.scores:
        return ""
    ranked = sorted(plan.scores, key=plan.scores.__getitem__)
    shown = [i for i in ranked if i in plan.removed] + [i for i in ranked if i not in plan.removed][:NEIGHBOURS]
    rows = [f"| {i} | {plan.scores[i]:.5f} | {'removed' if i in plan.removed else 'kept'} |" for i in shown]
    return "\n".join(["", f"| layer | {plain(plan.criterion.replace('_', ' '))} | |", "|---|---|---|", *rows, ""])
