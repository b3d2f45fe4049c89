"""A mutation score of the exercises' checks: wrong solutions, made by rule out of the lessons' own, must not pass.

Every rule changes one thing of a solution's syntax tree (an operator, a number by one, a conversion or a line left out …),
and some mutants have two such faults. A mutant that gives the same answers as the solution is no fault of a check: those are
named in `SAME`, with the reason.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import io
import random
import signal
from collections.abc import Callable, Iterator
from functools import cache

import pytest
from solutions import check, defined, exercises

from shortgpt.course.checks import CheckFailed
from shortgpt.course.checks.comparing import relation

Change = Callable[[ast.AST], object]
SWAPPED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.MatMult: ast.Mult, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
CONFUSED = {
    "sum": "mean",
    "mean": "sum",
    "argmax": "argmin",
    "argmin": "argmax",
    "max": "min",
    "min": "max",
    "std": "var",
}
LEFT_OUT = {
    "float",
    "clone",
    "detach",
    "double",
    "clamp",
    "exp",
    "log",
    "abs",
    "square",
    "sqrt",
    "sum",
    "mean",
    "cumsum",
}
LEFT_OUT |= {"cumprod", "long", "bool", "rename", "flatten", "T"}
PAIRS = 6  # mutants of an exercise with two faults
LAST = "axis 1 of a matrix is its last"
HALF = "a product of float16 and float32 is float32"
SAME = {  # by exercise and a piece of the mutated line: why the answers stay right
    ("answer_divergence", "log_softmax(+1)"): LAST,
    ("answer_divergence", "(log_p - log_q)).sum(+1)"): LAST,
    ("busiest_layers", "_same(states[:-1]), states[1:].float()"): HALF,
    ("busiest_layers", "states[:-1].float(), _same(states[1:])"): HALF,
    ("busiest_layers", "cosines.sum((1, 2)).argsort()"): "the order of sums is the order of means",
    ("answer_ranks", "higher.sum(+1)"): LAST,
    ("masked_influence", "(_same(x_in), x_out.float())"): HALF,
    ("span_angle", "clamp(-2, 1)"): "no cosine is rounded below -1 by so much",
    ("round_in_groups", "amax(dim=+1, keepdim=True)"): LAST,
    ("answer_scores", "row[question - 1:]"): "rows behind the answer are cut off by gather",
    ("answer_scores", "row[question - 1:length + "): "the same",
    ("answer_scores", "row[question - 1:length - 0]"): "the same",
    ("answer_scores", "gather(+1, "): LAST,
    ("answer_scores", "[:, -1]"): "the last of one column",
    ("exchange_search", "if cost(found) > cost(best)"): "an equal cost may be taken or not",
    ("repair_matrix", "goal.square().sum(+1, keepdim=True)"): LAST,
    ("repair_matrix", "torch.eye(z.shape[1])"): "a sum of float64 and float32 is float64",
    ("run_memory", "torch.zeros(write.shape[1], x.shape[1])"): "the numbers are float32 anyway",
    ("memory_as_attention", "torch.zeros(tokens, tokens)"): "the numbers are float32 anyway",
    ("memory_as_attention", "torch.ones(1)"): "the numbers are float32 anyway",
    ("memory_as_attention", ").cumprod(-1)"): "the last axis of a vector is its first",
    ("best_draft_length", "speed_up >= fastest"): "no two lengths are equally fast",
    ("best_draft_length", "range(0, longest + 1)"): "drafting nothing is never fastest",
    ("write_with_draft", "argmax(+1)"): LAST,
    ("expected_influence", "range(layers + 2)"): "one length too many is not read",
    ("growth_parts", "_same(x_out) - x_in.float()"): HALF,
    ("growth_parts", "x_out.float() - _same(x_in)"): HALF,
    ("growth_exponent", "y + y.mean("): "x has no mean, so any constant may be added to y",
    ("growth_exponent", "y + 0)"): "the same",
    ("growth_exponent", "y - y.sum("): "the same",
    ("growth_exponent", "_same(torch.arange("): "the logarithm of a whole number is float32, exact enough for so few",
    ("growth_exponent", "_same(norms).log()"): "float32 is exact enough for so few",
    ("layers_to_remove", "max(-1, total - budget)"): "rounded up, minus a part of a layer is none",
    ("first_share_at", "range(0, len(times))"): "before the first time nothing is crossed",
}


def changes(node: ast.AST) -> Iterator[Change]:
    """Every way to spoil this one node of a syntax tree."""
    if isinstance(node, ast.BinOp) and type(node.op) in SWAPPED:
        yield lambda n: setattr(n, "op", SWAPPED[type(n.op)]())
        yield lambda n: n.__dict__.update(op=ast.Add(), right=ast.Constant(0))  # only the left side
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPPED:
        yield lambda n: n.ops.__setitem__(0, SWAPPED[type(n.ops[0])]())
    if isinstance(node, ast.Constant) and type(node.value) is int:  # counts, axes, positions
        yield lambda n: setattr(n, "value", n.value + 1)
        yield lambda n: setattr(n, "value", n.value - 1)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        yield lambda n: setattr(n, "op", ast.UAdd())
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr in LEFT_OUT and getattr(node.func.value, "id", "") not in ("torch", "np"):
            left_out = ast.Name("_same", ast.Load())
            yield lambda n: n.__dict__.update(func=left_out, args=[n.func.value], keywords=[])
        if node.func.attr in CONFUSED:
            yield lambda n: setattr(n.func, "attr", CONFUSED[n.func.attr])
        if node.keywords:
            yield lambda n: n.keywords.pop()
    if isinstance(node, ast.Slice):
        for end in ("lower", "upper"):
            if getattr(node, end) is not None:
                yield lambda n, end=end: setattr(n, end, None)
    if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple) and len(node.value.elts) == 2:
        yield lambda n: n.value.elts.reverse()
    if isinstance(node, ast.FunctionDef | ast.For | ast.While | ast.If | ast.With | ast.Try):
        for place, line in enumerate(node.body):
            if isinstance(line, ast.Assign | ast.AugAssign) or (
                isinstance(line, ast.Expr) and isinstance(line.value, ast.Call)
            ):
                yield lambda n, place=place: n.body.__setitem__(place, ast.Pass())


def mutants(source: str) -> list[str]:
    """Sources with one fault each, and `PAIRS` with two, without any that reads as the source does."""
    tree = ast.parse(source)

    def spoiled(tree: ast.Module, place: int, number: int) -> ast.Module:
        new = copy.deepcopy(tree)
        node = [*ast.walk(new)][place]
        [*changes(node)][number](node)
        return ast.fix_missing_locations(new)

    ways = [(k, i) for k, node in enumerate(ast.walk(tree)) for i, _ in enumerate(changes(node))]
    found = [ast.unparse(spoiled(tree, *way)) for way in ways]
    draw = random.Random(0)
    for _ in range(PAIRS):
        first = spoiled(tree, *draw.choice(ways))
        again = [(k, i) for k, node in enumerate(ast.walk(first)) for i, _ in enumerate(changes(node))]
        found += [ast.unparse(spoiled(first, *draw.choice(again)))] if again else []
    return [text for text in dict.fromkeys(found) if text != ast.unparse(tree)]


@cache
def verdicts() -> dict[tuple[str, str], str]:
    """What each check says of each mutant; empty where it passes."""
    told = {}
    for name, source in exercises().items():
        for text in mutants(source):
            function = defined("def _same(x):\n    return x\n\n" + text, name)
            told[name, text] = ""
            with contextlib.redirect_stdout(io.StringIO()), limited(seconds=1):
                try:
                    check(name)(function)
                except CheckFailed as error:
                    told[name, text] = str(error)
    return told


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    """A mutant may loop for ever; what is raised then is an error in the learner's function like any other."""

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def test_wrong_solutions_made_by_rule_are_refused(capsys):
    told = {key: said for key, said in verdicts().items() if said or not is_same(*key)}
    passed = [f"{name}:\n{text}" for (name, text), said in told.items() if not said]
    helped = [said for said in told.values() if "  hint " in said or " stopped with " in said]
    share, hints = 1 - len(passed) / len(told), len(helped) / (len(told) - len(passed))
    with capsys.disabled():
        print(
            f"\n{len(told)} wrong solutions: {share:.1%} refused, {hints:.0%} of these with a hint or the line of an error"
        )
    assert len(told) > 600 and not passed, "\n\n".join(passed)
    assert hints >= 0.75


