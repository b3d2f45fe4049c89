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
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/shortgpt-course/shortgpt/blob/main/notebooks/10_generation.ipynb)
#
# # 10 · Generation: why it breaks, and two ways around it
#
# A pruned model often still picks the right answer from a list, when it can no longer write a paragraph. In this lesson we find out why, with experiments that a reader can check by eye. Then we look at two ideas that leave the writing to the full model: skip layers only while the *prompt* is read, and let the pruned model *draft* what the full model checks.
#
# **You will be able to**
#
# - explain why choosing can survive pruning while perplexity and writing don't;
# - tell a model that is worse at every step from errors that accumulate;
# - prune only the reading of the prompt, and say what that saves and costs;
# - let a model draft for itself, without changing one token of its text;
# - work out by hand whether a draft pays.
#
# **Before:** [lesson 03](03_pruning.ipynb) (removing layers) and [lesson 05](05_evaluation.ipynb) (what is measured how) · **Takes:** about 3 minutes on 2 CPU cores · **Memory:** about 2 GB · **Download:** 93 MB once (shared by all lessons)

# %% [markdown] tags=["for-exercises"]
# Run this cell first. It is the same in every lesson.

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
# The model, the layers to go, and what we need from the toolkit. The plan is Block Influence's: the six layers that turn the state least.
#
# **Another model?** Change the line `MODEL = …`. The text of this lesson then still speaks of the default model; what the cells print and draw is about yours, except what says *default model, stored*.

# %% tags=["for-exercises"]
import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from torch.nn.functional import cross_entropy

from shortgpt import (
    built_in_text, calibration_batches, continue_text, decoder_layers, divergence_along, generate_with_draft, load,
    prefill_report, prune_prefill, removal_order, remove_layers, score_layers, speculative_report,
)  # fmt: skip
from shortgpt.course.plots import PALETTE, STORED, plain_log_ticks, plot_divergence_along
from shortgpt.course.studies.speedup import break_even_acceptance, draft_cost, speculative_speedup
from shortgpt.model.tokens import begin_token
from shortgpt.utils.data import data_folder

MODEL = "smollm2-135m-instruct"  # others, and what they need: the table in lesson 00
model, tokenizer = load(MODEL)
depth = len(decoder_layers(model))
order = removal_order(score_layers(model, calibration_batches(tokenizer, built_in_text()["text"], samples=8), progress=False))
six = sorted(order[:6])
pruned = remove_layers(model, six)
print(f"{depth} layers; {len(six)} of them go: {six}")

# %% [markdown]
# ## 1. Why choosing can survive
#
# In a task with a list of answers the model never writes. We compute how likely it finds each answer, and take the likeliest. Here are 40 items of each of two tasks with two answers each: `physical` (everyday questions) and `grammar` (two sentences that differ in a word or two). For each item the **margin** is the log-probability of the right answer minus that of the wrong one, in *nats* (the unit of the natural logarithm). Only its sign counts.
#
# *Predict:* pruning makes all answers less likely. What does that do to the margins?

# %%
START = tokenizer.convert_tokens_to_ids(begin_token(tokenizer, "an answer"))  # what it follows without a question


@torch.inference_mode()
def log_probability(model, question, answer):
    before = tokenizer(question)["input_ids"] or [START]
    ids = torch.tensor([[*before, *tokenizer(answer, add_special_tokens=False)["input_ids"]]])
    logits = model(ids).logits[0, len(before) - 1 : -1]
    return -cross_entropy(logits, ids[0, len(before) :], reduction="sum").item()


# %% [markdown]
# Both answers of each item, by both models:

