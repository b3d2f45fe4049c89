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
# (*generation*). The three can disagree so much that a paper with only one of them is right in every number and
# still misleads. We take each measure apart by hand, then put the same three models through all of them.
#
# **You will be able to**
#
# - compute perplexity, bits per byte and a multiple-choice score from logits, and check them against the tools;
# - read an accuracy together with its standard error and its chance level;
# - compare two models on the same items;
# - say what perplexity, choice and generation each reveal, and hide, about a pruned model.
#
# **Before:** [lesson 03](03_pruning.ipynb) (removing layers) · **Takes:** about 4 minutes on 2 CPU cores; reading
# about 40 minutes, exercises 45 · **Memory:** about 2 GB · **Download:** 93 MB once (shared by all lessons)

# %% [markdown] tags=["for-exercises"]
# Run this cell first. On Colab it installs the package; elsewhere it only prints versions, so that you can compare yours with ours.

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
    project = "shortgpt-pruning[eval,quant] @ git+https://github.com/shortgpt-course/shortgpt"
    get_ipython().run_line_magic("pip", f"install -q -c /tmp/held.txt '{project}'")
    if not getattr(find_spec("shortgpt"), "origin", None):
        raise ImportError("pip could not install the toolkit, and says above why. If this is an old copy of the lesson, open "
                          "it anew from the course's page; else choose Runtime > Disconnect and delete runtime, and try again")

import torch
import transformers

import shortgpt

print(f"shortgpt {shortgpt.__version__}, torch {torch.__version__}, transformers {transformers.__version__}")

# %% [markdown] tags=["for-exercises"]
# One variable names the model.
#
# **Another model?** Change the line `MODEL = …`. The text still speaks of the default model; what the cells print
# and draw is about yours, except what says *default model, stored*.

# %% tags=["for-exercises"]
import json
import shutil
import tempfile

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from torch.nn.functional import cross_entropy

from shortgpt import (
    built_in_text, calibration_batches, choice_and_generation, choice_summary, choose_layers, compare, continue_text,
    evaluate, generation_report, generation_summary, load, perplexity, perplexity_table, remove_layers, retention_table,
    score_layers, side_by_side,
)  # fmt: skip
from shortgpt.course.plots import MARKERS, PALETTE, STORED, plain_log_ticks, plot_beside_paper, plot_retention
from shortgpt.course.studies.curves import removal_accuracy, removal_curves
from shortgpt.model.tokens import begin_token
from shortgpt.utils.data import data_folder

MODEL = "smollm2-135m-instruct"  # others, and what they need: the table in lesson 00
model, tokenizer = load(MODEL, device="cpu")  # the cells below use plain CPU tensors

# %% [markdown]
# Three models: the dense one, and what is left after removing the three and the six layers with the lowest Block
# Influence (lesson 03). `remove_layers` shares the weights, so three models take the memory of one.

# %%
scores = score_layers(model, calibration_batches(tokenizer, built_in_text()["text"], samples=8), progress=False)
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
# A perplexity of 20 means: as uncertain as if it had to pick among 20 equally likely tokens each time. Logits at
# position $i-1$ predict token $i$, hence the shift by one in the code.

# %%
SENTENCE = "The doctor washed her hands and opened the door of the waiting room."
ids = tokenizer(SENTENCE, return_tensors="pt")["input_ids"]  # [1, tokens]


@torch.inference_mode()
def losses_by_hand(model) -> torch.Tensor:
    logits = model(input_ids=ids).logits[0]  # [tokens, vocabulary]
    return cross_entropy(logits[:-1], ids[0, 1:], reduction="none")  # [tokens - 1]


by_hand, by_toolkit = losses_by_hand(model).mean().exp().item(), perplexity(model, tokenizer, [SENTENCE])
print(f"by hand {by_hand:.4f}, by the toolkit {by_toolkit:.4f}")
assert np.isclose(by_hand, by_toolkit, rtol=1e-4)

# %% [markdown]
# *Predict:* which words of the sentence surprise the model most, and where does a model without six layers lose?

# %%
dense, pruned = losses_by_hand(model), losses_by_hand(models["−6 layers"])
tokens = [tokenizer.decode(i).strip() or "␣" for i in ids[0, 1:]]
places = np.arange(len(tokens))
fig, ax = plt.subplots(figsize=(9, 3.2), layout="constrained")
ax.bar(places - 0.2, dense, width=0.4, color=PALETTE[0], edgecolor="black", label="dense")
ax.bar(places + 0.2, pruned, width=0.4, color=PALETTE[1], hatch="///", edgecolor="black", label="−6 layers")
blind = np.log(model.config.vocab_size)  # the loss of a model to which all tokens are equally likely
ax.axhline(blind, color="black", linestyle=":", label="blind guessing")
ax.set_xticks(places, tokens, rotation=30)
ax.set(ylabel="loss (nats)", xlabel="token, given all tokens before it")
ax.legend()
plt.show()
gap = pruned - dense
print(f"Mean loss: {dense.mean():.2f} dense, {pruned.mean():.2f} pruned, so perplexity {dense.mean().exp():.1f} and {pruned.mean().exp():.1f}; "
      f"the largest rise is at {tokens[int(gap.argmax())]!r}, and {int((gap < 0).sum())} of {len(gap)} tokens became easier. "
      f"{int((dense > blind).sum())} tokens cost the dense model more than blind guessing ({blind:.1f} nats).")  # fmt: skip

# %% [markdown]
# The first words are hard for both, since almost anything may start a sentence. Words that the context nearly fixes
# ("hands" after "washed her", "room" after "waiting") stay easy for both. The pruned model loses mostly in between,
# here at "her", "door" and "waiting".

# %% [markdown]
# ## 2. Long texts: window and stride
#
# A document can be longer than what a model reads at once. So it is read in *windows* that overlap: each window
# moves on by a *stride*, and only tokens that have no loss yet are scored. The overlap is context. How often is a
# token read? This draws what `perplexity_table` does with a document of 2,300 tokens.

