"""Checks for the exercises: each takes a learner's function, tries it, and says what was expected, what came, and a hint.

A check compares the function with a reference of its own on several random inputs, so that a constant can't pass. If
the answer is wrong, it is compared with the answers that common mistakes give; the hint belongs to the mistake that
matches. A check raises `CheckFailed` (an AssertionError), or `NotSolved` for a stub; a notebook shows only the message.

>>> from shortgpt.course.checks import check_cosine
>>> check_cosine(my_cosine)

`__init__.pyi` lists them all. A lesson's checks are in a module together; each is a function and, below it, the answers:
from the inputs to the right one and to those that mistakes give.
"""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
