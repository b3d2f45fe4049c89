"""Variants of the exercise notebooks: other layers, texts and numbers in the cells that use a learner's function.

The tasks, the functions and their checks stay as they are, so that one solution passes in every variant. What the cells
below the checks *print* belongs to the seed: ask for it in the hand-in, and a copied notebook shows.

    python notebooks/build.py --variant 7                     to hand out: into output/variant_7/
    python notebooks/build.py --variant 7 --classroom DIR     the same with solutions, as an nbgrader course

`FREE` lists, by the name of an exercise's function, what is drawn: the texts in the lesson, and what may replace them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations
from random import Random

from exercise_notebooks import Cell, ExerciseError, graded_cell

CAPITALS = [("Italy", "Rome", "rome"), ("Spain", "Madrid", "madrid"), ("Germany", "Berlin", "berlin")]
CAPITALS += [("Japan", "Tokyo", "tokyo"), ("Russia", "Moscow", "moscow"), ("Egypt", "Cairo", "cairo")]
COUNTED = {3: "three", 4: "four", 5: "five", 7: "seven", 8: "eight"}
GENRES = ["dialogue", "encyclopedic", "news", "science", "story"]


def one(old: str, values: Sequence[object]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """A single value that is drawn: ``old`` with the lesson's value in brackets, as in ``"layers, {6})"``."""
    before, lesson, after = re.fullmatch(r"(.*)\{(.+)\}(.*)", old).groups()
    return (before + lesson + after,), [(f"{before}{value}{after}",) for value in values]


FREE: dict[str, list[tuple[tuple[str, ...], list[tuple[str, ...]]]]] = {
    "states_bytes": [
        (("zeros(4, 512", "four texts of 512"), [(f"zeros({n}, {t}", f"{w} texts of {t}") for n, w, t in
            ((2, "two", 300), (3, "three", 200), (5, "five", 400), (8, "eight", 1000))]),
    ],
    "record_outputs": [
        (("France",), [(country,) for country, *_ in CAPITALS]),
        (("max_new_tokens=4", "four tokens"), [(f"max_new_tokens={n}", f"{COUNTED[n]} tokens") for n in (3, 5, 7)]),
        one("// 2 - {1}", range(2, 9)),
    ],
    "busiest_layers": [one("[:{1000}]", range(600, 1600, 100)), one("return_tensors=\"pt\")), {4})", (3, 5, 6, 7))],
    "answer_ranks": [(("France", "Paris", "paris"), CAPITALS)],
    "layer_influences": [one("[\"text\"][{:1}]", [f"{i}:{i + 1}" for i in range(1, 27)])],
    "span_angle": [
        one("[\"text\"][{:1}]", [f"{i}:{i + 1}" for i in range(1, 27)]),
        (("start, 6)", "- 6)", "best + 6", "best + 5", "six layers"),
            [(f"start, {n})", f"- {n})", f"best + {n}", f"best + {n - 1}", f"{w} layers") for n, w in COUNTED.items()]),
    ],
    "difference_with_error": [
        one("[{::3}]", ["1::3", "2::3"]),
        one("{((14, 24), (14, 17), (3, 12))}", [((a, b), (a, c), (b, c)) for a, b, c in combinations(range(3, 28, 3), 3)]),
    ],
    "number_layers": [
        one("{(12, 14, 17)}", list(combinations((4, 7, 13, 15, 16, 18, 19), 3))),
        one("history of {bread}", ("tea", "glass", "music", "paper")),
    ],
    "greedy": [
        one("[\"text\"][{0}]", range(1, 18)),
        one("{(10, 12, 14, 17, 20)}", list(combinations((5, 7, 9, 13, 15, 16, 18, 19, 21), 5))),
    ],
    "bits_per_weight": [one("(shape, {4},", (2, 3, 5, 8)), one("scale_bits={16}", (8, 32))],
    "round_in_groups": [one("(matrix, {4},", (3, 5, 6)), one("// 2 - {1}", range(2, 12))],
    "interaction": [(('"nf4"', "and NF4"), [('"gptq"', "and GPTQ"), ('"rtn4"', "and rtn4")])],
    "corpus_perplexity": [one("{['dialogue', 'story']}", [list(two) for two in combinations(GENRES[1:], 2)])],
    "kept_above_chance": [one("accuracy[{6}, task]", [3])],
    "scored_windows": [
        (("128, 64)", '"window": 128, "stride": 64'),
            [(f"{w}, {s})", f'"window": {w}, "stride": {s}') for w, s in ((64, 32), (96, 48), (128, 32), (192, 96))]),
        one("genre=\"{encyclopedic}\"", [genre for genre in GENRES if genre != "encyclopedic"]),
    ],
    "answer_scores": [one("lines=True).{head(40)}", [f"iloc[{i}:{i + 40}]" for i in range(20, 241, 20)])],
    "overlap_above_chance": [(("removed == 6", "of 6 as"), [("removed == 3", "of 3 as"), ("removed == 9", "of 9 as")])],
    "exchange_search": [one("length={160}", (128, 144, 192)), (("ours[:3]",), [("ours[:2]",), ("ours[1:4]",)])],
    "repair_matrix": [(("* 13 //",), [(f"* {first} //",) for first in (11, 12, 14, 15)])],
    "without_channels": [one("(model)[{12}]", [*range(3, 12), *range(13, 28)]), one("manual_seed({0})", range(1, 9))],
    "channel_scores": [(("(model)[0]", "first_ffn"), [(f"(model)[{i}]", "this_ffn") for i in range(3, 28)])],
    "half_life": [one("iloc[{::3}]", ("::2", "1::3", "::4", "2::5"))],
    "run_memory": [one("in ({1.0, 0.5})", ("1.0, 0.25", "1.0, 0.75", "1.0, 0.9", "0.8, 0.2"))],
    "memory_as_attention": [one("tensor([{0.5, 0.5, 0.5, 0.0, 0.5}])", ("0.5, 0.0, 0.5, 0.5, 0.5",
        "0.9, 0.9, 0.9, 0.9, 0.9", "0.2, 0.2, 0.0, 0.8, 0.8", "0.1, 1.0, 1.0, 0.5, 0.5"))],
    "expected_influence": [one("in ({0, 2, 10})", ("0, 1, 5", "0, 3, 20", "0, 4, 8", "0, 6, 12", "1, 3, 9", "1, 5, 25"))],
    "growth_parts": [one("range({1, depth, 3})", ("2, depth, 3", "0, depth, 4", "1, depth, 2",
        "3, depth, 4", "2, depth, 5", "0, depth, 5"))],
    "best_draft_length": [one("{(3, 6, 12, 18, 24)}", [(2, 5, 9, 14, 21), (4, 8, 13, 17, 22), (5, 10, 15, 20, 25)])],
    "write_with_draft": [one("iloc[{0}]", range(1, 18)), one("32, {3}", (2, 4, 5)), one("order[:{3}]", (2, 4, 5))],
    "layers_to_remove": [one("{(16, 24, 48, 80)}", [(8, 12, 20, 40), (10, 32, 40, 96), (6, 18, 36, 72)])],
    "first_share_at": [
        (('["times"]), 2)', "perplexity doubles at"),
            [(f'["times"]), {n})', f"perplexity is {n} times the dense one at") for n in (1.5, 3, 5)]),
    ],
}  # fmt: skip


