"""One run: a data set, a network, a strategy, a seed."""

from collections import namedtuple
from contextlib import contextmanager

import numpy as np
import torch

from skal.datasets import load_dataset
from skal.experiment.config import UsageError
from skal.experiment.metrics import score_probabilities
from skal.experiment.networks import build_estimator
from skal.experiment.results import RunFolder
from skal.loop import ActiveLearningLoop
from skal.plotting import LearningCurveDisplay
from skal.utils import all_strategies, command_line_name, derive_seed

RunResult = namedtuple("RunResult", "config path records notes")


def run_experiment(config, *, out="save", data_root=None, on_round=None):
    """Run one experiment, or read it when it has already been run.

    The test images are scored once a round, after the last epoch; the scores stop and
    choose nothing.

    Parameters
    ----------
    config : RunConfig
        What to run.
    out : path-like, default="save"
        Folder of all results.
    data_root : path-like, default=None
        Folder of the data set, see :func:`skal.datasets.load_dataset`.
    on_round : callable, default=None
        Called with the record of each round when it is stored.

    Returns
    -------
    result : RunResult
        The resolved config, the path of the run's folder, the records of the rounds
        (as in rounds.jsonl) and notes for the user.
    """
    config = config.resolve()
    folder = RunFolder(out, config)
    folder.check()
    if folder.done:
        notes = ["already done: these are the stored results"]
        return RunResult(config, folder.path, folder.read_rounds(), notes)
    strategy = _strategy(config.strategy)
    try:
        data = load_dataset(config.data, data_root, random_state=config.seed)
    except (OSError, ValueError) as error:
        raise UsageError(str(error)) from error
    pool = _pool_rows(config, len(data.X_train))
    rows = slice(None) if pool is None else pool
    folder.start()
    records = []

    def store(record, purchases):
        folder.record(record, {**purchases, **_drawn(data, pool)})
        records.append(record)
        if on_round is not None:
            on_round(record)

    loop = _ScoredLoop(
        build_estimator(config, data),
        strategy,
        batch_size=config.batch_size,
        n_initial=config.n_initial,
        n_rounds=config.n_rounds,
        classes=np.arange(len(data.classes)),
        random_state=config.seed,
    )
    loop.run_ = _Run(config, data, pool, store)
    with _threads(config.threads):
        loop.fit(data.X_train[rows], data.y_train[rows])
    figure, notes = _picture(records)
    folder.finish(figure)
    return RunResult(config, folder.path, records, notes)


class _Run:
    """Turn the loop's rounds into records."""

    def __init__(self, config, data, pool, store):
        self.config, self.data, self.pool, self.store = config, data, pool, store
        self.purchases = {}

    def after_round(self, loop, record):
        config, data, number = self.config, self.data, int(record["round"])
        rows = np.asarray(loop.labeled_indices_, dtype=np.int64)
        rows = rows if self.pool is None else self.pool[rows]
        bought = rows[len(rows) - int(record["n_queried"]) :]
        self.purchases[f"round_{number}" if number else "initial"] = bought
        counts = np.bincount(data.y_train[bought], minlength=len(data.classes))
        proba = loop.predict_proba(data.X_test)
        self.store(
            {
                "run_id": config.run_id,
                "dataset": config.data,
                "model": config.model,
                "strategy": config.strategy,
                "seed": config.seed,
                "round": number,
                "n_labeled": int(record["n_labeled"]),
                "n_queried": len(bought),
                **score_probabilities(data.y_test, proba),
                "train_s": float(record["fit_time"]),
                "query_s": float(record["query_time"]),
                "acquired_class_counts": counts.tolist(),
                "device": config.device,
            },
            self.purchases,
        )


class _ScoredLoop(ActiveLearningLoop):
    """A loop that hands each round to `run_`."""

    def _after_round(self, record):
        super()._after_round(record)
        self.run_.after_round(self, record)


def _strategy(name):
    by_name = {command_line_name(cls): cls for _, cls in all_strategies()}
    if name not in by_name:
        raise UsageError(
            f"Unknown strategy {name!r}; allowed are {', '.join(sorted(by_name))}."
        )
    return by_name[name]()


def _pool_rows(config, n_rows):
    size = n_rows if config.pool_size is None else config.pool_size
    if size > n_rows:
        raise UsageError(
            f"--pool-size {size} is larger than the {n_rows} training images of "
            f"{config.data!r}."
        )
    if config.n_initial > size:
        raise UsageError(
            f"--n-initial {config.n_initial} is larger than the pool of {size} images."
        )
    if config.pool_size is None:
        return None
    rng = np.random.default_rng(derive_seed(config.seed, 0, "pool"))
    return np.sort(rng.choice(n_rows, size, replace=False))


def _drawn(data, pool):
    drawn = {"pool": pool, "test": data.test_indices}
    return {name: rows for name, rows in drawn.items() if rows is not None}


@contextmanager
def _threads(n_threads):
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _picture(records):
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return None, ['no picture without matplotlib: pip install "skal[plot]"']
    figure = Figure(figsize=(6, 4), layout="constrained")
    display = LearningCurveDisplay.from_records(records, ax=figure.subplots())
    first = records[0]
    display.ax_.set_title(f"{first['dataset']}, {first['model']}, seed {first['seed']}")
    return figure, []
