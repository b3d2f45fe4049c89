"""What a decoder stack is, in any model: its layers, its hidden states, its tokens (lesson 01)."""

from shortgpt.utils.lazy import door

__getattr__, __dir__, __all__ = door(__name__, __file__)
