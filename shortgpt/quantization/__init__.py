"""Fewer bits for the weights that stay (lesson 04)."""

from shortgpt.utils.lazy import door

__getattr__, __dir__, __all__ = door(__name__, __file__)
