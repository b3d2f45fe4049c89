from .distilling import distill as distill
from .healing import heal as heal
from .merging import merge_layers as merge_layers
