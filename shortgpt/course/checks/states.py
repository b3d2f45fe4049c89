"""Checks for lesson 01: sizes, cosines, hooks, which layers turn the state, and the logit lens."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from shortgpt.course.checks.verdict import Case, CheckFailed, Mistake, call, compare, failure, passed, require_function


def check_states_bytes(states_bytes: Callable[..., int]) -> None:
    """Check ``states_bytes(config, ids, bytes_per_number)``: the memory of all hidden states of a batch, in bytes."""
    cases = []
    for layers, hidden, vocabulary, shape, size in (
        (30, 576, 49152, (1, 8), 4),
        (32, 4096, 32000, (2, 512), 2),
        (6, 32, 96, (5, 7), 4),
    ):
        config = SimpleNamespace(num_hidden_layers=layers, hidden_size=hidden, vocab_size=vocabulary)
        words = f"{layers} layers of width {hidden}, ids of shape {list(shape)}, {size} bytes a number"
        cases.append(Case(words, (config, torch.zeros(shape, dtype=torch.long), size)))

    def states(config, ids, size):
        return (config.num_hidden_layers + 1) * ids.numel() * config.hidden_size * size

    mistakes = [
        Mistake(
            lambda c, ids, size: states(c, ids, size) * c.num_hidden_layers // (c.num_hidden_layers + 1),
            "count fence posts: between and around the layers there is one state more than there are layers",
        ),
        Mistake(
            lambda c, ids, size: states(c, ids, size) // c.hidden_size * c.vocab_size,
            "a hidden state has as many entries as the model is wide; the vocabulary matters for logits only",
        ),
        Mistake(
            lambda c, ids, size: states(c, ids, size) // len(ids), "every sample of the batch has states of its own"
        ),
        Mistake(lambda c, ids, size: states(c, ids, size) // ids.shape[1], "every token has states of its own"),
        Mistake(
            lambda c, ids, size: states(c, ids, size) // size, "that is how many numbers there are; how many bytes?"
        ),
        Mistake(lambda c, ids, size: states(c, ids, size) / 1e6, "the answer should be in bytes, not megabytes"),
    ]
    compare("states_bytes", states_bytes, cases, states, mistakes, tolerance=1e-12)


def check_cosine(cosine: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check ``cosine(a, b)``: the cosine of each pair of states, ``[..., hidden] -> [...]``, in float32 or better."""
    cases = []
    for seed, shape in enumerate([(3, 5, 8), (2, 6, 4), (7,), (4, 3, 9)]):
        a, b = _random(seed, 2, *shape)
        words = f"float32 states of shape {list(shape)}"
        if seed == 3:  # as long as the states of a deep layer: their squares don't fit into float16
            a, b, words = (150 * a).half(), (150 * b).half(), f"float16 states of shape {list(shape)}"
        cases.append(Case(words, (a, b)))

    def along(axis, a, b):
        a, b = a.double(), b.double()
        return (a * b).sum(axis) / ((a * a).sum(axis) * (b * b).sum(axis)).sqrt()

    def dot(a, b):
        return (a.double() * b.double()).sum(-1)

    mistakes = [
        Mistake(
            lambda a, b: along(tuple(range(a.ndim)), a, b),
            "that is one number for everything: each token should get its own cosine, so only the last axis is summed",
        ),
        *(
            Mistake(
                lambda a, b, axis=axis: along(axis, a, b),
                "wrong axis: a state lies along the last axis (hidden), and that one should be gone from the answer",
            )
            for axis in (0, 1)
        ),
        Mistake(lambda a, b: 1 - along(-1, a, b), "that is one minus the cosine; here the cosine itself is asked for"),
        Mistake(dot, "that is the dot product: divide it by both lengths"),
        Mistake(lambda a, b: dot(a, b) / a.double().norm(dim=-1), "divide by both lengths, not by the first alone"),
        Mistake(lambda a, b: dot(a, b) / b.double().norm(dim=-1), "divide by both lengths, not by the second alone"),
        Mistake(lambda a, b: dot(a, b) / (dot(a, a) * dot(b, b)), "a length is the root of the sum of squares"),
    ]
    compare("cosine", cosine, cases, lambda a, b: along(-1, a, b), mistakes)


