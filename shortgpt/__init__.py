"""Depth pruning of language models: score layers by Block Influence, remove them, quantize, evaluate honestly.

The method is that of ShortGPT (Men et al., arXiv 2403.03853). The names below are all that most users need; the lessons
in `notebooks/` walk through them in order.
"""

import logging as _logging
from importlib import import_module as _import_module
from typing import Any as _Any

_HOME = {
    "load": "models",
    "describe": "models",
    "suggested_models": "suggestions",
    "decoder_layers": "layers",
    "built_in_text": "calibration",
    "calibration_batches": "calibration",
    "hidden_states": "capture",
    "watch_layers": "capture",
    "block_influence": "influence",
    "score_layers": "influence",
    "plan_agreement": "agreement",
    "tokens_needed": "agreement",
    "span_distances": "spans",
    "choose_layers": "choose",
    "removal_order": "choose",
    "PruningPlan": "choose",
    "Trials": "trials",
    "leave_one_out": "search",
    "choose_by": "criteria",
    "compare_criteria": "comparison",
    "remove_layers": "pruning",
    "prune_prefill": "prefill",
    "prefill_report": "continuation",
    "generate_with_draft": "speculative",
    "speculative_report": "speedup",
    "remove_channels": "width",
    "remove_heads": "width",
    "width_scores": "width_units",
    "equal_parameters": "width_units",
    "heal": "healing",
    "merge_layers": "merging",
    "choose_repaired": "repaired",
    "remove_sublayers": "sublayers",
    "score_sublayers": "sublayers",
    "save": "saving",
    "save_gguf": "gguf_export",
    "prune_checkpoint": "checkpoint",
    "quantize": "quantization",
    "size_quality_grid": "grid",
    "read_grid": "grid",
    "added_losses": "interaction",
    "frontier": "pareto",
    "frontier_steps": "pareto",
    "best_within": "pareto",
    "Ablation": "ablation",
    "token_paths": "lens",
    "perplexity": "likelihood",
    "perplexity_table": "likelihood",
    "removal_sweep": "evaluation",
    "evaluate": "evaluation",
    "paper_benchmarks": "benchmarks",
    "retention_table": "retention",
    "choice_and_generation": "choice_generation",
    "choice_summary": "choice_generation",
    "continue_text": "writing",
    "repetition": "writing",
    "generation_report": "generation",
    "generation_summary": "generation",
    "side_by_side": "generation",
    "divergence_along": "accumulation",
    "sampled_text": "writing",
    "compare": "evaluation",
    "size": "measurement",
    "speed": "measurement",
    "speed_table": "measurement",
    "key_value_bytes": "memory",
}
# transformers imports torchao when it is installed, and that complains about CUDA libraries on every CPU-only machine
for _name in ("torchao", "torch.utils._pytree"):
    _logging.getLogger(_name).setLevel(_logging.ERROR)

__all__ = sorted(_HOME)
__version__ = "0.1.0"


def __getattr__(name: str) -> _Any:
    """Load a name's module when it is first used: importing shortgpt itself costs nothing."""
    if name not in _HOME:
        raise AttributeError(f"module 'shortgpt' has no attribute {name!r}")
    return getattr(_import_module(f"shortgpt.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