# %%
rows = []
for task in ("physical", "grammar"):
    items = pd.read_json(data_folder() / "tasks" / f"{task}.jsonl", lines=True)
    for item in items.iloc[:: len(items) // 40].head(40).to_dict("records"):
        question = f"Question: {item['question']}\nAnswer:" if "question" in item else ""
        answers = [(" " if question else "") + item["choices"][i] for i in (item["answer"], 1 - item["answer"])]
        for name, each in {"dense": model, "pruned": pruned}.items():
            right, wrong = (log_probability(each, question, answer) for answer in answers)
            rows.append({"task": task, "id": item["id"], "model": name, "both": (right + wrong) / 2, "margin": right - wrong})
judged = pd.DataFrame(rows).pivot(index=["task", "id"], columns="model", values=["both", "margin"])

# %%
_, ax = plt.subplots(figsize=(6, 4.5), layout="constrained")
for (task, some), marker, colour in zip(judged.groupby("task"), "os", PALETTE, strict=False):
    ax.plot(some["margin", "dense"], some["margin", "pruned"], marker, color=colour, markeredgecolor="black", label=task)
    cost, change = some["both", "dense"] - some["both", "pruned"], some["margin", "pruned"] - some["margin", "dense"]
    share = (some["margin"] > 0).mean()
    print(f"{task}: pruning costs an answer {cost.mean():.1f} nats, and moves a margin by {change.abs().mean():.1f}; ", end="")
    print(f"the dense model's margins are {some['margin', 'dense'].abs().mean():.1f} wide. Right: {share['dense']:.0%} before, {share['pruned']:.0%} after (guessing: 50%).")
ax.axhline(0, color="black", linewidth=0.8)
ax.axvline(0, color="black", linewidth=0.8)
ax.axline((0, 0), slope=1, color="black", linestyle=":")
ax.set(xlabel="margin of the dense model (nats)", ylabel="margin of the pruned model (nats)")
ax.legend()
plt.show()

# %% [markdown]
# Above the horizontal line the pruned model chooses right. Part of what both answers lose **cancels** in the margin: the question is the same, and often most of the words. A choice survives as long as what does *not* cancel is small against the margin: compare the last two widths of each line. So choice isn't safe by nature. With a margin of one wrong verb ending it falls as well, and lesson 05 found `grammar` to lose more than questions about everyday things.
#
# What does a choice not tell? Here is a model that knows the answers, the larger one of [lesson 05](05_evaluation.ipynb), section 10, with ten times the parameters: what it chose and what it wrote on the same questions, dense and with up to eight of its 28 layers removed (stored by `measure/answers.py`).
#
# *Predict:* some answers will be chosen right and written wrong. What will be written there?

# %%
asked = pd.read_csv(data_folder() / "removal_answers.csv", keep_default_na=False).query("model == 'qwen2.5-coder-1.5b-instruct'")
asked = asked.assign(removed=asked["layers"].map(json.loads).map(len)).query("task == 'science'")
questions = pd.read_json(data_folder() / "tasks" / "science.jsonl", lines=True).set_index("id")
for n, rows in asked.groupby("removed"):
    wrong = rows[rows["choice_right"] & ~rows["written_right"]]
    print(f"{n} removed: {rows['choice_right'].mean():.0%} chosen right, {rows['written_right'].mean():.0%} written right; chosen right and written wrong {len(wrong)} of {len(rows)}")
for item in asked["item"].unique()[[2, 11, 25]]:
    print(f"\n{questions.loc[item, 'question']}")
    for n, rows in asked[asked["item"] == item].set_index("removed").iterrows():
        if n in (0, 4, 8):
            print(f"  {n} removed, written: {rows['written']!r}; chosen {'right' if rows['choice_right'] else 'wrong'}")

# %% [markdown]
# The dense model answers in a few words. Without four layers it explains, and sixteen tokens are over before an answer comes; asked without a list of answers it still knows nearly all of them (lesson 05, section 12). Without eight it names an answer at once, mostly a wrong one, in sentences that don't hold together. A choice shows none of this: it only says right or wrong.
#
# Perplexity sees the whole loss: nothing cancels there. The two measures don't contradict each other. They look at different things.
#
# ## 2. One wrong token is another text
#
# Writing knows no cancelling either. Each token must be the likeliest of tens of thousands, and the text goes on from whatever was taken. `divergence_along` lets the dense and the pruned model write after the same prompts, and then lets *both* read *both* texts. At each new token it notes whether their likeliest tokens agree, and how far their whole distributions lie apart.
#
# We do it with three and with six layers removed, after the openings of eighteen documents.

# %%
texts = built_in_text("perplexity")["text"]
prompts = [tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"][:24]) for text in texts]
views = {"−3 layers": remove_layers(model, order[:3]), "−6 layers": pruned}
short = {name: divergence_along(model, view, tokenizer, prompts, new_tokens=12, progress=False) for name, view in views.items()}

# %% [markdown]
# How often would the pruned model write the same token, where the *dense* model's text is given? And how often is the *text* still the same after n tokens, where it writes alone?
#
# *Predict:* if two models agree on six of ten tokens, for how many tokens in a row do their texts stay the same?

# %%
_, ax = plt.subplots(figsize=(7, 4), layout="constrained")
steps = np.arange(13)
for (name, along), marker, colour in zip(short.items(), "os", PALETTE, strict=False):
    agree = along.loc[along["written_by"] == "dense", "agree"].mean()
    tokens = along.pivot(index="prompt", columns=["written_by", "position"], values="token").fillna(-1)  # -1: it has ended
    same = tokens["dense"].eq(tokens["pruned"]).cummin(axis=1)  # [prompts, tokens]: no difference so far
    ax.plot(steps, [1, *same.mean()], marker=marker, color=colour, label=f"{name}: still the dense model's text")
    ax.plot(steps, agree**steps, color=colour, linestyle="--", label=f"{name}: agreement to the power of n")
    print(f"{name}: agrees on {agree:.0%} of single tokens; its text leaves the dense one's at token {1 + same.sum(axis=1).mean():.1f} in the mean.")
ax.set(xlabel="new tokens n", ylabel="share of texts", xticks=steps)
ax.legend()
plt.show()

# %% [markdown]
# A good chance *each time* is a small chance after a few times. The texts part even sooner than the powers say: the chance isn't the same everywhere, and the more tokens are hard at the beginning, where a text may go anywhere, the fewer texts come through. That alone makes exact answers rare, with no error leading to another. But a text that differs need not be bad: there are many good sentences. So what happens after the first difference?
#
# ## 3. Do errors accumulate?
#
# The paper's guess (section 5) is that they do. Let's separate two things. *Worse at each step*: in a good context the pruned model predicts worse. *Accumulation*: in its own text, full of its own errors, it predicts worse still.
#
# First one text, step by step, with six layers gone. The **divergence** at a token is how far the pruned model's distribution lies from the dense one's before the token is chosen (the Kullback–Leibler divergence, in nats: 0 if they are equal). Along the dense model's text: *where* do they part?

# %%
one = divergence_along(model, pruned, tokenizer, prompts[:1], new_tokens=40, progress=False)
print("prompt: ", prompts[0])
for writer, text in one.groupby("written_by"):
    print(f"{writer + ':':8}", tokenizer.decode(text["token"]))

# %% [markdown]
# Along the first of these texts, a bar for each token. It is hatched where the pruned model would have written another one.

# %%
step = one[one["written_by"] == "dense"]
words = [tokenizer.decode(token).replace("\n", "↵").replace("$", r"\$") for token in step["token"]]
_, ax = plt.subplots(figsize=(9.5, 3.2), layout="constrained")
bars = ax.bar(step["position"], step["divergence"], color=PALETTE[0], edgecolor="black")
for bar, agree in zip(bars, step["agree"], strict=True):
    bar.set(hatch="" if agree else "////", facecolor=PALETTE[0] if agree else PALETTE[1])
ax.set_xticks(step["position"], words, rotation=90)
ax.set(xlabel="token that the dense model wrote", ylabel="divergence (nats)")
plt.show()
apart = step[~step["agree"]]
print(f"{len(apart)} of {len(step)} bars are hatched: there the pruned model would have written another token. They hold {apart['divergence'].sum() / step['divergence'].sum():.0%} of the whole divergence.")
print(f"The highest bar, at {words[step['divergence'].argmax()]!r}, is {step['divergence'].max() / step['divergence'].median():.1f} times the median; the lowest, at {words[step['divergence'].argmin()]!r}, is {step['divergence'].min():.2f}.")

# %% [markdown]
# The damage is not spread evenly, and it isn't only where the two would write different tokens. Even the highest bar is a plain one: the same token is the likeliest for both, and they are of very different mind about how likely. Where the text leaves no choice at all, as at the second of two line ends, they agree.
#
# Now the openings of 32 documents, measured once by `measure/generation.py` with the same function, in stretches of eight tokens: along the dense model's text, and along the pruned model's own. *Predict:* which curve is higher, and does one of them rise?

# %%
along = pd.read_csv(data_folder() / "along.csv")
plot_divergence_along(along).set_title(STORED)
plt.show()

# %% [markdown]
# With a standard error over the prompts, from the first half of each text to the second:

# %%
halves = along.assign(half=np.where(along["position"] > along["position"].max() // 2, "second", "first"))
halves = halves.groupby(["written_by", "prompt", "half"])["divergence"].mean().unstack().dropna()  # without what had ended
print(STORED)
for writer, table in halves.groupby("written_by"):
    change = table["second"] - table["first"]
    print(f"along the {writer} model's text: {table['first'].mean():.2f} in the first half, {table['second'].mean():.2f} in the second, {change.mean():+.2f} ± {change.sem():.2f}")

# %% [markdown]
# If errors accumulated in this sense, the dashed curve would climb away from the solid one. It does the opposite. The damage is there at the first token, before any error could have been made. Later it shrinks on both texts, and faster along the pruned model's *own*. Why should the dense model agree more with a broken text's author?
#
# The texts give it away: loops. What is certain to come again is easy to foresee, for both. So whose fault is a loop, the writer's or the text's? We let each model write the first half of a text, and each one go on from there.
#
# *Predict:* the pruned model is in a loop, and the **dense** model takes over. Does it get out?

# %%
relay = pd.read_csv(data_folder() / "relay.csv")
print(STORED)
for row in relay[relay["prompt"] == 0].itertuples():
    print(f"{row.first}, then {row.second}: {' '.join(row.text.split())}\n")

# %% [markdown]
# Read the third one: the dense model goes round the loop once more, and then gets out. Is that the rule? All openings whose four texts went on: of the word triples of the *second* half, the share that stood in the text before.

# %%
loops = relay.pivot(index="prompt", columns=["first", "second"], values="repeated_after").dropna()  # NaN: it ended at once
_, ax = plt.subplots(figsize=(7, 2.8), layout="constrained")
labels = [f"{first}, then {second}" for first, second in loops]
ax.barh(labels, loops.mean(), xerr=loops.sem(), capsize=4, color=PALETTE[0], edgecolor="black", hatch=["", "//", "..", "xx"])
ax.invert_yaxis()
ax.set(xlabel="share of repeated word triples in the second half (± 1 standard error)", xlim=(0, 1), title=STORED)
plt.show()
base = loops["dense", "dense"]
for name, pair in {"a pruned second half": ("dense", "pruned"), "a pruned first half": ("pruned", "dense"), "both": ("pruned", "pruned")}.items():
    change = loops[pair] - base
    print(f"{name}: {change.mean():+.2f} ± {change.sem():.2f} against a text that is all dense.")

# %% [markdown]
# Compare the bars in pairs. Who writes the *second* half hardly matters: after a dense first half the pruned model repeats about as much as the dense one, and after a pruned first half the dense model, with all its layers, mostly goes on in the loop. What matters is the text that stands there. So this is what accumulates: not error in the *model*, which stays as near to the dense one as it was, but error in the *text*, which both believe. (With 24 tokens a half, it says nothing about long texts, and both models always took the likeliest token.)
#
# It also says why perplexity and choice don't see it. Both hand the model a text that somebody else wrote well.
#
# ## 4. Skip layers only while the prompt is read
#
# So writing needs all layers. Does *reading* need them? The published version of the paper has a second method, **ShortGPT-gen**. A chosen layer is skipped for the prompt, but its keys and values are still computed, from the state that passes it by, and go into the cache. Tokens that are written pass all layers. They find a complete cache, written by a slightly wrong reader.
#
# `prune_prefill` gives such a model. No parameter is saved; time on the prompt is.

# %%
view = prune_prefill(model, six)
for name, each in {"dense": model, "pruned reading": view, "pruned": pruned}.items():
    print(f"{name + ':':16}", continue_text(each, tokenizer, prompts[2], new_tokens=24))

# %% [markdown]
# One sample says little. `prefill_report` cuts texts into a prompt and its true continuation, and measures the continuation's perplexity by who read and who wrote. The first new token is special: it is predicted from the prompt's last token, which the pruned pass read too. The third way spares that token.
#
# *Predict:* the six layers are skipped for the prompt, or removed. How much of the harm of removal is left if only the reading is pruned?

# %% tags=["volatile"]
documents = built_in_text("perplexity")["text"].head(9)
sets = [sorted(order[:n]) for n in (3, 6, 9)]
reading = prefill_report(model, tokenizer, sets, documents, prompt_tokens=192, new_tokens=48, progress=False)
reading[["way", "removed", "perplexity", "first_loss", "later_loss", "read_weights"]].round(2)

# %% tags=["volatile"]
dense = reading.iloc[0]
_, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for (name, some), marker, colour in zip(reading.iloc[1:].groupby("way", sort=False), "os^", PALETTE, strict=False):
    ax.plot([0, *some["removed"]], [dense["perplexity"], *some["perplexity"]], marker=marker, color=colour, markeredgecolor="black", label=name)
ax.set(yscale="log", xlabel="layers skipped or removed", ylabel="perplexity of the continuation (log scale)", xticks=[0, 3, 6, 9])
plain_log_ticks(ax)
ax.legend()
plt.show()
at_six = reading[reading["removed"] == 6].set_index("way")
harm = np.log(at_six["perplexity"] / dense["perplexity"])
print(f"Of the loss that removing six layers adds, skipping them in the prompt alone adds {harm['prefill'] / harm['removed']:.0%}, ", end="")
print(f"and {harm['prefill, last token whole'] / harm['removed']:.0%} if the last token is spared. First new token: {dense['first_loss']:.2f} nats dense, {at_six.loc['prefill', 'first_loss']:.2f} and {at_six.loc['prefill, last token whole', 'first_loss']:.2f}.")
print(f"The prompt passes {at_six.loc['prefill', 'read_weights']:.0%} of the layers' weights: at most {1 / at_six.loc['prefill', 'read_weights']:.2f} times as fast; by the clock {at_six.loc['prefill', 'read_speedup']:.2f} times.")

# %% [markdown]
# What loss there is beyond the first token comes through the cache: later layers wrote keys and values from states that lack the skipped layers' work. And note what this method is *not*: memory stays as it was, and so does the time of each written token. It is for long prompts and short answers.
#
# ## 5. Let the pruned model draft
#
# The other way around: the pruned model writes, and the full one checks. Checking is cheap, because the full model can read several tokens in *one* pass. Each **round**, the pruned model drafts a few tokens; the full model reads them, keeps all up to the first that it would not have written, and adds one of its own. So every token is the full model's choice: the text can't change. This is *speculative decoding* (Leviathan et al., arXiv 2211.17192). The draft shares its weights with the model, so no memory is needed for it.
#
# Below, each group is one round: its last token is the full model's own, those before it were drafted and accepted.

# %%
run = generate_with_draft(model, tokenizer, prompts[0], six, new_tokens=40, draft_tokens=4)
pieces = np.split(run.ids.numpy(), np.cumsum(run.written)[:-1])
print(" | ".join(tokenizer.decode(piece) for piece in pieces))
alone = continue_text(model, tokenizer, prompts[0], new_tokens=40)
print(f"\nThe same text as without a draft: {run.text == alone}. {len(run.ids)} tokens in {run.target_passes} passes of the full model ", end="")
print(f"and {run.draft_passes} of the draft; {run.acceptance:.0%} of the tested tokens were accepted.")

# %% [markdown]
# Fewer passes of the full model, but the draft's passes aren't free. Let $c$ be the cost of a draft pass (in passes of the full model), $\gamma$ the number of tokens it drafts in a round, and $\alpha$ the probability that a drafted token is accepted. A round costs $1+\gamma c$. It writes one token for certain, a second if the first was accepted, a third if two were, …:
#
# $$\text{speed-up} = \frac{1+\alpha+\alpha^2+\dots+\alpha^\gamma}{1+\gamma c} .$$
#
# With $\gamma=1$ this is above 1 exactly if $\alpha > c$. *Predict:* with six of thirty layers gone, what must $\alpha$ be? And how does $\alpha$ move when more layers go and $c$ gets smaller?

# %%
drafts = [sorted(order[:n]) for n in (1, 3, 6, 12)]
report = speculative_report(model, tokenizer, drafts, prompts[:2], new_tokens=24, draft_tokens=[1, 4], progress=False)
columns = ["draft", "draft_tokens", "tokens_per_pass", "acceptance", "cost", "break_even", "predicted", "equal"]
report[columns].round(2)

# %%
one = report[report["draft_tokens"] == 1]
_, ax = plt.subplots(figsize=(6, 4.5), layout="constrained")
ax.plot([0, 1], [0, 1], "k--", label="break-even for one drafted token")
costs = np.linspace(0.01, 1, 60)
ax.plot(costs, [break_even_acceptance(4, c) for c in costs], "k:", label="break-even for four")
ax.plot(one["cost"], one["acceptance"], "o", color=PALETTE[0], markeredgecolor="black", label="our drafts")
for row in one.itertuples():
    ax.annotate(f"{row.removed}", (row.cost, row.acceptance), xytext=(-4, -13), textcoords="offset points")
ax.set(xlabel="cost c of a draft pass", ylabel="acceptance α", xlim=(0, 1.03), ylim=(0, 1.03))
ax.legend()
plt.show()
gains = one[one["acceptance"] > one["cost"]]
print(f"Drafts above the dashed line, where drafting pays: {len(gains)} of {len(one)}. Same text in all cases: {report['equal'].all()}.")
print(f"The best of them would write {report['predicted'].max():.2f} times as fast as the model alone.")

# %% [markdown]
# The numbers at the points say how many layers the draft lacks. A point must lie *above* the dashed line to gain anything. More layers gone makes the draft cheaper, and its acceptance falls faster than its cost. Four drafted tokens ask for more than one does.
#
# This is arithmetic, and it takes a pass over five tokens to cost as much as one over one token. On a GPU that writes one text that is nearly so, because reading the weights takes the time. On a few CPU cores the arithmetic of five tokens takes longer than that of one, so the clock is less kind (`report["measured"]`; it needs a machine that does nothing else, and `repeats=3`).
#
# Is it the fault of these layers? Ask what *could* be had. Even a draft that is always right can't gain more than $1/c$. For each cost, the best number of drafted tokens:

# %%
costs = np.linspace(0.05, 1, 96)
_, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for alpha, style in zip((0.6, 0.7, 0.8, 0.9), ("-", "--", "-.", ":"), strict=True):
    best = [max(1.0, max(speculative_speedup(alpha, n, c) for n in range(1, 17))) for c in costs]
    ax.plot(costs, best, linestyle=style, color="black", label=f"α = {alpha}")
here = draft_cost(model, pruned)
ax.axvline(here, color=PALETTE[1])
ax.annotate("six layers removed", (here, 2.6), xytext=(-6, 0), textcoords="offset points", ha="right")
ax.set(xlabel="cost c of a draft pass", ylabel="best speed-up", yscale="log", ylim=(0.95, None))
plain_log_ticks(ax)
ax.legend()
plt.show()
ceiling = 1 / here
found = report[report["removed"] == 6]["acceptance"].mean()
print(f"With six layers removed c is {here:.2f}: no draft could gain more than {ceiling:.2f} times, and only above α = {here:.2f}. Ours reaches {found:.2f}.")
worth = [c for c in costs if speculative_speedup(min(found, 1), 1, c) > 1]
print(f"A draft with its acceptance would have to cost less than {max(worth):.2f}.")

# %% [markdown]
# So when does pruning pay twice? When the draft is *cheap and right*: far to the left, and high. Depth pruning moves along the other diagonal, where cost falls slowly and acceptance falls fast. Methods that work this way train for it (a model taught to be right early, as LayerSkip, arXiv 2404.16710) or choose by acceptance which layers the draft skips (arXiv 2309.08168). Deep models have more layers that hardly matter; measure yours with `speculative_report`.
#
# *Try it* (10 minutes, medium): repair the draft in closed form, `heal(model, [13, 14, 15], calibration_batches(tokenizer, samples=8))`, and give the result to `speculative_report` beside the plain cut `[13, 14, 15]`. Does repair raise the acceptance? Does it raise it above the cost?

# %% [markdown]
# ## Exercises
#
# Three functions to write yourself. To try them before you see a solution, open the [exercise notebook](exercises/10_generation.ipynb): there each solution is left out, and a check tells you what is wrong with yours. Here they are solved.

# %% [markdown]
# ### Exercise 1: How much of a text is repetition?
#
# **Difficulty:** easy · **Minutes:** 10
#
# An *n-gram* is n tokens in a row; one begins at every token that has n − 1 others behind it. Return the share of a text's n-grams that stood in it before: the first time an n-gram comes it is new, every further time it is repeated. `tokens` is a list of words or token ids. A text of fewer than n tokens has no n-gram; return 0.0 for it.
#
# <details><summary>Hint</summary>
# How many n-grams are there, and how many <em>different</em> ones? A <code>set</code> keeps each only once, if they are tuples.
# </details>

# %% tags=["exercise"]
def repeated_share(tokens, n):
    """Of the n-grams of a text, the share that stood in it before."""
    ### BEGIN SOLUTION
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    if not grams:
        return 0.0
    return 1 - len(set(grams)) / len(grams)
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_repeated_share, require_passed

check_repeated_share(repeated_share)

# %% tags=["apply"]
require_passed(repeated_share)
stored = pd.read_csv(data_folder() / "relay.csv")
writers = stored[stored["first"] == stored["second"]].dropna(subset=["text"])  # one model wrote both halves
lengths = [1, 2, 3, 4, 5]
shares = pd.DataFrame({n: [repeated_share(text.split(), n) for text in writers["text"]] for n in lengths}, index=writers["first"])
means, errors = shares.groupby("first").mean(), shares.groupby("first").sem()
_, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
for name, marker, colour in zip(means.index, "os", PALETTE, strict=False):
    ax.errorbar(lengths, means.loc[name], errors.loc[name], marker=marker, color=colour, capsize=3, label=f"{name} model")
ax.set(xlabel="n", ylabel="share of repeated n-grams", xticks=lengths, ylim=(0, 1), title=STORED)
ax.legend()
plt.show()
print("Of the n-grams, repeated by the dense and the pruned model: " + ", ".join(f"n = {n}: {means.loc['dense', n]:.2f} and {means.loc['pruned', n]:.2f}" for n in lengths) + ".")

# %% [markdown]
# Single words come again in every text (*the*, *and*), so by them the two models look more alike than they are. The longer the n-gram, the less of it is chance: when five words in a row come again, the text goes round. There the pruned model's share is more than twice the dense model's. Papers report the same under the name *distinct-n*, which is one minus this share.

# %% [markdown]
# ### Exercise 2: How many tokens should a draft write?
#
# **Difficulty:** medium · **Minutes:** 15
#
# Section 5 gave the speed-up of a draft,
#
# $$\frac{1+\alpha+\alpha^2+\dots+\alpha^\gamma}{1+\gamma c} .$$
#
# Return the number $\gamma$ of drafted tokens, from 1 to `longest`, with the largest speed-up; and 0 if no speed-up is above 1, because then it is better not to draft. `acceptance` is $\alpha$ (between 0 and 1, both possible), `cost` is $c$.
#
# <details><summary>Hint</summary>
# Nothing clever is needed: compute the speed-up for every number of tokens and keep the best. Mind the two ends of the sum.
# </details>

# %% tags=["exercise"]
def best_draft_length(acceptance, cost, longest):
    """The number of drafted tokens with the largest speed-up, or 0 if none is above 1."""
    ### BEGIN SOLUTION
    best, fastest = 0, 1.0
    for drafted in range(1, longest + 1):
        written = sum(acceptance**i for i in range(drafted + 1))
        speed_up = written / (1 + drafted * cost)
        if speed_up > fastest:
            best, fastest = drafted, speed_up
    return best
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_best_draft_length

check_best_draft_length(best_draft_length)

# %% tags=["apply"]
require_passed(best_draft_length)
print("How many tokens to draft in a round, if the acceptance were α:")
for n in (depth * share // 30 for share in (3, 6, 12, 18, 24)):  # of 30 layers as many
    price = draft_cost(model, remove_layers(model, order[:n]))
    best = {alpha: best_draft_length(alpha, price, 16) for alpha in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)}
    print(f"{n:2} layers removed, c = {price:.2f}: " + ", ".join(f"{drafted} at α = {alpha}" for alpha, drafted in best.items()))

# %% [markdown]
# Zero means: better not to draft. With three layers removed, even a draft that is right nine times in ten gains nothing; with 24 removed, one that is right every second time still pays. But no draft is free to choose its column. The more layers go, the less often it is right, and section 5 found none of ours on the side where it pays.

# %% [markdown]
# ### Exercise 3: Write with a draft
#
# **Difficulty:** hard · **Minutes:** 30
#
# Now the whole of section 5. `model(ids)` takes a list of token ids and returns the logits `[tokens, vocabulary]`; so does `draft(ids)`. Write `new_tokens` tokens after the prompt `ids`, and return them as a list, without the prompt. Work in rounds. In each, the draft writes `drafted` tokens, one by one, each time its likeliest. Then the model reads the text with these tokens in *one* pass. Keep the drafted tokens up to the first that the model would not have written, and put the model's own choice behind them. The result must be the text that the model writes alone. The last round may write too much: cut it off.
#
# <details><summary>Hint 1</summary>
# The logits at the last token of the text judge the first drafted token; the logits at that one judge the second. So one pass gives the model's choice for every place of the draft and for the place behind it.
# </details>
# <details><summary>Hint 2</summary>
# Count how many drafted tokens are equal to the model's choices at their places, from the first on. If the count is r, the model's own token for this round is its choice number r.
# </details>

# %% tags=["exercise"]
def write_with_draft(model, draft, ids, new_tokens, drafted):
    """The model's own likeliest text after ``ids``, as a list of ``new_tokens`` ids, written with the help of a draft."""
    ### BEGIN SOLUTION
    text = list(ids)
    while len(text) < len(ids) + new_tokens:
        guess = []
        for _ in range(drafted):
            guess.append(draft(text + guess)[-1].argmax().item())
        choices = model(text + guess)[len(text) - 1 :].argmax(-1).tolist()  # one more than was drafted
        right = 0
        while right < drafted and guess[right] == choices[right]:
            right += 1
        text += choices[: right + 1]  # the accepted tokens and one of the model's own
    return text[len(ids) : len(ids) + new_tokens]
    ### END SOLUTION

# %% tags=["check"]
from shortgpt.course.checks import check_write_with_draft

check_write_with_draft(write_with_draft)

# %% tags=["apply"]
require_passed(write_with_draft)
passes = {"model": 0, "draft": 0}


def reader(name, network):
    def read(ids):
        passes[name] += 1
        with torch.inference_mode():
            return network(torch.tensor([ids])).logits[0]

    return read


opening = tokenizer(built_in_text("perplexity")["text"].iloc[0])["input_ids"][:24]
shorter = remove_layers(model, order[:3])
written = write_with_draft(reader("model", model), reader("draft", shorter), opening, 32, 3)
alone = continue_text(model, tokenizer, tokenizer.decode(opening), new_tokens=32)
print(tokenizer.decode(written))
print(f"\nThe model's own text: {tokenizer.decode(written) == alone}. {len(written)} tokens in {passes['model']} passes of the model and {passes['draft']} of the draft.")

# %% [markdown]
# The draft lacks three layers and is often wrong, and yet the text is the model's own. Whatever a draft suggests, only the model's choices are written; a bad draft costs time and nothing else. That is why speculative decoding is in use where no approximation would be accepted.

# %% [markdown]
# ## What we saw
#
# - In a choice, part of what both answers lose cancels; it survives where the rest is small against the margin. Perplexity and writing feel the whole loss.
# - A text is the same only if every token is. A fair agreement at each token is next to none after five.
# - The pruned model is off from the first token on, and not more so later. What accumulates is the *text*: once a loop has begun, the dense model mostly goes on with it as well.
# - Skipping layers only in the prompt costs a part of what removing them costs (section 4 printed how large a part), and saves time on the prompt alone.
# - Drafting for the full model never changes the text. It pays only if the acceptance is above the cost, and on this model no draft by removal gets there.
#
# **Why do generative tasks suffer more (question 8)?** A list of answers forgives whatever hits all answers alike, and asks once. Writing asks at every token for the best of the whole vocabulary, and each answer becomes part of the next question. Sections 1 to 3 have an experiment for each half of this sentence. The paper's word for the second half is accumulation of errors; on our model it is the context that goes bad, and any reader of it with it.

# %% [markdown]
# ## Three questions
#
# **1.** A pruned model agrees with the dense one on 95 of 100 tokens. What is the chance that an answer of 60 tokens is word for word the same?
#
# <details><summary>Answer</summary>If agreement were independent from token to token, 0.95 to the power of 60, about 5 in 100. It isn't: if the hard tokens come in groups, more texts survive; if every text has them at its beginning, as in section 2, fewer. And those that don't survive may still be good.</details>
#
# **2.** Pruned prefill skips nine layers of the prompt. Why does the model need as much memory as before, and why is a written token as slow as before?
#
# <details><summary>Answer</summary>All layers are needed for writing, so all weights stay; and each skipped layer still fills its cache, so the cache is as large as before. Written tokens pass all layers.</details>
#
# **3.** A draft costs half of a full pass and is accepted in 60 of 100 cases. Does drafting one token pay? Drafting four?
#
# <details><summary>Answer</summary>One: 1.6 tokens for 1.5 passes, a gain of 7 percent. Four: 1 + 0.6 + 0.36 + 0.216 + 0.13 = 2.3 tokens for 3 passes, a loss. The later tokens of a draft are seldom reached, but always paid for.</details>

# %% [markdown]
# **Check yourself.** Three more questions, with choices: press a letter (or reach it with Tab and press Space). In a saved notebook, unfold the line below.

# %%
from shortgpt.course.quiz import quiz

quiz("10")

# %% [markdown]
# This is the last lesson so far (08, 09, 11 and 12 are yet to come). Can you answer the [ten questions](20_ten_questions.ipynb) of the course now? · **Previous:** [07 · Depth or width](07_depth_or_width.ipynb)
