"""Strategies that train a net, at budgets for which their papers claim gains.

    python benchmarks/label_efficiency/budgets.py --data-root DIR --out save

`--data-root` is a folder with FashionMNIST/ in torchvision's layout, cifar10_*.npz and
tabular/. Each run is stored below --out when it ends and not repeated, so a comparison
that was stopped goes on; what is in budgets.csv counts as done. Seed k gives every
strategy the same pool, first labels and first network. Beside each strategy that
changes the training stand its controls: the same training with random rows, and for
WAAL a plain training of as many steps (alpha 0, so that the critic has no part in it).
The scores go to budgets.csv and the tables to budgets.md, beside this file; --table
makes them of what is there.
"""

import argparse
import json
import warnings
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from proof import images, load, write
from skorch import NeuralNetClassifier
from torch import nn

from skal import (
    ActiveLearningLoop,
    AsalQuery,
    BadgeQuery,
    LearningLossQuery,
    MarginQuery,
    RandomQuery,
    VaalQuery,
    WaalQuery,
)
from skal.analysis import mean_interval
from skal.models import MLP, ConvNet

SCORES = Path(__file__).with_name("budgets.csv")
RUN = ["setting", "strategy", "seed"]
COLUMNS = [*RUN, "round", "n_labeled", "accuracy", "query_s", "fit_s"]
RANDOM_ROWS = {"uncertainty_weight": 0.0, "diversity_weight": 0.0}
# What is trained on, rows to choose from, labels at first and in a round, rounds.
SETTINGS = {
    "fashion 500": ("fashion", 20_000, 500, 500, 4),
    "fashion 2000": ("fashion", 20_000, 2_000, 1_000, 4),
    "letter 1000": ("letter", 10_000, 1_000, 500, 4),
    "cifar 1000": ("cifar", 4_000, 1_000, 500, 4),
    "shirts 10": ("shirts", 10_000, 10, 10, 9),
    "toy": ("letter", 400, 40, 20, 2),
}
USUAL, N_SEEDS = [name for name in SETTINGS if name != "toy"], 5
COMMON = {"random": RandomQuery(), "margin": MarginQuery(), "badge": BadgeQuery()}
TRAINED = {
    "learning-loss": LearningLossQuery(),
    "learning-loss, random rows": LearningLossQuery(subset=1),
    "vaal": VaalQuery(),
    "waal": WaalQuery(),
    "waal, alpha .01": WaalQuery(alpha=0.01),
    "waal, alpha .03": WaalQuery(alpha=0.03),
    "waal, random rows": WaalQuery(**RANDOM_ROWS),
    "plain, steps of waal": WaalQuery(alpha=0.0, **RANDOM_ROWS),
}
GENERATING = {
    "asal": AsalQuery(),
    "asal, no prior": AsalQuery(prior_weight=0.0),
}


class Block(nn.Module):
    """Two convolutions and a shortcut, which is one where the size changes."""

    def __init__(self, n_inputs, n_outputs, stride):
        super().__init__()
        first = nn.Conv2d(n_inputs, n_outputs, 3, stride, 1, bias=False)
        second = nn.Conv2d(n_outputs, n_outputs, 3, 1, 1, bias=False)
        middle = nn.BatchNorm2d(n_outputs), nn.ReLU()
        self.body = nn.Sequential(first, *middle, second, nn.BatchNorm2d(n_outputs))
        shortcut = nn.Conv2d(n_inputs, n_outputs, 1, stride, bias=False)
        self.shortcut = nn.Identity() if stride == 1 else shortcut

    def forward(self, x):
        return torch.relu(self.body(x) + self.shortcut(x))


