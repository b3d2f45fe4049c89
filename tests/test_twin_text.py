"""The twins' text: generators right, held-out problems apart, items well formed, cleaning, and the tokenizer."""

import json
import re
import sys
from itertools import islice
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from shortgpt.model.tokens import begin_tokens, encode
from shortgpt.utils.data import data_folder

MEASURE = Path(__file__).resolve().parents[1] / "measure"
TWINS = data_folder() / "twins"
TASKS = ("addition", "brackets", "agreement")
OPENS = {")": "(", "]": "[", "}": "{"}


@pytest.fixture(scope="module")
def grammar():
    sys.path.insert(0, str(MEASURE))
    import twin_grammar

    yield twin_grammar
    sys.path.remove(str(MEASURE))


@pytest.fixture(scope="module")
def readers(grammar):
    import twin_readers

    return twin_readers


@pytest.fixture(scope="module")
def items():
    return [json.loads(line) for line in (TWINS / "controlled.jsonl").read_text(encoding="utf-8").splitlines()]


def lines(grammar, task, documents=400):
    return [line for text in islice(grammar.documents(task), documents) for line in text.splitlines()]


def test_sums_are_right_and_carries_where_python_says(grammar, items):
    for line in lines(grammar, "addition"):
        a, b, answer = re.fullmatch(r"(\d{1,4})\+(\d{1,4})=(\d+)", line).groups()
        assert int(a) + int(b) == int(answer[::-1])
    for item in (item for item in items if item["task"] == "addition"):
        a, b = item["prompt"][:-1].split("+")
        assert int(a) + int(b) == int(item["answer"][::-1]) and {len(a), len(b)} == {item["level"]}
        carry, expected = 0, []
        for i in range(len(item["answer"]) - 1):  # the school method
            expected.append(carry == 1)
            carry = (int(a[::-1][i : i + 1] or 0) + int(b[::-1][i : i + 1] or 0) + carry) // 10
        assert item["carries"] == expected and carry == 0


def test_brackets_close_by_a_stack(grammar, items):
    rows = [line.partition("|")[::2] for line in lines(grammar, "brackets")]
    rows += [(item["prompt"][:-1], item["answer"][:-1]) for item in items if item["task"] == "brackets"]
    for prefix, answer in rows:
        stack = []
        for bracket in prefix + answer:
            if bracket in OPENS:
                assert stack.pop() == OPENS[bracket]
            else:
                stack.append(bracket)
                assert len(stack) <= 8
        assert not stack and answer
    for item in (item for item in items if item["task"] == "brackets"):
        assert len(item["answer"]) - 1 == item["level"] == len(item["distances"])
        for at, distance in enumerate(item["distances"], len(item["prompt"])):
            assert (item["prompt"] + item["answer"])[at - distance] == OPENS[(item["prompt"] + item["answer"])[at]]


def test_the_verb_has_the_subjects_number_whatever_stands_between(grammar, items):
    plural = {"are", "were", "have"}
    rows = [re.fullmatch(r"(.*) (is|are|was|were|has|have) \w+\.", s).groups() for s in lines(grammar, "agreement")]
    mine = [item for item in items if item["task"] == "agreement"]
    for prompt, verb in rows + [(item["prompt"], item["answer"].strip()) for item in mine]:
        subject = re.split(r" (?:near|behind|beside|above|below|with) ", prompt)[0]
        assert subject.endswith("s") == (verb in plural)
    for item in mine:
        assert (item["answer"].strip() in plural) != (item["other"].strip() in plural)
        _, *phrases = re.split(r" (?:near|behind|beside|above|below|with) ", item["prompt"])
        assert len(phrases) == item["level"] and item["distance"] == sum(len(p.split()) + 1 for p in phrases)
        assert item["attractors"] == ["plural" if p.endswith("s") else "singular" for p in phrases]


@pytest.mark.parametrize("task", TASKS)
def test_no_held_out_problem_is_in_training(grammar, items, task):
    trained = {re.match(r".*?=|.*?\||.*(?= (?:is|are|was|were|has|have) )", s)[0] for s in lines(grammar, task, 3000)}
    held = {item["prompt"] for item in items if item["task"] == task}
    swapped = {"+".join(reversed(p[:-1].split("+"))) + "=" for p in held} if task == "addition" else set()
    assert len(trained) > 1000 and not trained & (held | swapped)


