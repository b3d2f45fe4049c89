"""Which layers to remove: by score, by other criteria, by trying (lessons 03 and 06)."""

from shortgpt.utils.lazy import door

__getattr__, __dir__, __all__ = door(__name__, __file__)
