"""Ways that take turns: the first result of each, and the median of its times."""

import time

from tqdm import tqdm

from shortgpt.course.studies.clock import in_turn


def test_each_way_gives_its_first_result_and_its_own_time():
    runs = []

    def way(name, seconds):
        def run():
            runs.append(name)
            time.sleep(seconds)
            return name, runs.count(name)

        return run

    with tqdm(total=6, disable=True) as bar:
        results, seconds = in_turn([way("a", 0), way("b", 0.05)], 3, bar)
    assert results == [("a", 1), ("b", 1)] and sorted(runs) == ["a"] * 3 + ["b"] * 3
    assert seconds[0] < seconds[1] and seconds[1] >= 0.05
