"""The twins: small models trained alike, that differ in one thing only (lessons 08 and 11), by the names ``twin-KIND-SEED``.

`measure/train_twins.py` trains them. Those of seed 0 lie in ``data/twins/``; the others are in ``build/twins/`` of who has
trained them. All read the same text with the tokenizer in ``data/twins/tokenizer/``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from shortgpt.checkpoints.gguf import sha256_of
from shortgpt.utils.data import data_folder

VOCABULARY, WINDOW = 2048, 256  # tokens there are, and of a training window
END = 0  # the token that begins every document
DROPOUT = 0.2  # of the layers in every training step of "layer-dropout": LayerDrop (Fan et al., arXiv 1909.11556)

_COMMON = {"vocab_size": VOCABULARY, "hidden_size": 128, "tie_word_embeddings": True, "bos_token_id": END}
_COMMON |= {"eos_token_id": END, "num_hidden_layers": 16}
_LLAMA = {"model_type": "llama", "intermediate_size": 320, "num_attention_heads": 4, "max_position_embeddings": WINDOW}
# Mamba-2 has no FFN: its mixer is wider instead, and reads the text once for all heads (one group)
_MAMBA = {"model_type": "mamba2", "expand": 3, "head_dim": 64, "num_heads": 6, "n_groups": 1, "state_size": 128}
_MAMBA |= {"chunk_size": 64, "pad_token_id": None}
# without rescaling, which would halve states and weights every few layers in eval mode only
_RWKV = {"model_type": "rwkv", "intermediate_size": 416, "context_length": WINDOW, "rescale_every": 0}

KINDS: dict[str, dict[str, Any]] = {
    "pre-norm": _LLAMA,
    "post-norm": _LLAMA | {"model_type": "shortgpt_post_norm"},
    "scaled-norm": _LLAMA,  # trained with 1/sqrt(l) behind the norms of layer l (arXiv 2502.05795), then folded into them
    "layer-dropout": _LLAMA,
    "mamba": _MAMBA,
    "rwkv": _RWKV,
    "shallow": _LLAMA | {"num_hidden_layers": 8},
    "deep": _LLAMA | {"num_hidden_layers": 32},
    "practised": _LLAMA,  # pre-norm of the same seed, trained further on tasks whose answers are known (lesson 10)
}

SHA256: dict[str, str] = {  # of model.safetensors of each twin in data/twins/; `measure/train_twins.py` prints the rows
    "twin-pre-norm-0": "141ed982acf9d29c4054c3f71548ea85b4bb1560250b0cdd1811f898d46313f9",
    "twin-post-norm-0": "47438c9139d15cf54d9a82dcd4726cdeaea5edaaf29c2fe3cd33bf12a1399ea7",
    "twin-mamba-0": "fd9451f768688df121b6f0475ef25d1604345b95563b0d05a65328adca28ea64",
    "twin-scaled-norm-0": "53692d849eefc2917c83873c1e90420244e619c6732d9e02fce763fc51de9a11",
    "twin-rwkv-0": "da7e41c6f42baa18abdd4865925f03cff68776b6015f3647352cdcbaff382255",
}


def twin_config(kind: str, **changes: Any) -> PreTrainedConfig:
    """Configuration of the twins of one of `KINDS`; `changes` are other values for its fields.

    Raises:
        ValueError: there is no such kind.
    """
    if kind not in KINDS:
        raise ValueError(f"there is no kind of twin {kind!r}: take one of {', '.join(KINDS)}")
    if kind == "post-norm":
        from shortgpt.checkpoints import post_norm  # noqa: F401 (transformers learns of it)
    return AutoConfig.for_model(**_COMMON | KINDS[kind] | changes)


def split_name(name: str) -> tuple[str, int]:
    """Kind and seed of the twin `name`, for instance ``("mamba", 0)`` of ``"twin-mamba-0"``.

    Raises:
        FileNotFoundError: no twin is called so.
    """
    kind, _, seed = name.removeprefix("twin-").rpartition("-")
    if kind not in KINDS or not re.fullmatch(r"\d{1,4}", seed):
        raise FileNotFoundError(
            f"there is no twin {name!r}: its name is twin-KIND-SEED, KIND one of {', '.join(KINDS)}"
        )
    return kind, int(seed)


def is_twin(name: str | os.PathLike) -> bool:
    """Whether `name` is meant for a twin; a folder that is called so is ``./twin-…``."""
    return isinstance(name, str) and name.startswith("twin-")


def twin_folder(name: str) -> Path:
    """Folder of the twin `name`: in ``data/twins/``, else in ``build/twins/`` of a checkout.

    Raises:
        FileNotFoundError: no twin is called so, or its files aren't here.
        OSError: its weights in ``data/twins/`` are not those that were committed.
    """
    split_name(name)
    for folder in twin_places():
        weights = folder / name / "model.safetensors"
        if not weights.is_file():
            continue
        if folder == twin_places()[0] and name in SHA256 and sha256_of(weights) != SHA256[name]:
            raise OSError(
                f"{weights} is not the file that was committed (another checksum): run git checkout {weights}"
            )
        return folder / name
    raise FileNotFoundError(
        f"{name} is not on this machine: the twins of seed 0 are in data/twins/ of a git checkout of this project (with "
        f"pip install -e . there), and python measure/train_twins.py {name} trains any of them"
    )


def twin_places() -> tuple[Path, Path]:
    """Where twins lie: the committed ones, and those that `measure/train_twins.py` keeps for itself."""
    return data_folder() / "twins", data_folder().parent / "build" / "twins"


def tokenizer_folder(name: str | os.PathLike, folder: str) -> str:
    """Where the tokenizer of the model `name` in `folder` is: with it, or that of all twins."""
    return str(twin_places()[0] / "tokenizer") if is_twin(name) else folder
