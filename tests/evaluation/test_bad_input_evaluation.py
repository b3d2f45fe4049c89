"""What measuring says when it is called wrongly."""

import pandas as pd
import pytest
from bad_input import (
    MODEL,
    NAN_LOGITS,
    NO_WEIGHTS,
    OTHER_VOCABULARY,
    TEXTS,
    TOKENIZER,
    YES_OR_NO,
    broken,
    check,
    count,
    forgotten,
    gpt2,
    layers,
    many_tokens,
    nan,
    no_model,
    no_tokenizer,
    no_weights,
    on_meta,
    prompts,
    unreachable,
    with_end,
    wrong,
)
from small import build_tiny

from shortgpt import (
    added_losses,
    best_within,
    cliff,
    compare,
    continue_text,
    decoder_layers,
    evaluate,
    frontier,
    frontier_steps,
    generation_report,
    generation_summary,
    key_value_bytes,
    paper_benchmarks,
    perplexity,
    perplexity_table,
    quantize,
    read_grid,
    removal_sweep,
    repetition,
    retention_table,
    side_by_side,
    size,
    size_quality_grid,
    speed,
    speed_table,
)

SCORES = pd.DataFrame({"task": ["x"], "metric": "acc", "value": 50.0, "standard_error": 5.0, "chance": 25.0})
DOCUMENTS = pd.DataFrame({"text": TEXTS})
GRID = pd.DataFrame(
    [(0, "none", "either"), (2, "none", "either"), (0, "nf4", "either"), (2, "nf4", "prune first")],
    columns=["removed", "method", "order"],
).assign(losses=[[1.0]] * 4, tokens=[[2]] * 4)
NO_DICT = "models must be a dict from name to model, got LlamaForCausalLM"


def count_layers(model) -> float:
    return float(len(decoder_layers(model)))


def positional():
    paper_benchmarks("mmlu")


def with_another(w, other):
    """A dict of two models, one of them wrong."""
    return {"dense": w.model, "x": other}


def written(w):
    return generation_report({"dense": w.model}, w.tokenizer, ["the"], new_tokens=1, progress=False)


def no_models():
    return [
        ({"models": lambda w: with_another(w, (w.model, w.tokenizer))}, *no_model()[1:]),
        ({"models": MODEL}, TypeError, NO_DICT),
        ({"models": {}}, ValueError, "models is empty: give at least one"),
    ]


def no_report():
    """Rows for a function of the table that `generation_report` gives."""
    empty = "the report has no rows: give generation_report\\(\\) at least one prompt"
    table = "report must be a table from generation_report\\(\\), got "
    return [
        *[({"report": wrong}, TypeError, table + shown) for wrong, shown in ((None, "None"), ("dense", "'dense'"))],
        *[({"report": wrong}, TypeError, table + type(wrong).__name__) for wrong in (DOCUMENTS, {})],
        ({"report": lambda w: written(w).iloc[:0]}, ValueError, empty),
    ]


def no_table(name="table"):
    return {name: None}, TypeError, "expected a table with one row a model, got None"


def long_text(n: int) -> str:
    return "a" * n


