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
# A pruned model can still choose the right answer from a list when it can no longer write a paragraph. Why? Then two ideas leave the writing to the full model: skip layers only while the *prompt* is read, or let the pruned model *draft* what the full model checks.
#
# **You will be able to**
#
# - explain why choosing can survive pruning while perplexity and writing don't;
# - tell a model that is worse at every step from errors that accumulate;
# - prune only the reading of the prompt, and say what that saves and costs;
# - let a model draft for itself, without changing one token of its text;
# - work out by hand whether a draft pays.
#
# **Before:** [lesson 03](03_pruning.ipynb) (removing layers) and [lesson 05](05_evaluation.ipynb) (what is measured how) · **Takes:** about 3 minutes on 2 CPU cores; reading about 25 minutes, exercises 55 · **Memory:** about 2 GB · **Download:** 93 MB once (shared by all lessons)

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
    project = "shortgpt-pruning @ git+https://github.com/shortgpt-course/shortgpt"
    get_ipython().run_line_magic("pip", f"install -q -c /tmp/held.txt '{project}'")
    if not getattr(find_spec("shortgpt"), "origin", None):
        raise ImportError("pip could not install the toolkit, and says above why. If this is an old copy of the lesson, open "
                          "it anew from the course's page; else choose Runtime > Disconnect and delete runtime, and try again")

import torch
import transformers

import shortgpt

print(f"shortgpt {shortgpt.__version__}, torch {torch.__version__}, transformers {transformers.__version__}")

# %% [markdown] tags=["for-exercises"]
# The model, and the six layers with the lowest Block Influence.
#
# **Another model?** Change the line `MODEL = …`. The text still speaks of the default model; the cells show yours,
# except what says *default model, stored*.

# %% tags=["for-exercises"]
import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from torch.nn.functional import cross_entropy

from shortgpt import (
    built_in_text, calibration_batches, continue_text, decoder_layers, divergence_along,
    generate_with_draft, load, prefill_report, prune_prefill, removal_order,
    remove_layers, score_layers, speculative_report,
)
from shortgpt.course.plots import (
    PALETTE, STORED, plain_log_ticks, plot_divergence_along)
from shortgpt.course.studies.speedup import (
    break_even_acceptance, draft_cost, speculative_speedup,
)
from shortgpt.model.tokens import begin_token
from shortgpt.utils.data import data_folder

MODEL = "smollm2-135m-instruct"  # others: shortgpt.suggested_models()
model, tokenizer = load(MODEL)
depth = len(decoder_layers(model))
order = removal_order(score_layers(model,
    calibration_batches(tokenizer, built_in_text()["text"], samples=8), progress=False))
six = sorted(order[:6])
pruned = remove_layers(model, six)
print(f"{depth} layers; {len(six)} of them go: {six}")

# %% [markdown]
# ## 1. Why choosing can survive
#
# In a task with a list of answers the model never writes. We compute how likely it finds each answer, and take the likeliest. The **margin** of an item is the log-probability of the right answer minus that of the wrong one, in *nats* (the unit of the natural logarithm). Only its sign counts.
#
# We take 40 everyday questions with two answers each (the task `physical`). *Predict:* pruning makes all answers less likely. What does that do to the margins?

# %%
START = tokenizer.convert_tokens_to_ids(begin_token(tokenizer,
    "an answer"))  # what it follows without a question


@torch.inference_mode()
def log_probability(model, question, answer):
    before = tokenizer(question)["input_ids"] or [START]
    ids = torch.tensor(
        [[*before, *tokenizer(answer, add_special_tokens=False)["input_ids"]]])
    logits = model(ids).logits[0, len(before) - 1 : -1]
    return -cross_entropy(logits, ids[0, len(before) :], reduction="sum").item()

# %% [markdown]
# For comparison there is a second task, `grammar`: two sentences that differ in a word or two.

