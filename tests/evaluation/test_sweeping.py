"""A sweep removes what its order says, and the cliff is where it is by hand: on made-up curves and on published ones."""

import numpy as np
import pandas as pd
import pytest
from small import LAYERS

from shortgpt import cliff, removal_sweep
from shortgpt.utils.data import data_folder


def curve(*values, removed=None):
    return pd.DataFrame({"removed": range(len(values)) if removed is None else removed, "value": values})


def test_a_sweep_removes_the_first_of_an_order(tiny):
    sweep = removal_sweep(tiny, [4, 1, 0], lambda m: float(len(m.model.layers)), [0, 2, 3], progress=False)
    assert sweep.to_dict("list") == {"removed": [0, 2, 3], "layers": [6, 4, 3], "value": [6.0, 4.0, 3.0]}


def test_without_counts_it_goes_to_half_of_the_layers_or_the_end_of_the_order(tiny):
    whole = removal_sweep(tiny, range(LAYERS), lambda m: 1.0, progress=False)
    assert whole["removed"].tolist() == [*range(LAYERS // 2 + 1)]
    assert removal_sweep(tiny, [3, 1], lambda m: 1.0, progress=False)["removed"].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("values", "last"),
    [
        ((10, 11, 12, 13, 600, 900), 3),  # a cliff
        ((10, 300, 310, 320), 0),  # the first layer is one too many
        ((10, 15, 22, 33, 50, 75), None),  # steady, × 1.5 each: it hurts all along
        ((10, 15, 37, 92, 230), None),  # steep: bad, but no step is another kind of step than the one before
        (
            (10, 25, 62, 155, 390),
            0,
        ),  # as steep from the first on: nothing says that it is all alike but what comes later
        ((10, 10.01, 10.02, 10.5, 11), None),  # many times the step before, and harmless
        ((10, 9, 8.5, 30), 2),  # removal may help at first
        ((20, 20), None),
    ],
)
def test_the_cliff_by_hand(values, last):
    assert cliff(curve(*values)) == last
    assert cliff(curve(*values).sample(frac=1, random_state=0)) == last  # the order of rows says nothing


def test_a_cliff_does_not_depend_on_the_unit_of_text_that_scales_all_losses_alike():
    base = np.array([10, 11, 12, 13, 600, 900.0])
    assert cliff(curve(*base * 1.7)) == cliff(curve(*base)) == 3


def test_steps_of_several_layers_count_as_their_mean():
    assert cliff(curve(10, 30, removed=[0, 4])) is None  # × 1.3 a layer
    assert cliff(curve(10, 30, 3000, removed=[0, 4, 8])) == 4  # × 3.2 a layer
    assert cliff(curve(10, 30, 300), factor=20) is None and cliff(curve(10, 30, 300), factor=2) == 0
    assert cliff(curve(10, 15, 36), times=1) == 1 and cliff(curve(10, 15, 36), times=3) is None


def test_published_curves():
    """EvoPress (perplexity at 0, 4, 8 and 12 of 32 layers), and LinearPatch's value at 7, which shares its dense one."""
    table = pd.read_csv(data_folder() / "paper" / "evopress.csv")
    table = table[table["method"].isin(["Dense", "ShortGPT"])].assign(removed=lambda t: t["sparsity"] * 0.32)
    found = {name: cliff(group.rename(columns={"ppl": "value"})) for name, group in table.groupby("model")}
    assert found == {"Llama-2-7B": None, "Llama-3-8B": 4, "Llama-3.1-8B": 4, "Mistral-7B-v0.3": 8}
    others = pd.read_csv(data_folder() / "paper" / "replications_other.csv")
    row = others[others["removed"].eq("layers 22-28 (7 of 32)") & others["quantity"].eq("WikiText2 perplexity")]
    llama = table[table["model"] == "Llama-3-8B"].rename(columns={"ppl": "value"})[["removed", "value"]]
    finer = pd.concat([llama, pd.DataFrame({"removed": [7.0], "value": [row["value"].item()]})])
    assert cliff(finer) == 7  # 57.8, and 5,527 with one layer more
