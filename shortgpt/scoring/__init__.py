"""Block Influence, and how far it can be trusted (lesson 02)."""

from shortgpt.utils.lazy import door

__getattr__, __dir__, __all__ = door(__name__, __file__)
