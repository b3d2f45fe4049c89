"""What `shortgpt prune` will need, from shapes alone, and the way that fits: in memory, or with the layers left on disk."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from shortgpt.cli.options import Calibration, Loading, require_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from shortgpt.cli.wish import Wish

# whose logits are there at once, in float32 and as probabilities, while the cost of a cut is measured
COST_TOKENS = 512


class Needs(NamedTuple):
    """Bytes at the peak, by what takes them."""

    weights: int
    layer: int
    states: int
    repair: int

    def of(self, *, on_disk: bool, rest: int) -> Needs:
        """The same if only `rest`, what is no layer, is kept in memory."""
        return self._replace(weights=rest) if on_disk else self


def fitting_way(
    name: str, loading: Loading, wish: Wish, calibration: Calibration, *, built: bool, on_disk: bool, hints: bool
) -> tuple[Loading, bool]:
    """How to load the model `name`, and whether its layers stay on disk; say what that needs.

    Where `built` is false, no weights are loaded. Whoever said where weights go (--device-map, --max-memory) is obeyed.

    Raises:
        ValueError: it does not fit, or --on-disk was asked for what can't be done on disk.
    """
    why_not = "" if not on_disk and not built else _why_not_on_disk(name, wish, loading)
    if on_disk and why_not:
        raise ValueError(f"{name}: {why_not}: leave --on-disk out")
    if not built or name.endswith(".gguf") or loading.device_map or loading.max_memory:
        return loading, on_disk
    from shortgpt.checkpoints.facts import empty_model
    from shortgpt.checkpoints.loading import best_device
    from shortgpt.model.offload import layers_on_disk

    require_device(loading.device)
    device = best_device() if loading.device == "auto" else loading.device
    model = empty_model(name, **loading.source)
    if getattr(model.config, "quantization_config", None):
        if on_disk:
            raise ValueError(f"{name} is quantized, and such layers can't be read one by one: leave --on-disk out")
        return loading, False
    needs, rest = _needs(model, _bytes_a_weight(name, model, loading, device), wish, calibration)
    main, card = free_bytes(device)
    for way in (True,) if on_disk else (False, True):
        of_way = needs.of(on_disk=way, rest=rest)
        fits = sum(of_way) <= main if card is None else sum(of_way) - needs.repair <= card and needs.repair <= main
        if fits and not (way and why_not):
            if hints:
                parts = ", ".join(f"{part} {size / 1e9:.1f}" for part, size in of_way._asdict().items())
                where = "layers are read from the disk" if way else "in memory"
                print(
                    f"needs about {_gb(sum(of_way))} ({parts}; {_gb(card or main)} free): {where}",
                    file=sys.stderr,
                    flush=True,
                )
            return (replace(loading, device_map=layers_on_disk(model, device)), True) if way else (loading, False)
    other = why_not or f"and {_gb(sum(needs.of(on_disk=True, rest=rest)))} with its layers on disk"
    free = f"{_gb(main)} of memory" + (f" and {_gb(card)} on {device}" if card is not None else "")
    raise ValueError(
        f"{name} needs about {_gb(sum(needs))} here, {other}, and there are {free} free: take fewer --samples, a smaller "
        "--dtype or a larger machine"
    )


def free_bytes(device: str) -> tuple[int, int | None]:
    """Main memory that is free, and that of the card, if `device` is one."""
    import psutil
    import torch

    card = torch.cuda.mem_get_info(device)[0] if device.startswith("cuda") else None
    return psutil.virtual_memory().available, card


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def _needs(model: PreTrainedModel, each: int, wish: Wish, calibration: Calibration) -> tuple[Needs, int]:
    """With weights of `each` bytes; and the bytes of what is no layer."""
    from shortgpt.model.anatomy import decoder_layers, parameter_count, text_config
    from shortgpt.repair.equations import fit_bytes

    stack, config = decoder_layers(model), text_config(model.config)
    layers = [parameter_count(layer) * each for layer in stack]
    total, hidden = parameter_count(model) * each, config.hidden_size
    widest = max((p.numel() // hidden for p in stack[0].parameters() if p.ndim == 2), default=hidden)
    states = (
        min(calibration.batch_size, calibration.samples or 1 << 20) * calibration.length * (4 * hidden + 3 * widest)
    )
    states = states * each + COST_TOKENS * config.vocab_size * 8
    repair = 0
    if wish.repair:
        tokens = sum(map(len, calibration.documents("calibration"))) // 3
        tokens = min(tokens, (calibration.samples or tokens) * calibration.length)
        sites = len(stack) if wish.repair == "all" else wish.number_of(len(stack))
        states += tokens * hidden * each * (sites + 3)  # goals, and what goes through a layer
        inputs = hidden + 1 if wish.repair == "linear" else widest
        repair = fit_bytes(inputs, hidden) + sites * inputs * hidden * each
    return Needs(total, max(layers), states, repair), total - sum(layers)


def _bytes_a_weight(name: str, model: PreTrainedModel, loading: Loading, device: str) -> int:
    """As `shortgpt.load` chooses the dtype."""
    import torch

    from shortgpt.checkpoints.packaged import PACKAGED

    own = str(model.config.get_text_config().dtype or "float32").removeprefix("torch.")
    kept = PACKAGED[name].dtype if name in PACKAGED else "float32" if device == "cpu" else own
    return getattr(torch, kept if loading.dtype == "auto" else loading.dtype).itemsize


def _why_not_on_disk(name: str, wish: Wish, loading: Loading) -> str:
    """Why layers can't be left on disk, if they can't."""
    from shortgpt.checkpoints.facts import model_folder
    from shortgpt.checkpoints.own_format import is_own_format

    if name.endswith(".gguf"):
        return "a GGUF file is unpacked in memory"
    if is_own_format(model_folder(name, accept_terms=loading.accept_terms)):
        return "it is saved in shortgpt's own format, which is read as a whole"
    if wish.sublayers or wish.repair == "linear":
        return "the result is in shortgpt's own format, which is written from memory"
    return ""
