"""Which benchmarks there are: the thirteen of the paper's table 2, our own offline ones, and those of lm-evaluation-harness.

Seven of the paper's the harness has. The other six are task files of this project in `data/tasks_paper/`, which the harness's
own command can use too (``lm_eval --include_path data/tasks_paper --tasks shortgpt_c3``).

The paper names neither prompts nor the number of examples in them. Its baselines come from LaCo, which used OpenCompass,
so shots and metrics here follow OpenCompass's defaults, and **scores won't equal the paper's**: compare a pruned model with
its own dense model.

**What could not be tried:** this was written without access to the Hub. The templates were run on invented rows with the
columns that the data sets document; whether the Hub still serves each data set under its name was not seen. Known dead,
because they are scripts, which `datasets` 4 and later refuse: the default revisions of ``haonan-li/cmmlu`` (the harness's own
`cmmlu` fails; here the archive is read) and ``EdinburghNLP/xsum`` (here the Hub's Parquet conversion is read).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from shortgpt.utils.data import data_folder
from shortgpt.utils.quieting import quiet

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager


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
LOCAL_TASKS = tuple(sorted(file.stem for file in (data_folder() / "tasks").glob("*.yaml")))  # our own
OFFLINE_TASKS = tuple(name for name in LOCAL_TASKS if not name.endswith("_zh"))  # translations are run by name only


def paper_benchmarks() -> pd.DataFrame:
    """The paper's benchmarks, a row each in its order: what ``evaluate(model, tokenizer, PAPER_BENCHMARKS)`` runs.

    Returns:
        columns ``benchmark, task`` (the harness's name), ``metric, shots, chance`` (percent), ``data, note``. The data comes
        from the Hub, except `chid`; none of it could be fetched when this was written (see the module's docstring).
    """
    return pd.DataFrame(_TABLE).rename(columns={"name": "benchmark"}).drop(columns="folder")


def offline_task(name: str) -> dict:
    """The task's definition with the data file's absolute path: the harness resolves paths from the working folder."""
    import yaml

    folder = data_folder() / "tasks"
    definition = yaml.safe_load((folder / f"{name}.yaml").read_text(encoding="utf-8"))
    definition["dataset_kwargs"] = {"data_files": {"test": str(folder / f"{name}.jsonl")}}
    return definition


def manager_of(tasks: Sequence[str]) -> TaskManager:
    """The harness's task index, no larger than `tasks` need: its whole catalogue takes most of a minute to read.

    Raises:
        ImportError: the extra ``[eval]`` is missing. ValueError: an unknown task.
    """
    try:
        import lm_eval.models.huggingface  # noqa: F401  (needs the extra's own extras)
    except ImportError as error:
        raise ImportError("benchmarks need lm-evaluation-harness: pip install 'shortgpt-pruning[eval]'") from error
    ours = [BENCHMARKS[name] for name in tasks if name in BENCHMARKS]
    others = [name for name in tasks if name not in LOCAL_TASKS and name not in BENCHMARKS]
    manager = _index(_folders([] if others else ours), bool(others))
    if any(each.task not in manager.all_tasks for each in ours):  # another version keeps them elsewhere
        manager = _index(_folders([]), True)
    unknown = [name for name in others if name not in manager.all_tasks]
    if unknown or not tasks:
        raise ValueError(
            f"unknown task {', '.join(unknown) or '(none given)'}: offline there are {', '.join(LOCAL_TASKS)}; "
            "`lm_eval ls tasks` lists the harness's own"
        )
    return manager


@lru_cache(maxsize=2)  # a table of several models asks for the same one again and again
def _index(folders: tuple[str, ...], whole_catalogue: bool) -> TaskManager:
    from lm_eval.tasks import TaskManager

    with quiet("lm_eval"):
        return TaskManager(include_path=list(folders), include_defaults=whole_catalogue)


def _folders(benchmarks: list[Benchmark]) -> tuple[str, ...]:
    """The folders that hold the benchmarks' task files: the harness reads these in a moment, its whole catalogue in 44 s."""
    import lm_eval.tasks

    harness = Path(lm_eval.tasks.__file__).parent
    folders = [data_folder() / "tasks_paper", *(harness / each.folder for each in benchmarks if each.folder)]
    return tuple(str(folder) for folder in dict.fromkeys(folders))


def definition_of(name: str) -> str:
    """What a task's result depends on besides the model: a hash of our own files, or the harness's version."""
    benchmark = BENCHMARKS.get(name)
    if name in LOCAL_TASKS:
        files = [data_folder() / "tasks" / f"{name}.{ending}" for ending in ("yaml", "jsonl")]
    elif benchmark and not benchmark.folder:
        files = sorted((data_folder() / "tasks_paper").glob("*.*"))
    else:
        files = []
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:8]
    settings = f" {benchmark.metric} {benchmark.shots}" if benchmark else ""
    return f"lm_eval {version('lm_eval')}{settings}" + (f" {digest}" if files else "")
