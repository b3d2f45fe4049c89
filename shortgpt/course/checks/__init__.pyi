from .lesson_01 import (
    check_answer_ranks as check_answer_ranks,
    check_busiest_layers as check_busiest_layers,
    check_cosine as check_cosine,
    check_record_outputs as check_record_outputs,
    check_states_bytes as check_states_bytes,
)
from .lesson_02 import (
    check_difference_with_error as check_difference_with_error,
    check_layer_influences as check_layer_influences,
    check_masked_influence as check_masked_influence,
    check_span_angle as check_span_angle,
)
from .lesson_03 import (
    check_greedy as check_greedy,
    check_number_layers as check_number_layers,
    check_sliced_config as check_sliced_config,
    check_without_layers as check_without_layers,
)
from .lesson_04 import (
    check_best_models as check_best_models,
    check_bits_per_weight as check_bits_per_weight,
    check_interaction as check_interaction,
    check_round_in_groups as check_round_in_groups,
)
from .lesson_05 import (
    check_answer_scores as check_answer_scores,
    check_corpus_perplexity as check_corpus_perplexity,
    check_kept_above_chance as check_kept_above_chance,
    check_scored_windows as check_scored_windows,
)
from .lesson_06 import (
    check_exchange_search as check_exchange_search,
    check_overlap_above_chance as check_overlap_above_chance,
    check_repair_matrix as check_repair_matrix,
)
from .lesson_07 import (
    check_channel_scores as check_channel_scores,
    check_layer_parameters as check_layer_parameters,
    check_without_channels as check_without_channels,
)
from .lesson_08 import (
    check_half_life as check_half_life,
    check_memory_as_attention as check_memory_as_attention,
    check_run_memory as check_run_memory,
)
from .lesson_09 import (
    check_answer_divergence as check_answer_divergence,
    check_merged_weight as check_merged_weight,
    check_state_pairs as check_state_pairs,
)
from .lesson_10 import (
    check_best_draft_length as check_best_draft_length,
    check_repeated_share as check_repeated_share,
    check_write_with_draft as check_write_with_draft,
)
from .lesson_11 import (
    check_expected_influence as check_expected_influence,
    check_growth_exponent as check_growth_exponent,
    check_growth_parts as check_growth_parts,
)
from .lesson_12 import (
    check_first_share_at as check_first_share_at,
    check_layers_to_remove as check_layers_to_remove,
    check_model_parameters as check_model_parameters,
)
from .verdict import CheckFailed as CheckFailed, NotSolved as NotSolved, require_passed as require_passed
