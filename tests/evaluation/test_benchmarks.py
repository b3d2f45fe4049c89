"""The paper's benchmarks, run wholly through the harness on invented rows with the columns that the data sets document.

There is no network here, so `datasets.load_dataset` is replaced: the stand-in also notes which data set was asked for. The
model is rigged: it knows a few texts by heart and goes on in nothing else, so it is right if and only if the prompt that
the harness builds is, to the letter, the one written down here.
"""

import functools
import re
import zipfile
from types import SimpleNamespace

import datasets
import pandas as pd
import pytest
from rigged import rigged

import shortgpt
from shortgpt import evaluate, paper_benchmarks
from shortgpt.evaluation.benchmarks import BENCHMARKS, PAPER_BENCHMARKS
from shortgpt.utils.data import data_folder

SUPER_GLUE, FEW_CLUE = "aps/super_glue", "https://raw.githubusercontent.com/CLUEbenchmark/FewCLUE/main/datasets/chid/"
CMMLU = "https://huggingface.co/datasets/haonan-li/cmmlu/resolve/main/cmmlu_v1_0_1.zip"
RACE = {
    "example_id": "middle1.txt", "article": " A hen sat. \n", "question": "Who sat? ", "answer": "B",
    "options": ["dog", "hen", "cow", "fox"],
}  # fmt: skip
RACE_PROMPT = "Article: A hen sat.\n\nQuestion: Who sat?\nA. dog\nB. hen\nC. cow\nD. fox\nAnswer:"
COMMON = {
    "id": "1", "question": "Where do fish live?", "question_concept": "fish",
    "choices": {"label": list("ABCDE"), "text": ["sky", "bag", "sea", "ink", "oven"]}, "answerKey": "C",
}  # fmt: skip
COMMON_PROMPT = "Question: Where do fish live?\nA. sky\nB. bag\nC. sea\nD. ink\nE. oven\nAnswer:"
MMLU = {"question": "One and one? ", "subject": "x", "choices": ["1", "2", "3", "4"], "answer": 1}
MMLU_PROMPT = "One and one?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:"
C = {"Question": "一加一？", "A": "一", "B": "二", "C": "三", "D": "四", "Answer": "B"}
C_PROMPT = "一加一？\nA. 一\nB. 二\nC. 三\nD. 四\n答案："

# benchmark: (data set, part), a row, the prompt (behind 5 or 8 examples where there are shots), right answer, a wrong one
CASES = {
    "cmnli": (
        ("clue/clue", "cmnli"),
        {"sentence1": "他在睡觉", "sentence2": "他醒着", "label": 2, "idx": 0},
        "前提：他在睡觉\n假设：他醒着\n由前提看，假设是对的、错的，还是只是可能的？\n答案：", "错", "对",
    ),
    "hellaswag": (
        ("Rowan/hellaswag", None),
        {"activity_label": "Baking", "ctx_a": "She mixes.", "ctx_b": "then she", "label": "3",
         "endings": ["eats it raw", "sings", "naps", "bakes the dough"], "ind": 1, "split_type": "indomain"},
        "Baking: She mixes. Then she", " bakes the dough", " sings",
    ),
    "piqa": (
        ("baber/piqa", None), {"goal": "Dry a cup", "sol1": "wipe it", "sol2": "fill it", "label": 0},
        "Question: Dry a cup\nAnswer:", " wipe it", " fill it",
    ),
    "chid": (
        ("json", None),
        {"id": 1, "candidates": ["一心一意", "三三两两", "七上八下", "百发百中", "九牛一毛", "十全十美", "千军万马"],
         "content": "他射箭#idiom#，真厉害", "answer": 3},
        "他射箭", "百发百中，真厉害", "七上八下，真厉害",
    ),
    "wsc": (
        (SUPER_GLUE, "wsc.fixed"),
        {"text": "Ann met Eve when she sang.", "span1_index": 0, "span1_text": "Ann", "span2_index": 4, "span2_text": "she",
         "idx": 0, "label": 1},
        'Passage: Ann met Eve when *she* sang.\nQuestion: In the passage above, does the pronoun "*she*" refer to "*Ann*"?\n'
        "Answer:", " yes", " no",
    ),
    "commonsenseqa": (
        ("tau/commonsense_qa", None), COMMON, f"{COMMON_PROMPT} C\n\n" * 8 + COMMON_PROMPT, " C", " A",
    ),
    "boolq": (
        (SUPER_GLUE, "boolq"), {"question": "is ice cold", "passage": "Ice is frozen.", "idx": 0, "label": 1},
        "Ice is frozen.\nQuestion: is ice cold?\nAnswer:", " yes", " no",
    ),
    "race-h": (("ehovy/race", "high"), RACE, RACE_PROMPT, " B", " D"),
    "race-m": (("ehovy/race", "middle"), RACE, RACE_PROMPT, " B", " D"),
    "xsum": (
        ("EdinburghNLP/xsum", None), {"document": "Rain fell all day. ", "summary": "It rained.", "id": "1"},
        "Article: Rain fell all day.\n\nThe article in one sentence:", " It rained.\n", " Cows.\n",
    ),
    "c3": (
        ("clue/clue", "c3"),
        {"id": 0, "context": ["男：下雨了。", "女：带伞。"], "question": "天气怎么样？", "choice": ["晴", "下雨", "刮大风"],
         "answer": "下雨"},
        "文章：男：下雨了。\n女：带伞。\n问题：天气怎么样？\n答案：", "下雨", "晴",
    ),
    "mmlu": (
        ("cais/mmlu", "anatomy"), MMLU,
        "The following are multiple choice questions (with answers) about anatomy.\n\n" + f"{MMLU_PROMPT} B\n\n" * 5
        + MMLU_PROMPT, " B", " C",
    ),
    "cmmlu": (
        ("csv", None), C,
        "以下是关于解剖学的单项选择题，请直接给出正确答案的选项。\n\n" + f"{C_PROMPT} B\n\n" * 5 + C_PROMPT, " B", " C",
    ),
}  # fmt: skip


