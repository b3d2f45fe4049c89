"""Depth pruning of language models: score layers by Block Influence, remove them, quantize, evaluate honestly.

The method is that of ShortGPT (Men et al., arXiv 2403.03853). The names in ``__all__`` are the walk through it;
`__init__.pyi` says where each of them, and of all the others, is at home. Nothing is imported before it is used.
"""

import lazy_loader as _lazy

from shortgpt.utils import old_paths as _old_paths
from shortgpt.utils.quiet import quiet as _quiet

__version__ = "0.1.0"
__all__ = [  # noqa: RUF022  (in the order of the walk)
    "load",
    "describe",
    "save",
    "built_in_text",
    "calibration_batches",
    "decoder_layers",
    "hidden_states",
    "watch_layers",
    "block_influence",
    "score_layers",
    "choose_layers",
    "PruningPlan",
    "remove_layers",
    "remove_sublayers",
    "prune_checkpoint",
    "heal",
    "quantize",
    "perplexity",
    "continue_text",
    "evaluate",
    "compare",
    "size",
    "speed",
]

_find, _, _ = _lazy.attach_stub(__name__, __file__)
_old_paths.install()


def __getattr__(name: str) -> object:
    # transformers imports torchao when it is installed, and that complains about CUDA libraries on machines without a GPU
    with _quiet("torchao", "torch.utils._pytree"):
        return _find(name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