class Residual(nn.Sequential):
    """A residual net of three blocks, on images of half the height and width."""

    def __init__(self, n_classes, width=16):
        stem = nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width)
        blocks = (Block(width * k, width * j, j // k) for k, j in [(1, 1), (1, 2)])
        last = Block(2 * width, 4 * width, 2)
        ends = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, n_classes)
        super().__init__(*stem, nn.ReLU(), *blocks, last, *ends)


def strategies(setting):
    """Of each setting: ASAL of that with a linear network alone, where it may pay."""
    own = GENERATING if setting.startswith("shirts") else TRAINED
    if setting == "fashion 2000":  # takes long; alpha is compared in the others
        own = {name: each for name, each in own.items() if "alpha" not in name}
    return {**COMMON, **(own if setting != "toy" else {**TRAINED, **GENERATING})}


def build_net(setting, n_inputs, n_classes):
    name = SETTINGS[setting][0]
    module, sizes, epochs = {
        "fashion": (ConvNet, {"n_channels": 1}, 15 if "2000" in setting else 30),
        "cifar": (Residual, {}, 30),
        "letter": (MLP, {"n_inputs": n_inputs, "hidden": (128, 64)}, 60),
        "shirts": (MLP, {"n_inputs": n_inputs, "hidden": ()}, 100),
    }[name]
    return NeuralNetClassifier(
        module,
        **{f"module__{key}": value for key, value in sizes.items()},
        module__n_classes=n_classes,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        batch_size=64,
        max_epochs=epochs,
        iterator_valid__batch_size=512,
        train_split=None,
        verbose=0,
    )


@cache
def data(name, root, out):
    """All training rows, labels, test rows, labels."""
    if name == "letter":
        return load("letter", root, out)
    X, y, X_test, y_test = images("cifar" if name == "cifar" else "fashion", root)
    if name == "shirts":  # T-shirts and shirts, as flat rows
        kept, kept_test = (np.isin(labels, (0, 6)) for labels in (y, y_test))
        X, X_test = X[kept].reshape(-1, 784), X_test[kept_test].reshape(-1, 784)
        y, y_test = y[kept], y_test[kept_test]
    return X, y, X_test, y_test


def one_run(seed, setting, strategy, root, out):
    """Accuracy after each round, seconds of fits and queries."""
    path = Path(out, setting, f"{strategy} {seed}.json")
    if path.exists() or (setting, strategy, seed) in stored().set_index(RUN).index:
        return
    torch.set_num_threads(1)
    name, n_pool, n_initial, batch_size, n_rounds = SETTINGS[setting]
    X, y, X_test, y_test = data(name, root, out)
    rows = np.random.default_rng(seed).permutation(len(X))[:n_pool]
    X = X[rows]
    if X.ndim == 2:
        mean, std = X.mean(0), X.std(0)
        std[std < 1e-6] = 1
        X, X_test = (X - mean) / std, (X_test - mean) / std
    loop = ActiveLearningLoop(
        build_net(setting, X[0].size, len(np.unique(y))),
        strategies(setting)[strategy],
        n_initial=n_initial,
        batch_size=batch_size,
        n_rounds=n_rounds,
        classes=np.unique(y),
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that VAAL knows nothing
        loop.fit(X, y[rows], X_test=X_test, y_test=y_test)
    history = loop.history_
    record = {
        "n_labeled": history["n_labeled"].tolist(),
        "accuracy": history["test_score"].tolist(),
        "query_s": history["query_time"][1:].tolist(),
        "fit_s": history["fit_time"].tolist(),
    }
    write(path, lambda file: file.write(json.dumps(record).encode()))


@cache
def stored():
    """What budgets.csv holds."""
    return pd.read_csv(SCORES) if SCORES.exists() else pd.DataFrame(columns=COLUMNS)


def read(out):
    """A line for each round of each run."""
    lines = []
    for path in sorted(Path(out).glob("*/*.json")):
        strategy, _, seed = path.stem.rpartition(" ")
        record = json.loads(path.read_text())
        times = [0.0, *record["query_s"]], record["fit_s"]
        rounds = zip(record["n_labeled"], record["accuracy"], *times, strict=True)
        for number, values in enumerate(rounds):
            key = (path.parent.name, strategy, int(seed), number)
            lines.append((*key, *(round(value, 4) for value in values)))
    scores = [stored(), pd.DataFrame(lines, columns=COLUMNS)]
    scores = pd.concat([each for each in scores if len(each)])
    scores = scores.drop_duplicates([*RUN, "round"], keep="last")
    place = scores["setting"].map(list(SETTINGS).index)
    scores = scores.assign(place=place).sort_values(["place", *RUN[1:], "round"])
    return scores.drop(columns="place")


def tables(scores):
    """Accuracies by round, and areas against random's, paired by seed."""
    lines = []
    for setting, block in scores.groupby("setting", sort=False):
        areas = block.pivot_table("accuracy", "seed", "strategy", aggfunc="mean")
        rounds = block.pivot_table("accuracy", "strategy", "n_labeled")
        seconds = block.groupby(["strategy", "seed"])[["fit_s", "query_s"]].sum()
        seconds = seconds.groupby("strategy").mean()
        header = [str(n) for n in rounds.columns]
        header += ["area minus random", "by seed", "fits, s", "queries, s"]
        lines += [f"{setting}, {len(areas)} seeds:", ""]
        lines += ["| | " + " | ".join(header) + " |", "|---" * (len(header) + 1) + "|"]
        for name in areas.mean().sort_values(ascending=False).index:
            cells = [f"{each:.3f}".lstrip("0") for each in rounds.loc[name]]
            gaps = (areas[name] - areas["random"]).dropna()
            cells += ["", ""]
            if name != "random" and len(gaps) > 1:
                mean, half = mean_interval(gaps)
                cells[-2] = f"{mean - half:+.4f} to {mean + half:+.4f}"
                cells[-1] = " ".join(f"{gap:+.4f}" for gap in gaps)
            cells += [f"{seconds.loc[name, key]:.0f}" for key in ("fit_s", "query_s")]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
    lines += ["The seconds were taken beside other runs.", ""]
    return "\n".join([*lines, *missing(scores)])


def missing(scores):
    """Say which runs of five seeds have not been made."""
    done, lines = set(scores[RUN].itertuples(index=False, name=None)), []
    for setting in USUAL:
        wanted = product([setting], strategies(setting), range(N_SEEDS))
        left = {}
        for _, strategy, seed in sorted(set(wanted) - done):
            left.setdefault(strategy, []).append(str(seed))
        if len(left) == len(strategies(setting)) and setting not in set(scores.setting):
            lines.append(f"* {setting}: all")
        elif left:
            runs = [f"{name} {' '.join(seeds)}" for name, seeds in left.items()]
            lines.append(f"* {setting}, strategy and seeds: {'; '.join(runs)}")
    if not lines:
        return []
    return ["Not run yet:", "", *lines, ""]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", help="folder of the data sets")
    parser.add_argument("--out", default="save", help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=N_SEEDS, help="number of seeds")
    parser.add_argument("--n-jobs", type=int, default=2, help="processes")
    parser.add_argument("--settings", nargs="+", default=USUAL, choices=SETTINGS)
    parser.add_argument("--table", action="store_true", help="run nothing")
    args = parser.parse_args()
    out = str(Path(args.out, "trained"))
    if not args.table:
        torch.set_num_threads(1)
        for setting in args.settings:
            data(SETTINGS[setting][0], args.data_root, out)
        # Forked, so that all share what is loaded.
        Parallel(n_jobs=args.n_jobs, backend="multiprocessing")(
            delayed(one_run)(seed, setting, strategy, args.data_root, out)
            for setting in args.settings
            for seed, strategy in product(range(args.seeds), strategies(setting))
        )
    scores = read(out)
    scores.to_csv(SCORES, index=False)
    SCORES.with_name("budgets.md").write_text(tables(scores))
    print(tables(scores))
