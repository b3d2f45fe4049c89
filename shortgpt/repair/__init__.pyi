from .healing import heal as heal
from .merging import merge_layers as merge_layers
