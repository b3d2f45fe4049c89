"""The exercises' checks: right for the lesson's own solution, wrong for stubs, constants and mistakes, with the right hint.

Solutions are read out of the lessons' sources; mistakes are written here, independently of those that a check knows.
"""

from __future__ import annotations

import copy
import itertools
import math
import pkgutil
import re
from collections.abc import Callable
from importlib import import_module

import pytest
import torch
from solutions import check, defined, exercises, with_solution, with_stub
from torch import nn

from shortgpt import block_influence
from shortgpt.course import checks
from shortgpt.course.checks import CheckFailed, NotSolved, comparing
from shortgpt.course.checks.comparing import AnyOf


def verdict(name: str, function: Callable) -> str:
    with pytest.raises(CheckFailed) as caught:
        check(name)(function)
    return str(caught.value)


def cosine(a, b, dim=-1):
    return (a * b).sum(dim) / (a.norm(dim=dim) * b.norm(dim=dim))


# ---- lesson 01 ----


def stacked(states, n, values):
    return values.argsort()[:n].tolist()


def hook_left(module, run):
    seen = []
    module.register_forward_hook(lambda module, args, output: seen.append(output))
    run()
    return seen


def hook_left_after_error(module, run):
    seen = []
    handle = module.register_forward_hook(lambda module, args, output: seen.append(output))
    run()
    handle.remove()
    return seen


def all_hooks_cleared(module, run):
    seen = hook_left(module, run)
    module._forward_hooks.clear()
    return seen


def recorded(keep: Callable, result: Callable = lambda seen: seen):
    def record(module, run):
        seen = []
        handle = module.register_forward_hook(lambda module, args, output: keep(seen, args, output))
        try:
            run()
        finally:
            handle.remove()
        return result(seen)

    return record


def ranks(states, norm, head, answer, token=-1):
    logits = head(norm(states[:, token]))
    return (logits > logits[:, [answer]]).sum(1) + 1


# ---- lesson 02 ----


def shift_influences(reported, last):
    states = [*reported[:-1], last]
    return [
        float(block_influence(states[i], states[min(i + 2, len(states) - 1)]).mean()) for i in range(len(reported) - 1)
    ]


def pairs(states):
    return [float(block_influence(a, b).mean()) for a, b in itertools.pairwise(states)]


def multiplied(x_in, x_out, mask):
    score = 1 - cosine(x_in.float(), x_out.float())
    return (score * mask).sum() / mask.sum()


def angle(a, b):
    return torch.arccos(cosine(a, b).clamp(-1, 1))


# ---- lesson 03 ----


def deleting(layers, removed):
    kept = nn.ModuleList(layers)
    for i in sorted(removed):
        if i < len(kept):
            del kept[i]
    return kept


def deleting_without_looking(layers, removed):
    kept = nn.ModuleList(layers)
    for i in removed:
        del kept[i]
    return kept


def deleting_in_place(layers, removed):
    for i in sorted(removed, reverse=True):
        del layers[i]
    return layers


def numbered(start=0, inside=lambda layer: [layer.self_attn], anyway=False):
    def number(layers):
        for position, layer in enumerate(layers, start):
            for module in inside(layer):
                if anyway or hasattr(module, "layer_idx"):
                    module.layer_idx = position

    return number


def configured(entries, lists=lambda values, depth: len(values) == depth, count=None):
    def slice_(config, removed):
        depth = config["num_hidden_layers"]
        kept = [i for i in range(depth) if i not in removed]
        new = {k: entries(v, kept) if isinstance(v, list) and lists(v, depth) else v for k, v in config.items()}
        return new | {"num_hidden_layers": len(kept) if count is None else count(depth)}

    return slice_


def in_place(config, removed):
    config["num_hidden_layers"] -= len(removed)
    for key in ("layer_types", "intermediate_sizes"):
        config[key] = [value for i, value in enumerate(config[key]) if i not in removed]
    return config


def searched(best=min, again=True, result=lambda removed, candidates: removed):
    def search(cost, candidates, n):
        removed = []
        for _ in range(n):
            rest = [layer for layer in candidates if layer not in removed]
            removed.append(best(rest, key=lambda layer: cost([*removed * again, layer])))
        return result(removed, candidates)

    return search


def repeated(cost, candidates, n):
    removed = []
    for _ in range(n):
        removed.append(min(candidates, key=lambda layer: cost([*removed, layer])))
    return removed


# ---- lesson 04 ----


def rows_of(shape, group):
    return (shape[1] + group - 1) // group


def grid_of(groups, top, size=None):
    scale = groups.abs().amax(-1, keepdim=True).clamp(min=1e-12) / top if size is None else size / top
    return scale * (groups / scale).round()


def grouped(weight, bits, group, change=0):
    return grid_of(weight.reshape(-1, group), 2 ** (bits - 1) - 1 + change).reshape(weight.shape)


def whole_rows(weight, bits, group):
    return grid_of(weight, 2 ** (bits - 1) - 1)


def columns(weight, bits, group):
    return grouped(weight.T.contiguous(), bits, group).T


def zero_scale(weight, bits, group):
    groups = weight.reshape(-1, group)
    return grid_of(groups, 2 ** (bits - 1) - 1, groups.abs().amax(-1, keepdim=True)).reshape(weight.shape)


def unbeaten(sizes, perplexities, beats=lambda a, b: a[0] <= b[0] and a[1] <= b[1] and a != b):
    models = list(zip(sizes, perplexities, strict=True))
    kept = [i for i, here in enumerate(models) if not any(beats(other, here) for other in models)]
    return sorted(kept, key=lambda i: models[i])


def rest_of(dense, pruned, quantized, both):
    return both - pruned - quantized + dense


# ---- lesson 05 ----


def windows(tokens, window, stride, first=1, done_after=lambda start, end, done: end):
    found, done = [], first
    for start in range(0, tokens, stride):
        end = min(start + window, tokens)
        found.append((start, end, done))
        done = done_after(start, end, done)
        if end == tokens:
            return found


def scored(logits, ids, question, lengths, per_token, begin=0, stop=0, shift=1, of=torch.log_softmax):
    found = []
    for c, length in enumerate(lengths.tolist()):
        places = range(question + begin, length + stop)
        values = torch.stack([of(logits[c, i - shift], -1)[ids[c, i]] for i in places])
        found.append(values.mean() if per_token else values.sum())
    return torch.stack(found)


# ---- lesson 06 ----


def common(first, second):
    return len([layer for layer in first if layer in second])


def exchanged(cost, chosen, candidates, rounds=50, better=lambda new, old: new < old, pick=min, grow=False):
    now = list(chosen)
    for _ in range(rounds):
        trials = [
            [*(x for x in now if x != out or grow), new] for out in now for new in candidates if new not in now
        ]  # fmt: skip
        if not trials or not better(cost(trial := pick(trials, key=cost)), cost(now)):
            return now
        now = trial
    return now


