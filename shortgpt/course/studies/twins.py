"""Small models trained alike, that differ in one thing: how well can each kind do without some of its layers?

Reads what `measure/twins.py` and `measure/twin_steps.py` stored in `data/twins/`. A kind was trained from several seeds;
errors are standard errors over seeds, and `n` says how many there are. The seed also decides the order of the text, which is
the same for all kinds: so kinds are compared seed by seed (`difference`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd

from shortgpt.checkpoints.twins import KINDS
from shortgpt.utils.data import data_folder


def twin_layers() -> pd.DataFrame:
    """A row a twin and layer.

    ``name, kind, seed, layer, depth``; ``block_influence, relative_magnitude``; the columns of `state_growth`; ``loss``
    without that layer, and ``added``, the loss above the whole twin's (nats a token). Of the last layer also
    ``added_attention, added_ffn``: without that branch alone (empty where a layer doesn't simply add the two).
    """
    table = _stored("layers")
    table["depth"] = table.groupby("name")["layer"].transform("max") + 1
    for column in ("", "_attention", "_ffn"):
        table[f"added{column}"] = table[f"loss{column}"] - table["dense_loss"]
    return table


def twin_removal(*, criterion: str | None = None, repaired: bool | None = None) -> pd.DataFrame:
    """A row a twin, criterion, number of layers, and whether it was repaired: of random sets the mean over five.

    Args:
        criterion: only what this one chose (``"block_influence"``, ``"relative_magnitude"``, ``"reverse"``, ``"greedy"``,
            ``"random"``). repaired: only repaired sets, or only cut ones.

    Returns:
        ``name, kind, seed, criterion, removed, repaired, depth, share`` (removed of depth), ``layers`` (a list; of random
        sets the first), ``loss`` and ``added`` (nats a token, above the whole twin), ``addition, brackets, agreement``
        (percent of the answers' tokens that are right) and ``addition_whole, brackets_whole`` (of whole answers). With no
        layer removed there is a row for each criterion, with and without repair.
    """
    table = _stored("removal")
    values = ["loss", *(name for name in table if name.split("_")[0] in ("addition", "brackets", "agreement"))]
    keys = ["name", "kind", "seed", "depth", "criterion", "removed", "repaired"]
    table = table.groupby(keys, sort=False).agg({"layers": "first", **dict.fromkeys(values, "mean")}).reset_index()
    dense = table[table["criterion"] == "dense"].drop(columns=["criterion", "repaired"])
    rest = table[table["criterion"] != "dense"]
    ways = rest[["name", "criterion", "repaired"]].drop_duplicates()
    table = pd.concat([dense.merge(ways, on="name"), rest], ignore_index=True)
    table["added"] = table["loss"] - table["name"].map(dense.set_index("name")["loss"])
    table = table.assign(share=table["removed"] / table["depth"], layers=table["layers"].map(json.loads))
    for column, wanted in {"criterion": criterion, "repaired": repaired}.items():
        table = table if wanted is None else table[table[column] == wanted]
    order = ["kind", "seed", "criterion", "repaired", "removed"]
    return table.sort_values(order, key=_place, kind="stable", ignore_index=True)


def over_seeds(table: pd.DataFrame, value: str, by: Sequence[str] = ("kind",)) -> pd.DataFrame:
    """Mean of `value` over seeds: a row for each combination of the columns `by`, then ``mean, error, n``.

    ``error`` is the standard error over seeds: empty for one seed. Several rows of a seed become their mean first.
    """
    by = list(by)
    per_seed = table.dropna(subset=[value]).groupby([*by, "seed"], sort=False)[value].mean()
    groups = per_seed.groupby(by, sort=False)
    return pd.DataFrame({"mean": groups.mean(), "error": groups.sem(), "n": groups.size()}).reset_index()


def difference(table: pd.DataFrame, value: str, other: str = "pre-norm", by: Sequence[str] = ("kind",)) -> pd.DataFrame:
    """As `over_seeds`, of each kind's `value` minus that of the kind `other` with the same seed: what seeds share is gone."""
    rest = [column for column in by if column != "kind"]
    mean = table.groupby([*by, "seed"], sort=False)[value].mean().reset_index()
    base = mean[mean["kind"] == other].drop(columns="kind").rename(columns={value: "base"})
    if base.empty:
        raise ValueError(f"no twin of the kind {other!r} was measured: take one of {', '.join(mean['kind'].unique())}")
    both = mean[mean["kind"] != other].merge(base, on=[*rest, "seed"])
    return over_seeds(both.assign(difference=both[value] - both["base"]), "difference", by)


def prunability(share: float = 0.25, criterion: str = "block_influence", value: str = "added") -> pd.DataFrame:
    """How well can each way of training do without this share of the layers? The central table.

    Args:
        value: a column of `twin_removal`: ``"added"`` (nats a token), ``"addition"`` (percent) and so on.

    Returns:
        A row a kind, the best first: ``kind, removed, depth``; ``dense`` (loss of the whole twin), ``cut`` and ``repaired``
        (`value` without those layers, as they are and repaired), each with ``…_error`` over seeds; ``n``, the seeds. Where
        layer 0 goes there is no repair, for nothing comes before the gap: a kind of which that is so in all seeds has NaN.
    """
    table = twin_removal(criterion=criterion)
    table = table[np.isclose(table["share"], share)]
    if table.empty:
        raise ValueError(f"no twin was measured with a share of {share} of its layers removed by {criterion!r}")
    whole = over_seeds(_stored("removal").query("criterion == 'dense'"), "loss").set_index("kind")
    parts = {"dense": whole}
    for name, repaired in (("cut", False), ("repaired", True)):
        parts[name] = over_seeds(table[table["repaired"] == repaired], value).set_index("kind")
    found = table.groupby("kind", sort=False)[["removed", "depth"]].first()
    for name, part in parts.items():
        found[name], found[f"{name}_error"] = part["mean"], part["error"]
    worst_first = value not in ("added", "loss")
    found = found.assign(n=parts["cut"]["n"]).reset_index()
    return found.sort_values("cut", ascending=not worst_first, ignore_index=True)


def disagreements(name: str, most: int | None = None) -> pd.DataFrame:
    """Numbers of layers at which Block Influence and relative magnitude choose different layers of the twin `name`.

    Returns:
        ``removed``; ``only_block_influence, only_relative_magnitude``: the layers that only one of them removes; and what
        the twin loses without each one's choice, ``added_block_influence, added_relative_magnitude``.
    """
    table = twin_removal(repaired=False).query("name == @name and removed > 0")
    ways = ("block_influence", "relative_magnitude")
    pair = [table[table["criterion"] == way].set_index("removed") for way in ways]
    rows = []
    for removed in sorted(set(pair[0].index) & set(pair[1].index)):
        first, second = (set(each.at[removed, "layers"]) for each in pair)
        if first != second and (most is None or removed <= most):
            rows.append(
                {"removed": removed, "only_block_influence": sorted(first - second)}
                | {"only_relative_magnitude": sorted(second - first)}
                | {"added_block_influence": pair[0].at[removed, "added"]}
                | {"added_relative_magnitude": pair[1].at[removed, "added"]}
            )
    columns = ["removed", *(f"only_{way}" for way in ways), *(f"added_{way}" for way in ways)]
    return pd.DataFrame(rows, columns=columns)


def twin_steps(table: str = "steps") -> pd.DataFrame:
    """Which step of an answer fails, as `measure/twin_steps.py` stored it; all have ``name, kind, seed, criterion, removed``.

    Args:
        table: ``"steps"``: ``task, step, size, repaired, right`` (share), ``lost_carry`` (share of the tokens that would be
            right if a carry had been forgotten), ``n``. ``"restored"``: the table of `restored`. ``"lens"``: of `readable`.
    """
    return _stored("steps" if table == "steps" else f"steps_{table}")


def _stored(part: str) -> pd.DataFrame:
    table = pd.read_csv(data_folder() / "twins" / f"{part}.csv")
    return table.sort_values(["kind", "seed"], key=_place, kind="stable", ignore_index=True)


def _place(column: pd.Series) -> pd.Series:
    """Kinds in the order of `KINDS`, everything else in its own."""
    if column.name != "kind":
        return column
    return column.map({kind: place for place, kind in enumerate(KINDS)}).fillna(len(KINDS))
