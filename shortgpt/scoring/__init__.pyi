from .influence import (
    block_influence as block_influence,
    relative_magnitude as relative_magnitude,
    score_layers as score_layers,
)
from .scores import LayerScores as LayerScores
from .spans import span_distances as span_distances
from .stability import plan_agreement as plan_agreement, tokens_needed as tokens_needed
from .sublayers import score_sublayers as score_sublayers