# %%
starts = np.arange(0, 1600, 512)  # a document of 2,300 tokens, window 1024, stride 512
ends = np.minimum(starts + 1024, 2300)
done = np.append(0, ends[:-1])  # tokens before this have their loss

fig, ax = plt.subplots(figsize=(8, 2.2), layout="constrained")
ax.barh(range(4), done - starts, left=starts, color="white", edgecolor="black", label="context only")
ax.barh(range(4), ends - done, left=done, color=PALETTE[0], hatch="///", edgecolor="black", label="scored")
ax.set(xlabel="token of the document", ylabel="window", yticks=range(4))
ax.invert_yaxis()
ax.legend(loc="lower left")
plt.show()
assert (ends - done).sum() == 2300
print(f"Each token (but the first of all) is scored once, from the second window on with at least 512 tokens of context; {(ends - starts).sum() / 2300:.1f} times the document is read.")

# %% [markdown]
# Does it matter? *Predict:* what happens to perplexity if windows are short, so that tokens lose the context before them?

# %%
article = built_in_text("perplexity", genre="encyclopedic").head(1)
short = [perplexity_table(model, tokenizer, article, window=w, stride=w // 2) for w in (32, 128, 1024)]
pd.concat(short)[["window", "stride", "perplexity", "tokens"]].round(2).reset_index(drop=True)

# %% [markdown]
# The same model, the same text, and very different perplexities. A perplexity without its window and stride can't
# be compared with another.

# %% [markdown]
# ## 3. By genre, with standard errors
#
# The built-in perplexity text has nine genres with two documents each; to save time we take five. *Predict:* is the
# damage of pruning the same for all?

# %%
documents = built_in_text("perplexity").query("genre in ['dialogue', 'encyclopedic', 'news', 'science', 'story']")
genres = pd.concat(
    [perplexity_table(m, tokenizer, documents, by="genre").assign(model=name) for name, m in models.items()]
)
table = genres.pivot(index="genre", columns="model", values="perplexity")[list(models)]
table.assign(rise=table.iloc[:, -1] / table["dense"]).round(1).sort_values("dense")

# %% [markdown]
# The last column is the factor by which six layers fewer multiply perplexity. As a figure, with one standard error:

# %%
def points(rows: pd.DataFrame, x: str, y: str, order: list[str]) -> plt.Axes:
    """A marker per model with plus and minus one standard error."""
    _, ax = plt.subplots(figsize=(8.5, 3.6), layout="constrained")
    for i, name in enumerate(models):
        one = rows[rows["model"] == name].set_index(x).loc[order]
        places = np.arange(len(order)) + 0.15 * (i - 1)
        ax.errorbar(places, one[y], one["standard_error"], fmt=MARKERS[i], capsize=4, color=PALETTE[i], label=name)
    ax.set_xticks(range(len(order)), order)
    ax.legend(loc="upper right", ncols=2)
    return ax


ax = points(genres, "genre", "perplexity", table["dense"].sort_values().index.tolist())
ax.set(yscale="log", ylabel="perplexity (log scale)")
plain_log_ticks(ax)
plt.show()
rise = table.iloc[:, -1] / table["dense"]
print(f"Dense perplexity runs from {table['dense'].min():.0f} ({table['dense'].idxmin()}) to {table['dense'].max():.0f} ({table['dense'].idxmax()}); "
      f"six layers fewer multiply it by {rise.min():.1f} to {rise.max():.1f}.")  # fmt: skip

# %% [markdown]
# From dialogue to story the dense perplexity grows by a larger factor than the removal of three layers costs in any
# genre. So the *text* must be the same when models are compared. Two documents a genre are too few to say which
# kind of text suffers most.

# %% [markdown]
# ## 4. Bits per byte: comparing what tokens can't
#
# Perplexity is per *token*, and tokens belong to a tokenizer. Now take Chinese. *Predict* before you run: is the perplexity of this model, which has hardly seen any Chinese, higher on Chinese text than on English?

# %%
english = documents[documents["genre"].isin(["encyclopedic", "news", "story"])].drop_duplicates("genre")
chinese = built_in_text("perplexity", language="zh").query("genre in ['encyclopedic', 'news', 'story']")
rows = []
for language, texts in {"English": english, "Chinese": chinese}.items():
    characters = texts["text"].str.len().sum()
    for name, m in models.items():
        r = perplexity_table(m, tokenizer, texts).iloc[0]
        rows.append({"language": language, "model": name, "perplexity": r["perplexity"], "bits_per_byte": r["bits_per_byte"],
                     "tokens_per_character": r["tokens"] / characters})  # fmt: skip
languages = pd.DataFrame(rows)
languages.round(3)

# %% [markdown]
# Per token, Chinese looks *easier*, because of the tokenizer: it knows few Chinese characters and cuts the others
# into pieces of their UTF-8 bytes. Once the first byte of a character is given, the next one is easy to guess. Many
# easy pieces make a low average.
#
# *Bits per byte* divides the same total loss by something that no tokenizer can change, the bytes of the text:
#
# $$ \text{bits per byte} = \frac{\sum_i -\log_2 p(t_i \mid t_1 \dots t_{i-1})}{\text{bytes of the text}} $$
#
# (A Chinese character takes three bytes, an English letter one. So compare models within a language first.) Which
# language loses more, in bits?

# %%
fig, axes = plt.subplots(1, 2, figsize=(8.5, 3.2), layout="constrained")
for ax, column in zip(axes, ("perplexity", "bits_per_byte"), strict=True):
    wide = languages.pivot(index="model", columns="language", values=column).loc[list(models), ["English", "Chinese"]]
    wide.plot.bar(ax=ax, rot=0, color=PALETTE, edgecolor="black", width=0.7, xlabel="", ylabel=column.replace("_", " "))
    plt.setp(ax.containers[1], hatch="///")
    ax.legend()
plt.show()
bits = languages.pivot(index="model", columns="language", values="bits_per_byte")
loss_rise = (bits / bits.loc["dense"]).loc["−6 layers"]
per_token = languages.pivot(index="model", columns="language", values="perplexity").loc["dense"]
per_byte = bits.loc["dense", "Chinese"] / bits.loc["dense", "English"]
print(f"Per token the dense model finds {per_token.idxmin()} easier; per byte Chinese takes {per_byte:.1f} times the bits of English. "
      f"Six layers fewer raise the bits by {loss_rise['English'] - 1:.0%} in English and {loss_rise['Chinese'] - 1:.0%} in Chinese.")  # fmt: skip

# %% [markdown]
# In bits, the pruned models lose more of their little Chinese than of their English. A possible reason: the layers were chosen by reading English text. *Try it:* give `score_layers` Chinese calibration text, `calibration_batches(tokenizer, built_in_text("calibration", language="zh")["text"])`, and run the lesson again; does the gap close? We come back to Chinese below, with a task.

# %% [markdown]
# ## 5. Choice by hand
#
# A multiple-choice benchmark never lets the model write. It computes the log-probability of each answer as a
# continuation of the question, and takes the likeliest:
#
# $$ \text{score}(c) = \sum_{i \in \text{tokens of } c} \log p(t_i \mid \text{question}, \text{earlier tokens of } c) $$
#
# The answer's tokens are those that come after the question's. Without a question, the answer follows the token
# that starts a document. (A long answer pays for more tokens. Benchmarks therefore often report a second score,
# `acc_norm`, divided by the answer's length; ours is the plain one, `acc`.)

# %%
START = tokenizer.convert_tokens_to_ids(begin_token(tokenizer, "a choice"))  # what it follows without a question


@torch.inference_mode()
def choice_score(model, question: str, choice: str) -> float:
    before = tokenizer(question)["input_ids"]
    answer = tokenizer(question + choice)["input_ids"][len(before) :]
    before = before or [START]
    logits = model(input_ids=torch.tensor([before + answer])).logits[0]  # [tokens, vocabulary]
    logits = logits[len(before) - 1 : -1]  # those that predict the answer: [answer tokens, vocabulary]
    return -cross_entropy(logits, torch.tensor(answer), reduction="sum").item()

# %% [markdown]
# Now one item of the science task. Which answer leads, and by how much?

# %%
tasks_folder = data_folder() / "tasks"
item = pd.read_json(tasks_folder / "science.jsonl", lines=True).iloc[1]
question = f"Question: {item['question']}\nAnswer:"
by_choice = pd.DataFrame({name: {c: choice_score(m, question, " " + c) for c in item["choices"]} for name, m in models.items()})

ax = by_choice.plot.barh(figsize=(8, 3), color=PALETTE[:3], edgecolor="black", width=0.8)
for container, hatch in zip(ax.containers, ("", "///", "..."), strict=True):
    plt.setp(container, hatch=hatch)
ax.set(xlabel="log-probability of the answer (shorter bar = likelier)", title=item["question"], xlim=(None, 0))
ax.invert_yaxis()
ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.tight_layout()
plt.show()
picks = ", ".join(f"{name} picks {column.idxmax()!r} with a lead of {column.max() - column.nlargest(2).min():.1f} nats" for name, column in by_choice.items())
print(f"The right answer is {item['choices'][item['answer']]!r}: {picks}.")

# %% [markdown]
# Only the *order* counts, and here it stays: the lead even grows when layers go, although perplexity gets worse.

# %% [markdown]
# ## 6. The harness
#
# `evaluate` runs lm-evaluation-harness, which does this for thousands of tasks. Five tasks need no network, because their items ship with the project:
#
# | task | what it asks | chance |
# |---|---|---|
# | `last_word` | is the last word of a passage what the model would write next? | 0 % |
# | `grammar` | which of two nearly equal sentences is likelier? | 50 % |
# | `physical` | which of two answers makes physical sense? | 50 % |
# | `science` | which of four answers is right? | 25 % |
# | `chinese` | which of two continuations is good Chinese? | 50 % |
#
# These items were written for this course, and their wording gives some answers away. When the question is hidden
# and only the choices are shown, the dense model should be at guessing level. Is it?

# %%
measured = json.loads((data_folder() / "measured.json").read_text(encoding="utf-8"))["accuracy"]
hidden = pd.DataFrame([row for row in measured if row["removed"] == "question hidden"]).set_index("task")
print(STORED)
hidden[["value", "standard_error", "chance", "items"]].round(1)

# %% [markdown]
# On `physical` and `science` it is several standard errors above guessing without having read a question. So the
# *height* of an accuracy here says less about knowledge than it seems to. We use its *fall* when layers go, on the
# same items.
#
# Does the harness mean what we computed? Grammar items, by hand and by harness.

# %%
LIMIT = 100
items = pd.read_json(tasks_folder / "grammar.jsonl", lines=True).head(LIMIT)


def right(model) -> np.ndarray:
    """For each grammar item, whether the model finds the right sentence likelier."""
    return np.array([
        np.argmax([choice_score(model, "", choice) for choice in choices]) == answer
        for choices, answer in zip(items["choices"], items["answer"], strict=True)
    ])  # fmt: skip


correct = {name: right(m) for name, m in models.items()}
print({name: f"{100 * values.mean():.2f} %" for name, values in correct.items()})

# %% [markdown]
# Then the harness, on the same items. If our understanding is right, its accuracies are exactly ours, and the cell insists on it.

# %%
for name, m in models.items():
    by_harness = evaluate(m, tokenizer, ["grammar"], limit=LIMIT, progress=False)["value"].item()
    assert np.isclose(by_harness, 100 * correct[name].mean())
    print(f"{name}: {by_harness:.2f} % by the harness")

# %% [markdown]
# All items of all five tasks take a quarter of an hour for each model. `evaluate` can keep what it has measured in
# a file, and reads what is there for *this* model, these tasks and these settings. A file filled this way comes
# with the project (`measure/evaluation.py`), so the next cell takes seconds. Another `MODEL` is not in the file:
# then 100 items of each task are run, some minutes for each model.

# %%
TASKS = ["last_word", "grammar", "physical", "science", "chinese"]
ITEMS = None if MODEL == "smollm2-135m-instruct" else 100  # None: all; else the first so many of each task
file = f"{tempfile.mkdtemp()}/evaluated.jsonl"
shutil.copy(data_folder() / "evaluated.jsonl", file)
results = pd.concat(
    [evaluate(m, tokenizer, TASKS, limit=ITEMS, results=file).assign(model=name) for name, m in models.items()], ignore_index=True
)
results.query("model == 'dense'")[["task", "metric", "value", "standard_error", "chance", "items"]].round(1)

# %% [markdown]
# An accuracy $a$ from $n$ items has a standard error of $\sqrt{a(1-a)/n}$. A *difference* of two accuracies has a
# larger one, $\sqrt{e_1^2 + e_2^2}$ from the two errors. *Predict:* for how many tasks is the fall from dense to
# three layers fewer larger than two standard errors of the difference?

# %%
ax = points(results, "task", "value", TASKS)
ax.hlines(results["chance"].iloc[:5], np.arange(5) - 0.4, np.arange(5) + 0.4, color="black", linestyle=":", label="guessing")
ax.set(ylabel="accuracy (percent, ± 1 s.e.)", ylim=(-3, 113))
ax.legend(loc="upper right", ncols=4)
plt.show()
accuracy = results.pivot(index="task", columns="model", values="value").loc[TASKS, list(models)]
falls = [f"{task} from {row.iloc[0]:.0f} over {row.iloc[1]:.0f} to {row.iloc[2]:.0f}" for task, row in accuracy.iterrows()]
print(f"From dense over −3 to −6 layers, in percent: {', '.join(falls)}.")

# %% [markdown]
# Two: `grammar` and `science`. `physical` falls by more than two standard errors of either accuracy, but by less
# than two of the difference, so it may be chance. `last_word` and `chinese` have hardly moved. With six layers
# fewer the last word falls to about half, and grammar falls further.

# %% [markdown]
# ## 7. The same items: a paired comparison
#
# The models answered the *same* items, and most items say nothing about their difference: both are right, or both
# are wrong. So take the difference item by item, +1, 0 or −1, and the standard error of its mean. Will it be
# smaller than that of section 6?

# %%
rows = []
for name in ("−3 layers", "−6 layers"):
    change = correct[name].astype(float) - correct["dense"].astype(float)  # [items], -1, 0 or 1
    apart = np.sqrt(correct[name].var() / LIMIT + correct["dense"].var() / LIMIT)
    rows.append({"model": name, "lost": (change < 0).sum(), "gained": (change > 0).sum(), "change": 100 * change.mean(),
                 "s.e. unpaired": 100 * apart, "s.e. paired": 100 * change.std(ddof=1) / np.sqrt(LIMIT)})  # fmt: skip
pd.DataFrame(rows).set_index("model").round(1)

# %% [markdown]
# The paired standard error is the smaller one, with the same answers. Comparing two accuracies from different
# papers gives that up. Note also the column *gained*: pruned models get items right that the dense one had wrong.

# %% [markdown]
# ## 8. Retention, and why it flatters
#
# The paper sums up with *retention*: the pruned model's score in percent of the dense model's. A model that only
# guesses keeps $50/70 = 71\,\%$ of a two-choice score of 70 that way. A stricter number takes the guessing level
# $g$ off both:
#
# $$ \text{retention} = \frac{a_{pruned}}{a_{dense}} \qquad\qquad \text{above chance} = \frac{a_{pruned} - g}{a_{dense} - g} $$
#
# `retention_table` computes both, with standard errors, and leaves the second empty where the dense model isn't three standard errors above guessing. Which bars will change most?

# %%
kept = retention_table(results)
rows = kept[kept["model"] != "dense"]
rows[["model", "task", "value", "chance", "retention", "retention_error", "above_chance", "above_chance_error"]].round(1)

# %% [markdown]
# Plain retention on the left, above chance on the right:

# %%
fig, (left, right_) = plt.subplots(1, 2, figsize=(10, 3.8), sharex=True, sharey=True, layout="constrained")
print("Plain:", end=" ")
plain = rows.pivot(index="task", columns="model", values="retention").loc[TASKS, list(models)[1:]]
plot_retention(plain, left, xlabel="retention (percent of dense)").get_legend().remove()
print("Above chance:", end=" ")
above = rows.pivot(index="task", columns="model", values="above_chance").loc[TASKS, list(models)[1:]]
plot_retention(above, right_, xlabel="retention above chance (percent of dense)")
right_.legend(loc="center left", bbox_to_anchor=(1.02, 0.5))
plt.show()

# %% [markdown]
# `last_word` has no guessing level and is the same on both sides. The choice tasks fall a good deal further on the right. (The bar beyond 100 % is noise, which taking chance off makes larger.) Whenever a paper says that a pruned model "keeps 90 % of the performance", ask what guessing would have kept.
#
# For your own model, `compare` does perplexity, tasks, size and plain retention in one call.

# %%
compare(models, tokenizer, tasks=["grammar"], texts=article["text"], limit=20, errors=True).drop(columns=["average", "average_error"]).round(1)

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
summary[["repetition", "repetition_error", "perplexity", "perplexity_error"]].round(2)

# %% [markdown]
# Repetition rises with the first three layers; surprise goes on rising with the next three. One number alone could
# mislead: a loop is easy to predict, so the soup text without three layers, which says the same thing over and
# over, is *less* surprising than what the dense model wrote itself.

# %% [markdown]
# An instruct model should also answer. Its *chat template* puts the markers around a question that it was trained with. (A base model has no template, and gets the question as plain text.)

# %%
question = "Why do we see the lightning before we hear the thunder? Answer in one sentence."
prompt = f"Question: {question}\nAnswer:"
if tokenizer.chat_template:
    chat = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
for name, m in models.items():
    print(f"[{name}] {' '.join(continue_text(m, tokenizer, prompt, new_tokens=50).split())}\n")

# %% [markdown]
# None of the three names the reason, that light is faster than sound. The dense model at least gives one sentence and stops, as it was asked to. The pruned ones invent, and the last one runs in a circle. Note that the question was too hard for this model *before* pruning: without the dense answer beside it, we might have blamed the missing layers for that as well.

# %% [markdown]
# ## 10. The same question, chosen and written
#
# Choice tasks and free writing differ in everything: topic, length, scoring. To see what choosing *alone* hides, ask the same question twice. `choice_and_generation` puts an item of `science` or `physical` to the model as a chat user would, answers listed as A, B, …; it takes the likeliest answer, as a benchmark does, and then also lets the model *write* one, and reads which answer it means. Three items, live:

# %%
few = choice_and_generation(models["−6 layers"], tokenizer, "science", limit=3, progress=False)
few[["question", "answer", "choice", "written", "read"]]

# %% [markdown]
# *Predict:* which way gets more answers right, and where does the distance grow? The table has the first 120
# questions of each task (measured by `measure/evaluation.py`): percent right in each way, and `unread`, the percent
# of written texts in which none of the given answers was found.

# %%
answered = pd.read_csv(data_folder() / "choice_generation.csv", keep_default_na=False)
ways = pd.concat(
    [choice_summary(table).assign(removed=n, task=task) for (task, n), table in answered.groupby(["task", "removed"])], ignore_index=True
)
print(STORED)
ways.set_index(["task", "removed"])[["items", "choice", "written", "difference", "difference_error", "unread"]].round(1)

# %%
fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
for ax, (task, rows) in zip(axes, ways.groupby("task", sort=False), strict=True):
    for i, way in enumerate(("choice", "written")):
        ax.errorbar(rows["removed"] + 0.1 * i, rows[way], rows[f"{way}_error"], fmt=f"{'-o' if i == 0 else '--s'}", capsize=4, color=PALETTE[i], label=way)
    guess = results.loc[results["task"] == task, "chance"].iloc[0]
    ax.axhline(guess, color="black", linestyle=":", label="guessing among the answers")
    ax.set(title=task, xlabel="layers removed", xticks=[0, 3, 6], ylim=(0, 100))
axes[0].set_ylabel("right (percent, ± 1 s.e.)")
axes[1].legend()
fig.suptitle(STORED)
plt.show()
for task, rows in ways.groupby("task", sort=False):
    gaps = [f"{row.difference:+.0f} ± {row.difference_error:.0f} (−{row.removed})" for row in rows.itertuples()]
    print(f"{STORED}, {task}: choosing less writing, in points: {', '.join(gaps)}.")

# %% [markdown]
# Two things stand out, and the first is about choosing. The dense model is right on 85 % of `physical` in section 6, where the text of each answer is scored after the bare question, and hardly better than guessing here, where the same answers stand in a lettered list: the form seems too hard for so small a model. **The choice lines stay level**, but near guessing there is nothing to lose.
#
# The second is what a level line can hide. Written answers to `physical` collapse with the first three layers: not because other answers are written, but because no answer can be read from what is written (column `unread`; only 16 tokens are looked at, so an answer that comes later is lost, too). Before such a list the dense model mostly writes one of the answers. Without three layers it starts to explain, and without six it recites who it is: "You're a helpful AI". Choosing can't show this, because it has an answer by construction: one of the given ones is always the likeliest. What it hides here isn't a loss of knowledge; it is that the model no longer answers. (On `science`, where the dense model wrote fewer right answers to begin with, the written line falls little, and most texts become unreadable just the same.)
#
# ### A model that knows the answers
#
# A model that guesses can't show whether choosing survives. So `python measure/answers.py` asked a larger one: qwen2.5-coder-1.5b-instruct (28 layers, ten times the parameters; it comes from PyPI too, `load("qwen2.5-coder-1.5b-instruct")`). The first 80 `science` questions, in its chat format, chosen and written.
#
# *Predict:* two, four, six and eight of its 28 layers go. Which line falls first?

# %%
LARGE = "qwen2.5-coder-1.5b-instruct"
of_large = pd.read_csv(data_folder() / "removal_answers.csv", keep_default_na=False).query("model == @LARGE and task == 'science'")
of_large = of_large.assign(removed=of_large["layers"].map(json.loads).map(len))
ways = pd.concat([choice_summary(rows).assign(removed=n) for n, rows in of_large.groupby("removed")], ignore_index=True)
_, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
for i, way in enumerate(("choice", "written")):
    ax.errorbar(ways["removed"] + 0.1 * i, ways[way], ways[f"{way}_error"], fmt=f"{'-o' if i == 0 else '--s'}", capsize=4, color=PALETTE[i], label=way)
ax.axhline(25, color="black", linestyle=":", label="guessing among the answers")
ax.set(title=f"{LARGE}, science (stored)", xlabel="layers removed", xticks=ways["removed"], ylim=(0, 103), ylabel="right (percent, ± 1 s.e.)")
ax.legend()
plt.show()
for row in ways.itertuples():
    print(f"−{row.removed}: chosen {row.choice:.0f} ± {row.choice_error:.0f} %, written {row.written:.0f} ± {row.written_error:.0f} %, difference {row.difference:+.0f} ± {row.difference_error:.0f}; no answer found in {row.unread:.0f} %.")

# %% [markdown]
# This model has something to lose, and it is *choosing* that falls first. Without two layers it writes as many right answers as the dense model, and the likeliest of the listed answers is right in three quarters of the questions instead of nearly all. Without four the same: little more than half chosen, two thirds written. Without six both are the same, and without eight it is the other way round.
#
# The texts say why. In a quarter of the questions the dense model names an answer at once: "C. a spoon". Without two layers it never does. It writes a sentence, "The correct answer is C. a spoon.", and without four it sometimes begins to explain, "To determine which …". A sentence often leads to the right answer, or to none within 16 tokens; but an answer from the list is no longer what it would say next, and then the likeliest of four unlikely answers is no good guide. It is mostly not knowledge that is lost. In the form of section 6, the bare question without a list, the same model without the same four layers still finds 93 % (section 12). Without eight layers it names an answer again, and a wrong one.
#
# So neither way of asking is the safe one. Each measures the form of a question together with what the model knows.
#
# Those were the layers that Block Influence chose. Does it depend on *which* eight go? [Lesson 06](06_choosing_layers.ipynb) has a criterion, *greedy*, that tries what each removal costs. *Predict:* with greedy's eight layers gone, which of these three tasks falls, the questions in English, those in Chinese, or the last word? (120 items each; questions without a list of answers.)

# %%
eight = removal_accuracy(text="en").query("model == @LARGE and removed in [0, 8]")
eight = eight.pivot(index="task", columns="criterion", values=["value", "standard_error"]).dropna()
for task, row in eight.iterrows():
    print(f"{task}: " + ", ".join(f"{name.replace('_', ' ')} {row['value', name]:.0f} ± {row['standard_error', name]:.0f} %" for name in ("dense", "block_influence", "greedy")))

# %% [markdown]
# This is what the paper describes: with greedy's eight layers gone the choices stand as if nothing had happened, and the exact last word, one step of writing, falls by more than a third. With Block Influence's eight, both fall. So "choosing stands, writing falls" is true of a model *and* of the layers that went.
#
# The stored results of the larger model can be checked. With `LIVE = True` it is fetched (1.1 GB once; it needs 5 GB of memory), and the first 20 questions are asked again, dense and without four layers: about four minutes on two cores.

# %%
LIVE = False
if LIVE:
    large, its_tokenizer = load(LARGE, device="cpu")
    for n in (0, 4):
        layers = json.loads(of_large.loc[of_large["removed"] == n, "layers"].iloc[0])
        again = choice_and_generation(remove_layers(large, layers), its_tokenizer, "science", limit=20)
        stored = of_large[of_large["removed"] == n].head(20)
        print(f"−{n}: chosen right {again['choice_right'].sum()} (stored {stored['choice_right'].sum()}), written right {again['written_right'].sum()} (stored {stored['written_right'].sum()}) of 20")

# %% [markdown]
# Why writing breaks in this way, and what can be done about it, is the subject of [lesson 10](10_generation.ipynb).

# %% [markdown]
# ## 11. Side by side
#
# Now all measures for all three models, each in its own unit. Choice is the mean accuracy over `grammar`,
# `physical` and `science`, with the mean guessing level dotted. Generation appears twice: as the exact last word,
# one step of writing, and as the repetition in free writing. *Predict:* which breaks first?

# %%
chosen = results[results["task"].isin(["grammar", "physical", "science"])].groupby("model", sort=False)
last = results[results["task"] == "last_word"].set_index("model")
loops = 100 * summary[["repetition", "repetition_error"]]
panels = {
    "perplexity": (languages[languages["language"] == "English"].set_index("model")["perplexity"], None),
    "choice (% right)": (chosen["value"].mean(), chosen["standard_error"].apply(np.linalg.norm) / 3),
    "last word (% right)": (last["value"], last["standard_error"]),
    "writing (% repeated)": (loops["repetition"], loops["repetition_error"]),
}

# %%
fig, axes = plt.subplots(1, 4, figsize=(10, 2.8), layout="constrained")
for ax, (title, (values, errors)) in zip(axes, panels.items(), strict=True):
    ax.bar(values.index, values, yerr=errors, capsize=4, color=PALETTE[:3], hatch=("", "///", "..."), edgecolor="black")
    ax.set_title(title, fontsize=10)
    ax.tick_params(axis="x", labelsize=8)
guess = chosen["chance"].mean().iloc[0]
axes[1].axhline(guess, color="black", linestyle=":")
plt.show()
(ppl, _), (choice, _), (word, _), (loop, _) = panels.values()
for name in ("−3 layers", "−6 layers"):
    print(f"{name}: perplexity times {ppl[name] / ppl['dense']:.1f}; choice keeps {(choice[name] - guess) / (choice['dense'] - guess):.0%} of what it has above chance, "
          f"the last word {word[name] / word['dense']:.0%}; repetition goes from {loop['dense']:.0f} to {loop[name]:.0f} percent.")  # fmt: skip

# %% [markdown]
# - **Three layers fewer.** Perplexity has risen, and choice has lost about a quarter of what it had above chance.
#   The last word has not moved by anything we can measure.
# - **Six layers fewer.** Perplexity has more than doubled. Choice has lost two fifths, and the exact last word
#   nearly half.
# - **Choice is not one thing.** `grammar` lost more than the last word did, and `physical` only a quarter.
# - **Writing** is another thing again: written answers to `physical` (section 10) did not survive three layers.
#   [Lesson 10](10_generation.ipynb) asks why.
#
# Any one of these measures alone would have given another picture of the same two models.

# %% [markdown]
# ## 12. English against Chinese
#
# Two of the paper's four models are bilingual (Baichuan2), and it reports Chinese benchmarks beside the English ones. Does removal harm one language more? For our model the bits per byte above rose more in Chinese. Does the `chinese` task confirm it?

# %%
for row in results[results["task"] == "chinese"].itertuples():
    distance = (row.value - row.chance) / (row.standard_error or np.nan)  # none if all items are right
    print(f"{row.model}: {row.value:.0f} ± {row.standard_error:.0f} percent, {distance:+.1f} standard errors from guessing")

# %% [markdown]
# The dense model knows a little Chinese: on very easy two-choice items it is clearly above guessing, and far from perfect. Three layers fewer cost nothing measurable; with six fewer it is hardly above guessing. For a comparison on equal terms take `physical`, which has two choices as well, and what each keeps of its score above chance:

# %%
terms = kept[kept["task"].isin(["physical", "chinese"]) & (kept["model"] != "dense")]
for row in terms.itertuples():
    print(f"{row.model}, {row.task}: keeps {row.above_chance:.0f} ± {row.above_chance_error:.0f} percent of what it had above chance")

# %% [markdown]
# The task points where the bits per byte pointed: with six layers fewer, Chinese can hardly be told from guessing, and English can. But the Chinese number is rough, because the model starts so near to guessing: the two languages differ by less than two standard errors. Two measures that agree say more than either, but the difference is not certain.
#
# The larger model of section 10 was trained on Chinese, too. It was asked the same science questions in both languages (`science_zh` is a translation, item by item), with layers chosen by reading English or Chinese prose. *Predict:* does the language of the calibration text decide which language suffers?

# %%
answers = removal_accuracy(criterion="block_influence").query("model == @LARGE and task in ['science', 'science_zh'] and text in ['', 'en', 'zh']")
losses = removal_curves(criterion="block_influence").query("model == @LARGE and text in ['', 'en', 'zh'] and language in ['en', 'zh']")
_, (left, right_) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for i, (task, language, name) in enumerate((("science", "en", "English"), ("science_zh", "zh", "Chinese"))):
    for text, line in {"en": "-", "zh": ":"}.items():
        look = {"color": PALETTE[i], "marker": MARKERS[i], "linestyle": line, "markeredgecolor": "black", "label": f"{name}, chosen on {text}"}
        rows = answers[(answers["task"] == task) & answers["text"].isin(["", text])].sort_values("removed")
        left.errorbar(rows["removed"], rows["value"], rows["standard_error"], capsize=3, **look)
        rows = losses[(losses["language"] == language) & losses["text"].isin(["", text])].sort_values("removed")
        right_.plot(rows["removed"], rows["bits_per_byte"] / rows["bits_per_byte"].iloc[0], **look)
left.axhline(25, color="black", linestyle="--", linewidth=1)
left.set(xlabel="layers removed", ylabel="right (percent, ± 1 s.e.)", ylim=(0, 103), title="120 science questions (dashed: guessing)")
right_.set(xlabel="layers removed", ylabel="bits per byte, times dense", title="prose by people", xlim=(0, 9), ylim=(0.95, 1.8))
right_.legend(fontsize=8)
plt.show()
for task in ("science", "science_zh"):
    rows = answers[(answers["task"] == task)].sort_values(["text", "removed"])
    print(f"{LARGE}, stored, {task}: " + "; ".join(f"{row.removed} removed{f' ({row.text})' if row.text else ''} {row.value:.0f} ± {row.standard_error:.0f} %" for row in rows.itertuples()) + ".")

# %% [markdown]
# On this model the picture turns. Without eight layers it answers fewer of the *English* questions, if anything, and in bits per byte English prose loses the larger share. So it isn't the second language as such that suffers. Our small model lost its Chinese because it had so little of it.
#
# And the language of the calibration text decides less than one would think. Reading Chinese chose other layers at six of 28; they keep Chinese prose clearly better, and cost English hardly anything. The questions, English or Chinese, show no difference that is larger than its error. ([Three models](../docs/three_models.md), section 3, has all numbers.)

# %% [markdown]
# The paper's models know more. MMLU is an exam in English with multiple-choice questions from 57 subjects, CMMLU asks the same kind of questions in Chinese, and both have four answers. Here is how much of the *above-chance* score is kept in its table 2.

# %%
paper = data_folder() / "paper"
table2 = pd.read_csv(paper / "table2_benchmarks.csv").pivot(index=["model", "benchmark"], columns="method", values="score")
exam = table2.loc[(slice(None), ["MMLU", "CMMLU"]), ["Dense", "ShortGPT"]]
exam = exam.assign(kept_above_chance=100 * (exam["ShortGPT"] - 25) / (exam["Dense"] - 25))
exam["kept_above_chance"].unstack()[["MMLU", "CMMLU"]].round(0)

# %% [markdown]
# In these two exams no language loses more throughout: three of the four models keep about the same share in both, and the fourth keeps more of its Chinese. But that is one pair of tasks, one run each. Another Chinese task of the same table, CHID (idioms), is among the hardest hit of Llama-2-7B, as the next figure shows, and our own model's bits per byte rose more in Chinese. A fair summary is that the answer depends on model and task, and that nobody should claim it from one number.

# %% [markdown]
# ## 13. Beside the paper's table 2
#
# Finally the paper's main table for one model, Llama-2-7B with nine of 32 layers removed, beside ours with six of 30. **They are other models, other tasks and other items**, so no two marks in a row measure the same thing. What compares is the pattern: which kinds of task survive? Thirteen benchmarks of the paper (open), five tasks of ours (filled). *Look for* the one of the thirteen that is generated and not chosen.

# %%
plot_beside_paper(kept, paper=["Llama-2-7B"])
plt.show()

# %%
llama = table2.loc["Llama-2-7B"]
share = 100 * llama["ShortGPT"] / llama["Dense"]
over = [f"{name} (dense {llama.loc[name, 'Dense']:.0f})" for name in share.index[share > 100]]
print(f"Beyond 100 percent: {', '.join(over)}.")
for name in ("XSum", "MMLU"):
    print(f"{name}: {llama.loc[name, 'Dense']} dense, {llama.loc[name, 'ShortGPT']} pruned")

# %% [markdown]
# *XSum* asks for a summary, and it is the only one of the thirteen that the model has to write. It collapses, while most choice tasks keep most of their score. This contrast is much sharper than ours: a summary takes many tokens in a row and is scored against what it should say, while we counted single words and loops. It isn't a law either. In the same table the two 7B models lose XSum nearly entirely, and the two 13B models keep 75 and 61 % of it (ShortGPT, table 2).
#
# Now look at the marks on the right with what we know about chance. Three of the paper's reach beyond 100 %, and a fourth, CMNLI, all but touches it. WSC has two answers, CMNLI three and RACE four, and the dense model was at 50, 33 and about 35 %: at guessing, or not far above. A score at chance can't fall, so it "retains" everything, and it lifts the paper's average retention of 86 %. BoolQ (yes or no) is the exception: above guessing when dense, even above the 62 % that an eternal *yes* would get, and three points better without nine layers. Nobody expects that of removal; from one run without a standard error we can't say whether it is more than luck.
#
# The same figure with chance taken off shows only tasks on which the dense model is clearly above guessing:

# %%
plot_beside_paper(kept, paper=["Llama-2-7B"], y="above_chance")
plt.show()

# %% [markdown]
# WSC and CMNLI have gone, where there was nothing to keep. Most of the others move to the left (what stood beyond 100 % moves further out): a typical choice task of the paper keeps about two thirds of what the dense model knew beyond guessing, and ours a little less. The two averages printed above fall by about the same amount for both models, so this is what chance gives to any table of plain retention. XSum stays where it was: no one guesses a summary.

# %% [markdown]
# ## Exercises
#
# Four functions to write yourself. Try them first in the [exercise notebook](exercises/05_evaluation.ipynb): there
# the solutions are left out, and a check tells you what is wrong with yours. Here they are solved.

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

some = built_in_text("perplexity").query("genre in ['dialogue', 'story']")["text"].tolist()
losses = [token_losses(model, tokenizer(text, return_tensors="pt")["input_ids"][0]) for text in some]
apart = [corpus_perplexity([each]).item() for each in losses]
print("each document:        ", " ".join(f"{value:.1f}" for value in apart))
print(f"all tokens together:   {corpus_perplexity(losses):.1f}")
print(f"mean of perplexities:  {sum(apart) / len(apart):.1f}")

# %% [markdown]
# The mean of perplexities is larger than the perplexity of the whole, and one hard document would raise it further,
# because an exponential exaggerates what is large.

# %% [markdown]
# ### Exercise 2: What is kept, above guessing
#
# **Difficulty:** easy · **Minutes:** 5
#
# On a test with `choices` answers to each question, guessing is right once in so many. `dense` and `pruned` are accuracies in percent. Return how much of the dense model's lead over guessing the pruned model has kept, in percent. The result may be below zero: a model can be worse than a coin.
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
stored = json.loads((data_folder() / "measured.json").read_text(encoding="utf-8"))["accuracy"]
accuracy = pd.DataFrame(stored).set_index(["removed", "task"])["value"]
for task, choices in {"grammar": 2, "physical": 2, "science": 4}.items():
    before, after = accuracy[0, task], accuracy[6, task]
    kept = kept_above_chance(before, after, choices)
    print(f"{STORED}, {task}: {before:.1f} to {after:.1f} %, plain retention {100 * after / before:.0f} %, above guessing {kept:.0f} %")

# %% [markdown]
# By plain retention a model that only guesses keeps more than half, wherever there are two answers. With the
# guessing level taken off the pruned model looks worse on all three, and no measurement has changed.

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
    """A triple (start, end, first scored token) for each window over ``tokens`` tokens."""
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
ids = tokenizer(article["text"].iloc[0], return_tensors="pt", add_special_tokens=False)["input_ids"]  # [1, tokens]
total = 0.0
for start, end, first in scored_windows(ids.shape[1], 128, 64):
    with torch.inference_mode():
        logits = model(input_ids=ids[:, start:end]).logits[0]  # [window, vocabulary]
    total += cross_entropy(logits[first - start - 1 : -1], ids[0, first:end], reduction="sum").item()
theirs = perplexity_table(model, tokenizer, article, window=128, stride=64, bos=False)  # nothing in front, as here
ours = np.exp(total / (ids.shape[1] - 1))
print(f"perplexity with your windows {ours:.2f}, by perplexity_table {theirs['perplexity'].iloc[0]:.2f}")

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
    """Log-probability of each answer given the question, ``[choices]``: the sum over its tokens, or the mean."""
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
    batch = tokenizer(texts, return_tensors="pt", padding=True, padding_side="right")
    question, lengths = len(tokenizer(prompt)["input_ids"]), batch["attention_mask"].sum(1)
    with torch.inference_mode():
        logits = model(**batch).logits
    picked.append([int(answer_scores(logits, batch["input_ids"], question, lengths, mean).argmax()) for mean in (False, True)])
by_sum, by_mean = np.array(picked).T
right = science["answer"].to_numpy()
print(f"{(by_sum == right).sum()} of {len(right)} right by the sum, {(by_mean == right).sum()} by the mean over tokens")
print(f"the two rules choose differently {(by_sum != by_mean).sum()} times")

# %% [markdown]
# A sum favours short answers, and a mean does not. The harness calls them `acc` and `acc_norm` (which divides by
# characters instead of tokens). A table that doesn't say which one it means can't be compared with another.

# %% [markdown]
# ## What we saw
#
# - Perplexity is the exponential of the mean token loss. It depends on tokenizer, window and text; bits per byte removes the first of the three, and turns "Chinese is easier" into "Chinese takes about twice the bits".
# - Choice scores reward the right *order* of given answers, and plain retention flatters them, because chance is counted as ability.
# - Models that answered the same items should be compared item by item: the same answers then give a smaller standard error.
# - With three layers fewer, perplexity, grammar and science suffered clearly and the last word did not; with six, the last word lost half.
# - On the same questions, choosing stayed level (near guessing, where it started) while written answers could no longer be read as answers.
# - The measures disagree, so report more than one. In the paper's Llama-2-7B the disagreement is extreme: MMLU stays, the summary is gone.
#
# The accuracies come from 160 to 480 items a task, with standard errors of one to four points: smaller differences mean nothing here.

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
# **Check yourself.** Three more questions, with choices: press a letter (or reach it with Tab and press Space). In a saved notebook, unfold the line below.

# %%
from shortgpt.course.quiz import quiz

quiz("05")

# %% [markdown]
# You can now score, prune, quantize and judge a model of your own. Two further lessons ask whether Block Influence
# chooses best, and whether layers are the right thing to remove; [lesson 10](10_generation.ipynb) follows what
# pruning does to writing.
#
# **Next:** [06 · Choosing layers](06_choosing_layers.ipynb) · **Previous:** [04 · Quantization combined with
# pruning](04_quantization.ipynb)
