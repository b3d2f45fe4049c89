from .facts import describe as describe
from .gguf import save_gguf as save_gguf
from .loading import load as load
from .on_disk import prune_checkpoint as prune_checkpoint
from .packaged import DEFAULT_MODEL as DEFAULT_MODEL
from .saving import save as save