def test_items_are_unique_seeded_and_spread_over_levels(grammar, items):
    for task in TASKS:
        mine = [item for item in items if item["task"] == task]
        assert mine == json.loads(json.dumps(grammar.items(task)))
        assert 290 <= len(mine) == len({item["prompt"] for item in mine}) <= 300
        for level in grammar.LEVELS[task][1:]:
            assert sum(item["level"] == level for item in mine) >= 300 // len(grammar.LEVELS[task]) - 1


def test_some_documents_are_single_lines_and_all_end_one(grammar):
    for task in TASKS:
        sizes = [text.count("\n") for text in islice(grammar.documents(task), 200) if text.endswith("\n")]
        assert len(sizes) == 200 and 20 <= sizes.count(1) <= 60 and set(sizes) <= {1, 8, 9, 10}


def test_dictionary_entries_lose_pronunciation_and_marks(readers):
    entry = 'Alleyway \\Al"ley*way`\\n.\n   An alley {between} walls.\n   [1913 Webster]\n'
    assert readers.gcide_entry(entry) == "Alleyway: An alley between walls."
    assert (
        readers.entry("appetiser\n   n 1: food or drink [syn: {appetizer},\n   {starter}]")
        == "appetiser n 1: food or drink"
    )


def test_manuals_lose_their_markup(readers):
    man = ".SH NAME\n.PP\nThe\n.BR open (2)\ncall \\fIopens\\fP a file.\n.EX\nint x;\n.EE\n"
    assert [part for part in readers.man_paragraphs(man) if part] == ["The open(2) call opens a file."]
    assert readers.pod_paragraphs("=head1 A\n\nUse C<< print >> and B<I<this>>.\n\n  code\n") == ["Use print and this."]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(TWINS / "tokenizer")


def test_the_tokenizer_adds_bos_and_gives_every_text_back(tokenizer):
    assert len(tokenizer) == 2048 and tokenizer.model_max_length == 256
    assert begin_tokens(tokenizer) == [tokenizer.bos_token_id] == [tokenizer.eos_token_id]
    text = "The keys near the cabinet are old.\n347+586=339\n([[|]])\n  naïve 你好\n"
    ids = encode(tokenizer, text)
    assert ids[0] == tokenizer.bos_token_id and tokenizer.decode(ids[1:]) == text


def test_digits_and_brackets_are_always_single_tokens(tokenizer):
    singles = "0123456789()[]{}+=|\n"
    for token in (tokenizer.decode([i]) for i in range(1, len(tokenizer))):
        assert len(token) == 1 or not set(token) & set(singles)
    for text in ("347+586=339\n", "([{}[|]])\n"):
        assert len(tokenizer(text, add_special_tokens=False)["input_ids"]) == len(text)


def test_items_and_their_answers_are_tokenized_apart(tokenizer, items):
    for item in items[::7]:
        both = encode(tokenizer, item["prompt"] + item["answer"])
        assert both[: len(prompt := encode(tokenizer, item["prompt"]))] == prompt


def test_a_page_keeps_its_prose_and_no_code_or_navigation(readers, tmp_path):
    page = "<body><nav><p>Next</p></nav><p>One <b>word</b>.</p><pre>x = 1</pre><ul><li>An item</li></ul></body>"
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    assert list(readers.read_page([tmp_path / "page.html"])) == [("page", ["One word.", "An item"])]


def test_only_new_prose_that_nothing_is_measured_on_is_kept(grammar):
    import twin_text

    long = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    other = "a paragraph of words that has not been seen before by anyone at all today"
    code = "x = f(1, 2); y[3] = g(x) + 4; return {1: x, 2: y}; a b c"
    found = twin_text.fresh([f"{long} x", other, other.upper(), code, "short"], set(), twin_text.runs(long))
    assert list(found) == [other]


def test_every_source_is_named_with_a_licence(grammar):
    from twin_sources import SHA256, SOURCES

    table = (TWINS / "SOURCES.md").read_text(encoding="utf-8")
    for source in SOURCES:
        assert f"| {source.key} | {source.package.replace('==', ' ')} | {source.licence} |" in table
        assert len(SHA256[source.package]) == 64