def least_squares(z, y, goal, ridge, power=1, of=lambda y, goal: goal - y, length=lambda y, goal: goal):
    """By stacking the ridge below the data as k more rows."""
    scale = length(y, goal).norm(dim=-1, keepdim=True) ** power
    rows = torch.cat([z / scale, ridge**0.5 * torch.eye(z.shape[1], dtype=z.dtype)])
    return torch.linalg.lstsq(rows, torch.cat([of(y, goal) / scale, z.new_zeros(z.shape[1], y.shape[1])])).solution


# ---- lesson 12 ----


def counted(layer, layers, hidden, vocabulary, tied):
    return layer * layers + hidden * (vocabulary * (1 + (not tied)) + 1)


def too_large(total, layer, layers, budget, down=False, least=0):
    gone = (total - budget) // layer if down else (total - budget + layer - 1) // layer
    gone = max(gone, least)
    return gone if gone <= layers - 1 else None


def reached(shares, times, limit, scale=math.log, down=False):
    pairs = list(zip(shares, times, strict=True))
    for (a, low), (b, high) in itertools.pairwise(pairs):
        if (high < limit <= low) if down else (low < limit <= high):
            return a + (scale(limit) - scale(low)) * (b - a) / (scale(high) - scale(low))
    return None


# ---- lesson 07 ----


def matrices(hidden, heads, groups, width, inner, query=True, back=True, in_ffn=3):
    read = heads * width * query + 2 * groups * width
    return hidden * read + hidden * heads * width * back, in_ffn * hidden * inner


def masked_channels(weights, keep, count):
    mask = torch.zeros(count, dtype=torch.bool)
    mask[keep] = True
    gate, up, down = weights
    return gate[mask], up[mask], down[:, mask]


def deleted(weight, places, axis):
    for i in places:
        weight = torch.cat([weight.narrow(axis, 0, i), weight.narrow(axis, i + 1, weight.shape[axis] - i - 1)], axis)
    return weight


def silenced_in_place(gate, up, down, removed):
    stay = [i for i in range(len(gate)) if i not in removed]
    down[:, removed] = 0
    return gate[stay], up[stay], down[:, stay]


def added(inner, down, mask, of=lambda vectors: vectors.square().sum(-1).mean(0).sqrt()):
    """By building every vector that every channel adds."""
    return of(inner[mask.bool()][..., None] * down.T)


# ---- lesson 09 ----


def partners(depth, removed):
    """By counting how many removed layers lie in front."""
    kept = [i for i in range(depth) if i not in removed]
    return [(i - sum(gone < i for gone in removed), i) for i in [*kept[1:], depth]]


def softened(dense, pruned, temperature):
    """With torch's own divergence of log-probabilities."""
    logs = [(logits / temperature).log_softmax(-1) for logits in (pruned, dense)]
    return temperature**2 * nn.functional.kl_div(*logs, reduction="none", log_target=True).sum(-1)


def through_adapter(weight, a, b, alpha):
    """What the two paths make of each unit vector."""
    unit = torch.eye(weight.shape[1], dtype=weight.dtype)
    return (unit @ weight.T + unit @ a.T @ b.T * alpha / a.shape[0]).T


# ---- lesson 10 ----


def seen_before(tokens, n, start=lambda tokens, n: len(tokens) - n + 1, gram=tuple, new=0):
    before, repeated, count = set(), 0, 0
    for i in range(start(tokens, n)):
        piece = gram(tokens[i : i + n])
        repeated, count = repeated + ((piece in before) != new), count + 1
        before.add(piece)
    return repeated / count if count else 0.0


def fastest(acceptance, cost, longest, least=1.0, price=lambda n, c: 1 + n * c, written=None, result=lambda n, gain: n):
    written = written or (lambda a, n: sum(a**i for i in range(n + 1)))
    gains = {n: written(acceptance, n) / price(n, cost) for n in range(1, longest + 1)}
    best = max(gains, key=gains.get)
    return result(best, gains[best]) if gains[best] > least else 0


def rounds(model, draft, ids, new_tokens, drafted, *, place=-1, accept=True, bonus=True, cut=True, prompt=False):
    text = torch.tensor(ids)
    while len(text) < len(ids) + new_tokens:
        longer = text
        for _ in range(drafted):
            longer = torch.cat([longer, draft(longer.tolist())[-1:].argmax(-1)])
        own = model(longer.tolist())[len(text) + place :].argmax(-1)
        guess = longer[len(text) :]
        agree = (guess == own[:drafted]).long().cumprod(0).sum().item() if accept else drafted
        new = guess[:agree]
        if bonus or not agree:
            new = torch.cat([new, own[agree : agree + 1]])
        text = torch.cat([text, new])
    first, last = (0 if prompt else len(ids)), (len(ids) + new_tokens if cut else len(text))
    return text[first:last].tolist()


def alone(model, draft, ids, new_tokens, drafted):
    text = list(ids)
    for _ in range(new_tokens):
        text.append(int(model(text)[-1].argmax()))
    return text[len(ids) :]


# ---- lesson 08 ----


def stepped(decay, write, read, x, early=False, keep=lambda a: a, take=lambda a: 1.0):
    """The memory of lesson 08, token by token."""
    memory, out = torch.zeros(write.shape[1], x.shape[1]), []
    for a, w, r, value in zip(decay, write, read, x, strict=True):
        if early:
            out.append(r @ memory)
        memory = keep(a) * memory + take(a) * w[:, None] * value
        if not early:
            out.append(r @ memory)
    return torch.stack(out)


def pairwise(decay, write, read, start=1, end=1, least=0):
    """How much token t takes from token s, pair by pair."""
    n = len(decay)
    table = torch.zeros(n, n)
    for t, s in itertools.product(range(n), repeat=2):
        if t - s >= least:
            table[t, s] = (read[t] @ write[s]) * decay[s + start : t + end].prod()
    return table


def by_quotients(decay, write, read):
    total = decay.cumprod(0)
    return (read @ write.T * (total[:, None] / total)).tril()


# ---- lesson 11 ----


def walked(start, step, layers, counted=None, value=lambda before, after: 1 - before / after):
    lengths = [(start**2 + i * step**2) ** 0.5 for i in counted or range(layers + 1)]
    return [value(a, b) for a, b in itertools.pairwise(lengths)]


def grown(x_in, x_out, own=1.0, mixed=2.0, by=None):
    x, y = x_in.double(), x_out.double()
    f = y - x
    by = (x if by is None else y).square().sum(-1) if by != "mean" else x.square().sum(-1).mean()
    return (own * f.square().sum(-1) / by).mean().item(), (mixed * (x * f).sum(-1) / by).mean().item()