@pytest.fixture
def hub(monkeypatch):
    """The Hub with one row in each data set; `asked` notes what was loaded."""
    asked = []
    rows = {case[0]: case[1] for case in CASES.values()}

    def load_dataset(path, name=None, **options):
        asked.append((path, name, options))
        known = (path, "anatomy" if path == "cais/mmlu" else name)
        parts = options.get("data_files", ("train", "validation", "test", "dev"))
        sizes = {part: 9 if part in ("train", "dev") else 1 for part in parts}  # worked examples come from these two
        return datasets.DatasetDict({part: table(known, part, n) for part, n in sizes.items()})

    @functools.cache
    def table(known, part, n):  # the harness draws no example that equals the item, so rows have a number
        return datasets.Dataset.from_list([rows[known] | {"row": f"{part} {i}"} for i in range(n)])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return SimpleNamespace(asked=asked, rows=rows)


RIGHT, WRONG = ({name: case[2] + case[answer] for name, case in CASES.items()} for answer in (3, 4))


def test_the_names_are_those_of_table_2_in_its_order():
    printed = pd.read_csv(data_folder() / "paper" / "table2_benchmarks.csv")["benchmark"]
    assert tuple(dict.fromkeys(printed.str.lower())) == PAPER_BENCHMARKS == tuple(paper_benchmarks()["benchmark"])
    assert set(CASES) == set(PAPER_BENCHMARKS)


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("mmlu", "cmmlu")])
def test_a_wrong_answer_to_the_right_prompt_does_not_score(name, hub):
    table = evaluate(*rigged(WRONG[name]), [name], progress=False)
    assert (table["value"] == 0).all() and (table["task"] == name).all()
    assert {call[:2] for call in hub.asked} == {CASES[name][0]}


@pytest.mark.slow
def test_all_thirteen_run_in_one_call_and_right_answers_score(hub):
    """Of the subjects of `mmlu` and `cmmlu` the model knows one: in the others no letter is likelier, and A comes first."""
    table = evaluate(*rigged(*RIGHT.values()), PAPER_BENCHMARKS, progress=False).drop_duplicates("task")
    assert table["task"].tolist() == list(PAPER_BENCHMARKS)
    assert table["metric"].tolist() == [BENCHMARKS[name].metric for name in PAPER_BENCHMARKS]
    items = [{"mmlu": 57, "cmmlu": 67}.get(name, 1) for name in PAPER_BENCHMARKS]
    assert table["items"].tolist() == items
    assert table["value"].tolist() == pytest.approx([100 / n for n in items])
    assert not table["subset"].any()  # one row is all there is
    stated = paper_benchmarks()["chance"].tolist()
    stated[PAPER_BENCHMARKS.index("c3")] = 100 / 3  # the invented row has three choices
    assert table["chance"].tolist() == pytest.approx(stated)  # what we state is one over the number of choices
    # data that the Hub no longer serves is read from elsewhere
    options = {path: options for path, _, options in hub.asked}
    assert options["EdinburghNLP/xsum"] == {"revision": "refs/convert/parquet"}
    assert options["json"]["data_files"] == {"test": FEW_CLUE + "test_public.json"}
    subjects = [options["data_files"] for path, _, options in hub.asked if path == "csv"]
    assert len({files["test"] for files in subjects}) == 67
    for files in subjects:
        subject = re.fullmatch(r"zip://test/(\w+).csv::(.*)", files["test"])
        assert subject[2] == CMMLU and files["dev"] == f"zip://dev/{subject[1]}.csv::{CMMLU}"


