"""What runs say, in a sentence."""

import numpy as np
import pandas as pd

from skal.analysis import holm_adjust, mean_interval, paired_t_test
from skal.report.provenance import BASELINE

_LEVEL, _FEW = 0.05, 5
SIDES = {1: "▲ ahead", -1: "▼ behind", 0: "open"}


def standings(areas):
    """Compare the area of each strategy with random's, paired by seed.

    Parameters
    ----------
    areas : pandas.DataFrame of shape (n_seeds, n_strategies)
        Areas under the curve.

    Returns
    -------
    standings : pandas.DataFrame
        A line for each strategy but random, the largest area first: gain, half : mean
        difference and half of its 95 % t interval; n_pairs; p : Student's t test,
        corrected for the number of strategies as Holm does, NaN with fewer than two
        pairs; side : 1 ahead of random, -1 behind, with p < 0.05, else 0.
    """
    found = {}
    for name in areas.mean().sort_values(ascending=False, kind="stable").index:
        gaps = (areas[name] - areas.get(BASELINE, np.nan)).dropna().to_numpy()
        gain, half = mean_interval(gaps) if len(gaps) else (np.nan, np.nan)
        p = float(paired_t_test(gaps)) if len(gaps) > 1 else np.nan
        found[name] = float(gain), float(half), len(gaps), p
    columns = ["gain", "half", "n_pairs", "p"]
    table = pd.DataFrame.from_dict(found, orient="index", columns=columns)
    table = table.drop(index=BASELINE, errors="ignore")
    tested = table["p"].notna()
    table.loc[tested, "p"] = holm_adjust(table.loc[tested, "p"])
    side = np.sign(table["gain"]).where(table["p"] < _LEVEL, 0)
    return table.assign(side=side.astype(int))


def verdict(table, saved, target):
    """Say in a sentence which strategies are better than random, and how sure that is.

    Parameters
    ----------
    table : pandas.DataFrame
        As `standings` gives it.
    saved : pandas.Series
        By strategy, the share of labels saved over random to reach `target`.
    target : float
        Random's mean accuracy at the end.

    Returns
    -------
    sentence : str
    """
    compared = table[table["n_pairs"] > 0]
    if compared.empty:
        return "There is nothing to compare: no seed has both random and another one."
    best = compared.index[0]
    if compared["p"].isna().all():
        return (
            f"One seed says nothing about chance: {best} was "
            f"{compared['gain'].iloc[0]:+.3f} from random in mean accuracy over the "
            "curve."
        )
    ahead, behind, unclear = (list(table.index[table["side"] == k]) for k in (1, -1, 0))
    said = []
    if ahead:
        said.append(_lead(ahead[0], table, saved, target))
        if ahead[1:]:
            verb = "are" if ahead[2:] else "is"
            said.append(f"{_list(ahead[1:])} {verb} ahead of random, too")
    else:
        gain, p = table.loc[best, ["gain", "p"]]
        said.append(
            f"no strategy is ahead of random beyond chance; the best, {best}, is at "
            f"{gain:+.3f} in mean accuracy over the curve, p = {p:.2f}"
        )
    if behind:
        said.append(f"{_list(behind)} {'are' if behind[1:] else 'is'} behind random")
    if unclear and ahead + behind:
        said.append(f"{_list(unclear)} cannot be told from random")
    counts = sorted({int(n) for n in compared["n_pairs"]})
    seeds = f"{counts[0]} to {counts[-1]}" if counts[1:] else f"{counts[0]}"
    seeds += f" seed{'s' * (counts[-1] > 1)}" + ", few" * (counts[0] < _FEW)
    text = "; ".join(said) + f" ({seeds})."
    return text if ahead else text[0].upper() + text[1:]


def _lead(name, table, saved, target):
    share, (gain, half) = saved[name], table.loc[name, ["gain", "half"]]
    if np.isfinite(share) and round(100 * share) > 0:
        share = f"{100 * share:.0f} %"
        return f"{name} needs {share} fewer labels than random to reach {target:.3f}"
    return (
        f"{name} is ahead of random by {gain:.3f} ± {half:.3f} in mean accuracy over "
        "the curve"
    )


def _list(names, most=4):
    if len(names) > most + 1:
        names = [*names[:most], f"{len(names) - most} more"]
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last
