"""Every strategy on seven data sets, three budgets and ten seeds, paired by seed.

    python benchmarks/label_efficiency/proof.py --data-root DIR --out save

`--data-root` is a folder with FashionMNIST/ in torchvision's layout, cifar10_*.npz and
tabular/. Each run is stored below --out when it ends and not repeated, so a comparison
that was stopped goes on, and several processes may share it. Seed k gives every
strategy the same pool, first labels and first network. The tables go to
proof_tables.md and the scores to proof.csv, beside this file, and what `skal list` says
to skal/experiment/measured.csv; --table makes them of what is there. What is in
proof.csv counts as done; --fresh forgets it. The network that gives features rounds
otherwise on another processor: a seed of a set of features has to run on one machine.
"""

import argparse
import json
import os
import warnings
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from scipy import stats
from skorch import NeuralNetClassifier
from torch import nn
from torch.nn.functional import avg_pool2d

import skal.experiment
from skal import ActiveLearningLoop, PoolView
from skal.analysis import holm_adjust, labels_saved, mean_interval, rank_strategies
from skal.datasets import load_dataset
from skal.experiment.strategies import describe_strategies
from skal.models import MLP, ConvNet
from skal.query import UHerdingQuery
from skal.utils.discovery import named_strategies

SCORES = Path(__file__).with_name("proof.csv")
N_POOL, N_TEST, N_ROUNDS = 4_000, 2_000, 4
# Labels a class at first, and in each round.
BUDGETS = {"1-5": (1, 1), "5-17": (5, 3), "20-40": (20, 5)}
DEFAULT = "u-herding"
VARIANTS = {
    "u-herding of features": UHerdingQuery(space="features"),
    "u-herding, smallest width": UHerdingQuery(width="smallest"),
}
UNIFORM, N_UNIFORM = ", uniform first set", 3  # seeds
# They train networks of their own, or several, or draw often: they run last.
SLOW = (
    "asal bald-ensemble batch-bald batch-bald-ensemble core-gcn core-set deep-fool "
    "entropy-dropout entropy-ensemble epig epig-ensemble learning-loss "
    "least-confidence-dropout least-confidence-ensemble margin-dropout margin-ensemble "
    "power-bald power-entropy uncertain-gcn vaal waal"
).split()
OWN_TRAINING = ("learning-loss", "waal")  # of the classifier, from the start
TABLES = {
    "letter": ("letter-recognition.data", {"label_column": 0}),
    "pendigits": ("pendigits.tra", {"test_path": "pendigits.tes"}),
    "krkopt": ("krkopt.data", {}),
}
SETS = ("digits", *TABLES, "fashion", "fashion-features", "cifar-features")


class Linear(nn.Sequential):
    """Dropout and a linear head, on frozen features."""

    def __init__(self, n_inputs, n_classes):
        super().__init__(nn.Dropout(0.2), nn.Linear(n_inputs, n_classes))


def build_net(name, n_inputs, n_classes):
    options = {"module__n_classes": n_classes, "max_epochs": 40, "lr": 0.005}
    if name == "fashion":
        sizes = {"n_channels": 1, "image_size": 14, "channels": (8, 16), "hidden": 64}
        module = ConvNet
    elif name.endswith("features"):
        sizes, module = {"n_inputs": n_inputs}, Linear
    else:
        sizes, module = {"n_inputs": n_inputs, "dropout": 0.2}, MLP
    return NeuralNetClassifier(
        module,
        **{f"module__{key}": value for key, value in sizes.items()},
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        batch_size=64,
        iterator_valid__batch_size=512,
        train_split=None,
        verbose=0,
        **options,
    )


@cache
def load(name, root, out):
    """All training rows, labels, test rows, labels."""
    if name == "digits":
        X, y, X_test, y_test = parts(load_dataset("digits"))
        return X.reshape(-1, 64), y, X_test.reshape(-1, 64), y_test
    if name in TABLES:
        folder = Path(root, "tabular")
        file, options = TABLES[name]
        if "test_path" in options:
            options = {"test_path": folder / options["test_path"]}
        return parts(load_dataset(folder / file, **options))
    if name == "fashion":
        X, y, X_test, y_test = images("fashion", root)
        return small(X), y, small(X_test), y_test
    path = Path(out, f"{name}.npz")
    if not path.exists():
        stored = dict(zip("abcd", features(name, root), strict=True))
        write(path, lambda file: np.savez(file, **stored))
    with np.load(path) as stored:
        return tuple(stored[key] for key in "abcd")


