"""`shortgpt info`: facts about a model, or a plan in words."""

from __future__ import annotations

from dataclasses import asdict

from shortgpt.cli.options import Loading, default_model
from shortgpt.cli.printing import Result


def tell(model: str | None = None, /, *, loading: Loading = Loading()) -> Result:
    """Tell what a model is, what was removed from it, and whether it can be pruned; or read a plan aloud.

    Weights are not loaded and not downloaded (those of a .gguf file are read). Of a packaged model that is not on this
    machine yet it says what there is to know before: size, licence, download.
    MODEL may also be a plan, a .json file.

        shortgpt info Qwen/Qwen2.5-0.5B
        shortgpt info ./smaller --json
        shortgpt info ./smaller/pruning_plan.json

    Sublayers are the names of the attention and the FFN in a layer, where they were found; whether they can be removed
    one by one is tried when you score them.

    Args:
        model: A folder, a Hub id, a plan, or a packaged model.
    """
    if model is not None and model.endswith(".json"):
        from shortgpt.pruning.plan import PruningPlan
        from shortgpt.pruning.plan_words import plan_in_words

        plan = PruningPlan.from_json(model)
        return Result(asdict(plan) | {"kept": plan.kept}, plan_in_words(plan))
    return _about_model(model or default_model(), loading)


def _about_model(name: str, loading: Loading) -> Result:
    from shortgpt.checkpoints.facts import model_facts
    from shortgpt.checkpoints.fetching import is_here
    from shortgpt.checkpoints.packaged import PACKAGED
    from shortgpt.pruning.plan_words import plan_beside, plan_in_words

    if name in PACKAGED and not is_here(name):
        return _from_the_table(name)
    ready = loading.load(name)[0] if name.endswith(".gguf") else None
    facts = model_facts(name, model=ready, **loading.source)
    plan = plan_beside(name)
    lines = [f"{key:<12}{value}" for key, value in in_words(facts).items()]
    if plan is not None:
        lines += ["", plan_in_words(plan)]
    return Result(facts | {"plan": asdict(plan) if plan else None}, "\n".join(lines))


def _from_the_table(name: str) -> Result:
    from shortgpt.checkpoints.packaged import PACKAGED

    row = PACKAGED[name]
    facts = {"model": name, "layers": row.layers, "parameters": row.parameters, "dtype": row.dtype, "disk_bytes": None}
    facts |= {
        "licence": row.licence,
        "terms": row.terms,
        "download_bytes": row.download,
        "disk_needed": row.disk_needed,
    }
    words = {
        "model": f"{name}, packaged ({row.original})",
        "layers": row.layers,
        "parameters": f"{row.parameters:,}",
        "dtype": row.dtype,
        "licence": row.licence + (f": {row.terms} (--accept-terms)" if row.terms else ""),
        "on disk": f"not on this machine: the first command that reads it downloads {row.download / 1e6:,.0f} MB, once, and "
        f"needs {row.disk_needed / 1e9:.1f} GB",
    }
    return Result(facts, "\n".join(f"{key:<12}{value}" for key, value in words.items()))


def in_words(facts: dict) -> dict[str, str]:
    """The facts as a person reads them."""
    removed = ", ".join(map(str, facts["removed_layers"]))
    steps = [
        f"{kind} of layers {', '.join(map(str, step[kind]))}"
        for step in facts["steps"]
        for kind in ("attention", "ffn")
        if step.get(kind)
    ]
    own = "shortgpt's own: load it with shortgpt.load(); plain transformers refuses it"
    parameters = f"{facts['parameters']:,}" if facts["parameters"] else ""
    if facts["parameters_per_layer"]:
        parameters += f", {facts['parameters_per_layer']:,} in the first layer"
    words = {
        "model": facts["model"],
        "type": f"{facts['model_type']} ({facts['architecture'] or 'no class named'})",
        "layers": f"{facts['layers']}" + (f" of {facts['dense_layers']}; removed: {removed}" if removed else ""),
        "also gone": "; ".join(steps),
        "hidden size": f"{facts['hidden_size']:,}" if facts["hidden_size"] else "",
        "parameters": parameters,
        "dtype": facts["dtype"],
        "on disk": f"{facts['disk_bytes'] / 1e6:,.1f} MB" if facts["disk_bytes"] else "not on this machine",
        "format": own if facts["format"] == "shortgpt" else "transformers",
        "prunable": "yes" if facts["prunable"] else f"no: {facts['reason']}",
        "sublayers": "; ".join(f"{kind}: {', '.join(facts[kind])}" for kind in ("attention", "ffn") if facts[kind]),
    }
    return {name: value for name, value in words.items() if value}
