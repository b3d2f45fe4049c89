"""Every paper that lessons, pages and code cite by its arXiv number: the number is the one of that paper."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NUMBER = r"\b(\d{4}\.\d{5})(?:v\d+)?\b"

# number: (family name of the first author, title). "" where we only know the paper at second hand.
CITED = {
    "1503.02531": ("Hinton", "Distilling the Knowledge in a Neural Network"),
    "1706.03762": ("Vaswani", "Attention Is All You Need"),
    "1909.11556": ("Fan", "Reducing Transformer Depth on Demand with Structured Dropout"),
    "2002.04745": ("Xiong", "On Layer Normalization in the Transformer Architecture"),
    "2106.09685": ("Hu", "LoRA: Low-Rank Adaptation of Large Language Models"),
    "2210.17323": ("Frantar", "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers"),
    "2211.17192": ("Leviathan", "Fast Inference from Transformers via Speculative Decoding"),
    "2305.13048": ("Peng", "RWKV: Reinventing RNNs for the Transformer Era"),
    "2305.14314": ("Dettmers", "QLoRA: Efficient Finetuning of Quantized LLMs"),
    "2306.11695": ("Sun", "A Simple and Effective Pruning Approach for Large Language Models"),
    "2309.08168": ("Zhang", "Draft & Verify: Lossless Large Language Model Acceleration via Self-Speculative Decoding"),
    "2309.17453": ("Xiao", "Efficient Streaming Language Models with Attention Sinks"),
    "2312.09299": ("Samragh", "Weight Subcloning: Direct Initialization of Transformers Using Larger Pretrained Ones"),
    "2402.02834": ("Kim", "Shortened LLaMA: Depth Pruning for Large Language Models"),
    "2402.09025": ("Song", "SLEB: Streamlining LLMs through Redundancy Verification and Elimination"),
    "2402.11187": ("Yang", "LaCo: Large Language Model Pruning via Layer Collapse"),
    "2402.17762": ("Sun", "Massive Activations in Large Language Models"),
    "2403.03853": ("Men", "ShortGPT: Layers in Large Language Models are More Redundant Than You Expect"),
    "2403.17887": ("Gromov", "The Unreasonable Ineffectiveness of the Deeper Layers"),
    "2404.16710": ("Elhoushi", "LayerSkip: Enabling Early Exit Inference and Self-Speculative Decoding"),
    "2405.21060": ("Dao", "Transformers are SSMs: Generalized Models Through Structured State Space Duality"),
    "2410.14649": ("Sieberling", "EvoPress: Towards Optimal Dynamic Model Compression via Evolutionary Search"),
    "2502.05795": ("Sun", "The Curse of Depth in Large Language Models"),
    "2505.02819": ("Shopkhoev", "ReplaceMe: Network Simplification via Depth Pruning and Linear Transformation"),
    "2505.24680": ("Chen", "LinearPatch"),
    "2507.18212": ("Chen", "Prune&Comp"),
    "2602.01997": ("", "a study of what comes back when a pruned model is trained"),
    "2602.03295": ("", "POP: prefill-only pruning"),
    "2602.07804": ("", "Pruning as a Cooperative Game"),
    "2605.15491": ("Yun", "Ghosted Layers"),
    "2606.02559": ("Cunegatti", "SubFit"),
}


def texts() -> dict[str, str]:
    """Every file that a reader of the course or of its code may meet, by its path; generated notebooks left out."""
    places = ("shortgpt/**/*.py", "notebooks/**/*.py", "docs/*.md", "data/**/*.md", "measure/*.py", "*.md")
    found = {path for place in places for path in ROOT.glob(place) if ".ipynb_checkpoints" not in path.parts}
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in sorted(found)}


def prose(text: str) -> str:
    """One line, without the marks at the beginning of comment lines."""
    return " ".join(re.sub(r"(?m)^\s*#\s?", "", text).split())


def test_every_number_is_a_paper_that_we_know():
    unknown = {
        (path, number)
        for path, text in texts().items()
        for number in re.findall(rf"(?:arXiv[: ]|arxiv\.org/\w+/){NUMBER}", text)
        if number not in CITED
    }
    assert not unknown, "look the number up, and add it with its author and title"


def test_the_author_beside_a_number_is_the_papers():
    wrong = [
        (path, author, number)
        for path, text in texts().items()
        for author, number in re.findall(rf"(\w+) et al\.,? [^()]{{0,60}}?\(?\[?arXiv[: ]{NUMBER}", prose(text))
        if CITED.get(number, ("",))[0] != author
    ]
    assert not wrong


def test_the_list_has_no_paper_that_nobody_cites():
    everything = "".join(texts().values())
    assert not [number for number in CITED if number not in everything]