def parts(data):
    X, X_test = (np.asarray(x, dtype=np.float32) for x in (data.X_train, data.X_test))
    return X, np.asarray(data.y_train), X_test, np.asarray(data.y_test)


def small(X):
    """Images of half the height and width, which train six times faster."""
    return avg_pool2d(torch.from_numpy(X), 2).numpy()


def images(name, root):
    """Standardised images (n, channels, height, width) and labels."""
    if name == "fashion":
        data = load_dataset("FashionMNIST", root)
    else:
        train, test = (Path(root, f"cifar10_{part}.npz") for part in ("train", "test"))
        data = load_dataset(train, test_path=test)
    X, y, X_test, y_test = parts(data)
    mean, std = (np.float32(np.ravel(x))[:, None, None] for x in (data.mean, data.std))
    X, X_test = (
        (np.stack([np.asarray(each) for each in x]).reshape(-1, *data.image_shape)
         - mean) / std
        for x in (X, X_test)
    )  # fmt: skip
    return X, y, X_test, y_test


def features(name, root):
    """Features of the classes 0 to 4 of a network trained on the classes 5 to 9."""
    X, y, X_test, y_test = images(name.removesuffix("-features"), root)
    others = np.flatnonzero(y >= 5)[:15_000]
    torch.manual_seed(0)
    shape = {"n_channels": X.shape[1], "image_size": X.shape[2]}
    net = NeuralNetClassifier(
        ConvNet,
        module__n_classes=5,
        **{f"module__{key}": value for key, value in shape.items()},
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=0.001,
        batch_size=64,
        max_epochs=4 if len(others) > 5_000 else 25,
        train_split=None,
        verbose=0,
    ).fit(X[others], y[others].astype(np.int64) - 5)
    kept = [np.flatnonzero(labels < 5)[:15_000] for labels in (y, y_test)]
    found = [
        PoolView(net, x[k]).embeddings.numpy()
        for x, k in zip((X, X_test), kept, strict=True)
    ]
    return found[0], y[kept[0]], found[1], y_test[kept[1]]