# %%
rows = []
for task in ("physical", "grammar"):
    items = pd.read_json(data_folder() / "tasks" / f"{task}.jsonl", lines=True)
    for item in items.iloc[:: len(items) // 40].head(40).to_dict("records"):
        question = (
            f"Question: {item['question']}\nAnswer:" if "question" in item else "")
        answers = [(" " if question else "") + item["choices"][i]
                   for i in (item["answer"], 1 - item["answer"])]
        for name, each in {"dense": model, "pruned": pruned}.items():
            right, wrong = (log_probability(each, question, answer)
                            for answer in answers)
            rows.append({"task": task, "id": item["id"], "model": name,
                         "both": (right + wrong) / 2, "margin": right - wrong})
judged = pd.DataFrame(rows).pivot(index=["task", "id"], columns="model",
    values=["both", "margin"])

# %%
_, ax = plt.subplots(figsize=(6, 4.5), layout="constrained")
for (task, some), marker, colour in zip(judged.groupby("task"), "os", PALETTE,
        strict=False):
    ax.plot(some["margin", "dense"], some["margin", "pruned"], marker, color=colour,
            markeredgecolor="black", label=task)
    cost, change = some["both", "dense"] - some["both", "pruned"], some["margin",
        "pruned"] - some["margin", "dense"]
    share = (some["margin"] > 0).mean()
    print(f"{task}: pruning costs an answer {cost.mean():.1f} nats, and moves a margin "
          f"by {change.abs().mean():.1f}; ", end="")
    print(f"the dense model's margins are {some['margin', 'dense'].abs().mean():.1f} "
          f"wide. Right: {share['dense']:.0%} before, {share['pruned']:.0%} after "
          "(guessing: 50%).")
ax.axhline(0, color="black", linewidth=0.8)
ax.axvline(0, color="black", linewidth=0.8)
ax.axline((0, 0), slope=1, color="black", linestyle=":")
ax.set(xlabel="margin of the dense model (nats)",
       ylabel="margin of the pruned model (nats)")
ax.legend()
plt.show()

# %% [markdown]
# In `physical`, the squares, both answers lose a lot, but part of what they lose **cancels** in the margin: the question is the same, and often most of the words. What does *not* cancel is small against the dense margins, so most choices are still right (above the horizontal line).
#
# In `grammar`, the circles, the margins were narrower and moved more. The dense model chose all of these right, and the pruned one is near guessing. So whether a choice survives depends on the margin.
#
# What does a choice not tell? A larger model that knows the answers ([lesson 05](05_evaluation.ipynb), section 10) loses up to eight of its 28 layers (stored by `measure/answers.py`). *Predict:* what will it write where the choice is still right?

# %%
asked = pd.read_csv(data_folder() / "removal_answers.csv", keep_default_na=False)
asked = asked.query("model == 'qwen2.5-coder-1.5b-instruct' and task == 'science'")
asked = asked.assign(removed=asked["layers"].map(json.loads).map(len))
share = 100 * asked.groupby("removed")[["choice_right", "written_right"]].mean()
display(share.round(0).T)
questions = pd.read_json(data_folder() / "tasks" / "science.jsonl", lines=True)
for item in asked["item"].unique()[[11, 25]]:
    print(questions.set_index("id").loc[item, "question"])
    rows = asked[(asked["item"] == item) & asked["removed"].isin([0, 4, 8])]
    for row in rows.itertuples():
        choice = "right" if row.choice_right else "wrong"
        print(f"  {row.removed} removed, chosen {choice}, written: {row.written}")

# %% [markdown]
# The dense model answers in a few words. Without four layers it explains, and its sixteen tokens end before the answer comes. Without eight it writes sentences that make no sense. A choice shows none of this.
#
# ## 2. One wrong token is another text
#
# In writing nothing cancels. Each token must be the likeliest of tens of thousands, and the text goes on from whatever was taken. `divergence_along` lets two models write after the same prompts, here the openings of eighteen documents, and then lets *both* read *both* texts.

# %%
texts = built_in_text("perplexity")["text"]
prompts = [
    tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"][:24])
    for text in texts
]
views = {"−3 layers": remove_layers(model, order[:3]), "−6 layers": pruned}
short = {
    name: divergence_along(
        model, view, tokenizer, prompts, new_tokens=12, progress=False
    )
    for name, view in views.items()
}

# %% [markdown]
# *Predict:* if two models agree on six of ten tokens, for how many tokens in a row do their texts stay the same?

# %%
_, ax = plt.subplots(figsize=(7, 4), layout="constrained")
steps = np.arange(13)
for (name, along), marker, colour in zip(short.items(), "os", PALETTE, strict=False):
    agree = along.loc[along["written_by"] == "dense", "agree"].mean()
    tokens = along.pivot(
        index="prompt", columns=["written_by", "position"], values="token"
    ).fillna(-1)  # -1: it has ended
    same = tokens["dense"].eq(tokens["pruned"]).cummin(axis=1)  # [prompts, tokens]
    ax.plot(steps, [1, *same.mean()], marker=marker, color=colour,
            label=f"{name}: still the dense model's text")
    ax.plot(steps, agree**steps, color=colour, linestyle="--",
            label=f"{name}: agreement to the power of n")
    print(
        f"{name}: agrees on {agree:.0%} of single tokens; its text leaves "
        f"the dense one's at token {1 + same.sum(axis=1).mean():.1f} in the mean."
    )
ax.set(xlabel="new tokens n", ylabel="share of texts", xticks=steps)
ax.legend()
plt.show()

# %% [markdown]
# A good chance *each time* is a small chance after a few times. The texts part even sooner than the powers say, because at the beginning a text may go anywhere. But a different text need not be bad. What happens after the first difference?
#
# ## 3. Do errors accumulate?
#
# The paper's guess (section 5) is that they do. Two things must be kept apart. *Worse at each step*: in a good context the pruned model predicts worse. *Accumulation*: in its own text, full of its own errors, it predicts worse still.
#
# The distance between two predictions is the Kullback–Leibler **divergence**, the mean, over what the dense model expects, of how much less the pruned one expects it:
#
# $$\text{KL}(p \,\|\, q) = \sum_w p(w)\,\ln\frac{p(w)}{q(w)} .$$
#
# By hand, with three words:

# %%
from shortgpt.model.logits import divergence

p = torch.tensor([0.7, 0.2, 0.1])
for q in ([0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.2, 0.7]):
    q = torch.tensor(q)
    by_hand, toolkit = (p * (p / q).log()).sum(), divergence(p.log(), q.log())
    print(f"q = {q.numpy()}: by hand {by_hand:.3f} nats, toolkit {toolkit:.3f}")

# %% [markdown]
# Now along one text of the dense model. Where are the two models far apart?

# %%
one = divergence_along(
    model, pruned, tokenizer, prompts[:1], new_tokens=40, progress=False
)
print("prompt: ", prompts[0])
for writer, text in one.groupby("written_by"):
    print(f"{writer + ':':8}", tokenizer.decode(text["token"]))

# %%
step = one[one["written_by"] == "dense"]
words = [tokenizer.decode(token).replace("\n", "↵").replace("$", r"\$")
         for token in step["token"]]
_, ax = plt.subplots(figsize=(9.5, 3.2), layout="constrained")
bars = ax.bar(step["position"], step["divergence"], color=PALETTE[0], edgecolor="black")
for bar, agree in zip(bars, step["agree"], strict=True):
    bar.set(hatch="" if agree else "////",
            facecolor=PALETTE[0] if agree else PALETTE[1])
ax.set_xticks(step["position"], words, rotation=90)
ax.set(xlabel="token that the dense model wrote", ylabel="divergence (nats)")
plt.show()
apart = step[~step["agree"]]
print(f"{len(apart)} of {len(step)} bars are hatched: there the pruned model would "
      "have written another token. They hold "
      f"{apart['divergence'].sum() / step['divergence'].sum():.0%} "
      "of the whole divergence.")
print(f"The highest bar, at {words[step['divergence'].argmax()]!r}, is "
      f"{step['divergence'].max() / step['divergence'].median():.1f} times the median; "
      f"the lowest, at {words[step['divergence'].argmin()]!r}, "
      f"is {step['divergence'].min():.2f}.")

# %% [markdown]
# The damage is not spread evenly. At some plain bars both models find the same token likeliest, but give it very different probabilities. Where the text leaves no choice, they agree.
#
# That can mislead us: a text that runs into a **loop** is easy to predict, so the divergence falls, although the pruned model has not become better. So we split the tokens: does a token make a *new* pair with the token before it, or has this pair been in the text already? (32 texts of 48 tokens, stored by `measure/generation.py`.) *Predict:* along the pruned model's own text, does the divergence at new pairs rise?

# %%
along = pd.read_csv(data_folder() / "along.csv")
print(STORED)
plot_divergence_along(along)
plt.show()

# %% [markdown]
# If errors accumulated, the dashed line on the left would rise above the solid one. It doesn't. (The number at a point says how many tokens it stands for.) At new pairs the distance is large from the first token on, before any error could have been made, and it stays about there. At repeated pairs it is small and gets smaller. In the pruned model's own text nearly all pairs are soon repeated, so a mean over *all* tokens falls.
#
# So whose fault is a loop, the writer's or the text's? Each model writes the first half of a text, and each one goes on from there. *Predict:* the pruned model is in a loop, and the **dense** model takes over. Does it get out?

# %%
relay = pd.read_csv(data_folder() / "relay.csv")
print(STORED)
for row in relay[relay["prompt"] == 0].itertuples():
    print(f"{row.first}, then {row.second}: {' '.join(row.text.split())}\n")

# %% [markdown]
# In the third text the dense model repeats the loop once and then gets out. Is that the rule? For all openings: of the word triples of the *second* half, the share that were in the text before.

# %%
keys = ["first", "second"]
loops = relay.pivot(index="prompt", columns=keys, values="repeated_after").dropna()
_, ax = plt.subplots(figsize=(7, 2.4), layout="constrained")
labels = [f"{first}, then {second}" for first, second in loops]
ax.errorbar(loops.mean(), labels, xerr=loops.sem(), fmt="o", capsize=4)
ax.invert_yaxis()
ax.set(xlabel="share of repeated word triples in the second half", xlim=(0, 1))
plt.show()
for pair in [("dense", "pruned"), ("pruned", "dense"), ("pruned", "pruned")]:
    change = loops[pair] - loops["dense", "dense"]
    print(f"{' then '.join(pair)}: {change.mean():+.2f} ± {change.sem():.2f} against "
          "a text that is all dense.")

# %% [markdown]
# Who writes the *second* half hardly matters. After a pruned first half the dense model mostly goes on in the loop. So the *model* stays as far from the dense one as it was; what goes bad is the *text*, and both models continue it. Perplexity and choice don't see this: both give the model a text that somebody else wrote well.
#
# ## 4. Skip layers only while the prompt is read
#
# So writing needs all layers. Does *reading* need them? The published version of the paper has a second method, **ShortGPT-gen**. A chosen layer is skipped while the prompt is read, but its keys and values are still computed, from the state that passes it by, and go into the cache. Tokens that are written pass all layers. `prune_prefill` gives such a model. No parameter is saved; time on the prompt is.

# %%
view = prune_prefill(model, six)
for name, each in {"dense": model, "pruned reading": view, "pruned": pruned}.items():
    print(f"{name + ':':16}", continue_text(each, tokenizer, prompts[2], new_tokens=24))

# %% [markdown]
# `prefill_report` cuts texts into a prompt and its true continuation, and measures the perplexity of the continuation. The first new token is special: it is predicted from the prompt's last token, which was read without the skipped layers. A third way reads that one token with all layers.
#
# *Predict:* how much of the harm of removal is left if only the reading is pruned?

# %% tags=["volatile"]
documents = built_in_text("perplexity")["text"].head(9)
sets = [sorted(order[:n]) for n in (3, 6, 9)]
reading = prefill_report(
    model, tokenizer, sets, documents, prompt_tokens=192, new_tokens=48, progress=False
)
reading[
    ["way", "removed", "perplexity", "first_loss", "later_loss", "read_weights"]
].round(2)

# %% tags=["volatile"]
dense = reading.iloc[0]
_, ax = plt.subplots(figsize=(7, 4), layout="constrained")
for (name, some), marker, colour in zip(
    reading.iloc[1:].groupby("way", sort=False), "os^", PALETTE, strict=False
):
    ax.plot([0, *some["removed"]], [dense["perplexity"], *some["perplexity"]],
            marker=marker, color=colour, markeredgecolor="black", label=name)
ax.set(yscale="log", xlabel="layers skipped or removed",
       ylabel="perplexity of the continuation (log scale)", xticks=[0, 3, 6, 9])
plain_log_ticks(ax)
ax.legend()
plt.show()
at_six = reading[reading["removed"] == 6].set_index("way")
harm = np.log(at_six["perplexity"] / dense["perplexity"])
print("Of the loss that removing six layers adds, skipping them in the prompt alone "
      f"adds {harm['prefill'] / harm['removed']:.0%}, ", end="")
print(f"and {harm['prefill, last token whole'] / harm['removed']:.0%} if the last "
      f"token is spared. First new token: {dense['first_loss']:.2f} nats dense, "
      f"{at_six.loc['prefill', 'first_loss']:.2f} and "
      f"{at_six.loc['prefill, last token whole', 'first_loss']:.2f}.")
print(f"The prompt passes {at_six.loc['prefill', 'read_weights']:.0%} of the layers' "
      f"weights: at most {1 / at_six.loc['prefill', 'read_weights']:.2f} times as fast"
      f"; by the clock {at_six.loc['prefill', 'read_speedup']:.2f} times.")

# %% [markdown]
# The rest of the loss comes through the cache: later layers wrote keys and values from slightly wrong states. Memory and the time of each written token stay as they were. The method is for long prompts and short answers.
#
# ## 5. Let the pruned model draft
#
# Now the other way around: the pruned model writes, and the full one checks. In each **round** the pruned model drafts a few tokens. The full model reads them in *one* pass, keeps all up to the first that it would not have written, and adds one of its own. One round by hand:

# %%
draft = ["the", "cat", "sat", "on"]
choices = ["the", "cat", "lay", "on", "a"]  # the full model's, read in one pass
right = [a == b for a, b in zip(draft, choices[:-1], strict=True)].index(False)
print(f"accepted: {draft[:right]}, then the full model's own: {choices[right]!r}")

# %% [markdown]
# Every token is the full model's choice, so the text can't change. This is *speculative decoding* (Leviathan et al., arXiv 2211.17192). The draft shares its weights with the model, so it needs no memory. Below, each group is one round; its last token is the full model's own.

# %%
run = generate_with_draft(
    model, tokenizer, prompts[0], six, new_tokens=40, draft_tokens=4
)
pieces = np.split(run.ids.numpy(), np.cumsum(run.written)[:-1])
print(" | ".join(tokenizer.decode(piece) for piece in pieces))
alone = continue_text(model, tokenizer, prompts[0], new_tokens=40)
print(f"\nThe same text as without a draft: {run.text == alone}. {len(run.ids)} tokens "
      f"in {run.target_passes} passes of the full model ", end="")
print(f"and {run.draft_passes} of the draft; {run.acceptance:.0%} of the tested tokens "
      "were accepted.")

# %% [markdown]
# Fewer passes of the full model, but the draft's passes aren't free. Let $c$ be the cost of a draft pass (in passes of the full model), $\gamma$ the number of tokens it drafts in a round, and $\alpha$ the probability that a drafted token is accepted. A round costs $1+\gamma c$. It writes one token for certain, a second if the first was accepted, and so on:
#
# $$\text{speed-up} = \frac{1+\alpha+\alpha^2+\dots+\alpha^\gamma}{1+\gamma c} .$$
#
# With $\gamma=1$ this is above 1 exactly if $\alpha > c$. Take a draft at half the cost that is right in 60 of 100 cases:

# %%
for drafted in (1, 4):
    speed_up = speculative_speedup(0.6, drafted, 0.5)
    print(f"α = 0.6, c = 0.5, {drafted} drafted: {speed_up:.2f} times as fast")

# %% [markdown]
# One drafted token pays, four don't: the later ones are rarely reached, but always paid for. *Predict:* with six of thirty layers gone, how large must our $\alpha$ be?

# %%
drafts = [sorted(order[:n]) for n in (1, 3, 6, 12)]
report = speculative_report(
    model, tokenizer, drafts, prompts[:2],
    new_tokens=24, draft_tokens=[1, 4], progress=False,
)
columns = ["draft", "draft_tokens", "tokens_per_pass", "acceptance", "cost",
           "break_even", "predicted", "equal"]  # fmt: skip
report[columns].round(2)

# %% [markdown]
# As a picture: a draft that pays lies above the dashed line.

# %%
one = report[report["draft_tokens"] == 1]
_, ax = plt.subplots(figsize=(6, 4.5), layout="constrained")
ax.plot([0, 1], [0, 1], "k--", label="break-even for one drafted token")
costs = np.linspace(0.01, 1, 60)
ax.plot(costs, [break_even_acceptance(4, c) for c in costs], "k:",
        label="break-even for four")
ax.plot(one["cost"], one["acceptance"], "o", color=PALETTE[0],
        markeredgecolor="black", label="our drafts")
for row in one.itertuples():
    ax.annotate(f"{row.removed}", (row.cost, row.acceptance),
                xytext=(-4, -13), textcoords="offset points")
ax.set(xlabel="cost c of a draft pass", ylabel="acceptance α",
       xlim=(0, 1.03), ylim=(0, 1.03))
ax.legend()
plt.show()
gains = one[one["acceptance"] > one["cost"]]
print(f"Drafts above the dashed line, where drafting pays: {len(gains)} of {len(one)}. "
      f"Same text in all cases: {report['equal'].all()}.")
print(f"The best of them would write {report['predicted'].max():.2f} times as fast as "
      "the model alone.")

# %% [markdown]
# None does. (The numbers say how many layers the draft lacks.) More layers gone makes the draft cheaper, but its acceptance falls faster than its cost.
#
# <details><summary>Going deeper: when would a draft pay?</summary>
#
# When it is *cheap and right*: far to the left in the figure, and high. Even a draft that is always right can't gain more than 1/c. (The formula counts a pass over five tokens like one over one token. That is nearly so on a GPU that writes one text; on a few CPU cores it is not.) Methods that work this way train for it (LayerSkip, arXiv 2404.16710) or choose by acceptance which layers the draft skips (arXiv 2309.08168). <code>speculative_speedup(α, γ, c)</code> is the formula.
#
# *Try it* (10 minutes, medium): repair the draft in closed form with <code>heal(model, [13, 14, 15], batches)</code>, and give the result to <code>speculative_report</code> beside the plain cut. Does repair raise the acceptance? Does it raise it above the cost?
# </details>

# %% [markdown]
# ## Exercises
#
# Try these three functions first in the [exercise notebook](exercises/10_generation.ipynb), where a check tells you what is wrong with yours. Here they are solved.

# %% [markdown]
# ### Exercise 1: How much of a text is repetition?
#
# **Difficulty:** easy · **Minutes:** 10
#
# An *n-gram* is n tokens in a row; one begins at every token that has n − 1 others behind it. Return the share of a text's n-grams that are repeated: the first time an n-gram comes it is new, every further time it is repeated. `tokens` is a list of words or token ids. A text of fewer than n tokens has no n-gram; return 0.0.
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
writers = stored[stored["first"] == stored["second"]]  # one model wrote both halves
writers = writers.dropna(subset=["text"])
lengths = [1, 2, 3, 4, 5]
shares = pd.DataFrame(
    {n: [repeated_share(text.split(), n) for text in writers["text"]] for n in lengths},
    index=writers["first"],
)
means, errors = shares.groupby("first").mean(), shares.groupby("first").sem()
_, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
for name, marker, colour in zip(means.index, "os", PALETTE, strict=False):
    look = {"marker": marker, "color": colour, "capsize": 3, "label": f"{name} model"}
    ax.errorbar(lengths, means.loc[name], errors.loc[name], **look)
ax.set(xlabel="n", ylabel="share of repeated n-grams", xticks=lengths)
ax.set(ylim=(0, 1), title=STORED)
ax.legend()
plt.show()
print("Repeated by the dense and the pruned model:")
for n in lengths:
    dense_share, pruned_share = means[n]["dense"], means[n]["pruned"]
    print(f"n = {n}: {dense_share:.2f} and {pruned_share:.2f} of the n-grams.")

# %% [markdown]
# Single words come again in every text (*the*, *and*), so by them the two models look more alike than they are. When five words in a row come again, the text is in a loop: there the pruned model's share is more than twice the dense model's. Papers report *distinct-n*, one minus this share.

# %% [markdown]
# ### Exercise 2: How many tokens should a draft write?
#
# **Difficulty:** medium · **Minutes:** 15
#
# Section 5 gave the speed-up of a draft,
#
# $$\frac{1+\alpha+\alpha^2+\dots+\alpha^\gamma}{1+\gamma c} .$$
#
# Return the number $\gamma$ of drafted tokens, from 1 to `longest`, with the largest speed-up; and 0 if no speed-up is above 1. `acceptance` is $\alpha$ (between 0 and 1, both possible), `cost` is $c$.
#
# <details><summary>Hint</summary>
# Compute the speed-up for every number of tokens and keep the best. Check where the sum begins and ends.
# </details>

# %% tags=["exercise"]
def best_draft_length(acceptance, cost, longest):
    """The number of drafted tokens with the largest speed-up; 0 if none is above 1."""
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
    best = {
        alpha: best_draft_length(alpha, price, 16)
        for alpha in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
    }
    print(
        f"{n:2} layers removed, c = {price:.2f}: "
        + ", ".join(f"{drafted} at α = {alpha}" for alpha, drafted in best.items())
    )

# %% [markdown]
# Zero means: better not to draft. With three layers removed, even a draft that is right nine times in ten gains nothing; with 24 removed, one that is right every second time still pays. But the more layers go, the less often a draft is right.

# %% [markdown]
# ### Exercise 3: Write with a draft
#
# **Difficulty:** hard · **Minutes:** 30
#
# `model(ids)` takes a list of token ids and returns the logits `[tokens, vocabulary]`; so does `draft(ids)`. Write `new_tokens` tokens after the prompt `ids`, and return them as a list, without the prompt. Work in rounds. In each, the draft writes `drafted` tokens, one by one, each time its likeliest. Then the model reads the text with these tokens in *one* pass. Keep the drafted tokens up to the first that the model would not have written, and put the model's own choice behind them. The last round may write too much: cut it off.
#
# <details><summary>Hint 1</summary>
# The logits at the last token of the text judge the first drafted token; the logits at that one judge the second. So one pass gives the model's choice for every place of the draft and for the place behind it.
# </details>
# <details><summary>Hint 2</summary>
# Count how many drafted tokens are equal to the model's choices at their places, from the first on. If the count is r, the model's own token for this round is its choice number r.
# </details>

# %% tags=["exercise"]
def write_with_draft(model, draft, ids, new_tokens, drafted):
    """The ``new_tokens`` ids that the model writes after ``ids``, helped by a draft."""
    ### BEGIN SOLUTION
    text = list(ids)
    while len(text) < len(ids) + new_tokens:
        guess = []
        for _ in range(drafted):
            guess.append(draft(text + guess)[-1].argmax().item())
        # one choice more than was drafted
        choices = model(text + guess)[len(text) - 1 :].argmax(-1).tolist()
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
written = write_with_draft(
    reader("model", model), reader("draft", shorter), opening, 32, 3
)
alone = continue_text(model, tokenizer, tokenizer.decode(opening), new_tokens=32)
print(tokenizer.decode(written))
print(
    f"\nThe model's own text: {tokenizer.decode(written) == alone}. {len(written)} "
    f"tokens in {passes['model']} passes of the model "
    f"and {passes['draft']} of the draft."
)

# %% [markdown]
# The draft lacks three layers and is often wrong, and yet the text is the model's own: a bad draft only costs time.

# %% [markdown]
# ## What we saw
#
# - In a choice, part of what both answers lose cancels. A choice survives where the rest is small against the margin: in `physical` it was, in `grammar` it wasn't. Perplexity and writing feel the whole loss.
# - A text is the same only if every token is. A fair agreement at each token is next to none after five.
# - The pruned model is off from the first token on, and at new pairs of tokens this does not grow. What goes bad is the *text*: once a loop has begun, the dense model mostly continues it as well.
# - Skipping layers only in the prompt costs a part of what removing them costs, and saves time on the prompt alone.
# - Drafting never changes the text. It pays only if the acceptance is above the cost, and none of our drafts gets there.
#
# *Why do tasks that write suffer more than tasks that choose (question 8)?* Write two sentences from sections 1 to 3, and then compare with [our answer](20_ten_questions.ipynb).
#
# > **Limits.** One small model, always the likeliest token, texts of 24 to 48 tokens. What larger models write in long texts was not measured. ± is one standard error.

# %% [markdown]
# ## Two questions
#
# **1.** A pruned model agrees with the dense one on 95 of 100 tokens. What is the chance that an answer of 60 tokens is word for word the same?
#
# <details><summary>Answer</summary>If agreement were independent from token to token, 0.95 to the power of 60, about 5 in 100. It isn't: if every text has its hard tokens at the beginning, as in section 2, fewer survive. And those that don't survive may still be good.</details>
#
# **2.** Pruned prefill skips nine layers of the prompt. Why does the model need as much memory as before, and why is a written token as slow as before?
#
# <details><summary>Answer</summary>All layers are needed for writing, so all weights stay; and each skipped layer still fills its cache, so the cache is as large as before. Written tokens pass all layers.</details>

# %% [markdown]
# **Check yourself.** Three more questions: press a letter (or reach it with Tab and press Space). In a saved notebook, unfold the line below.

# %%
from shortgpt.course.quiz import quiz

quiz("10")

# %% [markdown]
# Why can deep layers go at all? The paper has an explanation, and the next lesson tests it. · **Next:** [11 · Why deep layers repeat](11_why_layers_repeat.ipynb) · **Previous:** [08 · Beyond transformers](08_beyond_transformers.ipynb)
