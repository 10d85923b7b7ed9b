"""Every strategy on seven data sets, three budgets and ten seeds, paired by seed.

    python benchmarks/label_efficiency/proof.py --data-root DIR --out save

`--data-root` is a folder with FashionMNIST/ in torchvision's layout, cifar10_*.npz and
tabular/. Each run is stored below --out when it ends and not repeated, so a comparison
that was stopped goes on, and several processes may share it. Seed k gives every
strategy the same pool, first labels and first network. The tables go to proof.md, the
scores to proof.csv, beside this file; --table writes them of what is there.
"""

import argparse
import json
import os
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from skorch import NeuralNetClassifier
from torch import nn
from torch.nn.functional import avg_pool2d

from skal import ActiveLearningLoop, PoolView
from skal.analysis import holm_adjust, labels_saved, mean_interval
from skal.datasets import load_dataset
from skal.experiment.strategies import named_strategies
from skal.models import MLP, ConvNet
from skal.query import UHerdingQuery

N_POOL, N_TEST, N_ROUNDS = 4_000, 2_000, 4
# Labels a class at first, and in each round.
BUDGETS = {"1-5": (1, 1), "5-17": (5, 3), "20-60": (20, 10)}
VARIANTS = {
    "u-herding of features": UHerdingQuery(space="features"),
    "u-herding, smallest width": UHerdingQuery(width="smallest"),
}
# They train networks of their own, or several, or draw often: fewer runs.
SLOW = (
    "asal bald-ensemble batch-bald batch-bald-ensemble core-gcn core-set deep-fool "
    "entropy-dropout entropy-ensemble epig epig-ensemble learning-loss least-confidence-dropout "
    "least-confidence-ensemble margin-dropout margin-ensemble uncertain-gcn vaal waal"
).split()
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
    found = [PoolView(net, x[k]).embeddings.numpy() for x, k in zip((X, X_test), kept)]
    return found[0], y[kept[0]], found[1], y_test[kept[1]]


def write(path, how):
    """Write a file at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}")
    with open(part, "wb") as file:
        how(file)
    part.replace(path)


def one_run(name, budget, strategy, seed, root, out):
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
    chosen = VARIANTS.get(strategy) or named_strategies()[strategy]
    n_initial, batch_size = (each * len(classes) for each in BUDGETS[budget])
    loop = ActiveLearningLoop(
        build_net(name, X[0].size, len(classes)),
        chosen,
        n_initial=n_initial,
        batch_size=batch_size,
        n_rounds=N_ROUNDS,
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


def cells(n_seeds, n_slow, only):
    """All runs, the quick strategies before the slow ones, seed by seed."""
    names = [*named_strategies(), *VARIANTS]
    for slow in (False, True):
        for seed in range(n_slow if slow else n_seeds):
            for name in SETS:
                for budget in BUDGETS:
                    for strategy in names:
                        if (strategy in SLOW) == slow and name in only:
                            yield name, budget, strategy, seed


def main(root, out, n_seeds, n_slow, n_jobs, only):
    out = Path(out, "proof")
    for name in only:
        load(name, root, str(out))
    Parallel(n_jobs=n_jobs)(
        delayed(one_run)(*cell, root, str(out)) for cell in cells(n_seeds, n_slow, only)
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", help="folder of the data sets")
    parser.add_argument("--out", default="save", help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds")
    parser.add_argument("--slow-seeds", type=int, default=2, help="of slow strategies")
    parser.add_argument("--n-jobs", type=int, default=2, help="processes")
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--table", action="store_true", help="run nothing")
    args = parser.parse_args()
    if not args.table:
        main(
            args.data_root, args.out, args.seeds, args.slow_seeds, args.n_jobs,
            args.sets,
        )  # fmt: skip