def write(path, how):
    """Write a file at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}")
    with open(part, "wb") as file:
        how(file)
    part.replace(path)


def one_run(seed, name, budget, strategy, root, out):
    """Accuracy after each round, seconds of the queries."""
    path = Path(out, name, budget, f"{strategy} {seed}.json")
    if path.exists():
        return
    torch.set_num_threads(1)
    X, y, X_test, y_test = load(name, root, out)
    classes = np.unique(y)
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(X))[:N_POOL]
    test = rng.permutation(len(X_test))[:N_TEST]
    X, X_test = X[rows], X_test[test]
    if X.ndim == 2:
        mean, std = X.mean(0), X.std(0)
        std[std < 1e-6] = 1
        X, X_test = (X - mean) / std, (X_test - mean) / std
    name_of = strategy.removesuffix(UNIFORM)
    chosen = VARIANTS.get(name_of) or named_strategies()[name_of]
    n_initial, batch_size = (each * len(classes) for each in BUDGETS[budget])
    loop = ActiveLearningLoop(
        build_net(name, X[0].size, len(classes)),
        chosen,
        n_initial=n_initial,
        batch_size=batch_size,
        n_rounds=N_ROUNDS,
        initial=None if name_of == strategy else "uniform",
        classes=classes,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a first set of one class
        loop.fit(X, y[rows], X_test=X_test, y_test=y_test[test])
    history = loop.history_
    record = {
        "n_labeled": history["n_labeled"].tolist(),
        "accuracy": history["test_score"].tolist(),
        "query_s": history["query_time"][1:].tolist(),
        "fit_s": history["fit_time"].tolist(),
    }
    write(path, lambda file: file.write(json.dumps(record).encode()))


def cells(n_seeds, only):
    """All runs, the quick strategies before the others, seed by seed."""
    quick = [name for name in named_strategies() if name not in SLOW]
    firsts = [name + UNIFORM for name in ("random", "margin", "badge", DEFAULT)]
    plan = [([*quick, *VARIANTS], n_seeds, BUDGETS)]
    plan += [(firsts, min(n_seeds, N_UNIFORM), list(BUDGETS)[:2])]
    plan += [(SLOW, n_seeds, BUDGETS)]
    for strategies, seeds, budgets in plan:
        for seed, name, *cell in product(range(seeds), only, budgets, strategies):
            # The first set of images is uniform as it is; and a linear network has no
            # inner layer that Learning Loss could read.
            if name == "fashion" and strategies is firsts:
                continue
            if not (name.endswith("features") and "learning-loss" in cell):
                yield seed, name, *cell


# -- the tables ---------------------------------------------------------------------


def read(out, fresh):
    """All runs: a line for each, with the accuracy of each round."""
    key = ["set", "budget", "strategy", "seed"]
    stored = pd.read_csv(SCORES) if SCORES.exists() and not fresh else pd.DataFrame()
    runs = []
    for path in sorted(Path(out).glob("*/*/*.json")):
        record = json.loads(path.read_text())
        strategy, _, seed = path.stem.rpartition(" ")
        rounds = {f"accuracy {k}": a for k, a in enumerate(record["accuracy"])}
        where = {"set": path.parts[-3], "budget": path.parts[-2]}
        query_s = np.mean(record["query_s"])
        run = {**where, "strategy": strategy, "seed": int(seed), **rounds}
        runs.append({**run, "n_first": record["n_labeled"][0], "query_s": query_s})
    runs = pd.concat([pd.DataFrame(runs), stored]).drop_duplicates(key)
    check_pairs(runs)
    order = {name: place for place, name in enumerate([*SETS, *BUDGETS])}
    return runs.sort_values(key, key=lambda x: x.map(order).fillna(x), kind="stable")


def check_pairs(runs):
    """Raise where the first models of a block, which are one and the same, differ."""
    other = runs["strategy"].str.endswith(UNIFORM) | runs["strategy"].isin(OWN_TRAINING)
    first = runs[~other].groupby(["set", "budget", "seed"])["accuracy 0"]
    gap = first.max() - first.min()
    if (gap > 0.005).any():
        name, budget, seed = gap.idxmax()
        raise ValueError(
            f"the runs of {name}, {budget}, seed {seed} are not paired: their first "
            f"models differ by {gap.max():.3f}; remove them from --out and "
            f"{SCORES.name}, and run them again."
        )


def areas(runs):
    """Mean accuracy after the queries: a line a block, a column a strategy."""
    rounds = [f"accuracy {k}" for k in range(1, N_ROUNDS + 1)]
    runs = runs.assign(area=runs[rounds].mean(axis=1))
    return runs.pivot_table("area", ["set", "budget", "seed"], "strategy", sort=False)


def gains(areas):
    """Mean difference from random, half an interval, p by Holm, of each setting."""
    lines = []
    for (name, budget), block in areas.groupby(level=["set", "budget"], sort=False):
        gaps = block.drop(columns="random").sub(block["random"], axis=0)
        gaps = gaps.dropna(axis=1, thresh=2)
        if gaps.empty:
            continue
        mean, half = (pd.Series(x, gaps.columns) for x in _intervals(gaps))
        p = stats.ttest_1samp(gaps, 0).pvalue  # NaN where a seed is missing
        whole = np.isfinite(p)
        p[whole] = holm_adjust(p[whole])
        each = {"strategy": gaps.columns, "gain": mean, "half": half, "p": p}
        lines.append(pd.DataFrame({"set": name, "budget": budget, **each}))
    return pd.concat(lines, ignore_index=True)


def _intervals(gaps):
    pairs = [mean_interval(gaps[name].dropna()) for name in gaps]
    return np.array(pairs, dtype=float).T


def saved(runs, strategy):
    """Median share of labels saved against random's last accuracy, over settings."""
    found = []
    for _, block in runs.groupby(["set", "budget"]):
        curves = {}
        for name in ("random", strategy):
            own = block[block["strategy"] == name]
            rounds = [f"accuracy {k}" for k in range(N_ROUNDS + 1)]
            first, each = BUDGETS[block["budget"].iloc[0]]
            n_labeled = first + each * np.arange(N_ROUNDS + 1)
            curves[name] = pd.Series(own[rounds].mean().to_numpy(), n_labeled)
        target = curves["random"].iloc[-1]
        found += list(labels_saved(curves[strategy], curves["random"], [target]))
    return float(np.nanmedian(found))


