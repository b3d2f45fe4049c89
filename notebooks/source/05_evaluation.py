# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,nbmake,-all
#     notebook_metadata_filter: -all
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/shortgpt-course/shortgpt/blob/main/notebooks/05_evaluation.ipynb)
#
# # 05 · Evaluation: perplexity, choice and generation; English and Chinese
#
# How much does a pruned model still know? One can ask in three ways: how surprised it is by good text
# (*perplexity*), which of several answers it finds likeliest (*choice*), and what it writes by itself
# (*generation*). The three disagree so much that a paper with only one of them can mislead although all its numbers
# are right. We compute each measure by hand, then put the same three models through all of them.
#
# **You will be able to**
#
# - compute perplexity, bits per byte and a multiple-choice score from logits, and check them against the tools;
# - read an accuracy together with its standard error and its chance level;
# - compare two models on the same items;
# - say what perplexity, choice and generation each reveal, and hide, about a pruned model.
#
# **Before:** [lesson 03](03_pruning.ipynb) (removing layers) · **Takes:** about 4 minutes on 2 CPU cores; reading
# about 30 minutes, exercises 45 · **Memory:** about 2 GB · **Download:** 93 MB once (shared by all lessons)

# %% [markdown] tags=["for-exercises"]
# Run this cell first. On Colab it installs the toolkit.

# %% tags=["setup"]
# @title Set-up: run this cell first
import sys
from importlib.util import find_spec

if "google.colab" in sys.modules and not getattr(find_spec("shortgpt"), "origin", None):  # a folder has no origin
    from importlib.metadata import version
    from pathlib import Path

    present = ["torch", "numpy", "pandas", "transformers", "ipywidgets", "matplotlib"]  # pip must not move them
    held = [f"{name}=={version(name)}" for name in present] + ["shortgpt-pruning==0.1.*"]  # what this lesson needs
    Path("/tmp/held.txt").write_text("\n".join(held))
    project = "shortgpt-pruning[eval] @ git+https://github.com/shortgpt-course/shortgpt"
    get_ipython().run_line_magic("pip", f"install -q -c /tmp/held.txt '{project}'")
    if not getattr(find_spec("shortgpt"), "origin", None):
        raise ImportError("pip could not install the toolkit, and says above why. If this is an old copy of the lesson, open "
                          "it anew from the course's page; else choose Runtime > Disconnect and delete runtime, and try again")

import torch
import transformers

import shortgpt

print(f"shortgpt {shortgpt.__version__}, torch {torch.__version__}, transformers {transformers.__version__}")

# %% [markdown] tags=["for-exercises"]
# **Another model?** Change the line `MODEL = …`. The text still speaks of the default model; the cells show yours,
# except what says *default model, stored*.

# %% tags=["for-exercises"]
import json
import shutil
import tempfile

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from torch.nn.functional import cross_entropy

from shortgpt import built_in_text, calibration_batches
from shortgpt import choice_summary, choose_layers, evaluate, generation_report
from shortgpt import generation_summary, load, perplexity, perplexity_table
from shortgpt import remove_layers, retention_table, score_layers, side_by_side
from shortgpt.course.plots import MARKERS, PALETTE, STORED, plain_log_ticks
from shortgpt.course.plots import plot_retention
from shortgpt.evaluation.benchmarks import BENCHMARKS
from shortgpt.model.tokens import begin_token
from shortgpt.utils.data import data_folder

MODEL = "smollm2-135m-instruct"  # others: shortgpt.suggested_models()
model, tokenizer = load(MODEL, device="cpu")  # the cells below use plain CPU tensors

# %% [markdown]
# Three models: the dense one, and what is left without the three and the six layers that have the lowest Block
# Influence (lesson 03).

# %%
batches = calibration_batches(tokenizer, built_in_text()["text"])
scores = score_layers(model, batches, progress=False)
models = {"dense": model}
for n in (3, 6):
    plan = choose_layers(scores, n=n)
    models[f"−{n} layers"] = remove_layers(model, plan)
    print(f"−{n} layers: without {sorted(plan.removed)}")

# %% [markdown]
# ## 1. Perplexity by hand
#
# At every position a language model gives a probability to each token of its vocabulary. The *loss* of a token is
# $-\log p$ of the token that really came (in *nats*, the unit of the natural logarithm): zero for certainty, large
# for surprise. *Perplexity* is the exponential of the mean loss of tokens $t_2 \dots t_T$:
#
# $$ \mathrm{PPL} = \exp\!\Big(\frac{1}{T-1}\sum_{i=2}^{T} -\log p(t_i \mid t_1 \dots t_{i-1})\Big) $$
#
# A perplexity of 20 means: as uncertain as between 20 equally likely tokens. Logits at position $i-1$ predict token
# $i$, so the code shifts by one.

# %%
SENTENCE = "The doctor washed her hands and opened the door of the waiting room."
ids = tokenizer(SENTENCE, return_tensors="pt")["input_ids"]  # [1, tokens]


@torch.inference_mode()
def losses_by_hand(model) -> torch.Tensor:
    logits = model(input_ids=ids).logits[0]  # [tokens, vocabulary]
    return cross_entropy(logits[:-1], ids[0, 1:], reduction="none")  # [tokens - 1]


by_hand = losses_by_hand(model).mean().exp().item()
by_toolkit = perplexity(model, tokenizer, [SENTENCE])
print(f"by hand {by_hand:.4f}, by the toolkit {by_toolkit:.4f}")
assert np.isclose(by_hand, by_toolkit, rtol=1e-4)

