"""What the package computes, computed in another way: slow, in float64, with plain hooks."""

import copy

import numpy as np
import torch

from shortgpt import decoder_layers


def reference_scores(model, batches) -> np.ndarray:
    """Block Influence in float64, from plain hooks on the model's own layers, one token at a time."""
    model = copy.deepcopy(model).double()
    decoder = model.get_decoder()
    layers = decoder.layers if hasattr(decoder, "layers") else decoder.h
    cosines = [[] for _ in layers]

    def record(layer, kind):
        def hook(module, args, output=None):
            seen[layer, kind] = args[0] if output is None else output[0] if isinstance(output, tuple) else output

        return hook

    seen = {}
    for i, layer in enumerate(layers):
        layer.register_forward_pre_hook(record(i, "in"))
        layer.register_forward_hook(record(i, "out"))
    for batch in batches:
        with torch.no_grad():
            model(**batch)
        for row, column in batch["attention_mask"].nonzero().tolist():
            for i in range(len(layers)):
                x, y = seen[i, "in"][row, column].numpy(), seen[i, "out"][row, column].numpy()
                cosines[i].append(x @ y / np.sqrt((x @ x) * (y @ y)))
    return np.array([1 - np.mean(c) for c in cosines])


def logits(model, batch):
    with torch.no_grad():
        return model(**batch).logits


def identity_logits(model, batch, removed):
    """The dense model with `removed` layers forced to hand on their input."""

    def skip(module, args, output):
        return (args[0], *output[1:]) if isinstance(output, tuple) else args[0]

    handles = [decoder_layers(model)[i].register_forward_hook(skip) for i in removed]
    out = logits(model, batch)
    for handle in handles:
        handle.remove()
    return out