def test_a_csv_file_in_an_archive_loads_that_way(tmp_path, monkeypatch):
    """What the CMMLU task asks of `datasets`, with a local archive of the same layout."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)  # a chained path counts as remote
    pd.DataFrame([C]).to_csv(tmp_path / "anatomy.csv")  # with a column of row numbers, as in the archive
    with zipfile.ZipFile(tmp_path / "cmmlu.zip", "w") as archive:
        archive.write(tmp_path / "anatomy.csv", "test/anatomy.csv")
        archive.write(tmp_path / "anatomy.csv", "dev/anatomy.csv")
    files = {part: f"zip://{part}/anatomy.csv::{tmp_path / 'cmmlu.zip'}" for part in ("test", "dev")}
    data = datasets.load_dataset("csv", data_files=files, cache_dir=tmp_path / "cache")
    assert {k: v for k, v in data["test"][0].items() if k in C} == C and len(data["dev"]) == 1


def test_pairs_without_a_label_are_left_out(hub, monkeypatch):
    """CMNLI marks those on which the annotators did not agree."""
    rows = [CASES["cmnli"][1], CASES["cmnli"][1] | {"label": -1}]
    data = datasets.DatasetDict({"validation": datasets.Dataset.from_list(rows)})
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **options: data)
    assert evaluate(*rigged(WRONG["cmnli"]), ["cmnli"], progress=False)["items"].tolist() == [1]


def test_a_summary_is_scored_by_words_in_common(hub):
    """One of two words is right, of either text: precision, recall and F1 are a half."""
    table = evaluate(*rigged(CASES["xsum"][2] + " It poured.\nAnd so on"), ["xsum"], progress=False)
    assert table.set_index("metric")["value"].round(6).to_dict() == {"rouge1": 50, "rougeL": 50}


@pytest.mark.parametrize("stateful", [False, True])
def test_a_model_with_states_writes_to_prompts_without_pads(hub, monkeypatch, stateful):
    rows = [CASES["xsum"][1], {"document": "Rain.", "summary": "Wet.", "id": "2"}]
    data = datasets.DatasetDict({part: datasets.Dataset.from_list(rows) for part in ("validation", "test")})
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **options: data)
    model, tokenizer = rigged(RIGHT["xsum"])
    model._is_stateful, seen = stateful, []
    model.register_forward_pre_hook(lambda module, args, named: seen.append(named["input_ids"]), with_kwargs=True)
    table = evaluate(model, tokenizer, ["xsum"], progress=False, batch_size=2)
    assert table["value"].iloc[0] == 50
    assert any((ids[:, 0] == tokenizer.pad_token_id).any() for ids in seen) is not stateful
    assert max(map(len, seen)) == 2 - stateful


def test_shots_can_be_named(hub):
    """A model that is right after two worked examples and nowhere else."""
    model = rigged(f"{RIGHT['piqa']}\n\n" * 2 + WRONG["piqa"])
    values = [evaluate(*model, ["piqa"], shots=shots, progress=False)["value"].iloc[0] for shots in (2, 1)]
    assert values == [0, 100]


def test_long_prompts_are_cut_and_that_is_said(hub, monkeypatch):
    long = "An eel. " * 600
    monkeypatch.setitem(hub.rows, (SUPER_GLUE, "boolq"), CASES["boolq"][1] | {"passage": long})
    with pytest.warns(UserWarning, match="boolq: 2 prompts had more than 4096 tokens, so their beginning was cut off"):
        evaluate(*rigged(RIGHT["boolq"]), ["boolq"], progress=False)


def test_paper_benchmarks_says_what_runs():
    table = paper_benchmarks()
    assert list(table) == ["benchmark", "task", "metric", "shots", "chance", "data", "note"]
    for each in table.itertuples():
        assert (each.task.startswith("shortgpt_")) == (
            each.benchmark in {"cmnli", "chid", "race-h", "race-m", "xsum", "c3", "cmmlu"}
        )
    assert shortgpt.paper_benchmarks is paper_benchmarks
