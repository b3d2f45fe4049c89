"""Share work among the processes that ``accelerate launch`` or ``torchrun`` started; accelerate does the talking.

Nothing here starts processes, and a plain Python session (one process) is never turned into a distributed one. With
another launcher (MPI) make an ``accelerate.PartialState()`` first. ``accelerate launch --cpu`` alone starts *one*
process, whatever ``--num_processes`` says: on CPUs use ``torchrun --nproc-per-node``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import distributed

Item = TypeVar("Item")


def this_process() -> tuple[int, int]:
    """``(rank, world)``: the number of this process, from 0, and how many there are. ``(0, 1)`` in a plain session."""
    if not distributed.is_available():
        return 0, 1
    # the launcher leaves a mark in the environment: looking for it costs nothing, asking accelerate starts the group
    if not (distributed.is_initialized() or distributed.is_torchelastic_launched()):
        return 0, 1
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())  # left to itself it finds no backend on a CPU
    return state.process_index, state.num_processes


def share(work: Callable[[int, int], list[tuple[int, Item]]]) -> list[Item]:
    """Run ``work(rank, world)`` in every process; give every process the results of all of them, in order.

    Args:
        work: returns ``(position, item)`` for the positions it chose, by rule ``rank, rank + world, ...``; items must
            be picklable.

    If it fails in one process, all of them raise: that one its own exception, the others a ValueError that quotes it.
    (A process that waits for a dead one would wait until the time limit of the process group.)
    """
    rank, world = this_process()
    if world == 1:
        return [item for _, item in work(0, 1)]
    from accelerate.utils import gather_object

    mine, failure = [], None
    try:
        mine = work(rank, world)
    except Exception as error:
        failure = error
    gathered = gather_object([(mine, None if failure is None else str(failure))])  # one pair a process
    if failure is not None:
        raise failure
    for other, (_, sentence) in enumerate(gathered):
        if sentence is not None:
            raise ValueError(f"process {other} of {world} stopped: {sentence}")
    return [item for _, item in sorted((pair for pairs, _ in gathered for pair in pairs), key=lambda pair: pair[0])]