def _share(saved):
    return f"{saved:.0%}" if np.isfinite(saved) else "none"


def mark(line):
    text = f"{line.gain:+.3f}".replace("0.", ".")
    if line.p < 0.05:
        text = f"**{text}**" if line.gain > 0 else f"{text} (behind)"
    return text


def ranked(every):
    """Areas of the strategies that miss no block, in the blocks that all have."""
    n_blocks = every.count()
    return every.loc[:, n_blocks >= n_blocks[DEFAULT]].dropna()


def tables(runs):
    """The text of proof_tables.md."""
    shown = [n for n in runs["strategy"].unique() if not n.endswith(UNIFORM)]
    every = areas(runs[runs["strategy"].isin(shown)])
    whole, against = ranked(every), gains(every)
    ranking = rank_strategies(whole)
    ranks = whole.rank(axis=1, ascending=False)
    order = list(ranking.mean_ranks.sort_values().index)
    order += [name for name in every if name not in order]
    needs = {each.name: each.needs for each in describe_strategies()}
    settings = whole.groupby(level=["set", "budget"]).ngroups
    seeds = whole.groupby(level=["set", "budget"]).size()
    lines = [
        f"Mean ranks among {whole.shape[1]} strategies, over {len(whole)} blocks "
        f"({settings} settings, {seeds.min()} to {seeds.max()} seeds); p against "
        f"{DEFAULT} by Wilcoxon and Holm. Ahead and behind: settings in which the "
        "difference from random is significant (paired t, Holm over the strategies). "
        "Labels saved: fewer labels to random's last accuracy, the median over "
        "settings. Without a rank: did not run in all of them.",
        "",
        "| strategy | needs | mean rank | p | "
        + " | ".join(BUDGETS)
        + " | mean gain | ahead | "
        "behind | labels saved | s a query |",
        "|---|" + "---|" * (len(BUDGETS) + 8),
    ]
    speed = runs.groupby("strategy")["query_s"].median()
    for name in order:
        own = against[against["strategy"] == name]
        sure = own[own["p"] < 0.05]["gain"]
        cells = [""] * (2 + len(BUDGETS))
        if name in whole:
            p = "" if name == DEFAULT else f"{ranking.p_pairs.loc[DEFAULT, name]:.2g}"
            by_budget = ranks[name].groupby(level="budget").mean().reindex(BUDGETS)
            cells = [f"{ranking.mean_ranks[name]:.2f}", p]
            cells += [f"{rank:.1f}" for rank in by_budget]
        cells = [needs.get(name, needs[DEFAULT]), *cells]  # variants are the default's
        gain = f"{own['gain'].mean():+.3f}" if len(own) else ""
        cells += [gain, str((sure > 0).sum()), str((sure < 0).sum())]
        cells += [_share(saved(runs, name)), f"{speed[name]:.2f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for budget in BUDGETS:
        here = against[against["budget"] == budget]
        lines += [
            "",
            f"{budget} labels a class: mean accuracy after the queries, minus ",
        ]
        lines[-1] += "random's; bold: ahead, (behind): behind it, p < .05 by Holm."
        names = [n for n in SETS if n in set(here["set"])]
        lines += ["", "| strategy | " + " | ".join(names) + " |"]
        lines += ["|---|" + "---|" * len(names)]
        random = every["random"].groupby(level=["set", "budget"]).mean()
        cells = [f"{random[n, budget]:.3f}" for n in names]
        lines.append("| random itself | " + " | ".join(cells) + " |")
        for name in (n for n in order if n != "random"):
            own = here[here["strategy"] == name].set_index("set")
            cells = [mark(own.loc[n]) if n in own.index else "" for n in names]
            if any(cells):
                lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, *first_sets(runs), ""])


