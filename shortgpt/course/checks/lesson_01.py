"""Checks for lesson 01: sizes, cosines, hooks, which layers turn the state, and the logit lens."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from shortgpt.course.checks.comparing import Answers, AnyOf, Case, compare, seeded
from shortgpt.course.checks.verdict import CheckFailed, call, failure, passed, require_function


def check_states_bytes(states_bytes: Callable[..., int]) -> None:
    """Check ``states_bytes(config, ids, bytes_per_number)``: the memory of all hidden states of a batch, in bytes."""
    cases = []
    tried = [(30, 576, 49152, (1, 8), 4), (32, 4096, 32000, (2, 512), 2), (6, 32, 96, (5, 7), 4)]
    for layers, hidden, vocabulary, shape, size in tried:
        config = SimpleNamespace(num_hidden_layers=layers, hidden_size=hidden, vocab_size=vocabulary)
        words = f"{layers} layers of width {hidden}, ids of shape {list(shape)}, {size} bytes a number"
        cases.append(Case(words, (config, torch.zeros(shape, dtype=torch.long), size)))
    compare("states_bytes", states_bytes, cases, _states_bytes, tolerance=1e-12)


def _states_bytes(config: SimpleNamespace, ids: Tensor, size: int) -> Answers:
    layers, hidden = config.num_hidden_layers, config.hidden_size
    right = (layers + 1) * ids.numel() * hidden * size
    return right, {
        "count fence posts: between and around the layers there is one state more than there are layers":
            layers * ids.numel() * hidden * size,
        "a hidden state has as many entries as the model is wide; the vocabulary matters for logits only":
            right // hidden * config.vocab_size,
        "every sample of the batch has states of its own": right // len(ids),
        "every token has states of its own": right // ids.shape[1],
        "that is how many numbers there are; how many bytes?": right // size,
        "the answer should be in bytes, not megabytes": right / 1e6,
    }  # fmt: skip


def check_cosine(cosine: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Check ``cosine(a, b)``: the cosine of each pair of states, ``[..., hidden] -> [...]``, in float32 or better."""
    shapes = [(3, 5, 8), (2, 6, 4), (7,), (4, 3, 9)]
    pairs = [_random(seed, 2, *shape) for seed, shape in enumerate(shapes)]
    pairs[-1] = (150 * pairs[-1]).half()  # as long as the states of a deep layer: their squares don't fit into float16
    cases = [
        Case(f"{str(pair.dtype).removeprefix('torch.')} states of shape {list(shape)}", tuple(pair))
        for shape, pair in zip(shapes, pairs, strict=True)
    ]
    compare("cosine", cosine, cases, _cosine)


def _cosine(a: Tensor, b: Tensor) -> Answers:
    a, b = a.double(), b.double()

    def along(*axes: int) -> Tensor:
        return (a * b).sum(axes) / ((a * a).sum(axes) * (b * b).sum(axes)).sqrt()

    dot, right = (a * b).sum(-1), along(-1)
    return right, {
        "that is one number for everything: each token should get its own cosine, so only the last axis is summed":
            along(*range(a.ndim)),
        "wrong axis: a state lies along the last axis (hidden), and that one should be gone from the answer":
            AnyOf(along(0), lambda: along(1)),
        "that is one minus the cosine; here the cosine itself is asked for": 1 - right,
        "that is the dot product: divide it by both lengths": dot,
        "divide by both lengths, not by the first alone": dot / a.norm(dim=-1),
        "divide by both lengths, not by the second alone": dot / b.norm(dim=-1),
        "a length is the root of the sum of squares": dot / ((a * a).sum(-1) * (b * b).sum(-1)),
    }  # fmt: skip


def check_record_outputs(record_outputs: Callable[..., list[Tensor]]) -> None:
    """Check ``record_outputs(module, run)``: the module's outputs while ``run()`` is called; the module as it was."""
    require_function("record_outputs", record_outputs)
    for seed, times in enumerate((3, 1, 4)):
        inputs, module = list(_random(seed, times, 2, 5)), nn.LayerNorm(5)
        heard: list[Tensor] = []  # by somebody else's hook
        module.register_forward_hook(lambda module, args, output, heard=heard: heard.append(output))
        _record_and_look(record_outputs, module, inputs, f"a module that runs {times} time{'s' * (times > 1)}")
        _require_hooks_after_error(record_outputs, module)
    passed("record_outputs", record_outputs, 3)


