"""The watch beside the work: it looks at both ends and in between, and ends with its block."""

import itertools
import threading
import time

import pytest

from shortgpt.utils.peak import highest


def test_a_watch_ends_with_its_block_and_looks_at_both_ends():
    looks = []
    threads = threading.active_count()
    with pytest.raises(KeyError), highest(lambda: looks.append(len(looks)) or 10 * len(looks), interval=60) as most:
        assert most == [10]
        raise KeyError
    assert most == [20] and threading.active_count() == threads


def test_what_rises_and_falls_in_between_is_seen():
    now = [1]
    with highest(lambda: now[0], interval=0.001) as most:
        for now[0] in (2, 9, 3):
            time.sleep(0.1)
    assert most == [9]


def test_it_looks_no_more_once_the_block_is_over():
    looks = itertools.count()
    with highest(lambda: next(looks), interval=0.001):
        time.sleep(0.05)
    after = next(looks)
    time.sleep(0.05)
    assert next(looks) == after + 1 > 3
