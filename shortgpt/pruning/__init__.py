"""A plan, and models without layers, sublayers, heads or channels (lessons 03 and 07)."""

from shortgpt.utils.lazy import door

__getattr__, __dir__, __all__ = door(__name__, __file__)
