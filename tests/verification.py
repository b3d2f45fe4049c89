"""What is verified of one architecture, against references that share no code with `shortgpt`; and the table of the results.

    python tests/verification.py            verify every architecture and write docs/architectures.md (make architectures)
    python tests/verification.py llama ...  verify some and print their rows

`test_architectures.py` runs the same for every row of that table and compares.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from architectures import DEPTH, VOCABULARY, decoder_only_types, tiny_model
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

import shortgpt.checkpoints.saving
from shortgpt import decoder_layers, remove_layers, remove_sublayers, save, score_layers, score_sublayers
from shortgpt.checkpoints.own_format import is_own_format, restore
from shortgpt.model.anatomy import removed_so_far
from shortgpt.model.branches import KINDS, sublayers

TABLE = Path(__file__).parents[1] / "docs" / "architectures.md"
REMOVALS = {"two in the middle": [2, 3], "the first": [0], "the last": [DEPTH - 1], "several": [0, 2, 5]}
# where a token's state is in the layers' hidden states: the axes of batch and tokens
AXES = {"gemma3n_text": (1, 2), "xlnet": (1, 0)}
# layers that can't go in principle: every other removal is tried
REMOVALS_OF = {"inkling2_text": {"two in the middle": [2, 3], "the last": [5], "several": [1, 3, 5]}}

NOT_SCORED = {
    "cpmant": "its layers see 32 prompt states of their own before the tokens",
    "mllama": "its cross-attention layers don't run without an image",
}
NO_CACHE = {
    "cpmant": "cached generation of the dense model differs from uncached",
    "moshi": "cached generation of the dense model differs from uncached",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the table; every cell is a result, none is an opinion."""

    model_type: str
    scores: str
    removal: str
    cache: str
    checkpoint: str
    sublayers: str

    def line(self) -> str:
        cls = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[self.model_type]
        cells = (f"`{self.model_type}`", cls, self.scores, self.removal, self.cache, self.checkpoint, self.sublayers)
        return f"| {' | '.join(cells)} |"


def verify(model_type: str) -> Row:
    """Check everything that the table tells of `model_type`. Raises AssertionError where a property does not hold."""
    model = tiny_model(model_type)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = model.config.to_dict()
    removals = REMOVALS_OF.get(model_type, REMOVALS)
    row = Row(
        model_type,
        _scores(model_type, model),
        _removal(model, removals),
        _cache(model_type, model, removals),
        _checkpoint(model, removals),
        _sublayers(model_type, model),
    )
    assert model.config.to_dict() == config, "the original's configuration changed"
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    return row


