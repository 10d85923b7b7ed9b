"""Learning curves of eight strategies on digits over ten seeds: table and picture.

    python benchmarks/label_efficiency/digits.py --out save

The runs are those of `skal run --strategy NAME --seed K --threads 1`, so they are
shared with the command line and not repeated. Seed k gives every strategy the same
split, the same first labels and the same first model: differences are paired by seed.
"""

import argparse
from pathlib import Path

import numpy as np
from joblib import Parallel, delayed
from matplotlib.figure import Figure
from scipy import stats

from skal.experiment.config import RunConfig
from skal.experiment.run import run_experiment
from skal.plotting import LearningCurveDisplay

N_SEEDS = 10
STRATEGIES = (
    "badge entropy k-center-greedy k-means least-confidence margin random u-herding"
).split()
DRAWN = ("random", "u-herding", "badge", "margin", "entropy")


def main(out, n_jobs):
    records, mean, final = [], {}, {}
    cells = [(name, seed) for name in STRATEGIES for seed in range(N_SEEDS)]
    every = Parallel(n_jobs=n_jobs)(
        delayed(run_experiment)(
            RunConfig(strategy=name, seed=seed, threads=1, device="cpu"), out=out
        )
        for name, seed in cells
    )
    for name in STRATEGIES:
        runs = [each.records for each in every if each.config.strategy == name]
        scores = np.array([[r["accuracy"] for r in run] for run in runs])
        mean[name], final[name] = scores.mean(1), scores[:, -1]
        if name in DRAWN:
            records += sum(runs, [])
    lines = [
        "| strategy | mean over rounds | minus random, 95 % interval | at the end |",
        "|---|---|---|---|",
    ]
    for name in sorted(STRATEGIES, key=lambda name: -mean[name].mean()):
        gain = mean[name] - mean["random"]
        half = stats.t.ppf(0.975, N_SEEDS - 1) * gain.std(ddof=1) / np.sqrt(N_SEEDS)
        low, high = gain.mean() - half, gain.mean() + half
        interval = "" if name == "random" else f"{low:+.3f} to {high:+.3f}"
        lines.append(
            f"| {name} | {mean[name].mean():.3f} | {interval} | "
            f"{final[name].mean():.3f} ± {final[name].std(ddof=1):.3f} |"
        )
    here = Path(__file__).parent
    (here / "digits.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    display = LearningCurveDisplay.from_records(records, ax=figure.subplots())
    display.ax_.set_title(f"digits, MLP, {N_SEEDS} seeds")
    figure.savefig(here / "digits.png", dpi=90)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="save", help="folder of the runs")
    parser.add_argument("--n-jobs", type=int, default=2, help="processes")
    args = parser.parse_args()
    main(args.out, args.n_jobs)