CASES = [
    # ---- likelihood
    *wrong(
        perplexity,
        {"model": MODEL, "tokenizer": TOKENIZER, "texts": TEXTS},
        no_model(),
        no_tokenizer(),
        ({"texts": "the river"}, TypeError, "texts must be a list of strings.*'the river'"),
        ({"texts": 3}, TypeError, "texts must be a list of strings.*got 3"),
        ({"texts": ["ab", None]}, TypeError, "texts must be strings, got None"),
        ({"texts": []}, ValueError, "no text to measure .*at least two tokens"),
        ({"texts": ["", "a"]}, ValueError, "no text to measure"),
        count("window", least=2),
        count("stride"),
        ({"window": 8, "stride": 8}, ValueError, "1 to window - 1.* 8 .* 8"),
        no_weights(),
        nan(),
        ({"model": gpt2, "texts": [long_text(257)]}, ValueError, "257 tokens .*256 positions"),
        ({"tokenizer": many_tokens, "texts": ["zz" * 4]}, ValueError, OTHER_VOCABULARY),
    ),
    *wrong(
        perplexity_table,
        {"model": MODEL, "tokenizer": TOKENIZER, "documents": DOCUMENTS},
        no_model(),
        no_tokenizer(),
        ({"documents": TEXTS}, TypeError, "documents must be a DataFrame .*got list"),
        ({"documents": pd.DataFrame({"a": TEXTS})}, ValueError, "no column 'text'.* a"),
        ({"by": "x"}, ValueError, "no column 'x'.* text"),
        ({"by": 3}, TypeError, "by must be a list of strings, got 3"),
        ({"documents": pd.DataFrame({"text": [None]})}, TypeError, "strings, got None|nan"),
        ({"documents": pd.DataFrame({"text": []})}, ValueError, "no text to measure"),
        count("window", least=2),
        count("stride"),
    ),
    # ---- benchmarks
    *wrong(
        evaluate,
        {"model": MODEL, "tokenizer": TOKENIZER, "tasks": ["grammar"], "limit": 2, "progress": False},
        no_model(),
        no_tokenizer(),
        ({"tasks": []}, ValueError, "unknown task \\(none given\\): offline there are"),
        ({"tasks": None}, TypeError, "tasks must be a list of strings.*got None"),
        ({"tasks": [3]}, TypeError, "tasks must be strings, got 3"),
        count("limit"),
        count("batch_size"),
        count("shots", least=0),
        count("seed", least=0),
        ({"results": 3}, TypeError, "the path of a file, got 3"),
        (
            {"tokenizer": with_end, "results": lambda w: w.folder / "mine"},
            ValueError,
            "mine is a folder: name a file",
        ),
        (
            {"tokenizer": with_end, "results": lambda w: w.folder / "file.txt" / "r.jsonl"},
            NotADirectoryError,
            "file.txt is a file, so .* can't be a file in it",
        ),
        (
            {"tokenizer": with_end, "results": lambda w: w.file("{", "r.jsonl")},
            ValueError,
            "r.jsonl, line 1, is no result of evaluate\\(\\)",
        ),
        no_weights(),
        nan(tokenizer=with_end),
        ({"tokenizer": TOKENIZER}, ValueError, "no begin and no end token"),
    ),
    *wrong(
        compare,
        {"models": lambda w: {"dense": w.model}, "tokenizer": TOKENIZER, "tasks": ["grammar"], "texts": TEXTS},
        *no_models(),
        no_tokenizer(),
        ({"models": lambda w: [w.model]}, TypeError, "models must be a dict from name to model, got list"),
        ({"texts": "ab"}, TypeError, "texts must be a list of strings"),
        ({"tasks": None}, TypeError, "tasks must be a list of strings"),
        count("limit"),
        count("batch_size"),
        count("shots", least=0),
        count("seed", least=0),
        ({"results": 3}, TypeError, "expected the path of a file, got 3"),
        (
            {"tokenizer": with_end, "results": lambda w: w.folder / "mine"},
            ValueError,
            "mine is a folder: name a file in it for the results",
        ),
    ),
    *wrong(
        removal_sweep,
        {"model": MODEL, "order": [1, 2], "measure": count_layers, "counts": [0, 1]},
        no_model(),
        layers("order"),
        ({"measure": "perplexity"}, TypeError, "measure must be a function .*'perplexity'"),
        ({"counts": 3}, TypeError, "counts must be a list of whole numbers.*got 3"),
        ({"counts": [0.5]}, TypeError, "each of counts must be a whole number, got 0.5"),
        ({"counts": [-1]}, ValueError, "counts must be 0 to 2 .*got -1"),
        ({"counts": [0, 3]}, ValueError, "counts must be 0 to 2 .*got 3"),
        (
            {"order": range(6), "measure": unreachable, "counts": [0, 6]},
            ValueError,
            "counts must be 0 to 5 .*got 6",
        ),
    ),
    *wrong(
        cliff,
        {"sweep": pd.DataFrame({"removed": [0, 1], "value": [3.0, 4.0]})},
        ({"sweep": [3.0, 4.0]}, TypeError, "sweep must be the table of removal_sweep.*got list"),
        ({"sweep": pd.DataFrame({"removed": [0, 1]})}, ValueError, "no column 'value'"),
        ({"sweep": pd.DataFrame({"removed": [0], "value": [3.0]})}, ValueError, "at least two rows"),
        ({"sweep": pd.DataFrame({"removed": [1, 1], "value": [3.0, 4.0]})}, ValueError, "each with another number"),
        ({"sweep": pd.DataFrame({"removed": [0, 1], "value": [3.0, float("nan")]})}, ValueError, "is 1 or more"),
        ({"factor": "x"}, TypeError, "factor must be a number, got 'x'"),
        ({"factor": 1}, ValueError, "factor must be above 1, and times at least 1, got 1 and"),
        ({"times": 0.5}, ValueError, "factor must be above 1, and times at least 1, got .* and 0.5"),
    ),
    *wrong(positional, {}, ({}, TypeError, "takes 0 positional arguments"), name="paper_benchmarks"),
    *wrong(
        retention_table,
        {"results": {"a": SCORES}},
        ({"results": [1]}, TypeError, "dict from model name to evaluate.*got list"),
        ({"results": {}}, ValueError, "results is empty: give at least one"),
        ({"results": {"dense": 3}}, TypeError, "results of dense must be a table.*got 3"),
        ({"results": SCORES}, ValueError, "no column 'model'"),
        ({"results": {"a": SCORES.drop(columns="value")}}, ValueError, "no column 'value'"),
        ({"results": {"a": SCORES[:0]}}, ValueError, "results of a are empty"),
        ({"results": {"a": pd.concat([SCORES, SCORES])}}, ValueError, "hold a task twice"),
        (
            {"results": {"a": SCORES, "b": SCORES.assign(task="y")}},
            ValueError,
            "b and a have different tasks \\(x, y\\)",
        ),
        ({"results": {"a": SCORES.assign(value=0)}}, ValueError, "scores 0 on x"),
        ({"correlation": 2}, ValueError, "from -1 to 1, got 2"),
        ({"least": "x"}, ValueError, "least must be a number.*got 'x'"),
    ),
    # ---- cost
    *wrong(
        size,
        {"model": MODEL},
        no_model(),
        ({"folder": lambda w: w.new}, FileNotFoundError, "no such folder: .*new; save the model there first"),
        ({"folder": lambda w: w.folder / "file.txt"}, FileNotFoundError, "no such folder: .*file.txt"),
        ({"folder": 3}, TypeError, "expected the path of a folder, got 3"),
    ),
    *wrong(
        speed,
        {"model": MODEL, "prompt_tokens": 4, "new_tokens": 1, "repeats": 1},
        no_model(),
        *map(count, ["prompt_tokens", "new_tokens", "batch_size", "repeats"]),
        count("seed", least=0),
        no_weights(),
        ({"model": gpt2, "prompt_tokens": 250, "new_tokens": 32}, ValueError, "tokens .*256 positions"),
    ),
    *wrong(
        speed_table,
        {
            "models": lambda w: {"dense": w.model},
            **{"prompt_tokens": 4, "new_tokens": 1, "batch_sizes": [1], "repeats": 1, "warm_up": 0, "progress": False},
        },
        *no_models(),
        *map(count, ["prompt_tokens", "new_tokens", "repeats"]),
        count("warm_up", least=0),
        count("seed", least=0),
        ({"batch_sizes": [1, 0]}, ValueError, "each of batch_sizes must be at least 1, got 0"),
        ({"batch_sizes": 8}, TypeError, "batch_sizes must be a list of whole numbers.*got 8"),
        ({"batch_sizes": ()}, ValueError, "batch_sizes is empty: give at least one"),
        ({"models": lambda w: with_another(w, on_meta(w))}, ValueError, NO_WEIGHTS),
        ({"models": lambda w: {"a": gpt2(w)}, "prompt_tokens": 256}, ValueError, "tokens .*256 positions"),
    ),
    *wrong(
        key_value_bytes,
        {"model": MODEL},
        no_model(),
        count("tokens", least=2),
        (
            {"cache": "static"},
            TypeError,
            "cache must be a cache of transformers, for instance DynamicCache\\(\\), got 'static'",
        ),
        no_weights(),
        ({"model": gpt2, "tokens": 300}, ValueError, "300 tokens .*256 positions"),
    ),
    # ---- grid, and what is read off it
    *wrong(
        size_quality_grid,
        {"model": MODEL, "tokenizer": TOKENIZER, "order": [1], "counts": [0, 1]},
        no_model(),
        no_tokenizer(),
        layers("order"),
        ({"counts": [0, 2]}, ValueError, "0 to 1 .*got 2"),
        ({"counts": []}, ValueError, "counts is empty"),
        ({"methods": []}, ValueError, "methods is empty"),
        ({"methods": "nf4"}, TypeError, "methods must be a list of strings, got 'nf4'"),
        ({"methods": ["none", "rtn"]}, ValueError, "unknown method 'rtn': choose one of none"),
        ({"orders": ["both"]}, ValueError, "unknown order 'both': choose one of prune first"),
        ({"orders": []}, ValueError, "orders is empty"),
        ({"methods": ["gptq"], "calibration": None}, ValueError, "'gptq' needs text: pass calibration"),
        ({"texts": "the river"}, TypeError, "texts must be a list of strings"),
        ({"texts": ["a", ""]}, ValueError, "every document needs at least two tokens"),
        ({"window": 8, "stride": 8}, ValueError, "stride must be 1 to window - 1, got stride 8"),
        count("stride"),
        ({"tasks": [3]}, TypeError, "tasks must be strings, got 3"),
        count("limit"),
        (
            {"model": lambda w: quantize(w.model)},
            ValueError,
            "quantized already: the grid starts from the original",
        ),
        ({"path": 3}, TypeError, "expected the path of a CSV file, got 3"),
        ({"path": ""}, ValueError, "the path of the CSV file is empty"),
        ({"path": lambda w: w.folder / "mine"}, ValueError, "mine is a folder: name a CSV file in it"),
        ({"path": lambda w: w.file("", "a.csv")}, ValueError, "a.csv is no table of size_quality_grid"),
        ({"path": lambda w: w.file("years of work", "a.csv")}, ValueError, "a.csv is no table of size_quality_grid"),
        (
            {"path": lambda w: w.file("removed,method\n1,none\n", "a.csv")},
            ValueError,
            "a.csv is no table of size_quality_grid",
        ),
    ),
    *wrong(
        read_grid,
        {},
        ({"path": None}, TypeError, "expected the path of a CSV file, got None"),
        ({"path": lambda w: w.folder / "no.csv"}, FileNotFoundError, "there is no grid at .*no.csv"),
        ({"path": lambda w: w.folder / "mine"}, ValueError, "mine is a folder"),
        ({"path": lambda w: w.file("years of work", "a.csv")}, ValueError, "a.csv is no table of size_quality"),
    ),
    *wrong(
        added_losses,
        {},
        ({"grid": None}, ValueError, "expected the table of size_quality_grid.*got None"),
        ({"grid": pd.DataFrame({"removed": [1]})}, ValueError, "expected the table of size"),
        *(
            (
                {"grid": GRID.drop(left_out)},
                ValueError,
                f"no model with {n} layers removed and method '{method}' to compare with",
            )
            for left_out, n, method in [(0, 0, "none"), (1, 2, "none"), (2, 0, "nf4")]
        ),
    ),
    *wrong(
        frontier,
        {"table": GRID, "x": "removed", "y": "removed"},
        no_table(),
        ({"x": "memory_mb"}, ValueError, "the table has no column 'memory_mb': choose out of removed"),
        ({"y": "speed"}, ValueError, "has no column 'speed'"),
        ({"table": GRID[:0]}, ValueError, "no row has both removed and removed"),
    ),
    *wrong(
        frontier_steps,
        {"table": GRID, "x": "removed", "y": "removed"},
        no_table(),
        ({"x": "memory_mb"}, ValueError, "the table has no column 'memory_mb'"),
        ({"y": "speed"}, ValueError, "has no column 'speed'"),
    ),
    *wrong(
        best_within,
        {"table": GRID, "budget": 200, "x": "removed", "y": "removed"},
        no_table(),
        ({"budget": "200"}, TypeError, "budget must be a number, got '200'"),
        ({"x": "memory_mb"}, ValueError, "the table has no column 'memory_mb'"),
        ({"y": "speed"}, ValueError, "has no column 'speed'"),
        ({"budget": -1}, ValueError, "no model has removed of at most -1: the smallest has 0.0"),
    ),
    # ---- writing
    *wrong(
        continue_text,
        {"model": MODEL, "tokenizer": TOKENIZER, "prompt": "the"},
        no_model(),
        no_tokenizer(),
        ({"prompt": ""}, ValueError, "the prompt is empty: give it at least one word"),
        ({"prompt": None}, TypeError, "prompt must be a string, got None"),
        ({"prompt": ["a", "b"]}, TypeError, "prompt must be a string, got list"),
        count("new_tokens"),
        nan(),
        no_weights(),
        ({"model": gpt2, "prompt": long_text(300)}, ValueError, "340 tokens .*256 positions"),
        ({"tokenizer": many_tokens, "prompt": "zz"}, ValueError, OTHER_VOCABULARY),
    ),
    *wrong(
        repetition,
        {"text": "a b c d"},
        ({"text": None}, TypeError, "text must be a string, got None"),
        ({"text": ["a b c"]}, TypeError, "text must be a string, got list"),
        count("n"),
    ),
    *wrong(
        generation_report,
        {"models": lambda w: {"dense": w.model}, "tokenizer": TOKENIZER, "prompts": ["the"], "progress": False},
        *no_models(),
        no_tokenizer(),
        *prompts(),
        ({"prompts": None}, TypeError, "prompts must be a list of strings, got None"),
        ({"prompts": ["the", 3]}, TypeError, "prompts must be strings, got 3 among them"),
        no_model("reference"),
        ({"reference": "dens"}, ValueError, "no model 'dens' to be the reference: there are dense"),
        count("new_tokens"),
        count("seed", least=0),
        ({"temperature": -1}, ValueError, "temperature must be 0 .*or above and finite, got -1"),
        ({"temperature": float("nan")}, ValueError, "temperature must be 0 .*nan"),
        ({"temperature": "high"}, TypeError, "temperature must be a number, got 'high'"),
        ({"models": lambda w: {"a": broken(w)}}, ValueError, NAN_LOGITS),
        nan("reference", models=lambda w: {"a": build_tiny()}),
        ({"models": lambda w: {"a": on_meta(w)}}, ValueError, NO_WEIGHTS),
        (
            {"models": lambda w: {"a": gpt2(w)}, "prompts": [long_text(300)], "new_tokens": 40},
            ValueError,
            "340 tokens .*256 positions",
        ),
        ({"tokenizer": many_tokens, "prompts": ["zz"]}, ValueError, OTHER_VOCABULARY),
    ),
    *wrong(generation_summary, {}, *no_report()),
    *wrong(side_by_side, {"report": lambda w: written(w)}, *no_report(), count("width", least=40)),
]
REASONS = {
    "compare.errors": YES_OR_NO,
    "speed_table.memory": YES_OR_NO,
    "size_quality_grid.disk": YES_OR_NO,
    "size_quality_grid.speeds": YES_OR_NO,
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_wrong_call_is_one_sentence_and_changes_nothing(case, world):
    check(case, world)


def test_every_parameter_is_asked():
    assert not forgotten("evaluation", CASES, REASONS)
