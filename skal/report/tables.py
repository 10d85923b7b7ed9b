"""What runs say, in tables: the numbers of a page."""

import numpy as np
import pandas as pd

from skal.analysis import (
    areas_by_seed,
    class_balance,
    label_quartiles,
    labels_saved,
    labels_to_target,
    learning_curves,
    mean_curve,
    mean_interval,
    overlap,
    penalties,
    penalty_matrix,
    rank_strategies,
)
from skal.report.curves import draw_panels, fill
from skal.report.provenance import BASELINE
from skal.report.verdict import SIDES, standings, verdict


def rounds_of(cells):
    """Make a table of runs.

    Parameters
    ----------
    cells : list of Cell

    Returns
    -------
    rounds : pandas.DataFrame
        A line for each round of each run: what rounds.jsonl says, the options of sizes
        and the class balance of all labels so far.
    """
    lines = []
    for cell in cells:
        sizes = {key: vars(cell.config)[key] for key in ("n_initial", "batch_size")}
        counts = [record["acquired_class_counts"] for record in cell.records]
        balances = class_balance(np.cumsum(counts, axis=0)) if counts else []
        for record, balance in zip(cell.records, balances, strict=True):
            lines.append({**record, **sizes, "class balance": balance})
    return pd.DataFrame(lines)


def numbers(cells, order, full_data=()):
    """Compare the strategies of one data set, network and sizes.

    Parameters
    ----------
    cells : list of Cell
        That have ended.
    order : list of str
        Strategies, in which they are drawn.
    full_data : list of Cell, default=()
        Runs that bought all labels at once.

    Returns
    -------
    numbers : dict
        As the page asks for them.
    """
    rounds = rounds_of(cells)
    curves = learning_curves(rounds)
    areas = areas_by_seed(curves)
    said, sides, scores, costs = _summaries(rounds, curves, areas)
    last = rounds_of(full_data)
    found = {
        "verdict": said,
        "sides": sides,
        "names": list(scores.index),
        "lead": [BASELINE, *scores.index.drop(BASELINE, errors="ignore")[:1]],
        "panels": draw_panels(
            rounds, order, last["accuracy"].mean() if full_data else None
        ),
        "full": None,
        "scores": scores,
        "spread": None,
        "costs": costs,
        "fewest": areas.count().min(),
        "penalties": None,
        "overlap": None,
    }
    if full_data:
        n_labeled = last["n_labeled"].iloc[0]
        found["full"] = {"n_labeled": n_labeled, "score": _interval(last["accuracy"])}
    if BASELINE in areas and areas[BASELINE].count() > 1:
        found["spread"] = f"{areas[BASELINE].std():.3f}"
    if len(areas.columns) > 1:
        found |= {"ranks": _ranks(areas), "overlap": _overlap(cells)}
        if len(curves.dropna()):
            wins, checkpoints, _ = penalty_matrix(curves)
            found["penalties"] = {**_penalties(wins), "checkpoints": checkpoints}
    return found


def best_first(groups):
    """Order strategies by their mean area under the curve, highest first.

    Parameters
    ----------
    groups : iterable of list of Cell

    Returns
    -------
    names : list of str
    """
    areas = [areas_by_seed(learning_curves(rounds_of(g))).mean() for g in groups if g]
    if not areas:
        return []
    means = pd.concat(areas, axis=1).mean(axis=1)
    return means.sort_values(ascending=False, kind="stable").index.to_list()


def all_together(groups):
    """Compare the strategies over several data sets, networks or sizes.

    Parameters
    ----------
    groups : dict of str to list of Cell
        By title, the runs that have ended.

    Returns
    -------
    numbers : dict
        None where there are not several, or they share fewer than two strategies.
    """
    curves = {
        title: learning_curves(rounds_of(cells))
        for title, cells in groups.items()
        if cells
    }
    curves = {title: each for title, each in curves.items() if len(each.dropna())}
    names = [list(each.columns.unique("strategy")) for each in curves.values()]
    shared = [name for name in (names or [[]])[0] if all(name in n for n in names)]
    if len(curves) < 2 or len(shared) < 2:
        return None
    mine = {title: each[shared].dropna(how="all") for title, each in curves.items()}
    wins = sum(penalty_matrix(each).wins.loc[shared, shared] for each in mine.values())
    areas = pd.concat({title: areas_by_seed(each) for title, each in mine.items()})
    ranks = _ranks(areas[shared])
    return {"n_groups": len(curves), "penalties": _penalties(wins), "ranks": ranks}


