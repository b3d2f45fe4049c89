"""The thirteen benchmarks of the paper's table 2, each as a task of lm-evaluation-harness: name, metric, shots, chance.

Seven of them the harness has. The other six are task files of this project in `data/tasks_paper/`, which the harness's own
command can use too (``lm_eval --include_path data/tasks_paper --tasks shortgpt_c3``).

The paper names neither prompts nor the number of examples in them. Its baselines come from LaCo, which used OpenCompass,
so shots and metrics here follow OpenCompass's defaults, and **scores won't equal the paper's**: compare a pruned model with
its own dense model.

**What could not be tried:** this was written without access to the Hub. The templates were run on invented rows with the
columns that the data sets document; whether the Hub still serves each data set under its name was not seen. Known dead,
because they are scripts, which `datasets` 4 and later refuse: the default revisions of ``haonan-li/cmmlu`` (the harness's own
`cmmlu` fails; here the archive is read) and ``EdinburghNLP/xsum`` (here the Hub's Parquet conversion is read).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from shortgpt.utils.data import data_folder


class Benchmark(NamedTuple):
    """How one benchmark is run. `folder` is where its task file stands in the harness; None: in `data/tasks_paper/`."""

    name: str  # as in table 2 of the paper, lower case
    task: str
    folder: str | None
    metric: str  # `acc_norm` divides each choice's log-probability by its length
    shots: int  # worked examples in the prompt
    chance: float  # percent right when guessing
    data: str  # where the items come from
    note: str


_TABLE = (
    Benchmark("cmnli", "shortgpt_cmnli", None, "acc", 0, 100 / 3, "clue/clue", "dense models are at chance already"),
    Benchmark("hellaswag", "hellaswag", "hellaswag", "acc_norm", 0, 25, "Rowan/hellaswag", ""),
    Benchmark("piqa", "piqa", "piqa", "acc_norm", 0, 50, "baber/piqa", ""),
    Benchmark("chid", "shortgpt_chid", None, "acc", 0, 100 / 7, "CLUEbenchmark/FewCLUE (GitHub)", "FewCLUE's items"),
    Benchmark("wsc", "wsc", "super_glue/wsc", "acc", 0, 50, "aps/super_glue", "104 items; always 'no': 63.5 %"),
    Benchmark(
        "commonsenseqa", "commonsense_qa", "commonsense_qa", "acc", 8, 20, "tau/commonsense_qa",
        "the paper's column 'CoQA'; letters are scored, OpenCompass scores the answers' text",
    ),
    Benchmark("boolq", "boolq", "super_glue/boolq", "acc", 0, 50, "aps/super_glue", "always 'yes': 62 %"),
    Benchmark("race-h", "shortgpt_race_high", None, "acc", 0, 25, "ehovy/race", ""),
    Benchmark("race-m", "shortgpt_race_middle", None, "acc", 0, 25, "ehovy/race", ""),
    Benchmark(
        "xsum", "shortgpt_xsum", None, "rouge1", 0, 0, "EdinburghNLP/xsum",
        "written, not chosen; about 11,300 articles, of which OpenCompass takes the first 1,000 (limit=1000)",
    ),
    Benchmark("c3", "shortgpt_c3", None, "acc_norm", 0, 27, "clue/clue", "two to four choices: chance is about 27 %"),
    Benchmark("mmlu", "mmlu", "mmlu/default", "acc", 5, 25, "cais/mmlu", "57 subjects, mean over items"),
    Benchmark("cmmlu", "shortgpt_cmmlu", "cmmlu", "acc", 5, 25, "haonan-li/cmmlu", "67 subjects, mean over items"),
)  # fmt: skip
BENCHMARKS = {benchmark.name: benchmark for benchmark in _TABLE}
PAPER_BENCHMARKS = tuple(BENCHMARKS)


def paper_benchmarks() -> pd.DataFrame:
    """The paper's benchmarks, a row each in its order: what ``evaluate(model, tokenizer, PAPER_BENCHMARKS)`` runs.

    Returns:
        columns ``benchmark, task`` (the harness's name), ``metric, shots, chance`` (percent), ``data, note``. The data comes
        from the Hub, except `chid`; none of it could be fetched when this was written (see the module's docstring).
    """
    return pd.DataFrame(_TABLE).rename(columns={"name": "benchmark"}).drop(columns="folder")


def task_folders(benchmarks: list[Benchmark]) -> list[str]:
    """The folders that hold the benchmarks' task files: the harness reads these in a moment, its whole catalogue in 44 s."""
    import lm_eval.tasks

    harness = Path(lm_eval.tasks.__file__).parent
    folders = [data_folder() / "tasks_paper", *(harness / each.folder for each in benchmarks if each.folder)]
    return [str(folder) for folder in dict.fromkeys(folders)]