def first_sets(runs):
    """What the first set is worth: the same strategies after a uniform one."""
    uniform = runs[runs["strategy"].str.endswith(UNIFORM)]
    if uniform.empty:
        return []
    lines = ["", "Herded against uniform first sets: accuracy of the first model, and "]
    lines[-1] += (
        "mean accuracy after the queries, herded minus uniform (95 % interval)."
    )
    lines += ["", "| set | labels a class | first model | gain | "]
    names = list(dict.fromkeys(uniform["strategy"].str.removesuffix(UNIFORM)))
    lines[-1] += " | ".join(names) + " |"
    lines.append("|---|---|---|---|" + "---|" * len(names))
    key = ["set", "budget", "seed"]
    for (name, budget), block in uniform.groupby(["set", "budget"], sort=False):
        cells = []
        for strategy in names:
            b = block[block["strategy"] == strategy + UNIFORM]
            pairs = b.merge(runs[runs["strategy"] == strategy], on=key)
            rounds = range(N_ROUNDS + 1)
            gap = sum(
                pairs[f"accuracy {k}_y"] - pairs[f"accuracy {k}_x"] for k in rounds[1:]
            )
            first = pairs["accuracy 0_y"], pairs["accuracy 0_x"]
            mean, half = mean_interval(gap / N_ROUNDS)
            cells.append(f"{mean - half:+.3f} to {mean + half:+.3f}")
        gain, spread = mean_interval(first[0] - first[1])
        lines.append(
            f"| {name} | {budget} | {first[0].mean():.3f}, {first[1].mean():.3f} | "
            f"{gain - spread:+.3f} to {gain + spread:+.3f} | "
            + " | ".join(cells)
            + " |"
        )
    return lines


def measured(runs):
    """What `skal list` says: labels a class from which it is ahead; seconds a query."""
    every, lines = areas(runs), []
    large = runs[runs["set"] != "digits"].groupby("strategy")["query_s"].median()
    for name in sorted(set(named_strategies()) & set(every)):
        ahead = "" if name == "random" else "-"
        for budget in reversed(BUDGETS):
            gaps = (every[name] - every["random"]).xs(budget, level="budget").dropna()
            mean, half = mean_interval(gaps) if len(gaps) > 1 else (0, 0)
            if mean - half > 0:
                ahead = budget.partition("-")[0]
        lines.append(f"{name},{ahead},{large.get(name, np.nan):.2f}")
    return "\n".join(["strategy,labels,query_s", *lines, ""])


def write_tables(out, fresh):
    runs = read(Path(out, "proof"), fresh).round(5)
    Path(skal.experiment.__file__).with_name("measured.csv").write_text(measured(runs))
    runs.to_csv(SCORES, index=False)
    text = tables(runs)
    SCORES.with_name("proof_tables.md").write_text(text)
    print(text)


def main(root, out, n_seeds, n_jobs, only, fresh):
    out, done = Path(out, "proof"), set()
    if SCORES.exists() and not fresh:
        columns = ["seed", "set", "budget", "strategy"]
        done = set(pd.read_csv(SCORES)[columns].itertuples(index=False, name=None))
    torch.set_num_threads(1)
    for name in only:
        load(name, root, str(out))
    # Forked, so that all share what is loaded.
    Parallel(n_jobs=n_jobs, backend="multiprocessing")(
        delayed(one_run)(*cell, root, str(out))
        for cell in cells(n_seeds, only)
        if cell not in done
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", help="folder of the data sets")
    parser.add_argument("--out", default="save", help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds")
    parser.add_argument("--n-jobs", type=int, default=2, help="processes")
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--fresh", action="store_true", help="repeat what is stored")
    args = parser.parse_args()
    if not args.table:
        more = args.seeds, args.n_jobs, args.sets, args.fresh
        main(args.data_root, args.out, *more)
    write_tables(args.out, args.fresh)
