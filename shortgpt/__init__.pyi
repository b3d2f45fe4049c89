from .checkpoints import (
    describe as describe,
    load as load,
    prune_checkpoint as prune_checkpoint,
    save as save,
    save_gguf as save_gguf,
)
from .choosing import (
    Trials as Trials,
    choose_by as choose_by,
    choose_layers as choose_layers,
    choose_repaired as choose_repaired,
    compare_criteria as compare_criteria,
    leave_one_out as leave_one_out,
    removal_order as removal_order,
)
from .course.studies.ablation import Ablation as Ablation
from .course.studies.accumulation import divergence_along as divergence_along
from .course.studies.choice_generation import (
    choice_and_generation as choice_and_generation,
    choice_summary as choice_summary,
)
from .course.studies.continuation import prefill_report as prefill_report
from .course.studies.drafting import generate_with_draft as generate_with_draft
from .course.studies.logit_lens import token_paths as token_paths
from .course.studies.speedup import speculative_report as speculative_report
from .course.suggestions import suggested_models as suggested_models
from .evaluation import (
    added_losses as added_losses,
    best_within as best_within,
    cliff as cliff,
    compare as compare,
    continue_text as continue_text,
    evaluate as evaluate,
    frontier as frontier,
    frontier_steps as frontier_steps,
    generation_report as generation_report,
    generation_summary as generation_summary,
    key_value_bytes as key_value_bytes,
    paper_benchmarks as paper_benchmarks,
    perplexity as perplexity,
    perplexity_table as perplexity_table,
    read_grid as read_grid,
    removal_sweep as removal_sweep,
    repetition as repetition,
    retention_table as retention_table,
    side_by_side as side_by_side,
    size as size,
    size_quality_grid as size_quality_grid,
    speed as speed,
    speed_table as speed_table,
)
from .model import (
    built_in_text as built_in_text,
    calibration_batches as calibration_batches,
    decoder_layers as decoder_layers,
    hidden_states as hidden_states,
    sampled_text as sampled_text,
    watch_layers as watch_layers,
)
from .pruning import (
    PruningPlan as PruningPlan,
    equal_parameters as equal_parameters,
    prune_prefill as prune_prefill,
    remove_channels as remove_channels,
    remove_heads as remove_heads,
    remove_layers as remove_layers,
    remove_sublayers as remove_sublayers,
    width_scores as width_scores,
)
from .quantization import quantize as quantize
from .repair import distill as distill, heal as heal, merge_layers as merge_layers
from .scoring import (
    block_influence as block_influence,
    plan_agreement as plan_agreement,
    score_layers as score_layers,
    score_sublayers as score_sublayers,
    span_distances as span_distances,
    tokens_needed as tokens_needed,
)

__version__: str
__all__ = [
    "PruningPlan",
    "block_influence",
    "built_in_text",
    "calibration_batches",
    "choose_layers",
    "compare",
    "continue_text",
    "decoder_layers",
    "describe",
    "distill",
    "evaluate",
    "heal",
    "hidden_states",
    "load",
    "perplexity",
    "prune_checkpoint",
    "quantize",
    "remove_layers",
    "remove_sublayers",
    "save",
    "score_layers",
    "size",
    "speed",
    "watch_layers",
]
