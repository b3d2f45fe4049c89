from .depth import kept_layers as kept_layers, remove_layers as remove_layers, share_weights as share_weights
from .plan import PruningPlan as PruningPlan
from .prefill import prune_prefill as prune_prefill
from .sublayers import remove_sublayers as remove_sublayers
from .width import remove_channels as remove_channels, remove_heads as remove_heads
from .width_units import equal_parameters as equal_parameters, width_scores as width_scores
