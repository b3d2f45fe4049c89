"""The controlled part of the twins' text: additions, brackets, agreement, with items held out of training.

    python measure/twin_grammar.py

writes data/twins/controlled.jsonl (seeded; seconds). `twin_text.py` takes training lines from here. A problem belongs to the
held-out part by a hash of what decides its answer, so that none of them can occur in training, whatever the seeds.
The sum of an addition is written least significant digit first (347+586=339): then each digit needs only digits to the left.
After `|` in a bracket line, everything still open is closed, inside out. Every line ends with a newline.
"""

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

OUTPUT = Path(__file__).parents[1] / "data" / "twins" / "controlled.jsonl"
SEED, ITEMS, DEEPEST = "twins-1", 300, 8
LEVELS = {"addition": [1, 2, 3, 4], "brackets": [*range(1, DEEPEST + 1)], "agreement": [0, 1, 2, 3, 4]}
WEIGHTS = {"addition": [5, 20, 30, 45], "brackets": [1] * 8, "agreement": [1, 2, 2, 2, 2]}  # in training
CLOSING = {"(": ")", "[": "]", "{": "}"}
VERBS = [("is", "are"), ("was", "were"), ("has", "have")]
ENDS = {"is": "here there old new lost ready", "was": "here there old new lost ready", "has": "fallen gone vanished"}
NOUNS = [
    "key", "cabinet", "letter", "table", "book", "teacher", "student", "river", "tree", "house", "garden", "door", "window",
    "friend", "farmer", "doctor", "horse", "dog", "cat", "bird", "ship", "king", "soldier", "road", "bridge", "stone",
    "lamp", "chair", "picture", "song", "story", "village", "mountain", "field", "car", "train",
]  # fmt: skip
ADJECTIVES = ["old", "new", "small", "big", "red", "green", "dark", "strange", "famous", "quiet", "broken", "young"]
PLACES = ["near", "behind", "beside", "above", "below", "with"]

Item = dict[str, Any]


def held_out(problem: str, one_in: int) -> bool:
    """Whether a problem is kept from training: by its hash, one in `one_in`."""
    return int(hashlib.sha256(problem.encode()).hexdigest(), 16) % one_in == 0


def addition(rng: random.Random, digits: int) -> Item:
    """Two numbers of `digits` digits; `carries`: per answer digit, the least significant first, whether a carry comes in."""
    low = 0 if digits == 1 else 10 ** (digits - 1)
    a, b = rng.randint(low, 10**digits - 1), rng.randint(low, 10**digits - 1)
    answer = str(a + b)[::-1]
    carries = [a % 10**i + b % 10**i >= 10**i for i in range(len(answer))]
    pair = f"{min(a, b)}+{max(a, b)}"  # a+b and b+a are one problem
    return {"prompt": f"{a}+{b}=", "answer": answer + "\n", "level": digits, "digits": digits, "carries": carries,
            "held_out": held_out(pair, 5)}  # fmt: skip


def balanced(rng: random.Random, pairs: int) -> str:
    """A balanced word of so many pairs."""
    if pairs == 0:
        return ""
    inside = rng.randrange(pairs)
    opening = rng.choice("([{")
    return opening + balanced(rng, inside) + CLOSING[opening] + balanced(rng, pairs - 1 - inside)


def depth(word: str) -> int:
    """How deep brackets are nested at most."""
    levels = [0]
    for bracket in word:
        levels.append(levels[-1] + (1 if bracket in CLOSING else -1))
    return max(levels)


def brackets(rng: random.Random, still_open: int) -> Item:
    """A prefix with `still_open` open brackets; `distances`: from each answer bracket back to its opening one."""
    while True:
        share = [0] * (still_open + 1)
        for _ in range(rng.randint(1, 7)):
            share[rng.randrange(still_open + 1)] += 1
        opened = [rng.choice("([{") for _ in range(still_open)]
        words = [balanced(rng, pairs) for pairs in share]
        prefix = words[0] + "".join(b + word for b, word in zip(opened, words[1:], strict=True))
        if depth(prefix) <= DEEPEST:
            break
    places, at = [], len(words[0])
    for word in words[1:]:
        places.append(at)
        at += 1 + len(word)
    distances = [len(prefix) + 1 + i - place for i, place in enumerate(reversed(places))]
    answer = "".join(CLOSING[b] for b in reversed(opened)) + "\n"
    return {"prompt": prefix + "|", "answer": answer, "level": still_open, "distances": distances,
            "held_out": held_out(prefix, 10)}  # fmt: skip


def noun(rng: random.Random, plural: bool) -> str:
    """A noun, half of the time with an adjective."""
    word = rng.choice(NOUNS) + ("s" if plural else "")
    return f"{rng.choice(ADJECTIVES)} {word}" if rng.random() < 0.5 else word


def agreement(rng: random.Random, phrases: int) -> Item:
    """A subject, `phrases` phrases with attractors (singular or plural), a verb; `distance`: words between the two."""
    plural = rng.random() < 0.5
    others = [rng.random() < 0.5 for _ in range(phrases)]
    between = "".join(f" {rng.choice(PLACES)} the {noun(rng, other)}" for other in others)
    prompt = f"The {noun(rng, plural)}{between}"
    verb = rng.choice(VERBS)
    end = rng.choice(ENDS[verb[0]].split())
    return {"prompt": prompt, "answer": f" {verb[plural]}", "other": f" {verb[not plural]}", "level": phrases,
            "distance": len(between.split()), "number": "plural" if plural else "singular",
            "attractors": ["plural" if other else "singular" for other in others],
            "end": f" {end}.\n", "held_out": held_out(prompt, 10)}  # fmt: skip


TASKS: dict[str, Callable[[random.Random, int], Item]] = {
    "addition": addition,
    "brackets": brackets,
    "agreement": agreement,
}


def line(item: Item) -> str:
    """The training line of an item."""
    return str(item["prompt"] + item["answer"] + item.get("end", ""))


def documents(task: str, seed: str = SEED) -> Iterator[str]:
    """Training documents of one task without end: 8 to 10 lines each, every fifth a single one; nothing held out."""
    rng = random.Random(f"{seed} training {task}")
    while True:
        lines: list[str] = []
        wanted = 1 if rng.random() < 0.2 else rng.randint(8, 10)
        while len(lines) < wanted:
            item = TASKS[task](rng, rng.choices(LEVELS[task], WEIGHTS[task])[0])
            if not item["held_out"]:
                lines.append(line(item))
        yield "".join(lines)


def items(task: str, count: int = ITEMS, seed: str = SEED) -> list[Item]:
    """Held-out items, as evenly over the levels as there are different ones (one digit: about 20 in all)."""
    found: list[Item] = []
    for number, level in enumerate(levels := LEVELS[task]):
        rng = random.Random(f"{seed} held out {task} {level}")
        wanted = (count - len(found)) // (len(levels) - number)
        new: dict[str, Item] = {}
        for _ in range(20_000):
            item = TASKS[task](rng, level)
            if item.pop("held_out"):
                new.setdefault(item["prompt"], {"task": task, **item})
            if len(new) == wanted:
                break
        found += new.values()
    return found


def main() -> None:
    """Write the held-out items of all tasks."""
    OUTPUT.parent.mkdir(exist_ok=True)
    beside = OUTPUT.with_suffix(".part")
    beside.write_text("".join(json.dumps(item) + "\n" for task in TASKS for item in items(task)), encoding="utf-8")
    beside.replace(OUTPUT)


if __name__ == "__main__":
    main()