def vary(lesson: str, cells: Sequence[Cell], seed: int) -> list[Cell]:
    """The exercise notebook's cells with the values of variant ``seed``; in place of our words about a result, the learner's.

    Raises:
        ExerciseError: a text of `FREE` is not in the lesson any more.
    """
    random, result, function = Random(f"{lesson} {seed}"), [], ""
    for kind, source, metadata in cells:
        if not result:
            source += f"\n\n**Variant {seed}.** Hand in what the cells below the checks print, and your words about it."
        elif "apply" in metadata.get("tags", ()):
            used = re.match(r"require_passed\((\w+)\)", source)
            function = used[1] if used and used[1] in FREE else ""
            for olds, choices in FREE.get(function, ()):
                source = _replaced(source, dict(zip(olds, random.choice(choices), strict=True)), lesson)
        elif function and kind == "markdown":  # what this text says is true of the lesson's values
            source = (
                f"**What do you see?** Two sentences about the numbers above, for {function}() and your values.\n\n"
            )
            metadata, function = {"nbgrader": graded_cell(f"words_{function}", grade=True, solution=True, points=1)}, ""
        result.append((kind, source, metadata))
    return result


def _replaced(source: str, new: dict[str, str], lesson: str) -> str:
    """All texts at once: what is put in may look like a text that is still to go."""
    if missing := [old for old in new if old not in source]:
        raise ExerciseError(f"{lesson}: variants.py looks for {missing}, which is not in this cell:\n{source}")
    return re.sub("|".join(map(re.escape, sorted(new, key=len, reverse=True))), lambda found: new[found[0]], source)