def check_record_outputs(record_outputs: Callable[..., list[Tensor]]) -> None:
    """Check ``record_outputs(module, run)``: the module's outputs while ``run()`` is called; the module as it was."""
    name = "record_outputs"
    require_function(name, record_outputs)
    for seed, times in enumerate((3, 1, 4)):
        inputs = list(_random(seed, times, 2, 5))
        module, heard, results = nn.Linear(5, 5), [], []
        module.register_forward_hook(lambda module, args, output, heard=heard: heard.append(output))
        words = f"a module that runs {times} time{'s' * (times > 1)}"
        expected = [module(x) for x in inputs]
        before = _hooks(module)
        got = call(name, record_outputs, module, lambda: results.extend(module(x) for x in inputs))  # noqa: B023
        if len(results) != times:
            raise failure(name, words, "one call of run()", f"{len(results) // times} calls", "call run() once")
        if not all(map(torch.equal, results, expected)):
            hint = "what a forward hook returns takes the place of the module's output: let yours return nothing"
            raise failure(name, words, "the module's outputs as they are without you", "other outputs", hint)
        _require_outputs(words, got, inputs, expected)
        _require_hooks(words, before, _hooks(module))
        _require_hooks_after_error(record_outputs, module)
    passed(name, record_outputs, 3)


def check_busiest_layers(busiest_layers: Callable[[Tensor, int], list[int]]) -> None:
    """Check ``busiest_layers(states, n)``: the n layers that turn the states most, the busiest first."""
    cases = []
    for seed, (layers, n) in enumerate([(6, 2), (9, 4), (12, 3)]):
        shape = [layers + 1, 2, 7, 16]
        cases.append(Case(f"states of shape {shape} and n = {n}", (_walk(seed, *shape), n)))

    def turns(states):
        return 1 - torch.cosine_similarity(states[:-1].double(), states[1:].double(), dim=-1).mean((1, 2))

    def order(values, n):
        return values.argsort(descending=True)[:n].tolist()

    def of_means(states):
        means = states.double().mean((1, 2))
        return 1 - torch.cosine_similarity(means[:-1], means[1:], dim=-1)

    mistakes = [
        Mistake(
            lambda s, n: [layer + 1 for layer in order(turns(s), n)],
            "off by one: layer i takes entry i to entry i + 1, and it is layer i that turned it",
        ),
        Mistake(lambda s, n: order(-turns(s), n), "these are the layers that turn the states least"),
        Mistake(lambda s, n: sorted(order(turns(s), n)), "the right layers, but the busiest should come first"),
        Mistake(
            lambda s, n: order(of_means(s), n),
            "one long state speaks for all: take the cosine of each token first, and average after that",
        ),
        Mistake(
            lambda s, n: order((s[1:] - s[:-1]).norm(dim=-1).mean((1, 2)), n),
            "that ranks layers by how much they add; how far does the direction turn?",
        ),
    ]
    compare("busiest_layers", busiest_layers, cases, lambda s, n: order(turns(s), n), mistakes)


