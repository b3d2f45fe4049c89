"""Checks for the exercises: each takes a learner's function, tries it, and says what was expected, what came, and a hint.

A check compares the function with a reference of its own on several random inputs, so that a constant can't pass. If
the answer is wrong, it is compared with the answers that common mistakes give; the hint belongs to the mistake that
matches. A check raises `CheckFailed` (an AssertionError), or `NotSolved` for a stub; a notebook shows only the message.

>>> from shortgpt.checks import check_cosine
>>> check_cosine(my_cosine)
"""

from shortgpt.course.checks.lesson_01 import (
    check_answer_ranks,
    check_busiest_layers,
    check_cosine,
    check_record_outputs,
    check_states_bytes,
)
from shortgpt.course.checks.lesson_02 import (
    check_difference_with_error,
    check_layer_influences,
    check_masked_influence,
    check_span_angle,
)
from shortgpt.course.checks.lesson_03 import (
    check_greedy,
    check_number_layers,
    check_sliced_config,
    check_without_layers,
)
from shortgpt.course.checks.lesson_04 import (
    check_best_models,
    check_bits_per_weight,
    check_interaction,
    check_round_in_groups,
)
from shortgpt.course.checks.lesson_05 import (
    check_answer_scores,
    check_corpus_perplexity,
    check_kept_above_chance,
    check_scored_windows,
)
from shortgpt.course.checks.lesson_06 import check_exchange_search, check_overlap_above_chance, check_repair_matrix
from shortgpt.course.checks.lesson_07 import check_channel_scores, check_layer_parameters, check_without_channels
from shortgpt.course.checks.lesson_10 import check_best_draft_length, check_repeated_share, check_write_with_draft
from shortgpt.course.checks.verdict import CheckFailed, NotSolved, require_passed

__all__ = [
    "CheckFailed",
    "NotSolved",
    "check_answer_ranks",
    "check_answer_scores",
    "check_best_draft_length",
    "check_best_models",
    "check_bits_per_weight",
    "check_busiest_layers",
    "check_channel_scores",
    "check_corpus_perplexity",
    "check_cosine",
    "check_difference_with_error",
    "check_exchange_search",
    "check_greedy",
    "check_interaction",
    "check_kept_above_chance",
    "check_layer_influences",
    "check_layer_parameters",
    "check_masked_influence",
    "check_number_layers",
    "check_overlap_above_chance",
    "check_record_outputs",
    "check_repair_matrix",
    "check_repeated_share",
    "check_round_in_groups",
    "check_scored_windows",
    "check_sliced_config",
    "check_span_angle",
    "check_states_bytes",
    "check_without_channels",
    "check_without_layers",
    "check_write_with_draft",
    "require_passed",
]
