"""Is it still any good, and what does it cost (lesson 05)?"""

from shortgpt.utils.lazy import door

__getattr__, __dir__, __all__ = door(__name__, __file__)
