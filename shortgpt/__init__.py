"""Depth pruning of language models: score layers by Block Influence, remove them, quantize, evaluate honestly.

The method is that of ShortGPT (Men et al., arXiv 2403.03853). The names in ``__all__`` are the walk through it;
`__init__.pyi` says where each of them, and of all the others, is at home. Nothing is imported before it is used.
"""

from importlib import import_module as _import_module

from shortgpt.utils.lazy import door as _door
from shortgpt.utils.old_paths import MOVED as _MOVED, install as _install_old_paths

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

_find, _, _ = _door(__name__, __file__)
_install_old_paths()


def __getattr__(name: str) -> object:
    return _import_module(f"shortgpt.{name}") if name in _MOVED else _find(name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
