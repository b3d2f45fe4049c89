"""Scores stay on the device of their layer until a batch is done: a GPU that is asked once a layer waits once a layer."""

from contextlib import contextmanager

import pytest
import torch
from small import LAYERS, build_tiny, random_batch

from shortgpt.model import hooks
from shortgpt.model.hooks import watch_layers
from shortgpt.scoring import influence


@pytest.mark.parametrize("metric", influence.METRICS)
def test_all_layers_have_run_when_the_first_number_leaves_the_device(monkeypatch, metric):
    """The device is torch's meta, which has shapes and no numbers: whoever reads or copies one there gets an error."""
    batch, reported = random_batch(), []
    with torch.device("meta"):
        model = build_tiny()
    model.set_attn_implementation("eager")  # for the others transformers reads the mask, once a pass
    monkeypatch.setattr(hooks, "input_device", lambda model: torch.device("meta"))

    @contextmanager
    def watch(model, report):
        def note(layer, x_in, x_out):
            assert x_out.device.type == "meta"
            report(layer, x_in, x_out)
            reported.append(layer)

        with watch_layers(model, note) as count:
            yield count

    with pytest.raises(NotImplementedError, match="meta tensor"):
        influence._score_batch(model, batch, metric, watch)
    assert reported == list(range(LAYERS))
