from .anatomy import (
    decoder_layers as decoder_layers,
    original_layers as original_layers,
    parameter_count as parameter_count,
    removed_so_far as removed_so_far,
)
from .hooks import (
    eval_mode as eval_mode,
    hidden_states as hidden_states,
    hooked as hooked,
    logits_of as logits_of,
    watch_layers as watch_layers,
)
from .sampling import sampled_text as sampled_text
from .text import built_in_text as built_in_text, calibration_batches as calibration_batches
from .tokens import begin_tokens as begin_tokens
from .view import share_weights as share_weights
