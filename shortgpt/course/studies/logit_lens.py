"""One token on its way through the layers: how far each layer turns its state, and what the model would say at each depth.

The *logit lens* (nostalgebraist, 2020) reads a hidden state as if the model ended there: final norm and output head, and
the softmax of that. Here the model's own forward does it. Its last layer is made to return the state of the depth asked
for, and all others do nothing (`stand_ins`), so whatever an architecture does behind its last layer is in it.
"""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from shortgpt.choosing.cached_prefix import Output, stand_ins
from shortgpt.model.anatomy import decoder_layers
from shortgpt.model.arguments import check_ids, check_model, check_tokenizer, within_positions
from shortgpt.model.hooks import by_token, eval_mode, hooked, layer_input, layer_output, require_numbers
from shortgpt.model.offload import input_device
from shortgpt.model.tokens import prompt_tokens
from shortgpt.model.view import share_weights
from shortgpt.scoring.influence import block_influence
from shortgpt.utils.arguments import check_count, check_string

MOST_TOKENS = 64  # a state of every token at every depth goes through the head: longer texts take minutes


@torch.inference_mode()
def token_paths(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str, *, top: int = 3) -> pd.DataFrame:
    """Follow every token of `text` through all depths, with one forward pass.

    >>> paths = token_paths(model, tokenizer, "The capital of France is the city of")
    >>> paths[paths["position"] == 7]

    Args:
        text: of 64 tokens at most; the begin token, if the tokenizer puts one in front, is one of them.
        top: how many predictions to keep at each depth.

    Returns:
        One row for each token and depth: ``position`` (0-based) and ``token`` (as text); ``depth``, the number of layers
        passed, 0 to L; ``moved``, 1 minus the cosine of the state before and after the layer passed last (layer
        ``depth - 1``; NaN at depth 0): 0 if it leaves the direction as it is; ``words`` and ``probabilities``, lists of
        the `top` likeliest next tokens as the logit lens reads this state; ``final``, the probability that it gives to
        the token which the whole model finds likeliest. At depth L the lens is the model itself.

        The lens shows what is *readable* at a depth. States there were never trained to be read by the final head.

    Raises:
        TypeError, ValueError: a wrong argument, no token, too many, or logits with NaN.
    """
    check_model(model)
    check_tokenizer(tokenizer)
    check_string("text", text)
    check_count("top", top)
    batch = prompt_tokens(tokenizer, text)
    ids = batch["input_ids"]  # [1, tokens]
    if ids.shape[1] > MOST_TOKENS:
        raise ValueError(f"the text has {ids.shape[1]} tokens, and {MOST_TOKENS} are the most: take a shorter one")
    check_ids(model, ids)
    before, after, view = layer_outputs(model, ids)
    states = [before[0], *map(layer_output, after)]  # by depth, [1, tokens, hidden] each
    mask = batch["attention_mask"]
    pairs = zip(before, states[1:], strict=True)
    moved = [[float("nan")] * ids.shape[1], *(_turns(x_in, x_out, mask) for x_in, x_out in pairs)]
    tokens = [readable(tokenizer, i) for i in ids[0].tolist()]
    answer = read_out(view, ids, after, states[-1]).argmax(-1, keepdim=True)  # [tokens, 1]
    tables = []
    for depth, state in enumerate(states):
        probabilities = read_out(
            view, ids, after, state
        )  # [tokens, vocabulary]; all depths at once would be much memory
        best = probabilities.topk(min(top, probabilities.shape[-1]), dim=-1)
        words = [[readable(tokenizer, i) for i in row] for row in best.indices.tolist()]
        final = probabilities.gather(-1, answer)[:, 0].double().numpy()
        rows = {"position": range(len(tokens)), "token": tokens, "depth": depth, "moved": moved[depth], "words": words}
        tables.append(pd.DataFrame(rows | {"probabilities": best.values.tolist(), "final": final}))
    return pd.concat(tables).sort_values(["position", "depth"], ignore_index=True)


def readable(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    """A token as text that can be seen: line breaks as ``\\n``, the space before a word left out, ``␣`` for spaces only."""
    return repr(tokenizer.decode([token]))[1:-1].strip() or "␣"


def layer_outputs(model: PreTrainedModel, ids: Tensor) -> tuple[list[Tensor], list[Output], PreTrainedModel]:
    """Of one pass: each layer's input state and whole output, and the view of the model that ran."""
    view = share_weights(model).eval()
    before: list[Tensor] = []
    after: list[Output] = []

    def keep(_: int, layer: nn.Module, args: tuple, kwargs: dict, output: Output) -> None:
        before.append(layer_input(args, kwargs).clone())
        after.append(output.clone() if isinstance(output, Tensor) else (output[0].clone(), *output[1:]))

    with hooked(decoder_layers(view), keep):
        _logits(view, ids)
    return before, after, view


def _turns(x_in: Tensor, x_out: Tensor, mask: Tensor) -> list[float]:
    """1 minus the cosine of the state before and after a layer, by token."""
    return block_influence(by_token(x_in, mask), by_token(x_out, mask))[0].tolist()


def read_out(view: PreTrainedModel, ids: Tensor, after: list[Output], state: Tensor) -> Tensor:
    """Probabilities ``[tokens, vocabulary]`` of the next token if the last layer returned `state`; float32, on the CPU."""
    widths = [0 if isinstance(output, Tensor) else len(output) for output in after]
    end = state if isinstance(after[-1], Tensor) else (state, *after[-1][1:])
    with stand_ins(decoder_layers(view), widths, (), [*after[:-1], end]):
        logits = _logits(view, ids)
    require_numbers(view, logits)
    return logits.float().softmax(-1).cpu()


def _logits(view: PreTrainedModel, ids: Tensor) -> Tensor:
    with eval_mode(view), within_positions(view, ids.shape[1]):
        return view(input_ids=ids.to(input_device(view)), use_cache=False).logits[0]