# %% [markdown]
# *Predict:* which words of the sentence surprise the model most, and where does a model without six layers lose?

# %%
dense, pruned = losses_by_hand(model), losses_by_hand(models["−6 layers"])
tokens = [tokenizer.decode(i).strip() or "␣" for i in ids[0, 1:]]
places = np.arange(len(tokens))
fig, ax = plt.subplots(figsize=(9, 3.2), layout="constrained")
look = {"width": 0.4, "edgecolor": "black"}
ax.bar(places - 0.2, dense, color=PALETTE[0], label="dense", **look)
ax.bar(places + 0.2, pruned, color=PALETTE[1], hatch="///", label="−6 layers", **look)
blind = np.log(model.config.vocab_size)  # all tokens equally likely
ax.axhline(blind, color="black", linestyle=":", label="blind guessing")
ax.set_xticks(places, tokens, rotation=30)
ax.set(ylabel="loss (nats)", xlabel="token, given all tokens before it")
ax.legend()
plt.show()
gap = pruned - dense
print(
    f"Mean loss {dense.mean():.2f} dense, {pruned.mean():.2f} pruned. The largest rise "
    f"is at {tokens[int(gap.argmax())]!r}, and {int((gap < 0).sum())} of {len(gap)} "
    "tokens became easier."
)

# %% [markdown]
# The first words are hard for both, since almost anything may start a sentence. Words that the context nearly fixes
# ("hands" after "washed her", "room" after "waiting") stay easy for both. The pruned model loses mostly in between.

# %% [markdown]
# ## 2. Long texts: window and stride
#
# A document longer than what a model reads at once is read in *windows* that overlap. Each moves on by a *stride*,
# and only tokens that have no loss yet are scored; the others are context. How often is a token read? This is what
# `perplexity_table` does with 2,300 tokens.

# %%
starts = np.arange(0, 1600, 512)  # 2,300 tokens, window 1024, stride 512
ends = np.minimum(starts + 1024, 2300)
done = np.append(0, ends[:-1])  # tokens before this have their loss

fig, ax = plt.subplots(figsize=(8, 2.2), layout="constrained")
look = {"edgecolor": "black"}
ax.barh(range(4), done - starts, left=starts, color="white", label="context", **look)
look |= {"color": PALETTE[0], "hatch": "///"}
ax.barh(range(4), ends - done, left=done, label="scored", **look)
ax.set(xlabel="token of the document", ylabel="window", yticks=range(4))
ax.invert_yaxis()
ax.legend(loc="lower left")
plt.show()
assert (ends - done).sum() == 2300
print("From the second window on each scored token has at least 512 tokens of context.")

# %% [markdown]
# *Predict:* what happens to perplexity if windows are short, so that tokens lose the context before them?