def check_answer_ranks(answer_ranks: Callable[..., list[int]]) -> None:
    """Check ``answer_ranks(states, norm, head, answer)``: the answer's rank at each depth, after the last token."""
    cases = []
    for seed, (depths, tokens, answer) in enumerate([(5, 4, 3), (7, 3, 20), (4, 6, 11)]):
        torch.manual_seed(seed)
        norm, head = nn.RMSNorm(8, eps=1e-6), nn.Linear(8, 40, bias=False)
        norm.weight.data.uniform_(0.05, 2)
        words = f"states of shape {[depths, tokens, 8]}, a vocabulary of 40, and token {answer} as the answer"
        states = _random(seed, depths, tokens, 8).double()
        cases.append(Case(words, (states, norm.double(), head.double(), answer)))

    def ranks(states, norm, head, answer, token=-1):
        logits = head(norm(states[:, token])).detach()
        return (1 + (logits > logits[:, answer, None]).sum(-1)).tolist()

    mistakes = [
        Mistake(lambda *a: [rank - 1 for rank in ranks(*a)], "the most probable token has rank 1, not 0"),
        Mistake(
            lambda states, norm, *a: ranks(states, nn.Identity(), *a),
            "the head reads normed states: apply the final norm first, at every depth",
        ),
        Mistake(lambda *a: ranks(*a, token=0), "that is the prediction after the first token: take the last"),
        Mistake(lambda *a: [41 - rank for rank in ranks(*a)], "count the tokens that are more probable, not less"),
    ]
    compare("answer_ranks", answer_ranks, cases, ranks, mistakes)


def _require_outputs(words: str, got: object, inputs: list[Tensor], expected: list[Tensor]) -> None:
    name, times = "record_outputs", len(expected)
    if not isinstance(got, list) or not all(isinstance(item, Tensor) for item in got):
        kind = "one tensor" if isinstance(got, Tensor) else type(got).__name__
        hint = "collect the outputs in a list, one a run" if got is not None else "end the function with a return"
        raise failure(name, words, f"a list of {times} tensors", kind, hint)
    if len(got) != times:
        hint = "keep every output, not only the last" if len(got) == 1 else "register one hook, before run() is called"
        raise failure(name, words, f"a list of {times} tensors", f"a list of {len(got)}", hint)
    if all(map(torch.equal, got, inputs)):
        raise failure(
            name, words, expected[0], got[0], "that went into the module: what came out is the third argument"
        )
    if not all(map(torch.equal, got, expected)):
        raise failure(name, words, expected[0], got[0], "these are not the module's outputs, in the order of its runs")


def _require_hooks(words: str, before: list, after: list, hint: str = "remove the hook by the handle you got") -> None:
    if len(after) > len(before):
        raise failure("record_outputs", words, "the module as it was", "a hook that is still on the module", hint)
    if after != before:
        hint = "remove your own hook only, by its handle: others may have put theirs on the module"
        raise failure("record_outputs", words, "the module as it was", "somebody else's hook is gone", hint)


def _require_hooks_after_error(record_outputs: Callable, module: nn.Module) -> None:
    before, words = _hooks(module), "a run() that fails half way"

    def fail() -> None:
        raise InterruptedError("this run fails on purpose")

    try:
        with torch.no_grad():
            record_outputs(module, fail)
    except InterruptedError:
        pass
    except Exception as error:
        raise CheckFailed(f"record_outputs, given {words}, turned its error into {type(error).__name__}") from error
    else:
        raise failure("record_outputs", words, "the error of run()", "no error", "let errors of run() pass through")
    _require_hooks(words, before, _hooks(module), "an error skips the lines after it: clean up in a finally block")


def _hooks(module: nn.Module) -> list:
    return list(module._forward_hooks.values()) + list(module._forward_pre_hooks.values())


def _random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1000 + seed))


def _walk(seed: int, entries: int, *shape: int) -> Tensor:
    """States along a depth: layers take steps of different sizes, and the first token is long, with steps of its own."""
    generator = torch.Generator().manual_seed(2000 + seed)
    sizes = torch.linspace(0.15, 1.2, entries - 1)[torch.randperm(entries - 1, generator=generator)]
    steps = torch.randn(entries - 1, *shape, generator=generator) * sizes[:, None, None, None]
    state = torch.randn(*shape, generator=generator)
    steps[:, :, 0] = steps[torch.randperm(entries - 1, generator=generator), :, 0] * 60
    state[:, 0] *= 60
    states = [state]
    for depth, step in enumerate(steps):
        # the stream grows, and the steps with it
        states.append(states[-1] + step * states[-1].norm(dim=-1, keepdim=True) / shape[-1] ** 0.5 * 0.9**depth)
    return torch.stack(states)
