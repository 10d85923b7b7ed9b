"""A scripted person labels photos of CIFAR-10: accuracy against labels, beside chance.

    python benchmarks/label_page/cifar.py --data-root DIR --out DIR

`--data-root` holds cifar10_train.npz and cifar10_test.npz (arrays images and labels);
below --out the images become PNG files, and each run a project of `skal label init`.
The classes to label are 0 to 4. Seed k draws 1,500 of the training images as the pool;
the others of these classes, and the test images, measure `project.model_`. Pretrained
weights would have to be downloaded, so the backbone is a small network that this script
trains on the classes 5 to 9, which nobody labels: `--backbone timm:local-dir:FOLDER`
(needs timm). The figures go to cifar.csv and cifar.md beside this file.
"""

import argparse
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from skorch import NeuralNetClassifier
from torch import nn

from skal.analysis import mean_interval
from skal.annotate import LabelProject
from skal.cli.cli import main as skal

NAMES = ["airplane", "automobile", "bird", "cat", "deer"]
HERE = Path(__file__).with_suffix("")
N_POOL, BATCH_SIZE, N_BATCHES, SIZE = 1_500, 20, 12, 64
CHANCE, RANDOM, DEFAULT = "random order", "random", "u-herding"
ARMS = {
    CHANCE: "an order drawn at random, from the first label on",
    RANDOM: "`--strategy random`: the herded first batch, then at random",
    DEFAULT: "the default: the herded first batch, then u-herding",
}
SHOWN = [20, 40, 60, 100, 160, 240]


def load(root):
    parts = []
    for part in ("train", "test"):
        with np.load(Path(root, f"cifar10_{part}.npz")) as stored:
            parts += [stored["images"], stored["labels"]]
    return parts


def train_backbone(images, labels, folder):
    """Train a small network on other classes, and store it as timm does."""
    import timm
    from timm.models import save_for_hf

    if (folder / "config.json").exists():
        return
    torch.manual_seed(0)
    stored = {"input_size": (3, SIZE, SIZE), "crop_pct": 1.0}
    module = timm.create_model(
        "test_resnet", num_classes=5, pretrained_cfg_overlay=stored
    )
    X = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    X = nn.functional.interpolate(X, (SIZE, SIZE), mode="bicubic", antialias=True)
    mean, std = (module.pretrained_cfg[name] for name in ("mean", "std"))
    X = (X - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    X, y = torch.cat([X, X.flip(3)]).numpy(), np.tile(labels - 5, 2)
    net = NeuralNetClassifier(
        module,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.AdamW,
        lr=0.002,
        batch_size=64,
        max_epochs=15,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    ).fit(X, y)
    save_for_hf(net.module_, folder)


def write_images(folder, images):
    """Write PNG files whose names tell nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:05}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return [str(path) for path in paths]


def one_session(folder, pool, truth, test, y_test, arm, seed, backbone):
    """Label batch by batch; give the accuracy after each."""
    options = [] if arm == CHANCE else ["--strategy", arm]
    if backbone:
        options += ["--backbone", f"timm:local-dir:{backbone}"]
    options += ["--seed", str(seed), "--batch-size", str(BATCH_SIZE)]
    init = ["label", "init", str(pool), "--classes", *NAMES, "--project", str(folder)]
    if not folder.exists() and skal([*init, *options]):
        raise SystemExit("skal label init failed")
    project = LabelProject.open(folder)
    order = np.random.default_rng(seed).permutation(project.store.items()["item"])
    lines = []
    for batch in range(N_BATCHES):
        if arm == CHANCE:
            items = order[batch * BATCH_SIZE :][:BATCH_SIZE].tolist()
        else:
            items = project.next()["item"].tolist()
        project.answer(items, [truth[item] for item in items])
        accuracy = float(np.mean(project.model_.predict(test) == y_test))
        n_labels = (batch + 1) * BATCH_SIZE
        lines.append({"n_labels": n_labels, "accuracy": accuracy})
    return lines


def all_sessions(root, out, n_seeds):
    X, y, X_test, y_test = load(root)
    others, backbone = y >= 5, out / "backbone"
    train_backbone(X[others], y[others], backbone)
    own, lines = np.flatnonzero(y < 5), []
    labels = np.array(NAMES)
    for seed in range(n_seeds):
        rows = np.random.default_rng(seed).permutation(own)
        here, rest = rows[:N_POOL], rows[N_POOL:]
        pool = out / f"photos-{seed}"
        paths = write_images(pool, X[here])
        answers = labels[y[here]]
        truth = {Path(p).name: str(a) for p, a in zip(paths, answers, strict=True)}
        kept = y_test < 5
        test = write_images(out / f"test-{seed}", np.r_[X[rest], X_test[kept]])
        wanted = labels[np.r_[y[rest], y_test[kept]]]
        for name, arm in product(["backbone", "pixels"], ARMS):
            folder = out / f"{name} {arm} {seed}"
            found = one_session(
                folder, pool, truth, test, wanted, arm, seed,
                backbone if name == "backbone" else None,
            )  # fmt: skip
            lines += [{"sees": name, "arm": arm, "seed": seed, **f} for f in found]
            print(lines[-1], flush=True)
    return pd.DataFrame(lines)


def table(runs):
    """The text of cifar.md."""
    n_seeds = runs["seed"].nunique()
    lines = [
        "Accuracy on held-out images after so many labels, mean of "
        f"{n_seeds} seeds (pools of {N_POOL:,} photos of five classes of CIFAR-10; "
        "1,000 others measure), and the difference from the random order, paired by "
        "seed, with its 95 % interval (t). The model is the default one, linear. Seen "
        "by it: features of a small network trained on 2,000 images of the five other "
        "classes (backbone; pretrained weights, not at hand here, tell far more), "
        "or the principal components of the images (pixels; without `--backbone`).",
        "",
    ]
    lines += [f"* {arm}: {what}." for arm, what in ARMS.items()]
    head = " | ".join(f"{n} labels" for n in SHOWN)
    lines += ["", f"| sees | order | {head} | mean of all batches |"]
    lines += ["|---" * (3 + len(SHOWN)) + "|"]
    verdicts = []
    for name, arm in product(runs["sees"].unique(), ARMS):
        own = runs[runs["sees"] == name].pivot_table(
            "accuracy", ["seed", "arm"], "n_labels"
        )
        own["mean"] = own.mean(axis=1)
        mine = own.xs(arm, level="arm")
        gaps = mine - own.xs(CHANCE, level="arm")
        cells = []
        for column in [*SHOWN, "mean"]:
            text = f"{mine[column].mean():.3f}"
            if arm != CHANCE:
                gap, half = mean_interval(gaps[column])
                text += f" ({gap:+.3f} ± {half:.3f})"
            cells.append(text)
        lines.append(f"| {name} | {arm} | {' | '.join(cells)} |")
        if arm != CHANCE:
            gap, half = mean_interval(gaps["mean"])
            word = "not told apart from"
            if abs(gap) > half:
                word = "ahead of" if gap > 0 else "behind"
            verdicts.append(f"* {arm} on {name}: {word} the {CHANCE} ({gap:+.3f}).")
    lines += ["", "By the mean of all batches:", "", *verdicts, ""]
    lines += [
        "Photos need a backbone: their pixels tell a linear model little, and a batch "
        "that covers pixels covers nothing that matters: there the default is rather "
        "behind."
    ]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    runs = all_sessions(given.data_root, given.out, given.seeds)
    runs.round(4).to_csv(HERE.with_suffix(".csv"), index=False)
    HERE.with_suffix(".md").write_text(table(runs))
    print(table(runs))


if __name__ == "__main__":
    main()