# %%
article = built_in_text("perplexity", genre="encyclopedic").head(1)
short = []
for window in (32, 128, 1024):
    cut = {"window": window, "stride": window // 2}
    short.append(perplexity_table(model, tokenizer, article, **cut))
columns = ["window", "stride", "perplexity", "tokens"]
pd.concat(short)[columns].round(2).reset_index(drop=True)

# %% [markdown]
# The same model, the same text, and very different perplexities. Without its window and stride a perplexity can't be
# compared with another.

# %% [markdown]
# ## 3. By genre, with standard errors
#
# The built-in perplexity text has nine genres with two documents each; to save time we take five. *Predict:* is the
# damage of pruning the same for all?

# %%
genres = ["dialogue", "encyclopedic", "news", "science", "story"]
documents = built_in_text("perplexity").query("genre in @genres")
tables = []
for name, m in models.items():
    table = perplexity_table(m, tokenizer, documents, by="genre")
    tables.append(table.assign(model=name))
by_genre = pd.concat(tables)
table = by_genre.pivot(index="genre", columns="model", values="perplexity")[
    list(models)
]
table.assign(rise=table.iloc[:, -1] / table["dense"]).round(1).sort_values("dense")

# %% [markdown]
# The last column is the factor by which six layers fewer multiply perplexity. Here are all three models, with one
# standard error:


# %%
def points(rows: pd.DataFrame, x: str, y: str, order: list[str]) -> plt.Axes:
    """A marker per model with plus and minus one standard error."""
    _, ax = plt.subplots(figsize=(8.5, 3.6), layout="constrained")
    for i, name in enumerate(models):
        one = rows[rows["model"] == name].set_index(x).loc[order]
        places = np.arange(len(order)) + 0.15 * (i - 1)
        look = {"fmt": MARKERS[i], "capsize": 4, "color": PALETTE[i], "label": name}
        ax.errorbar(places, one[y], one["standard_error"], **look)
    ax.set_xticks(range(len(order)), order)
    ax.legend(loc="upper right", ncols=2)
    return ax


order = table["dense"].sort_values().index.tolist()
ax = points(by_genre, "genre", "perplexity", order)
ax.set(yscale="log", ylabel="perplexity (log scale)")
plain_log_ticks(ax)
plt.show()
print(f"Dense perplexity is lowest on {order[0]} and highest on {order[-1]}.")

# %% [markdown]
# From dialogue to story the dense perplexity grows by a larger factor than the removal of three layers costs in any
# genre. So the *text* must be the same when models are compared.

# %% [markdown]
# ## 4. Bits per byte: comparing what tokens can't
#
# Perplexity is per *token*, and tokens belong to a tokenizer. The English text here is *the four documents* of
# lesson 04. *Predict:* has this model, which has hardly seen any Chinese, a higher perplexity on Chinese text than on
# English?

# %%
four = documents[documents["genre"] != "dialogue"].drop_duplicates("genre")
chinese = built_in_text("perplexity", language="zh")
chinese = chinese.query("genre in ['encyclopedic', 'news', 'story']")
rows = []
for language, texts in {"English": four, "Chinese": chinese}.items():
    for name, m in models.items():
        row = perplexity_table(m, tokenizer, texts).iloc[0]
        row = row[["perplexity", "bits_per_byte"]].to_dict()
        rows.append({"language": language, "model": name} | row)
languages = pd.DataFrame(rows)
languages.round(3)

# %% [markdown]
# Per token, Chinese looks *easier*. The tokenizer knows few Chinese characters and cuts the others into pieces of
# their UTF-8 bytes. After the first byte of a character the next one is easy to guess, and many easy pieces make a
# low average.
#
# *Bits per byte* divides the same total loss by something that no tokenizer can change, the bytes of the text:
#
# $$ \text{bits per byte} = \frac{\sum_i -\log_2 p(t_i \mid t_1 \dots t_{i-1})}{\text{bytes of the text}} $$
#
# (A Chinese character takes three bytes, an English letter one. So compare models within a language.) Which language
# loses more, in bits?

# %%
fig, axes = plt.subplots(1, 2, figsize=(8.5, 3.2), layout="constrained")
look = {"rot": 0, "color": PALETTE, "edgecolor": "black", "width": 0.7, "xlabel": ""}
for ax, column in zip(axes, ("perplexity", "bits_per_byte"), strict=True):
    wide = languages.pivot(index="model", columns="language", values=column)
    wide = wide.loc[list(models), ["English", "Chinese"]]
    wide.plot.bar(ax=ax, ylabel=column.replace("_", " "), **look)
    plt.setp(ax.containers[1], hatch="///")
    ax.legend()
plt.show()
rise = wide.loc["−6 layers"] / wide.loc["dense"] - 1
print(
    f"Six layers fewer raise the bits by {rise['English']:.0%} in English and "
    f"{rise['Chinese']:.0%} in Chinese."
)

# %% [markdown]
# The pruned models lose more of their little Chinese than of their English. The layers were chosen on English text.
# *Try it:* give `score_layers` Chinese calibration text, `calibration_batches(tokenizer,
# built_in_text("calibration", language="zh")["text"])`. Does the gap close?

# %% [markdown]
# ## 5. Choice by hand
#
# A multiple-choice benchmark never lets the model write. It computes the log-probability of each answer as a
# continuation of the question, and takes the likeliest:
#
# $$ \text{score}(c) = \sum_{i \in \text{tokens of } c} \log p(t_i \mid \text{question}, \text{earlier tokens of } c) $$
#
# Without a question, the answer follows the token that starts a document. (A long answer pays for more tokens. So
# benchmarks often report a second score, `acc_norm`, divided by the answer's length; ours is the plain one, `acc`.)

# %%
START = tokenizer.convert_tokens_to_ids(begin_token(tokenizer, "a choice"))


@torch.inference_mode()
def choice_score(model, question: str, choice: str) -> float:
    before = tokenizer(question)["input_ids"]
    answer = tokenizer(question + choice)["input_ids"][len(before) :]
    before = before or [START]  # without a question
    logits = model(input_ids=torch.tensor([before + answer])).logits[0]
    logits = logits[len(before) - 1 : -1]  # [answer tokens, vocabulary]
    return -cross_entropy(logits, torch.tensor(answer), reduction="sum").item()

# %% [markdown]
# Now one item of the science task. Which answer leads, and by how much?

# %%
tasks_folder = data_folder() / "tasks"
item = pd.read_json(tasks_folder / "science.jsonl", lines=True).iloc[1]
question = f"Question: {item['question']}\nAnswer:"
by_choice = pd.DataFrame(index=item["choices"])
for name, m in models.items():
    by_choice[name] = [choice_score(m, question, " " + c) for c in item["choices"]]
leads = {name: column.nlargest(2) for name, column in by_choice.items()}
print(item["question"], "Right:", item["choices"][item["answer"]])
by_choice.loc["lead of the best"] = [
    two.iloc[0] - two.iloc[1] for two in leads.values()
]
by_choice.round(1)

# %% [markdown]
# Only the *order* counts, and it stays. The lead even grows when layers go, although perplexity gets worse.

# %% [markdown]
# ## 6. The harness
#
# `evaluate` runs lm-evaluation-harness, which does this for thousands of tasks. Five tasks need no network:
#
# | task | what it asks | chance |
# |---|---|---|
# | `last_word` | is the last word of a passage what the model would write next? | 0 % |
# | `grammar` | which of two nearly equal sentences is likelier? | 50 % |
# | `physical` | which of two answers makes physical sense? | 50 % |
# | `science` | which of four answers is right? | 25 % |
# | `chinese` | which of two continuations is good Chinese? | 50 % |
#
# These items were written for this course, and their wording gives some answers away. With the question hidden and
# only the choices shown, the dense model should be at guessing level. Is it?

# %%
measured = json.loads((data_folder() / "measured.json").read_text(encoding="utf-8"))
hidden = pd.DataFrame(measured["accuracy"]).query("removed == 'question hidden'")
print(STORED)
hidden.set_index("task")[["value", "standard_error", "chance", "items"]].round(1)

# %% [markdown]
# On `physical` and `science` it is several standard errors above guessing. So the *height* of an accuracy here says
# less about knowledge than it seems to. We use its *fall* when layers go, on the same items.
#
# Does the harness compute what we computed? Grammar items, by hand and by harness.

# %%
LIMIT = 100
items = pd.read_json(tasks_folder / "grammar.jsonl", lines=True).head(LIMIT)


def right(model) -> np.ndarray:
    """For each grammar item, whether the model finds the right sentence likelier."""
    found = []
    for choices, answer in zip(items["choices"], items["answer"], strict=True):
        scores = [choice_score(model, "", choice) for choice in choices]
        found.append(np.argmax(scores) == answer)
    return np.array(found)


correct = {name: right(m) for name, m in models.items()}
for name, m in models.items():
    table = evaluate(m, tokenizer, ["grammar"], limit=LIMIT, progress=False)
    by_harness, by_hand = table["value"].item(), 100 * correct[name].mean()
    assert np.isclose(by_harness, by_hand)
    print(f"{name}: by hand {by_hand:.2f} %, by the harness {by_harness:.2f} %")

# %% [markdown]
# All items of all five tasks take a quarter of an hour for each model. So `evaluate` keeps results in a file, and
# reads what is there for *this* model, these tasks and these settings. A filled file comes with the project
# (`measure/evaluation.py`). Another `MODEL` is not in it: then 100 items of each task are run, some minutes for each
# model.

# %%
TASKS = ["last_word", "grammar", "physical", "science", "chinese"]
ITEMS = None if MODEL == "smollm2-135m-instruct" else 100  # None: all items
file = f"{tempfile.mkdtemp()}/evaluated.jsonl"
shutil.copy(data_folder() / "evaluated.jsonl", file)
tables = []
for name, m in models.items():
    table = evaluate(m, tokenizer, TASKS, limit=ITEMS, results=file)
    tables.append(table.assign(model=name))
results = pd.concat(tables, ignore_index=True)
columns = ["task", "value", "standard_error", "chance", "items"]
results.query("model == 'dense'")[columns].round(1)

# %% [markdown]
# An accuracy $a$ from $n$ items has a standard error of $\sqrt{a(1-a)/n}$. A *difference* of two accuracies has a
# larger one, $\sqrt{e_1^2 + e_2^2}$ from the two errors. *Predict:* for how many tasks is the fall from dense to three layers fewer
# larger than two standard errors of the difference?

# %%
ax = points(results, "task", "value", TASKS)
chance = results["chance"].iloc[:5]
at, look = np.arange(5), {"color": "black", "linestyle": ":", "label": "guessing"}
ax.hlines(chance, at - 0.4, at + 0.4, **look)
ax.set(ylabel="accuracy (percent, ± 1 s.e.)", ylim=(-3, 113))
ax.legend(loc="upper right", ncols=4)
plt.show()
print("Dotted lines mark guessing; the table has the falls from dense, in points.")
wide = results.pivot(index="task", columns="model", values=["value", "standard_error"])
value, error = wide["value"].loc[TASKS], wide["standard_error"].loc[TASKS]
falls = pd.DataFrame(index=TASKS)
for name in ("−3 layers", "−6 layers"):
    falls[f"{name}: fall"] = value["dense"] - value[name]
    falls[f"{name}: its s.e."] = np.hypot(error["dense"], error[name])
falls.round(1)

# %% [markdown]
# Two: `grammar` and `science`. `physical` falls by more than two standard errors of either accuracy, but by less
# than two of the difference, so it may be chance. With six layers fewer the last word falls to about half, and
# grammar falls further.

# %% [markdown]
# ## 7. The same items: a paired comparison
#
# The models answered the *same* items, and most items say nothing about their difference: both are right, or both
# are wrong. So take the difference item by item, +1, 0 or −1, and the standard error of its mean. Will it be
# smaller than that of section 6?

# %%
rows = []
for name in ("−3 layers", "−6 layers"):
    change = correct[name].astype(float) - correct["dense"].astype(float)  # -1, 0 or 1
    apart = np.sqrt((correct[name].var() + correct["dense"].var()) / LIMIT)
    paired = change.std(ddof=1) / np.sqrt(LIMIT)
    row = {"model": name, "lost": (change < 0).sum(), "gained": (change > 0).sum()}
    row |= {"change": 100 * change.mean(), "s.e. unpaired": 100 * apart}
    rows.append(row | {"s.e. paired": 100 * paired})
pd.DataFrame(rows).set_index("model").round(1)

# %% [markdown]
# It is, with the same answers. You lose this when you compare accuracies from different papers. Note also the column
# *gained*: pruned models get items right that the dense one had wrong.

# %% [markdown]
# ## 8. Retention, and why it flatters
#
# The paper sums up with *retention*: the pruned model's score in percent of the dense model's. But a model that only
# guesses keeps $50/70 = 71\,\%$ of a two-choice score of 70. A stricter number takes the guessing level $g$ off both:
#
# $$ \text{retention} = \frac{a_{pruned}}{a_{dense}} \qquad\qquad \text{above chance} = \frac{a_{pruned} - g}{a_{dense} - g} $$
#
# `retention_table` computes both, and leaves the second empty where the dense model isn't three standard errors above
# guessing. Which tasks will change most?

# %%
kept = retention_table(results)
rows = kept[kept["model"] != "dense"]
errors = ["retention_error", "above_chance_error"]
rows[["model", "task", "retention", "above_chance", *errors]].round(1)

# %% [markdown]
# Plain retention on the left, above chance on the right:

# %%
size = {"figsize": (10, 3.8), "layout": "constrained"}
fig, axes = plt.subplots(1, 2, sharex=True, sharey=True, **size)
names = {"retention": "plain retention", "above_chance": "retention above chance"}
for ax, (column, name) in zip(axes, names.items(), strict=True):
    print(f"{name}:", end=" ")
    wide = rows.pivot(index="task", columns="model", values=column)
    wide = wide.loc[TASKS, list(models)[1:]]
    plot_retention(wide, ax, xlabel=f"{name} (percent of dense)")
axes[0].get_legend().remove()
axes[1].legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
plt.show()

# %% [markdown]
# `last_word` has no guessing level and is the same on both sides. The choice tasks fall a good deal further on the
# right. (The bar beyond 100 % is noise.) Whenever a paper says that a pruned model "keeps 90 % of the performance",
# ask what guessing would have kept.
#
# For your own model, `compare` does perplexity, tasks, size and plain retention in one call.

# %% [markdown]
# ## 9. Generation: let it write
#
# In generation, the model's own output becomes its input. *Predict:* which model is the first to write nonsense,
# and which kind of nonsense?

# %%
PROMPTS = [
    "The lighthouse keeper climbed the stairs every evening to",
    "To make a good soup, you first have to",
    "The most important thing to know about the moon is",
    "My grandmother used to tell us that",
    "When the train finally arrived, the passengers",
    "Bees are useful because",
    "The mayor announced on Monday that the old bridge",
    "Nobody had opened the letter until",
]
writing = generation_report(models, tokenizer, PROMPTS, new_tokens=40, progress=False)
print(side_by_side(writing[writing["prompt"].isin(PROMPTS[:2])]))

# %% [markdown]
# Two numbers help with reading: `repetition` is the share of three-word sequences that had occurred before, and
# `perplexity` says how surprising the text is *to the dense model*. Which of the two will rise first?

# %%
summary = generation_summary(writing).set_index("model")
columns = ["repetition", "repetition_error", "perplexity", "perplexity_error"]
summary[columns].round(2)

# %% [markdown]
# Repetition rises with the first three layers; surprise goes on rising with the next three. One number alone could
# mislead: the soup text without three layers is a loop, easy to predict, and so it is *less* surprising than what the
# dense model wrote itself.

# %% [markdown]
# ## 10. The same question, chosen and written
#
# What does choosing *alone* hide? Ask the same question twice. `choice_and_generation` puts an item to the model as a
# chat user would, with the answers listed as A, B, …. It takes the likeliest answer, and then also lets the model
# *write* one.

# %% [markdown]
# *Predict:* which way gets more answers right, and where does the distance grow? The table has the first 120
# questions of each task (measured by `measure/evaluation.py`): percent right in each way, and `unread`, the percent
# of written texts in which none of the given answers was found.

# %%
answered = pd.read_csv(data_folder() / "choice_generation.csv", keep_default_na=False)
tables = []
for (task, n), table in answered.groupby(["task", "removed"]):
    tables.append(choice_summary(table).assign(removed=n, task=task))
ways = pd.concat(tables, ignore_index=True).set_index(["task", "removed"])
print(STORED)
columns = ["choice", "choice_error", "written", "written_error", "unread"]
ways[columns].round(1)

# %% [markdown]
# Choosing stays level, but near guessing, where there is nothing to lose. (In section 6, without the lettered list,
# the dense model was right on 85 % of `physical`.)
#
# Written answers to `physical` collapse with the first three layers: no answer can be read from them. Without six
# layers the model recites who it is: "You're a helpful AI". Choosing can't show this, since one of the given answers
# is always the likeliest.
#
# <details><summary>Going deeper: a model that knows the answers</summary>
#
# A model that guesses can't show whether choosing survives. qwen2.5-coder-1.5b-instruct (28 layers;
# `load("qwen2.5-coder-1.5b-instruct")`) answers nearly all of these questions when dense, and in the same chat
# format *choosing* falls first. Without two layers it writes as many right answers as before, but as a sentence
# ("The correct answer is C."), so none of the listed answers is what it would say next, and the likeliest of four
# unlikely answers is a poor guide. Without eight layers it is the other way round.
#
# It also depends on *which* layers go. Without the eight layers that a greedy search takes, the bare questions
# are answered about as well as before, and the last word, one step of writing, falls by more than a third: the paper's
# picture. Without Block Influence's eight, both fall. All numbers: [three models](../docs/three_models.md),
# sections 2 and 3. Neither way of asking is the safe one: each measures the form of a question together with what
# the model knows.
# </details>

# %% [markdown]
# ## 11. Side by side
#
# Now all measures, each in its own unit. Choice is the mean accuracy over `grammar`, `physical` and `science`, with
# the mean guessing level dotted. Generation appears twice: as the exact last word, one step of writing, and as the
# repetition in free writing. *Predict:* which breaks first?

# %%
is_choice = results["task"].isin(["grammar", "physical", "science"])
chosen = results[is_choice].groupby("model", sort=False)
choice_error = chosen["standard_error"].apply(np.linalg.norm) / 3
last = results[results["task"] == "last_word"].set_index("model")
english = languages[languages["language"] == "English"].set_index("model")
loops = 100 * summary[["repetition", "repetition_error"]]
panels = {
    "perplexity": (english["perplexity"], None),
    "choice (% right)": (chosen["value"].mean(), choice_error),
    "last word (% right)": (last["value"], last["standard_error"]),
    "writing (% repeated)": (loops["repetition"], loops["repetition_error"]),
}

# %%
fig, axes = plt.subplots(1, 4, figsize=(10, 2.8), layout="constrained")
look = {"color": PALETTE[:3], "hatch": ("", "///", "..."), "edgecolor": "black"}
for ax, (title, (values, errors)) in zip(axes, panels.items(), strict=True):
    ax.bar(values.index, values, yerr=errors, capsize=4, **look)
    ax.set_title(title, fontsize=10)
    ax.tick_params(axis="x", labelsize=8)
guess = chosen["chance"].mean().iloc[0]
axes[1].axhline(guess, color="black", linestyle=":")
plt.show()
ppl, choice, word, _ = (values for values, _ in panels.values())
for name in ("−3 layers", "−6 layers"):
    above = (choice[name] - guess) / (choice["dense"] - guess)
    print(
        f"{name}: perplexity times {ppl[name] / ppl['dense']:.1f}; above chance choice "
        f"keeps {above:.0%}, the last word {word[name] / word['dense']:.0%}."
    )

# %% [markdown]
# - **Three layers fewer.** Perplexity has risen, and choice has lost about a quarter of what it had above chance.
#   The last word has not moved by anything we can measure.
# - **Six layers fewer.** Perplexity has more than doubled. Choice has lost two fifths, and the exact last word
#   nearly half.
# - **Choice is not one thing.** `grammar` lost more than the last word did, and `physical` only a quarter.
# - **Writing** differs again: written answers to `physical` (section 10) did not survive three layers. [Lesson
#   10](10_generation.ipynb) asks why.
#
# Any one of these measures alone would have given another picture of the same two models.

# %% [markdown]
# ## 12. English against Chinese
#
# Does removal harm one language more? In our model the bits per byte rose more in Chinese (section 4). Is that so in
# the paper's models? MMLU is a multiple-choice exam in English, CMMLU one in Chinese, both with four answers. Here is
# how much of the *above-chance* score is kept in its table 2.

# %%
table2 = pd.read_csv(data_folder() / "paper" / "table2_benchmarks.csv")
table2 = table2.pivot(index=["model", "benchmark"], columns="method", values="score")
exam = table2.loc[(slice(None), ["MMLU", "CMMLU"]), ["Dense", "ShortGPT"]]
percent = 100 * (exam["ShortGPT"] - 25) / (exam["Dense"] - 25)
percent.unstack()[["MMLU", "CMMLU"]].round(0)

# %% [markdown]
# No language loses more throughout: three of the four models keep about the same share in both, and the fourth
# keeps more of its Chinese.
#
# <details><summary>Going deeper: the same questions in both languages</summary>
#
# qwen2.5-coder-1.5b-instruct was trained on Chinese, too. Without eight layers it answers fewer of the *English*
# science questions, if anything, and in bits per byte English prose loses the larger share. So the second language
# as such need not suffer; our small model had very little Chinese to begin with. Calibration text in Chinese chose
# other layers at six of 28: they keep Chinese prose better and cost English hardly anything. All numbers: [three
# models](../docs/three_models.md), section 3.
# </details>

# %% [markdown]
# ## 13. The paper's table 2
#
# The paper's main table, for Llama-2-7B with nine of 32 layers removed: thirteen benchmarks, plain retention and
# above guessing on the same row. (Above guessing only where the dense model is at least five points above it.)
# *Look for* the only one that is written and not chosen.

# %%
llama = table2.loc["Llama-2-7B", ["Dense", "ShortGPT"]]
guess = pd.Series({name: BENCHMARKS[name.lower()].chance for name in llama.index})
plain = (100 * llama["ShortGPT"] / llama["Dense"]).sort_values()
above = 100 * (llama["ShortGPT"] - guess) / (llama["Dense"] - guess)
above = above[llama["Dense"] - guess > 5].reindex(plain.index)
_, ax = plt.subplots(figsize=(8, 4.6), layout="constrained")
ax.plot(plain, plain.index, "o", color=PALETTE[0], label="plain")
look = {"color": PALETTE[1], "fillstyle": "none"}
ax.plot(above, plain.index, "s", label="above guessing", **look)
ax.axvline(100, color="black", linestyle=":")
ax.set_xlabel("kept, percent of the dense model's score")
ax.grid(axis="y", color="0.9")
ax.legend(loc="lower right")
plt.show()
print(
    f"Half of the benchmarks keep more than {plain.median():.0f} % plain and more than "
    f"{above.median():.0f} % above guessing; XSum keeps {plain['XSum']:.0f} %."
)

# %% [markdown]
# *XSum* asks for a summary, and the model has to write it. It collapses, while most choice tasks keep most of their
# score. It isn't a law: the two 7B models lose XSum nearly entirely, the two 13B models keep 75 and 61 % of it
# (ShortGPT, table 2).
#
# Three benchmarks are beyond 100 %. WSC and RACE-M are at guessing or not far above it when dense: a score at
# chance can't fall, so it "retains" everything and lifts the average. Above guessing, a typical choice task of the
# paper keeps about two thirds, and ours a little less.

# %% [markdown]
# ## Exercises
#
# Try these four functions first in the [exercise notebook](exercises/05_evaluation.ipynb), where a check tells you
# what is wrong with yours. Here they are solved.

# %% [markdown]
# ### Exercise 1: One perplexity for several documents
#
# **Difficulty:** easy · **Minutes:** 5
#
# `losses` is a list with a tensor for each document: the loss (nats) of every token that was scored. Return the perplexity of the whole collection, in which every *token* counts the same, whichever document it stands in.
#
# <details><summary>Hint</summary>
# Three steps, and their order matters: all tokens together, their mean, the exponential.
# </details>


# %% tags=["exercise"]
def corpus_perplexity(losses):
    """Perplexity of all documents together, from the losses of their tokens."""
    ### BEGIN SOLUTION
    tokens_of_all = torch.cat(losses)
    return tokens_of_all.mean().exp()
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_corpus_perplexity, require_passed

check_corpus_perplexity(corpus_perplexity)

# %% tags=["apply"]
require_passed(corpus_perplexity)
from shortgpt.evaluation.likelihood import token_losses

some = built_in_text("perplexity").query("genre in ['dialogue', 'story']")["text"]
ids = [tokenizer(text, return_tensors="pt")["input_ids"][0] for text in some]
losses = [token_losses(model, each) for each in ids]
apart = [corpus_perplexity([each]).item() for each in losses]
print("each document:        ", " ".join(f"{value:.1f}" for value in apart))
print(f"all tokens together:   {corpus_perplexity(losses):.1f}")
print(f"mean of perplexities:  {sum(apart) / len(apart):.1f}")

# %% [markdown]
# The mean of perplexities is larger than the perplexity of the whole, because an exponential exaggerates what is
# large.

# %% [markdown]
# ### Exercise 2: What is kept, above guessing
#
# **Difficulty:** easy · **Minutes:** 5
#
# On a test with `choices` answers to each question, guessing is right once in so many. `dense` and `pruned` are accuracies in percent. Return how much of the dense model's lead over guessing the pruned model has kept, in percent. The result may be below zero.
#
# <details><summary>Hint</summary>
# Take the guessing level off both accuracies before you divide. Everything is in percent.
# </details>


# %% tags=["exercise"]
def kept_above_chance(dense, pruned, choices):
    """Percent of the dense model's lead over guessing that the pruned model keeps."""
    ### BEGIN SOLUTION
    guessing = 100 / choices
    return 100 * (pruned - guessing) / (dense - guessing)
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_kept_above_chance

check_kept_above_chance(kept_above_chance)

# %% tags=["apply"]
require_passed(kept_above_chance)
stored = json.loads((data_folder() / "measured.json").read_text(encoding="utf-8"))
accuracy = pd.DataFrame(stored["accuracy"]).set_index(["removed", "task"])["value"]
print(STORED)
for task, choices in {"grammar": 2, "physical": 2, "science": 4}.items():
    before, after = accuracy[0, task], accuracy[6, task]
    kept = kept_above_chance(before, after, choices)
    plain = 100 * after / before
    print(f"{task}: plain retention {plain:.0f} %, above guessing {kept:.0f} %")

# %% [markdown]
# By plain retention a model that only guesses keeps more than half, wherever there are two answers. Above guessing
# the pruned model looks worse on all three, with the same measurements.

# %% [markdown]
# ### Exercise 3: Which window scores which token?
#
# **Difficulty:** medium · **Minutes:** 15
#
# Section 2 read a long document in windows. Write down how: return a list with a triple `(start, end, first)` for each window, in order. The window holds the tokens `start` to `end - 1`, and scores those from `first` on. The first window starts at 0, each next one `stride` further (`stride` is smaller than `window`). A window has `window` tokens, or fewer at the end of the document. Every token is scored exactly once, except token 0, which nothing stands before. Stop as soon as all are scored.
#
# <details><summary>Hint 1</summary>
# Keep one number from window to window: up to where the tokens have their loss.
# </details>
# <details><summary>Hint 2</summary>
# After a window, all tokens before its <code>end</code> are done. At the beginning, token 0 counts as done.
# </details>


# %% tags=["exercise"]
def scored_windows(tokens, window, stride):
    """A triple (start, end, first scored token) for each window."""
    ### BEGIN SOLUTION
    windows, start, done = [], 0, 1  # tokens before `done` need no loss any more
    while done < tokens:
        end = min(start + window, tokens)
        windows.append((start, end, done))
        start, done = start + stride, end
    return windows
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_scored_windows

check_scored_windows(scored_windows)

# %% tags=["apply"]
require_passed(scored_windows)
article = built_in_text("perplexity", genre="encyclopedic").head(1)
how = {"return_tensors": "pt", "add_special_tokens": False}
ids = tokenizer(article["text"].iloc[0], **how)["input_ids"]  # [1, tokens]
total = 0.0
for start, end, first in scored_windows(ids.shape[1], 128, 64):
    with torch.inference_mode():
        logits = model(input_ids=ids[:, start:end]).logits[0]  # [window, vocabulary]
    predicting, scored = logits[first - start - 1 : -1], ids[0, first:end]
    total += cross_entropy(predicting, scored, reduction="sum").item()
cut = {"window": 128, "stride": 64, "bos": False}  # nothing in front, as here
theirs = perplexity_table(model, tokenizer, article, **cut)["perplexity"].iloc[0]
ours = np.exp(total / (ids.shape[1] - 1))
print(f"perplexity with your windows {ours:.2f}, by perplexity_table {theirs:.2f}")

# %% [markdown]
# Scoring the overlap twice, or the tail never, would have changed the number without an error.

# %% [markdown]
# ### Exercise 4: The scores behind a multiple-choice test
#
# **Difficulty:** hard · **Minutes:** 20
#
# A question with its answers is one batch: row $c$ of `ids` `[choices, tokens]` holds the `question` tokens of the question, then answer $c$, then pads. `lengths` `[choices]` counts question and answer together, without pads. `logits` `[choices, tokens, vocabulary]` is what the model said to the batch. Return a tensor `[choices]`: the log-probability of each answer given the question, summed over the answer's tokens; with `per_token=True` its mean over them instead.
#
# <details><summary>Hint 1</summary>
# Logits are not log-probabilities yet, and those at a position speak about the token after it.
# </details>
# <details><summary>Hint 2</summary>
# For one row: which positions predict the answer? The first is that of the question's last token. The last is the one before the answer's last token. <code>gather</code> takes out of each the entry of the token that came.
# </details>


# %% tags=["exercise"]
def answer_scores(logits, ids, question, lengths, per_token):
    """Log-probability of each answer given the question, ``[choices]``: sum or mean."""
    ### BEGIN SOLUTION
    scores = []
    for row, tokens, length in zip(logits.log_softmax(-1), ids, lengths, strict=True):
        predicting = row[question - 1 : length - 1]  # [answer tokens, vocabulary]
        each = predicting.gather(-1, tokens[question:length, None])[:, 0]
        scores.append(each.mean() if per_token else each.sum())
    return torch.stack(scores)
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_answer_scores

check_answer_scores(answer_scores)

# %% tags=["apply"]
require_passed(answer_scores)
science = pd.read_json(data_folder() / "tasks" / "science.jsonl", lines=True).head(40)
picked = []
for item in science.itertuples():
    prompt = f"Question: {item.question}\nAnswer:"
    texts = [f"{prompt} {choice}" for choice in item.choices]
    how = {"return_tensors": "pt", "padding": True, "padding_side": "right"}
    batch = tokenizer(texts, **how)
    ids, lengths = batch["input_ids"], batch["attention_mask"].sum(1)
    question = len(tokenizer(prompt)["input_ids"])
    with torch.inference_mode():
        logits = model(**batch).logits
    rules = [
        answer_scores(logits, ids, question, lengths, mean) for mean in (False, True)
    ]
    picked.append([int(scores.argmax()) for scores in rules])
by_sum, by_mean = np.array(picked).T
answers = science["answer"].to_numpy()
print(
    f"of {len(answers)} questions {(by_sum == answers).sum()} right by the sum, "
    f"{(by_mean == answers).sum()} by the mean over tokens"
)
print(f"the two rules choose differently {(by_sum != by_mean).sum()} times")

# %% [markdown]
# A sum favours short answers, and a mean does not. The harness calls them `acc` and `acc_norm` (which divides by
# characters instead of tokens). A table must say which one it means.

# %% [markdown]
# ## What we saw
#
# - Perplexity is the exponential of the mean token loss. It depends on tokenizer, window and text. Bits per byte removes
#   the first of the three, and turns "Chinese is easier" into "Chinese takes about twice the bits".
# - Choice scores reward the right *order* of given answers, and plain retention counts chance as ability.
# - Models that answered the same items should be compared item by item.
# - With three layers fewer, perplexity, grammar and science suffered clearly and the last word did not; with six,
#   the last word lost half.
# - On the same questions, choosing stayed level (near guessing, where it started), while written answers could no
#   longer be read.
# - The measures disagree, so report more than one. In the paper's Llama-2-7B MMLU stays, and the summary is gone.
#
# > **Limits.** Accuracies come from 160 to 480 items a task, with standard errors of one to four points: smaller
# > differences mean nothing. The items were written for this course, and their wording helps. The paper's numbers are
# > from one run each, on other models and other items. Perplexities by genre read two documents each: too few to say
# > which kind of text suffers most.

# %% [markdown]
# ## Three questions
#
# **1.** Two papers report perplexity 8.0 and 9.4 for the same model and the same pruned layers. Name three harmless reasons.
#
# <details><summary>Answer</summary>Another text, another window or stride (less context for each token), or another way to average (over documents instead of tokens, or with the first tokens of each window counted). Only the ratio to the dense value under the same protocol is worth comparing.</details>
#
# **2.** A pruned model keeps 80 % of a dense score of 62 % on a two-choice task. How much of its ability is left?
#
# <details><summary>Answer</summary>It scores 0.8 × 62 = 49.6 %, which is guessing: above chance it keeps nothing. Retention of 80 % sounds like a fifth lost, and everything was.</details>
#
# **3.** Why can a model with five times the perplexity still get nearly the same MMLU score, and fail to write a summary?
#
# <details><summary>Answer</summary>MMLU needs the right one of four letters to be the likeliest, in a context given from outside; all four may become less likely together. A summary needs dozens of consecutive choices among all tokens, each conditioned on the model's own earlier ones, so that small errors feed later ones.</details>

# %% [markdown]
# **Check yourself.** Three more questions: press a letter (or reach it with Tab and press Space). In a saved notebook, unfold the line below.

# %%
from shortgpt.course.quiz import quiz

quiz("05")

# %% [markdown]
# You can now score, prune, quantize and judge a model of your own. Does Block Influence choose best? Are layers the
# right thing to remove? The next two lessons ask.
#
# **Next:** [06 · Choosing layers](06_choosing_layers.ipynb) · **Previous:** [04 · Quantization combined with
# pruning](04_quantization.ipynb)
