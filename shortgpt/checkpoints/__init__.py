"""Models in and out: names, folders, files (lessons 00 and 03)."""

from shortgpt.utils.lazy import door

__getattr__, __dir__, __all__ = door(__name__, __file__)