def is_same(name: str, text: str) -> bool:
    return any(name == exercise and piece in text for exercise, piece in SAME)


def test_a_mutant_that_passes_is_still_there_and_still_the_same():
    """A reason in `SAME` that no mutant needs any more has to go."""
    passed = [key for key, said in verdicts().items() if not said]
    assert [
        (name, piece) for name, piece in SAME if not any(key[0] == name and piece in key[1] for key in passed)
    ] == []


@pytest.mark.parametrize(
    ("answer", "expected", "words"),
    [
        ((1.0, 2.0), (1.0, 3.0), "right: the first of 2 parts"),
        ([3.0, 1.0, 2.0], [1.0, 2.0, 3.0], "another order"),
        ([2.0, 3.0, 5.0], [1.0, 2.0, 4.0], "plus one"),
        ([6.0, 12.0, 18.0], [2.0, 4.0, 6.0], "3 times what it should be"),
        ([2.5, 3.5, 4.5], [1.0, 2.0, 3.0], "+1.5 away"),
        ([1.0, 2.0, 7.0], [1.0, 2.0, 3.0], "1 of 3 numbers are off, the first at 2: 7, not 3"),
        (0.0, 3.0, "everything is 0"),
        (-3.0, 3.0, "wrong sign"),
        (0.75, 0.25, "one minus"),
        (16.0, 2.0, "8 times the right number"),
        (5.0, 3.3, ""),
        ("a", "b", ""),
    ],
)
def test_what_a_wrong_answer_has_to_do_with_the_right_one(answer, expected, words):
    said = relation(answer, expected, 1e-5)
    assert words in said and bool(words) == bool(said)
