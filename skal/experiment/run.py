"""One run: a data set, a network, a strategy, a seed."""

from collections import namedtuple
from contextlib import contextmanager

import numpy as np
import torch

from skal.datasets import load_dataset
from skal.experiment.config import UsageError
from skal.experiment.networks import build_estimator
from skal.experiment.results import RunFolder
from skal.experiment.rounds import RecordedLoop, Rounds
from skal.plotting import LearningCurveDisplay
from skal.utils import all_strategies, command_line_name, derive_seed

RunResult = namedtuple("RunResult", "config path records notes")


def run_experiment(config, *, out="save", data_root=None, on_round=None):
    """Run one experiment, or read it when it has already been run.

    A run that was interrupted goes on from its last stored round: that round's model is
    trained again, and no other. The test images are scored once a round, after the last
    epoch; the scores stop and choose nothing.

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
    rows = np.arange(len(data.X_train)) if pool is None else pool
    folder.start()
    rounds = Rounds(config, data, rows, folder, _drawn(data, pool), on_round)
    if not rounds.complete:
        loop = RecordedLoop(
            build_estimator(config, data),
            strategy,
            batch_size=config.batch_size,
            n_initial=config.n_initial,
            n_rounds=config.n_rounds,
            classes=np.arange(len(data.classes)),
            random_state=config.seed,
        )
        loop.rounds_ = rounds
        images = data.X_train if pool is None else data.X_train[pool]
        with _threads(config.threads):
            loop.fit(images, data.y_train[rows])
    figure, notes = _picture(rounds.records)
    folder.finish(figure)
    return RunResult(config, folder.path, rounds.records, rounds.notes + notes)


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