def _record_and_look(record_outputs: Callable, module: nn.Module, inputs: list[Tensor], words: str) -> None:
    name, before, expected = "record_outputs", _hooks(module), [module(x) for x in inputs]
    results: list[Tensor] = []
    got = call(name, record_outputs, module, lambda: results.extend(module(x) for x in inputs))
    if len(results) != len(inputs):
        raise failure(name, words, "one call of run()", f"{len(results) // len(inputs)} calls", "call run() once")
    if not all(map(torch.equal, results, expected)):
        hint = "what a forward hook returns takes the place of the module's output: let yours return nothing"
        raise failure(name, words, "the module's outputs as they are without you", "other outputs", hint)
    _require_outputs(words, got, inputs, expected)
    _require_hooks(words, before, _hooks(module))


def _require_outputs(words: str, got: object, inputs: list[Tensor], expected: list[Tensor]) -> None:
    name, wanted = "record_outputs", f"a list of {len(expected)} tensors"
    if not isinstance(got, list) or not all(isinstance(item, Tensor) for item in got):
        kind = "one tensor" if isinstance(got, Tensor) else type(got).__name__
        hint = "collect the outputs in a list, one a run" if got is not None else "end the function with a return"
        raise failure(name, words, wanted, kind, hint)
    if len(got) != len(expected):
        hint = "keep every output, not only the last" if len(got) == 1 else "register one hook, before run() is called"
        raise failure(name, words, wanted, f"a list of {len(got)}", hint)
    if not all(map(torch.equal, got, expected)):
        hint = "these are not the module's outputs, in the order of its runs"
        if all(map(torch.equal, got, inputs)):
            hint = "that went into the module: what came out is the third argument"
        raise failure(name, words, expected[0], got[0], hint)


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


def check_busiest_layers(busiest_layers: Callable[[Tensor, int], list[int]]) -> None:
    """Check ``busiest_layers(states, n)``: the n layers that turn the states most, the busiest first."""
    cases = []
    for seed, (layers, n) in enumerate([(6, 2), (9, 4), (12, 3)]):
        shape = [layers + 1, 2, 7, 16]
        cases.append(Case(f"states of shape {shape} and n = {n}", (_walk(seed, *shape), n)))
    compare("busiest_layers", busiest_layers, cases, _busiest_layers)


def _busiest_layers(states: Tensor, n: int) -> Answers:
    def turns(states: Tensor) -> Tensor:
        return 1 - torch.cosine_similarity(states[:-1].double(), states[1:].double(), dim=-1)

    def busiest(values: Tensor) -> list[int]:
        return values.argsort(descending=True)[:n].tolist()

    each = turns(states).mean((1, 2))
    right = busiest(each)
    return right, {
        "off by one: layer i takes entry i to entry i + 1, and it is layer i that turned it": [i + 1 for i in right],
        "these are the layers that turn the states least": busiest(-each),
        "the right layers, but the busiest should come first": sorted(right),
        "one long state speaks for all: take the cosine of each token first, and average after that":
            busiest(turns(states.double().mean((1, 2)))),
        "that ranks layers by how much they add; how far does the direction turn?":
            busiest((states[1:] - states[:-1]).norm(dim=-1).mean((1, 2))),
    }  # fmt: skip


def check_answer_ranks(answer_ranks: Callable[..., list[int]]) -> None:
    """Check ``answer_ranks(states, norm, head, answer)``: the answer's rank at each depth, after the last token."""
    cases = []
    for seed, (depths, tokens, answer) in enumerate([(5, 4, 3), (7, 3, 20), (4, 6, 11)]):
        with torch.random.fork_rng(devices=[]):  # the learner's random state stays as it is
            torch.random.default_generator.manual_seed(seed)
            norm, head = nn.RMSNorm(8, eps=1e-6), nn.Linear(8, 40, bias=False)
            norm.weight.data.uniform_(0.05, 2)
        words = f"states of shape {[depths, tokens, 8]}, a vocabulary of 40, and token {answer} as the answer"
        states = _random(seed, depths, tokens, 8).double()
        cases.append(Case(words, (states, norm.double(), head.double(), answer)))
    compare("answer_ranks", answer_ranks, cases, _answer_ranks)


def _answer_ranks(states: Tensor, norm: nn.Module, head: nn.Module, answer: int) -> Answers:
    def ranks(read: Tensor) -> list[int]:
        logits = head(read).detach()
        return (1 + (logits > logits[:, answer, None]).sum(-1)).tolist()

    right = ranks(norm(states[:, -1]))
    return right, {
        "the most probable token has rank 1, not 0": [rank - 1 for rank in right],
        "the head reads normed states: apply the final norm first, at every depth": ranks(states[:, -1]),
        "that is the prediction after the first token: take the last": ranks(norm(states[:, 0])),
        "count the tokens that are more probable, not less": [41 - rank for rank in right],
    }


def _random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=seeded(1000 + seed))


def _walk(seed: int, entries: int, *shape: int) -> Tensor:
    """States along a depth: layers take steps of different sizes, and the first token is long, with steps of its own."""
    generator = seeded(2000 + seed)
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