def batch_of(rows: int = 2, tokens: int = 12, seed: int = 0) -> dict[str, torch.Tensor]:
    ids = torch.randint(3, VOCABULARY, (rows, tokens), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@torch.no_grad()
def logits(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(**batch, use_cache=False).logits.float()


def deviation(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference, as a fraction of the largest expected value."""
    return ((actual - expected).abs().max() / expected.abs().max()).item()


# ---- scores: float64 arithmetic on states that hooks of this file saw ----


def _scores(model_type: str, model: PreTrainedModel) -> str:
    if model_type in NOT_SCORED:
        try:
            score_layers(model, [batch_of()], progress=False)
        except ValueError:
            return "no: " + NOT_SCORED[model_type]
        raise AssertionError("it can be scored after all: update NOT_SCORED")
    batch = batch_of()
    expected = [block_influence(*pair) for pair in layer_states(model_type, model, batch)]
    actual = score_layers(model, [batch], progress=False).values
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6)
    return "yes"


def layer_states(
    model_type: str, model: PreTrainedModel, batch: dict[str, torch.Tensor]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """What enters and what leaves each layer, float64 ``[tokens of all rows, features]``."""
    states = []

    def keep(module, args, kwargs, output):
        x_in = args[0] if args else kwargs["hidden_states"]
        states.append((x_in.double().numpy(), _first(output).double().numpy()))

    handles = [layer.register_forward_hook(keep, with_kwargs=True) for layer in decoder_layers(model)]
    logits(model, batch)
    for handle in handles:
        handle.remove()
    axes, tokens = AXES.get(model_type, (0, 1)), batch["input_ids"].numel()
    return [tuple(np.moveaxis(x, axes, (0, 1)).reshape(tokens, -1) for x in pair) for pair in states]


def block_influence(x_in: np.ndarray, x_out: np.ndarray) -> float:
    cosines = (x_in * x_out).sum(1) / np.sqrt((x_in**2).sum(1) * (x_out**2).sum(1))
    return float((1 - cosines).mean())


# ---- removal: equal to forcing the layers to hand on what they were given ----


def identity_logits(model: PreTrainedModel, batch: dict[str, torch.Tensor], removed: list[int]) -> torch.Tensor:
    def hand_on(module, args, kwargs, output):
        x_in = args[0] if args else kwargs["hidden_states"]
        if torch.is_tensor(output):
            return x_in
        # a layer may carry more than the hidden states (ZAYA's router states): what came in second goes out second
        carried = [a if a is None or torch.is_tensor(a) else o for a, o in zip(args[1:], output[1:], strict=False)]
        return type(output)([x_in, *carried, *output[1 + len(carried) :]])

    handles = [decoder_layers(model)[i].register_forward_hook(hand_on, with_kwargs=True) for i in removed]
    try:
        return logits(model, batch)
    finally:
        for handle in handles:
            handle.remove()


def _removal(model: PreTrainedModel, removals: dict[str, list[int]]) -> str:
    batch = batch_of()
    for what, removed in removals.items():
        pruned = remove_layers(model, removed)
        assert removed_so_far(pruned) == tuple(removed) and len(decoder_layers(pruned)) == DEPTH - len(removed)
        off = deviation(logits(pruned, batch), identity_logits(model, batch, removed))
        assert off <= 1e-5, f"removing {what} differs from forcing identity by {off:.2g}"
    impossible = sorted({i for layers in REMOVALS.values() for i in layers} - {i for r in removals.values() for i in r})
    for i in impossible:
        try:
            remove_layers(model, [i])
        except ValueError:
            continue
        raise AssertionError(f"layer {i} can be removed after all")
    return "yes" if not impossible else f"yes, but layer {', '.join(map(str, impossible))} (others depend on it)"


# ---- cached generation ----


@torch.no_grad()
def generated_logits(model: PreTrainedModel, batch: dict[str, torch.Tensor], use_cache: bool) -> torch.Tensor:
    """Logits of six steps of generation along one fixed continuation, so that both ways read the same tokens."""
    prompt = batch["input_ids"].shape[1]
    fixed = list(range(10, 16))
    settings = GenerationConfig(
        max_new_tokens=6,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
        use_cache=use_cache,
        output_logits=True,
        return_dict_in_generate=True,
    )
    out = model.generate(
        **batch,
        generation_config=settings,
        prefix_allowed_tokens_fn=lambda row, ids: [fixed[len(ids) - prompt]],
    )
    assert out.sequences[0, prompt:].tolist() == fixed
    return torch.stack(out.logits)


def _cached_and_uncached(model: PreTrainedModel) -> float:
    batch = batch_of(1, 7, seed=1)
    return deviation(generated_logits(model, batch, True), generated_logits(model, batch, False))


def in_double(model: PreTrainedModel) -> PreTrainedModel:
    """A copy in float64 if the model can run in it: in float32 one model's cache was off by 1e-5 to 3e-4, from run to run."""
    double = copy.deepcopy(model)
    double.set_experts_implementation("eager")  # the fused kernels know no float64
    try:
        generated_logits(double.double(), batch_of(1, 7, seed=1), True)
    except Exception:  # some kernel or constant is float32
        return model
    return double


def _cache(model_type: str, model: PreTrainedModel, removals: dict[str, list[int]]) -> str:
    model = in_double(model)
    dense = _cached_and_uncached(model)
    if dense > 0.01:
        assert model_type in NO_CACHE, f"cached generation of the dense model is off by {dense:.2g}"
        return "no: " + NO_CACHE[model_type]
    assert model_type not in NO_CACHE, "the dense model's cache works after all: update NO_CACHE"
    for what, removed in removals.items():
        off = _cached_and_uncached(remove_layers(model, removed))
        bound = max(
            1e-4, 10 * dense
        )  # state-space kernels round differently with and without a cache (dense: up to 2e-3)
        assert off <= bound, f"without {what}, cached generation is off by {off:.2g} (dense {dense:.2g})"
    return "yes"


# ---- checkpoints ----


def reload_plainly(folder: Path) -> PreTrainedModel:
    """Plain transformers; its automatic class, where that knows the configuration."""
    try:
        model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    except ValueError as error:
        if "Unrecognized configuration class" not in str(error):  # the text part of a composite model
            raise
        import transformers

        name = transformers.AutoConfig.from_pretrained(folder).architectures[0]
        model, report = getattr(transformers, name).from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"], report
    return model.eval()


def reload_ours(folder: Path) -> PreTrainedModel:
    """Our own format: `load` restores it, and plain transformers refuses it, whatever way it is asked."""
    named = getattr(__import__("transformers"), shortgpt.checkpoints.saving.saved_class(folder))
    for loader in (AutoModelForCausalLM, named):
        try:
            loader.from_pretrained(folder)
        except (ValueError, OSError, KeyError):
            continue
        raise AssertionError(f"{loader.__name__} loaded our own format without complaint")
    return restore(folder)


def _saved_and_reloaded(pruned: PreTrainedModel) -> tuple[PreTrainedModel, bool]:
    with tempfile.TemporaryDirectory() as folder:
        path = save(pruned, Path(folder) / "model", verify=False)
        own = is_own_format(path)
        return (reload_ours if own else reload_plainly)(path), own


def _checkpoint(model: PreTrainedModel, removals: dict[str, list[int]]) -> str:
    batch, ours = batch_of(), []
    for what, removed in removals.items():
        pruned = remove_layers(model, removed)
        reloaded, own = _saved_and_reloaded(pruned)
        ours += [what] if own else []
        off = deviation(logits(reloaded, batch), logits(pruned, batch))
        assert off <= 1e-6, f"without {what}, the reloaded checkpoint's logits are off by {off:.2g}"
        assert removed_so_far(reloaded) == tuple(removed)
    if not ours:
        return "transformers"
    return "ours" if len(ours) == len(removals) else f"transformers; ours without {', '.join(ours)}"


# ---- sublayers ----


def zeroed_logits(
    model: PreTrainedModel, batch: dict[str, torch.Tensor], removed: dict[str, list[int]]
) -> torch.Tensor:
    """The dense model with these sublayers' outputs forced to zero (or, where they add the residual, to the residual)."""

    def zero(module, args, kwargs, output):
        named = dict(zip(inspect.signature(module.forward).parameters, args, strict=False)) | kwargs
        residual = named.get("residual")
        nothing = residual if torch.is_tensor(residual) else torch.zeros_like(first := _first(output)) + 0 * first
        if torch.is_tensor(output):
            return nothing
        return type(output)([nothing, *(torch.zeros_like(o) if torch.is_tensor(o) else o for o in output[1:])])

    handles = [
        decoder_layers(model)[i].get_submodule(name).register_forward_hook(zero, with_kwargs=True)
        for kind, layers in removed.items()
        for i in layers
        for name in sublayers(decoder_layers(model)[i])[kind]
    ]
    try:
        return logits(model, batch)
    finally:
        for handle in handles:
            handle.remove()


def _first(output: torch.Tensor | tuple) -> torch.Tensor:
    return output if torch.is_tensor(output) else output[0]


def _sublayers(model_type: str, model: PreTrainedModel) -> str:
    found = [sublayers(layer) for layer in decoder_layers(model)]
    both = [i for i in range(1, DEPTH) if all(found[i][kind] for kind in KINDS)]  # RWKV's first has a norm in front
    if len(both) < 3:
        return "no: its layers are single blocks"
    removed = {"attention": [both[0], both[-1]], "ffn": both[1:3]}
    batch = batch_of()
    try:
        pruned = remove_sublayers(model, **removed)
    except ValueError as error:
        assert "does not simply add" in str(error), error
        return "no: they are not simply added"
    off = deviation(logits(pruned, batch), zeroed_logits(model, batch, removed))
    assert off <= 1e-5, f"removed sublayers differ from zeroed ones by {off:.2g}"
    if model_type not in NOT_SCORED:
        _check_sublayer_scores(model, both)
    if model_type not in NO_CACHE:
        off, dense = _cached_and_uncached(pruned), _cached_and_uncached(model)
        assert off <= max(1e-4, 10 * dense), f"cached generation without sublayers is off by {off:.2g}"
    reloaded, own = _saved_and_reloaded(pruned)
    assert own and deviation(logits(reloaded, batch), logits(pruned, batch)) <= 1e-6
    return "yes"


def _check_sublayer_scores(model: PreTrainedModel, both: list[int]) -> None:
    """The state between attention and FFN, seen independently: the layer's output when its FFN is forced to zero."""
    batch, scores = batch_of(1, 12), score_sublayers(model, [batch_of(1, 12)], progress=False)
    layer, seen = both[1], {}

    def keep(module, args, kwargs, output):
        seen["in"], seen["out"] = args[0] if args else kwargs["hidden_states"], _first(output)

    def states() -> dict[str, np.ndarray]:
        handle = decoder_layers(model)[layer].register_forward_hook(keep, with_kwargs=True)
        zeroed_logits(model, batch, {"ffn": [layer]} if states_without_ffn else {})
        handle.remove()
        return {key: value.double().numpy().reshape(12, -1) for key, value in seen.items()}

    states_without_ffn = True
    between = states()["out"]
    states_without_ffn = False
    dense = states()
    expected = {"attention": block_influence(dense["in"], between), "ffn": block_influence(between, dense["out"])}
    for kind, value in expected.items():
        np.testing.assert_allclose(scores[kind].values[layer], value, rtol=0, atol=1e-5, err_msg=kind)


# ---- the table ----

HEADER = """# Architectures

What of each architecture is verified, on a random model of six layers built from its own configuration class in transformers
{version}. `make architectures` measures and writes this table; the tests measure every row again and compare. A model type
that is new in transformers has no row, and the tests fail until somebody looks at it.

* **scores**: Block Influence equals a computation in float64 on hidden states that separate hooks saw (1e-6).
* **removal**: the logits without two layers in the middle, the first, the last, and several apart equal those of the dense
  model with these layers forced to hand on their input (1e-5); the dense model is untouched, bit for bit.
* **cache**: generation with the cache gives the logits of generation without (1e-4, or ten times what the dense model is
  off).
* **checkpoint**: saved and reloaded with equal logits (1e-6). *transformers*: plain `from_pretrained` reloads it, nothing
  missing or unexpected. *ours*: no configuration of transformers describes the pruned model; `shortgpt.load` restores it
  from our own format, and plain `from_pretrained` refuses the folder.
* **attention, FFN**: either branch of a layer can be removed alone (logits as with that branch forced to zero, cache and
  reload as above, in our own format) and scored.

| model type | class | scores | removal | cache | checkpoint | attention, FFN |
|---|---|---|---|---|---|---|
"""


def table_lines() -> dict[str, str]:
    """The committed rows, by model type."""
    verified = TABLE.read_text(encoding="utf-8").partition("## Left out")[0]
    rows = [line for line in verified.splitlines() if line.startswith("| `")]
    return {row.split("`")[1]: row for row in rows}


def write_table(lines: list[str]) -> None:
    import transformers
    from architectures import EXCLUDED

    left_out = "".join(f"| `{name}` | {reason} |\n" for name, reason in sorted(EXCLUDED.items()))
    text = HEADER.format(version=transformers.__version__) + "\n".join(lines)
    text += f"\n\n## Left out\n\n| model type | reason |\n|---|---|\n{left_out}"
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(text, encoding="utf-8")


def main(wanted: list[str]) -> None:
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    lines, failed = [], []
    for model_type in wanted or decoder_only_types():
        try:
            lines.append(verify(model_type).line())
            print(lines[-1], flush=True)
        except Exception as error:
            failed.append(model_type)
            print(f"{model_type}: {type(error).__name__}: {' '.join(str(error).split())[:300]}", flush=True)
    if not wanted and not failed:
        write_table(lines)
    print(f"{len(lines)} verified, {len(failed)} failed: {failed}")


if __name__ == "__main__":
    main(sys.argv[1:])
