"""BALD buys copies, BatchBALD does not: Fashion-MNIST with every image five times.

    python benchmarks/label_efficiency/repeated_images.py --data-root DIR --out save

2,000 training images, drawn by the seed, five times each with Gaussian noise (standard
deviation 0.1 on standardised pixels); 20 balanced labels, batches of 10 up to 100; a
convolutional network with dropout, 20 draws; scored on the 10,000 test images. Seed k
gives every strategy the same pool, first labels and first model. After Kirsch, van
Amersfoort and Gal (2019), BatchBALD, section 4.1, there on MNIST.

Each run is stored below --out when it ends, and not repeated.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed
from matplotlib.figure import Figure
from scipy import stats
from skorch import NeuralNetClassifier
from torch import nn

from skal import (
    ActiveLearningLoop,
    BadgeQuery,
    BaldQuery,
    BatchBaldQuery,
    EntropyQuery,
    RandomQuery,
)
from skal.datasets import load_dataset
from skal.models import ConvNet
from skal.posterior import MCDropout

N_IMAGES, N_COPIES, NOISE = 2_000, 5, 0.1
LABELS = np.arange(20, 101, 10)
STRATEGIES = {
    "batch-bald": BatchBaldQuery(posterior=MCDropout(n_draws=20)),
    "bald": BaldQuery(posterior=MCDropout(n_draws=20)),
    "entropy-dropout": EntropyQuery(posterior=MCDropout(n_draws=20)),
    "badge": BadgeQuery(),
    "random": RandomQuery(),
}


def repeated_images(data, seed):
    """Standardised images, five noisy copies of each one after another; labels."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(data.X_train), N_IMAGES, replace=False).repeat(N_COPIES)
    X = standardised(data, data.X_train[chosen])
    noise = rng.standard_normal(X.shape, dtype=np.float32)
    return X + np.float32(NOISE) * noise, np.asarray(data.y_train)[chosen]


def standardised(data, X):
    X = np.asarray(X, dtype=np.float32).reshape(-1, 1, 28, 28)
    return (X - np.float32(data.mean)) / np.float32(data.std)


def one_run(data, name, seed, out):
    """Accuracy after each round, and the share of bought rows that are copies."""
    path = Path(out, f"repeated-{name}-{seed}.json")
    if path.exists():
        return json.loads(path.read_text())
    torch.set_num_threads(1)
    X, y = repeated_images(data, seed)
    net = NeuralNetClassifier(
        ConvNet,
        module__n_channels=1,
        module__n_classes=10,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        max_epochs=100,
        batch_size=64,
        iterator_valid__batch_size=500,
        verbose=0,
    )
    loop = ActiveLearningLoop(
        net,
        STRATEGIES[name],
        n_initial=LABELS[0],
        initial="balanced",
        n_rounds=len(LABELS) - 1,
        random_state=seed,
    ).fit(X, y, X_test=standardised(data, data.X_test), y_test=data.y_test)
    images = loop.labeled_indices_ // N_COPIES
    result = {
        "accuracy": loop.history_["test_score"].tolist(),
        "copies": 1 - len(np.unique(images)) / len(images),
        "query_time": loop.history_["query_time"][1:].mean(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result))
    return result


def main(data_root, out, n_seeds, n_jobs):
    data = load_dataset("FashionMNIST", data_root)
    cells = [(name, seed) for seed in range(n_seeds) for name in STRATEGIES]
    runs = Parallel(n_jobs=n_jobs)(
        delayed(one_run)(data, name, seed, out) for name, seed in cells
    )
    runs = {
        name: [run for (each, _), run in zip(cells, runs, strict=True) if each == name]
        for name in STRATEGIES
    }
    scores = {n: np.array([run["accuracy"] for run in r]) for n, r in runs.items()}
    shown = [i for i, n in enumerate(LABELS) if n % 20 == 0]
    columns = " | ".join(f"{LABELS[i]}" for i in shown)
    lines = [
        f"| strategy, {n_seeds} seeds | {columns} | mean minus random, 95 % interval | "
        "copies | s to query |",
        "|---|" + "---|" * (len(shown) + 3),
    ]
    half = stats.t.ppf(0.975, n_seeds - 1) / np.sqrt(n_seeds)
    for name, score in scores.items():
        cells = " | ".join(
            f"{score[:, i].mean():.3f} ± {score[:, i].std(ddof=1):.3f}" for i in shown
        )
        gain = (score[:, 1:] - scores["random"][:, 1:]).mean(1)
        spread = half * gain.std(ddof=1)
        interval = f"{gain.mean() - spread:+.3f} to {gain.mean() + spread:+.3f}"
        copies = np.mean([run["copies"] for run in runs[name]])
        seconds = np.mean([run["query_time"] for run in runs[name]])
        lines.append(
            f"| {name} | {cells} | {'' if name == 'random' else interval} | "
            f"{copies:.0%} | {seconds:.1f} |"
        )
    here = Path(__file__).parent
    (here / "repeated_images.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    ax = figure.subplots()
    for name, score in scores.items():
        mean, spread = score.mean(0), score.std(0, ddof=1)
        ax.plot(LABELS, mean, label=name)
        ax.fill_between(LABELS, mean - spread, mean + spread, alpha=0.15)
    ax.set(
        xlabel="labels", ylabel="accuracy", title="Fashion-MNIST, each image 5 times"
    )
    ax.legend()
    figure.savefig(here / "repeated_images.png", dpi=90)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", help="folder of the data set")
    parser.add_argument("--out", default="save", help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--n-jobs", type=int, default=2, help="processes")
    args = parser.parse_args()
    main(args.data_root, args.out, args.seeds, args.n_jobs)