def fitted(norms, layers=lambda n: torch.arange(1, n + 1).log(), of=torch.log):
    """Slopes by torch's own least squares."""
    x = layers(norms.shape[1]).double()
    columns = torch.stack([x, torch.ones_like(x)], 1)
    return torch.linalg.lstsq(columns, of(norms.double()).T).solution[0]


def with_error(slopes):
    return slopes.mean().item(), slopes.std().item() / len(slopes) ** 0.5


WRONG: dict[str, list[tuple[Callable, str]]] = {
    "states_bytes": [
        (lambda config, ids, b: config.num_hidden_layers * ids.numel() * config.hidden_size * b, "fence posts"),
        (lambda config, ids, b: (config.num_hidden_layers + 1) * ids.numel() * config.vocab_size * b, "vocabulary"),
        (lambda config, ids, b: (config.num_hidden_layers + 1) * ids.shape[1] * config.hidden_size * b, "every sample"),
        (lambda config, ids, b: (config.num_hidden_layers + 1) * ids.numel() * config.hidden_size, "how many bytes"),
    ],
    "cosine": [
        (lambda a, b: cosine(a, b), "half precision .* float32"),
        (lambda a, b: cosine(a, b).float(), "half precision .* float32"),
        (lambda a, b: cosine(a.float(), b.float(), 0), "wrong axis"),
        (lambda a, b: cosine(a.float(), b.float(), min(1, a.ndim - 1)), "wrong axis"),
        (lambda a, b: (a.float() * b.float()).sum() / (a.float().norm() * b.float().norm()), "its own cosine"),
        (lambda a, b: 1 - cosine(a.float(), b.float()), "one minus the cosine"),
        (lambda a, b: (a.float() * b.float()).sum(-1), "divide it by both lengths"),
        (lambda a, b: cosine(a.float(), b.float())[..., None], "which axis"),
        (lambda a, b: a @ b, r"stopped with RuntimeError.* where line \d+ of its cell"),
        (lambda a, b: None, "return"),
        (lambda a, b: cosine(a.float().mul_(2), b.float()), "changed what it was given"),
    ],
    "record_outputs": [
        (hook_left, "remove the hook by the handle"),
        (hook_left_after_error, "finally"),
        (all_hooks_cleared, "your own hook only"),
        (recorded(lambda seen, args, output: seen.append(args[0])), "went into the module"),
        (recorded(lambda seen, args, output: seen.append(output), lambda seen: seen[-1:]), "not only the last"),
        (
            recorded(lambda seen, args, output: seen.append(output), lambda seen: seen[-1] if seen else None),
            "in a list",
        ),
        (recorded(lambda seen, args, output: [seen.append(output), output + 1][1]), "takes the place"),
    ],
    "busiest_layers": [
        (lambda s, n: (cosine(s[:-1], s[1:]).mean((1, 2)).argsort()[:n] + 1).tolist(), "off by one"),
        (lambda s, n: cosine(s[:-1], s[1:]).mean((1, 2)).argsort(descending=True)[:n].tolist(), "least"),
        (lambda s, n: cosine(s[:-1].mean((1, 2)), s[1:].mean((1, 2))).argsort()[:n].tolist(), "average after that"),
        (lambda s, n: (s[1:] - s[:-1]).norm(dim=-1).mean((1, 2)).argsort(descending=True)[:n], "how much they add"),
    ],
    "answer_ranks": [
        (lambda *a: (ranks(*a) - 1).tolist(), "rank 1, not 0"),
        (lambda states, norm, head, answer: ranks(states, lambda x: x, head, answer).tolist(), "final norm first"),
        (lambda *a: ranks(*a, token=0).tolist(), "after the first token"),
        (lambda *a: (41 - ranks(*a)).tolist(), "more probable, not less"),
    ],
    "layer_influences": [
        (lambda reported, last: pairs(reported), "through the final norm"),
        (lambda reported, last: pairs([*reported, last]), "one score too many"),
        (lambda reported, last: pairs(reported[:-1]), "one score too few"),
        (lambda reported, last: pairs([*reported[1:-1], last]), "off by one"),
        (shift_influences, ""),
        (lambda reported, last: [1 - x for x in pairs([*reported[:-1], last])], "similarity"),
        (lambda reported, last: pairs([x.flatten(0, 1).mean(0) for x in (*reported[:-1], last)]), "average after that"),
    ],
    "masked_influence": [
        (lambda a, b, mask: cosine(a.float(), b.float())[mask.bool()].mean(), "similarity"),
        (lambda a, b, mask: 1 - cosine(a[mask.bool()].mean(0), b[mask.bool()].mean(0)), "average after that"),
        (lambda a, b, mask: (1 - cosine(a.float(), b.float())).mean(), "pad tokens are counted"),
        (lambda a, b, mask: ((1 - cosine(a, b)) * mask).mean(), "the number it is divided by"),
        (
            lambda a, b, mask: torch.stack(
                [(1 - cosine(x, y))[m.bool()].mean() for x, y, m in zip(a, b, mask, strict=True)]
            ).mean(),
            "mean of means",
        ),
        (multiplied, "0 times NaN"),
        (lambda a, b, mask: 1 - cosine(a, b)[mask.bool()].float().mean(), "half precision .* float32"),
        (lambda a, b, mask: 1 - cosine(a.float(), b.float(), 1).mean(), ""),
    ],
    "span_angle": [
        (lambda s, start, n: angle(s[start], s[start + n - 1]).mean() / torch.pi, "off by one"),
        (lambda s, start, n: angle(s[start], s[min(start + n + 1, len(s) - 1)]).mean() / torch.pi, "off by one"),
        (lambda s, start, n: angle(s[start], s[start + n]).mean(), "radians"),
        (lambda s, start, n: angle(s[start], s[start + n]).rad2deg().mean(), "degrees"),
        (lambda s, start, n: cosine(s[start], s[start + n]).mean().arccos() / torch.pi, "of each token first"),
        (lambda s, start, n: cosine(s[start], s[start + n]).arccos().mean() / torch.pi, "clamp"),
        (lambda s, start, n: block_influence(s[start], s[start + n]).mean(), "one minus the cosine"),
    ],
    "difference_with_error": [
        (lambda a, b: ((a - b).mean(), (a - b).std() / a.numel() ** 0.5), "tokens of one sample are not independent"),
        (
            lambda a, b: ((a - b).mean(), ((a.mean(1).var() + b.mean(1).var()) / len(a)).sqrt()),
            "subtract within each sample",
        ),
        (lambda a, b: ((a - b).mean(), (a - b).mean(1).std(correction=0) / len(a) ** 0.5), "their number less one"),
        (lambda a, b: ((a - b).mean(), (a - b).mean(1).std()), "spread of the samples"),
        (lambda a, b: ((b - a).mean(), (a - b).mean(1).std() / len(a) ** 0.5), "sign"),
    ],
    "without_layers": [
        (deleting, "each deletion moves"),
        (deleting_without_looking, "each deletion moves"),
        (deleting_in_place, "leave that list alone"),
        (lambda layers, removed: [x for i, x in enumerate(layers) if i not in removed], "ModuleList only"),
        (lambda layers, removed: nn.ModuleList(layers[i] for i in sorted(removed)), "should go"),
        (
            lambda layers, removed: copy.deepcopy(nn.ModuleList(x for i, x in enumerate(layers) if i not in removed)),
            "copies",
        ),
        (lambda layers, removed: layers[: len(layers) - len(removed)], "from the end"),
    ],
    "number_layers": [
        (lambda layers: layers, "number in the dense model"),
        (numbered(start=1, inside=lambda layer: layer.modules()), "counted from 0"),
        (numbered(), "look at all of layer.modules"),
        (numbered(inside=lambda layer: [layer], anyway=True), "only modules that had"),
        (numbered(inside=lambda layer: layer.modules(), anyway=True), "only modules that had"),
        (lambda layers: [layer.mlp.register_buffer("layer_idx", None) for layer in layers], "only modules that had"),
    ],
    "sliced_config": [
        (configured(lambda values, kept: values[: len(kept)]), "right length and the wrong entries"),
        (configured(lambda values, kept: [values[i] for i in kept], count=lambda depth: depth), "still the old one"),
        (configured(lambda values, kept: values), "as long as before"),
        (
            configured(lambda values, kept: [values[i] for i in kept if i < len(values)], lambda values, depth: True),
            "another length",
        ),
        (
            configured(lambda values, kept: [values[i] for i in kept], lambda values, depth: True),
            "each deletion|each layer was cut",
        ),
        (configured(lambda values, kept: [v for i, v in enumerate(values) if i not in kept]), "of the layers that go"),
        (in_place, "changed what it was given"),
    ],
    "greedy": [
        (searched(again=False, best=lambda rest, key: min(rest, key=key)), "after each removal"),
        (lambda cost, candidates, n: sorted(candidates, key=lambda i: cost([i]))[:n], "after each removal"),
        (searched(best=max), "a low cost is good"),
        (lambda cost, some, n: min(itertools.combinations(some, n), key=lambda x: cost(list(x))), "best set of all"),
        (repeated, "only once"),
        (searched(result=lambda removed, candidates: [candidates.index(i) for i in removed]), "positions in the list"),
        (lambda cost, some, n: [min(range(len(some)), key=lambda i: cost([i]))] * n, "but the candidates are"),
    ],
    "bits_per_weight": [
        (lambda shape, bits, group, scale, zero: bits, "take room"),
        (lambda shape, bits, group, scale, zero: bits + rows_of(shape, group) * scale / shape[1], "zero point"),
        (lambda shape, bits, group, scale, zero: bits + (scale + zero) / group, "shorter than"),
        (
            lambda shape, bits, group, scale, zero: bits + shape[1] // group * (scale + zero) / shape[1],
            "last full group",
        ),
        (lambda shape, bits, group, scale, zero: bits + scale + zero, "belong to a whole group"),
        (
            lambda shape, bits, group, scale, zero: bits + rows_of(shape[::-1], group) * (scale + zero) / shape[0],
            "along the inputs",
        ),
    ],
    "round_in_groups": [
        (columns, "along the outputs"),
        (whole_rows, "whole row"),
        (lambda *a: grouped(*a, change=1), "q_max"),
        (lambda weight, bits, group: grouped(weight.reshape(-1, group), bits, group), "shape of the weight"),
        (zero_scale, "0 / 0 is NaN"),
        (lambda weight, bits, group: weight.clone(), "not rounded at all"),
    ],
    "best_models": [
        (lambda sizes, values: unbeaten(sizes, [-v for v in values]), "lower perplexity is better"),
        (lambda *a: sorted(unbeaten(*a)), "smallest should come first"),
        (lambda *a: unbeaten(*a, beats=lambda a, b: a[0] < b[0] and a[1] < b[1]), "same size"),
        (lambda sizes, values: [sizes[i] for i in unbeaten(sizes, values)], "return the positions"),
        (lambda *a: unbeaten(*a, beats=lambda a, b: a[0] <= b[0] and a[1] <= b[1]), "not beat itself"),
    ],
    "interaction": [
        (lambda *a: (rest_of(*(x.exp() for x in a)).mean(), 0.0), ""),
        (lambda *a: ((e := rest_of(*(x.exp() for x in a))).mean(), e.std() / len(e) ** 0.5), "perplexities"),
        (
            lambda *a: (rest_of(*a).mean(), torch.stack([x.var() / len(x) for x in a]).sum().sqrt()),
            "each document first",
        ),
        (lambda d, p, q, b: ((e := b - p - q).mean(), e.std() / len(e) ** 0.5), "once too often"),
        (lambda *a: (-rest_of(*a).mean(), rest_of(*a).std() / len(a[0]) ** 0.5), "sign"),
        (lambda *a: (rest_of(*a).mean(), rest_of(*a).std()), "spread of the documents"),
    ],
    "corpus_perplexity": [
        (lambda losses: torch.stack([x.mean().exp() for x in losses]).mean(), "mean of perplexities"),
        (lambda losses: torch.stack([x.mean() for x in losses]).mean().exp(), "every token should count the same"),
        (lambda losses: 2 ** torch.cat(losses).mean(), "in nats"),
        (lambda losses: torch.cat(losses).exp().mean(), "exponential comes last"),
        (lambda losses: torch.cat(losses).mean(), "its exponential"),
    ],
    "kept_above_chance": [
        (lambda dense, pruned, n: 100 * pruned / dense, "plain retention"),
        (lambda dense, pruned, n: 100 * (pruned - 1 / n) / (dense - 1 / n), "in percent"),
        (lambda dense, pruned, n: 100 * (pruned - 100 / n) / dense, "dense model's accuracy"),
        (lambda dense, pruned, n: (pruned - 100 / n) / (dense - 100 / n), "share between 0 and 1"),
        (lambda dense, pruned, n: 100 * (pruned - 50) / (dense - 50), "two choices for granted"),
    ],
    "scored_windows": [
        (lambda *a: [(start, end, start + 1) for start, end, _ in windows(*a)], "scored twice"),
        (lambda *a: windows(*a, first=0), "before the first token"),
        (lambda *a: [(start, start + a[1], first) for start, _, first in windows(*a)], "beyond the text"),
        (lambda tokens, window, stride: windows(tokens, window, window), "should overlap"),
        (lambda *a: windows(*a, done_after=lambda start, end, done: end + 1)[:-1] or windows(*a), ""),
    ],
    "answer_scores": [
        (lambda logits, ids, question, lengths, mean: scored(logits, ids, 1, lengths, mean), "question's tokens"),
        (lambda *a: scored(*a, begin=1), "first token of the answer"),
        (lambda *a: scored(*a[:4], False), "per_token=True"),
        (lambda *a: -scored(*a), "sign"),
        (lambda *a: scored(*a, shift=0), "off by one"),
        (lambda *a: scored(*a, of=lambda x, dim: x), "these are logits"),
        (lambda *a: scored(*a, of=torch.softmax), "sums of probabilities"),
    ],
    "overlap_above_chance": [
        (lambda a, b, depth: common(a, b) / len(a), "take that share off"),
        (lambda a, b, depth: common(a, b) / len(a) - len(b) / depth, "should give 1"),
        (lambda a, b, depth: (common(a, b) / len(a) - 1 / depth) / (1 - 1 / depth), "how many are chosen"),
        (lambda a, b, depth: max(0, (common(a, b) / len(a) - len(a) / depth) / (1 - len(a) / depth)), "below zero"),
        (
            lambda a, b, depth: (
                (sum(x == y for x, y in zip(a, b, strict=True)) / len(a) - len(a) / depth) / (1 - len(a) / depth)
            ),
            "a set",
        ),
        (lambda a, b, depth: common(a, b) * depth / len(a) ** 2, "times chance"),
    ],
    "exchange_search": [
        (lambda *a: exchanged(*a, rounds=1), "as long as one helps"),
        (lambda *a: exchanged(*a, better=lambda new, old: new > old, pick=max), "a low cost is good"),
        (lambda cost, chosen, candidates: list(chosen), "nothing was exchanged"),
        (lambda cost, some, all_: list(min(itertools.combinations(all_, len(some)), key=cost)), "best set of all"),
        (lambda cost, chosen, all_: sorted(all_, key=lambda i: cost([i]))[: len(chosen)], "cheapest alone"),
        (lambda *a: exchanged(*a, rounds=10**9, better=lambda new, old: True), "stop when no exchange is better"),
        (lambda *a: exchanged(*a, grow=True, rounds=1, better=lambda new, old: True), "number of layers stays"),
        (lambda cost, chosen, candidates: [*chosen[:-1], chosen[0]], "in it twice"),
        (lambda *a: [exchanged(*a), a[1].clear()][0], "changed what it was given"),
        (lambda cost, chosen, candidates: [min([0, 1, 3], key=lambda i: cost([i]))] * 3, "but the candidates are"),
    ],
    "repair_matrix": [
        (lambda *a: least_squares(*a, power=0), "relative to the length of the goal"),
        (lambda *a: least_squares(*a, power=0.5), "squared"),
        (lambda *a: least_squares(*a, power=2), "once too often"),
        (lambda *a: least_squares(*a, length=lambda y, goal: y), "that of the goal"),
        (lambda *a: least_squares(*a, of=lambda y, goal: goal), "the rest to bring"),
        (lambda *a: least_squares(*a, of=lambda y, goal: y - goal), "sign"),
        (lambda *a: least_squares(*a).T, r"\[k, hidden\]"),
        (
            lambda z, y, goal, ridge: (
                torch.linalg.lstsq(z / goal.norm(dim=-1)[:, None], (goal - y) / goal.norm(dim=-1)[:, None]).solution
            ),
            "ridge is missing",
        ),
        (lambda z, y, goal, ridge: y + z @ least_squares(z, y, goal, ridge), "D is asked for"),
    ],
    "layer_parameters": [
        (lambda h, heads, groups, width, inner: matrices(h, heads, heads, width, inner), "share one key head"),
        (lambda *a: matrices(*a, back=False), "back to the hidden state"),
        (lambda *a: matrices(*a, in_ffn=2), "three matrices"),
        (lambda h, heads, groups, width, inner: (2 * h * (h + groups * width), 3 * h * inner), "heads times head_dim"),
        (lambda *a: matrices(*a)[::-1], "attention first"),
        (lambda *a: sum(matrices(*a)), "not their sum"),
    ],
    "without_channels": [
        (
            lambda gate, up, down, removed: masked_channels((gate, up, down), removed, len(gate)),
            "channels that should go",
        ),
        (lambda *a: (deleted(a[0], sorted(a[3])[::-1], 0), deleted(a[1], sorted(a[3])[::-1], 0), a[2]), "down still"),
        (
            lambda gate, up, down, removed: (
                deleted(gate, sorted(removed)[::-1], 0),
                deleted(up, sorted(removed)[::-1], 0),
                deleted(down, sorted(removed)[::-1], 0),
            ),
            "its columns",
        ),
        (
            lambda gate, up, down, removed: (
                deleted(gate, sorted(removed), 0),
                deleted(up, sorted(removed), 0),
                deleted(down, sorted(removed), 1),
            ),
            "each deletion moves",
        ),
        (silenced_in_place, "changed what it was given"),
        (
            lambda gate, up, down, removed: masked_channels(
                (gate, up, down), range(len(gate) - len(removed)), len(gate)
            ),
            "cuts from the end",
        ),
        (lambda gate, up, down, removed: gate[removed * 9], ""),
    ],
    "channel_scores": [
        (lambda inner, down, mask: added(inner, down, mask | 1), "pad tokens are counted"),
        (lambda *a: added(*a, of=lambda vectors: vectors.norm(dim=-1).mean(0)), "absolute values"),
        (lambda *a: added(*a, of=lambda vectors: vectors.mean(0).norm(dim=-1)), "square before the mean"),
        (lambda *a: added(*a, of=lambda vectors: vectors.square().sum(-1).mean(0)), "root is missing"),
        (lambda *a: added(*a, of=lambda vectors: vectors.square().sum((0, 2)).sqrt()), "more text"),
        (lambda inner, down, mask: added(inner, torch.ones_like(down)[:1], mask), "its column of down"),
        (lambda inner, down, mask: inner.square().mean((0, 1)).sqrt() @ down, "last axis of inner"),
    ],
    "model_parameters": [
        (lambda layer, layers, h, v, tied: counted(layer, layers, h, v, tied) - h, "last norm is missing"),
        (lambda layer, layers, h, v, tied: counted(layer, layers, h, v, False), "count it once"),
        (lambda layer, layers, h, v, tied: counted(layer, layers, h, v, not tied), "second matrix at the end"),
        (lambda layer, layers, h, v, tied: counted(layer, layers, h, v, True), "second matrix"),
        (lambda layer, layers, h, v, tied: layer * layers + h, "embedding is missing"),
        (lambda layer, layers, h, v, tied: counted(layer, 1, h, v, tied), "there are `layers` layers"),
    ],
    "layers_to_remove": [
        (lambda total, layer, layers, budget: too_large(total, layer, layers, budget, down=True), "round up"),
        (lambda total, layer, layers, budget: too_large(total, layer, layers, budget, least=-99), "loses nothing"),
        (lambda total, layer, layers, budget: max(0, -(-(total - budget) // layer)), "return None"),
        (lambda total, layer, layers, budget: too_large(total, layer, layers + 1, budget), "last layer has to stay"),
        (lambda total, layer, layers, budget: too_large(total - 20, layer, layers, budget), ""),
        (lambda total, layer, layers, budget: too_large(layers * layer, layer, layers, budget), "outside the layers"),
    ],
    "first_share_at": [
        (lambda s, t, limit: reached(s, t, limit, lambda x: x), "straight line in the factor"),
        (lambda s, t, limit: next((a for a, b in zip(s, t, strict=True) if b >= limit), None), "first measured share"),
        (lambda s, t, limit: reached(s, [*itertools.accumulate(t, max)], limit) or s[-1], "then return None"),
        (lambda s, t, limit: s[t.index(next(x for x in t if x >= limit)) - 1], "last measured share below"),
        (lambda s, t, limit: reached(s[::-1], t[::-1], limit, down=True), "first time counts"),
    ],
    "half_life": [
        (lambda d: torch.exp(-d), "left after one token"),
        (lambda d: 1 / d, "1/e"),
        (lambda d: torch.tensor(0.5).log() / d, "the sign"),
        (lambda d: torch.tensor(2.0).log() * d, "divide by d"),
        (lambda d: 1 / (1 - torch.exp(-d)), "rule of thumb"),
    ],
    "run_memory": [
        (lambda *a: stepped(*a, early=True), "behind the update"),
        (lambda *a: stepped(*a, keep=lambda a: 1), "does not fade"),
        (lambda *a: stepped(*a, take=lambda a: a), "not faded yet"),
        (lambda *a: stepped(*a, take=lambda a: 1 - a), "counts in full"),
        (lambda decay, write, read, x: stepped(decay, read, write, x), "mixed up"),
        (lambda *a: stepped(*a)[-1], "has a row"),
    ],
    "memory_as_attention": [
        (lambda *a: pairwise(*a).T, "the other way round"),
        (lambda *a: pairwise(*a, start=0), "multiply from s"),
        (lambda *a: pairwise(*a, end=0), "multiply up to t"),
        (lambda *a: pairwise(*a, least=1), "on the diagonal"),
        (lambda decay, write, read: pairwise(decay, read, write), "read and write"),
        (lambda decay, write, read: (read @ write.T).tril(), "decays are missing"),
        (lambda decay, write, read: read @ write.T, "later ones"),
        (by_quotients, "no logarithm"),
    ],
    "expected_influence": [
        (lambda *a: walked(*a, value=lambda before, after: before / after), "one minus the cosine"),
        (lambda a, b, n: walked(a, b, n, counted=range(1, n + 2)), "embedding alone"),
        (lambda *a: walked(*a, value=lambda before, after: 1 - (before / after) ** 2), "root is missing"),
        (lambda a, b, n: [1 - (a + i * b) / (a + i * b + b) for i in range(n)], "lengths don't"),
        (lambda a, b, n: walked(0, b, n), "begins with the embedding"),
        (lambda a, b, n: walked(a, b, n + 1), "one too many"),
    ],
    "growth_parts": [
        (lambda *a: grown(*a)[::-1], "first the part"),
        (lambda *a: grown(*a, mixed=1.0), "counts twice"),
        (lambda *a: grown(*a, by="mean"), "then average"),
        (lambda *a: grown(*a, by="out"), "that enters"),
        (lambda *a: sum(grown(*a)), "not their sum"),
        (
            lambda x, y: tuple(
                (part / x.square().sum(-1)).mean() for part in ((y - x).square().sum(-1), 2 * (x * (y - x)).sum(-1))
            ),
            "half precision",
        ),
    ],
    "growth_exponent": [
        (
            lambda norms: with_error(fitted(norms, layers=lambda n: torch.arange(n).log())),
            "counted from 1|stopped with",
        ),
        (lambda norms: with_error(fitted(norms, layers=lambda n: torch.arange(1, n + 1))), "of the layers as well"),
        (lambda norms: with_error(fitted(norms, of=lambda y: y)), "of the lengths as well"),
        (lambda norms: (fitted(norms).mean(), fitted(norms).std()), "spread of the slopes"),
        (lambda norms: (fitted(norms.mean(0, keepdim=True))[0], with_error(fitted(norms))[1]), "each seed for itself"),
        (lambda norms: with_error(2 * fitted(norms)), "squared lengths"),
        (lambda norms: with_error(fitted(norms))[::-1], "the mean first"),
    ],
    "state_pairs": [
        (lambda *a: partners(*a)[:-1], "leaves the last layer"),
        (lambda depth, removed: [(0, 0), *partners(depth, removed)], "the embedding in both"),
        (lambda *a: [(new, new) for new, _ in partners(*a)], "their old ones"),
        (lambda *a: [pair[::-1] for pair in partners(*a)], "pruned model comes first"),
        (
            lambda depth, removed: [(i + 1, k + 1) for i, k in enumerate(k for k in range(depth) if k not in removed)],
            "leave",
        ),
        (lambda depth, removed: list(enumerate(sorted(removed))), "those that were kept"),
        (lambda *a: None, "returned nothing"),
    ],
    "answer_divergence": [
        (lambda p, q, t: softened(q, p, t), "are the weights"),
        (lambda p, q, t: softened(p, q, t) / t**2, "temperature squared"),
        (lambda p, q, t: softened(p, q, t) / t, "comes in squared"),
        (lambda p, q, t: t**2 * softened(p, q, 1.0), "divide the logits"),
        (lambda p, q, t: softened(p, q, 1.0), "no part in this yet"),
        (lambda *a: softened(*a).sum(), "one number a token"),
        (lambda *a: softened(*a).mean(), "not their mean"),
        (lambda p, q, t: -(t**2) * ((p / t).softmax(-1) * (q / t).log_softmax(-1)).sum(-1), "cross entropy"),
        (lambda p, q, t: (p * (p - q)).sum(-1), "softmax first"),
    ],
    "merged_weight": [
        (lambda w, a, b, alpha: w + b @ a, "alpha divided by the rank"),
        (lambda w, a, b, alpha: w + alpha * b @ a, "divide alpha"),
        (lambda w, a, b, alpha: w + alpha / a.shape[1] * b @ a, "rows of a"),
        (lambda w, a, b, alpha: alpha / len(a) * b @ a, "add it to the weight"),
        (lambda w, a, b, alpha: alpha / len(a) * (w + b @ a), "not scaled"),
        (lambda w, a, b, alpha: w - alpha / len(a) * b @ a, "not taken off"),
        (lambda w, a, b, alpha: w + alpha / len(a) * a @ b, "shape of the weight"),
    ],
    "repeated_share": [
        (lambda *a: seen_before(*a, new=1), "new ones"),
        (lambda *a: seen_before(*a, start=lambda tokens, n: len(tokens) - n), "the last n-gram"),
        (lambda *a: seen_before(*a, start=lambda tokens, n: len(tokens)), "fewer than n tokens"),
        (lambda *a: seen_before(*a, gram=lambda piece: tuple(sorted(piece))), "order within"),
        (lambda tokens, n: seen_before(tokens, 1), "single tokens"),
        (
            lambda tokens, n: (
                1 - len({str(tokens[i : i + n]) for i in range(len(tokens) - n + 1)}) / (len(tokens) - n + 1)
            ),
            "has no n-gram|0.0",
        ),
        (lambda tokens, n: len({tokens[i : i + n] for i in range(len(tokens))}), "make each n-gram a tuple"),
    ],
    "best_draft_length": [
        (lambda *a: fastest(*a, least=0), "the answer is 0"),
        (lambda *a: fastest(*a, price=lambda n, c: n * c), "costs 1 as well"),
        (lambda *a: fastest(*a, price=lambda n, c: 1), "costs a pass of the draft"),
        (lambda *a: fastest(*a, written=lambda a, n: 1 + n * a), "all before it"),
        (lambda *a: fastest(*a, result=lambda n, gain: gain), "that is the speed-up"),
        (lambda *a: fastest(*a, written=lambda a, n: (1 - a ** (n + 1)) / (1 - a)), "0/0"),
        (lambda a, c, longest: fastest(a, c, longest - 1), "allowed as well"),
    ],
    "write_with_draft": [
        (lambda *a: rounds(*a, place=0), "off by one|stopped with"),
        (lambda *a: rounds(*a, accept=False), "every drafted token is kept"),
        (lambda *a: rounds(*a, prompt=True), "without the prompt"),
        (lambda *a: rounds(*a, cut=False), "cut off what is too much"),
        (lambda *a: rounds(*a, bonus=False), "a round should write more"),
        (alone, "a round should write more"),
        (lambda *a: [rounds(*a), a[2].clear()][0], "changed what it was given"),
        (lambda *a: [rounds(*a)][1:].clear(), "end it with a return"),
        (lambda model, draft, *a: alone(draft, draft, *a), "that is the draft's text"),
        (lambda model, draft, ids, n, k: [model(ids), 0][1:] * 300 and [model(ids) for _ in range(300)], "200 times"),
    ],
}
RIGHT: dict[str, list[Callable]] = {
    "states_bytes": [
        lambda config, ids, b: float(
            torch.tensor([config.num_hidden_layers + 1, *ids.shape, config.hidden_size, b]).prod()
        )
    ],
    "cosine": [
        lambda a, b: torch.cosine_similarity(a.float(), b.float(), dim=-1),
        lambda a, b: cosine(a.double(), b.double()).numpy(),
        lambda a, b: (nn.functional.normalize(a.float(), dim=-1) * nn.functional.normalize(b.float(), dim=-1)).sum(-1),
    ],
    "record_outputs": [recorded(lambda seen, args, output: seen.append(output))],
    "busiest_layers": [
        lambda s, n: block_influence(s[:-1], s[1:]).mean((1, 2)).topk(n).indices,
        lambda s, n: tuple(sorted(range(len(s) - 1), key=lambda i: float(cosine(s[i], s[i + 1]).mean()))[:n]),
    ],
    "answer_ranks": [
        ranks,
        lambda states, norm, head, answer: [
            head(norm(state[-1])).argsort(descending=True).tolist().index(answer) + 1 for state in states
        ],
    ],
    "layer_influences": [lambda reported, last: torch.tensor(pairs([*reported[:-1], last]))],
    "masked_influence": [
        lambda a, b, mask: block_influence(a[mask == 1], b[mask == 1]).mean(),
        lambda a, b, mask: torch.where(mask.bool(), block_influence(a, b), 0).sum() / mask.sum(),
    ],
    "span_angle": [lambda s, start, n: (angle(s[start].double(), s[start + n].double()) / torch.pi).mean().item()],
    "difference_with_error": [
        lambda a, b: [a.mean() - b.mean(), ((a.mean(1) - b.mean(1)).var() / len(a)).sqrt()],
        lambda a, b: torch.stack([(a - b).mean(), (a - b).mean(1).std() / len(a) ** 0.5]),
    ],
    "without_layers": [
        lambda layers, removed: nn.ModuleList(layers[i] for i in range(len(layers)) if i not in set(removed))
    ],
    "number_layers": [numbered(inside=lambda layer: layer.modules())],
    "sliced_config": [configured(lambda values, kept: [values[i] for i in kept])],
    "greedy": [searched(), searched(result=lambda removed, candidates: tuple(removed))],
    "bits_per_weight": [lambda shape, bits, group, s, z: bits + rows_of(shape, group) * (s + z) / shape[1]],
    "round_in_groups": [grouped],
    "best_models": [unbeaten, lambda *a: tuple(unbeaten(*a))],
    "interaction": [lambda *a: [rest_of(*a).mean().item(), (rest_of(*a).var() / len(a[0])).sqrt().item()]],
    "corpus_perplexity": [lambda losses: (sum(x.sum() for x in losses) / sum(len(x) for x in losses)).exp()],
    "kept_above_chance": [lambda dense, pruned, n: (pruned * n - 100) / (dense * n - 100) * 100],
    "scored_windows": [windows],
    "answer_scores": [scored],
    "overlap_above_chance": [
        lambda a, b, depth: (common(a, b) * depth - len(a) ** 2) / (len(a) * (depth - len(a))),
    ],
    "exchange_search": [exchanged, lambda *a: tuple(sorted(exchanged(*a)))],
    "repair_matrix": [least_squares],
    "layer_parameters": [matrices, lambda *a: list(matrices(*a))],
    "without_channels": [
        lambda gate, up, down, removed: masked_channels(
            (gate, up, down), [i for i in range(len(gate)) if i not in removed], len(gate)
        ),
        lambda gate, up, down, removed: [
            deleted(weight, sorted(removed, reverse=True), axis)
            for weight, axis in zip((gate, up, down), (0, 0, 1), strict=True)
        ],
    ],
    "channel_scores": [added],
    "model_parameters": [counted, lambda *a: torch.tensor(counted(*a))],
    "layers_to_remove": [too_large],
    "first_share_at": [reached],
    "half_life": [lambda d: -1 / torch.log2(torch.exp(-d.double())), lambda d: (0.6931471805599453 / d).numpy()],
    "run_memory": [
        stepped,
        lambda decay, write, read, x: pairwise(decay, write, read) @ x,
    ],
    "memory_as_attention": [
        pairwise,
        lambda decay, write, read: stepped(decay, write, read, torch.eye(len(decay))),
    ],
    "expected_influence": [walked, lambda *a: torch.tensor(walked(*a))],
    "growth_parts": [grown, lambda *a: torch.tensor(grown(*a))],
    "growth_exponent": [lambda norms: with_error(fitted(norms))],
    "state_pairs": [partners, lambda *a: tuple(partners(*a))],
    "answer_divergence": [softened],
    "merged_weight": [through_adapter],
    "repeated_share": [seen_before],
    "best_draft_length": [fastest],
    "write_with_draft": [rounds],
}
MISTAKES = [pytest.param(name, *pair, id=f"{name}-{i}") for name, rows in WRONG.items() for i, pair in enumerate(rows)]


def test_every_exercise_has_a_check_and_mistakes():
    assert set(WRONG) == set(RIGHT) == set(exercises())
    assert {f"check_{name}" for name in WRONG} == {name for name in checks.__all__ if name.startswith("check_")}
    assert all(len([hint for _, hint in rows if hint]) >= 3 for rows in WRONG.values())


@pytest.mark.parametrize("name", WRONG)
def test_the_lessons_solution_passes(name, capsys):
    assert check(name)(defined(with_solution(exercises()[name]), name)) is None, "nbgrader reads a result as marks"
    printed = capsys.readouterr()
    assert re.fullmatch(rf"{name} is right: (\d+) of \1 tests passed\.\n", printed.out) and not printed.err


@pytest.mark.parametrize("name", WRONG)
def test_a_stub_is_not_solved_yet(name):
    with pytest.raises(NotSolved) as caught:
        check(name)(defined(with_stub(exercises()[name]), name))
    shown = caught.value._render_traceback_()
    assert len(shown) == 1 and shown[0].startswith(f"not solved yet: {name}() is still to be written")


@pytest.mark.parametrize(("name", "wrong", "hint"), MISTAKES)
def test_a_mistake_gets_the_hint_that_belongs_to_it(name, wrong, hint):
    message = verdict(name, wrong)
    assert re.search(hint, " ".join(message.split())), message
    assert (
        "  hint  " in message
        or not hint
        or "but the candidates" in message
        or "only once" in message
        or "still no end" in message
        or "where" in message
    )
    solution = with_solution(exercises()[name]).partition('"""\n')[2]
    told = [line.strip() for line in solution.splitlines() if len(line.strip()) > 15 and line.strip() in message]
    assert not told, f"the message contains a line of the solution: {told}"


def mistakes_in(table: dict) -> list[tuple[str, int]]:
    """Every hint with the place of each answer that has it."""
    return [(hint, i) for hint, wrong in table.items() for i in range(len(wrong) if isinstance(wrong, AnyOf) else 1)]


def making(answers: Callable, hint: str, place: int) -> Callable:
    """A function that makes this mistake: by the check's own table."""

    def mistaken(*arguments):
        wrong = answers(*arguments)[1][hint]
        wrong = wrong[place] if isinstance(wrong, AnyOf) else wrong
        return wrong() if callable(wrong) else wrong

    return mistaken


def test_every_mistake_that_a_check_knows_gets_its_own_hint(monkeypatch, capsys):
    """None is out of reach behind another that gives the same answer in the same test."""
    known = []
    for module in [
        import_module(f"{checks.__name__}.{lesson}") for _, lesson, _ in pkgutil.iter_modules(checks.__path__)
    ]:
        if hasattr(module, "compare") and module is not comparing:
            monkeypatch.setattr(module, "compare", lambda *given, **options: known.append((given, options)))
    for name in WRONG:
        check(name)(defined(with_solution(exercises()[name]), name))
    assert len(known) == len(WRONG) - 3, "those without compare look at what a function does, not at what it returns"
    for (name, _, cases, answers), options in known:
        for hint, place in mistakes_in(answers(*cases[0].fresh())[1]):
            with pytest.raises(CheckFailed) as caught:
                comparing.compare(name, making(answers, hint, place), cases, answers, **options)
            assert hint in " ".join(str(caught.value).split()), (name, hint, place)


@pytest.mark.parametrize(("name", "right"), [(name, f) for name, rows in RIGHT.items() for f in rows])
def test_other_ways_of_being_right_pass(name, right):
    check(name)(right)


@pytest.mark.parametrize("name", WRONG)
def test_a_stub_without_a_message_is_not_solved_either(name):
    """As nbgrader writes it."""

    def stub(*arguments):
        raise NotImplementedError()

    with pytest.raises(NotSolved, match=rf"^not solved yet: {name}\(\) is still to be written$"):
        check(name)(stub)


def test_a_cell_that_uses_a_function_waits_for_its_check():
    solution = defined(with_solution(exercises()["cosine"]), "cosine")
    with pytest.raises(NotSolved, match=r"^this cell shows what cosine\(\) finds, once its check has passed$"):
        checks.require_passed(solution)
    checks.check_cosine(solution)
    checks.require_passed(solution)
    with pytest.raises(NotSolved):
        checks.require_passed(defined(with_solution(exercises()["cosine"]), "cosine"))


@pytest.mark.parametrize("name", WRONG)
def test_no_constant_passes(name):
    """Not even the right answer to the first test, given to all."""
    solution, first = defined(with_solution(exercises()[name]), name), []

    def constant(*arguments):
        if not first:
            first.append(solution(*arguments))
        return first[0]

    odd = (
        None,
        0,
        1.0,
        float("nan"),
        [],
        [None],
        [[1], [2], [3]],
        {},
        torch.zeros(3),
        torch.ones(2, 3, 4),
        "",
        "a",
        object(),
    )
    for answer in (constant, *(lambda *a, value=value: value for value in odd)):
        verdict(name, answer)


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_function_is_one_clear_sentence(name):
    message = rf"^check_{name} expects the function itself, got int: write check_{name}\({name}\)$"
    with pytest.raises(TypeError, match=message):
        check(name)(3)


@pytest.mark.parametrize("name", WRONG)
def test_verdicts_repeat_and_leave_the_random_state_alone(name):
    torch.manual_seed(20)
    before = torch.get_rng_state()
    once = [verdict(name, wrong) for wrong, _ in WRONG[name]]
    assert once == [verdict(name, wrong) for wrong, _ in WRONG[name]]
    assert torch.equal(before, torch.get_rng_state())


def test_a_warning_in_a_learners_function_does_not_reach_a_grader(recwarn):
    import warnings

    solution = defined(with_solution(exercises()["cosine"]), "cosine")

    def warns(a, b):
        warnings.warn("careful", stacklevel=1)
        return solution(a, b)

    checks.check_cosine(warns)
    assert not recwarn.list