def _summaries(rounds, curves, areas):
    """Tabulate each strategy's scores and labels to target, and its costs."""
    last = rounds.groupby(["strategy", "seed"]).tail(1).groupby("strategy")
    table = standings(areas)
    scores = pd.DataFrame(
        {
            "area under the curve": areas.apply(_interval),
            "minus random": pd.Series({n: _gain(r) for n, r in table.iterrows()}),
            "at the end": last["accuracy"].agg(_interval),
        }
    )
    said = "There is nothing to compare with: no run of random has ended."
    between = fill(curves)
    means = {name: mean_curve(between[name]) for name in areas}
    if len(means.get(BASELINE, ())):
        # Less what rounding may have added to a mean of equal scores.
        target = means[BASELINE].iloc[-1] - 1e-12
        saved = pd.Series(
            {n: labels_saved(means[n], means[BASELINE], [target])[0] for n in areas}
        )
        said = verdict(table, saved, target)
        scores.insert(2, "against random", table["side"].map(SIDES))
        needed = {name: _needed(curves[name], target) for name in areas}
        scores[f"labels to {target:.3f}"] = pd.Series(needed)
        share = saved.map(lambda s: f"{s:.0%}" if np.isfinite(s) else "never there")
        scores["labels saved"] = share
        own = ["minus random", "against random", "labels saved"]
        scores.loc[BASELINE, own] = ""
    # Round 0 has no query.
    queries = rounds["query_s"].where(rounds["round"] > 0).groupby(rounds["strategy"])
    costs = pd.DataFrame(
        {
            "seeds": areas.count(),
            "NLL": last["nll"].agg(_interval),
            "ECE": last["ece"].agg(_interval),
            "class balance": _cells(last["class balance"].mean(), digits=3),
            "train s": _cells(rounds.groupby("strategy")["train_s"].mean()),
            "query s": _cells(queries.mean()),
        }
    )
    order = areas.mean().sort_values(ascending=False, kind="stable").index
    scores, costs = (t.loc[order].rename_axis("strategy") for t in (scores, costs))
    return said, table["side"].to_dict(), scores, costs


def _interval(values):
    mean, half = mean_interval(values.dropna())
    return f"{mean:.3f}" if np.isnan(half) else f"{mean:.3f} ± {half:.3f}"


def _gain(row):
    gain, half = row["gain"], row["half"]
    if np.isnan(gain):
        return "no seed in common"
    if np.isnan(half):
        return f"{gain:+.3f}"
    return f"{gain - half:+.3f} to {gain + half:+.3f}"


def _needed(runs, target):
    """Write the quartiles of the labels to the target."""
    labels = [labels_to_target(run.index, run, target) for _, run in runs.items()]
    quartiles = label_quartiles(labels)
    return " / ".join(f"{n:.0f}" if np.isfinite(n) else "never" for n in quartiles)


def _penalties(wins):
    """Tabulate a penalty matrix."""
    table = _cells(wins, nothing="not paired", diagonal="")
    table.loc["is beaten"] = _cells(penalties(wins), nothing="-")
    return {"table": table, "most": max(wins.max(axis=None), 1e-9)}


def _ranks(areas):
    """Tabulate ranks and their tests; None where no block has all strategies."""
    try:
        ranking = rank_strategies(areas)
    except ValueError:
        return None
    order = ranking.mean_ranks.sort_values(kind="stable").index
    table = _cells(ranking.p_pairs.loc[order, order], digits=3, diagonal="")
    table.insert(0, "mean rank", _cells(ranking.mean_ranks))
    p = ranking.p_value
    friedman = f"p = {p:.4f}" if p >= 0.0001 else "p < 0.0001"
    if np.isnan(p):
        friedman = "not with fewer than three strategies or two seeds"
    table = table.rename_axis("strategy")
    return {"table": table, "n_blocks": ranking.n_blocks, "friedman": friedman}


def _overlap(cells):
    picks = {}
    for cell in cells:
        rows = [v for name, v in cell.purchases.items() if name.startswith("round_")]
        bought = np.concatenate([np.empty(0, dtype=np.int64), *rows])
        picks.setdefault(cell.config.strategy, {})[cell.config.seed] = bought
    return _cells(overlap(picks)).rename_axis("overlap")


def _cells(values, digits=2, nothing="", diagonal=None):
    """Write numbers, NaN as `nothing`."""
    texts = values.map(lambda v: nothing if np.isnan(v) else f"{v:.{digits}f}")
    if diagonal is not None:
        texts = texts.mask(np.eye(len(values), dtype=bool), diagonal)
    return texts
