"""One run: a data set, a network, a strategy, a seed."""

import os
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from skal.datasets import DamagedImageError
from skal.experiment.config import RunConfig
from skal.experiment.data import fingerprint, load_data, pool_rows
from skal.experiment.features import with_features
from skal.experiment.networks import build_estimator
from skal.experiment.options import UsageError
from skal.experiment.results import RunFolder, RunResult
from skal.experiment.rounds import RecordedLoop, Rounds
from skal.experiment.strategies import build_strategy
from skal.loop.initial import OneClassError
from skal.loop.trial import try_estimator
from skal.plotting import sketch_curve
from skal.utils.rows import take


def run_experiment(
    config: RunConfig,
    *,
    out: str | os.PathLike = "save",
    data_root: str | os.PathLike | None = None,
    backbone_cache: str | os.PathLike | None = None,
    memory_limit: int | str | None = None,
    on_round: Callable[[dict[str, Any]], Any] | None = None,
    on_features: Callable[[int, int], Any] | None = None,
) -> RunResult:
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
    backbone_cache : path-like, default=None
        Folder of the features of backbones; None is one below ``~/.cache/skal``.
    memory_limit : int or str, default=None
        Bytes of outputs in memory, as "2G"; plays no part in results. See `PoolView`.
    on_round : callable, default=None
        Called with the record of each round when it is stored.
    on_features : callable, default=None
        Called with the number of rows that the backbone has seen, and is to see.

    Returns
    -------
    result : RunResult
        The resolved config, the path of the run's folder, the records of the rounds
        (as in rounds.jsonl) and notes for the user.
    """
    config = config.resolve()
    # Where it can be, a finished run is read without its data.
    if config.sizes_known and (result := _finished(RunFolder(out, config))):
        return result
    strategy = build_strategy(config)
    data = load_data(config, data_root)
    rows = pool_rows(config, len(data.X_train))
    config = config.resolve_sizes(len(rows))
    folder = RunFolder(out, config)
    if result := _finished(folder):
        return result
    checksum = fingerprint(data)
    data = with_features(config, data, rows, cache=backbone_cache, progress=on_features)
    estimator = build_estimator(config, data)
    _try_outputs(config, estimator, strategy, data, memory_limit)
    drawn = {"test": data.get("test_indices")}
    images = data.X_train
    if config.pool_size is not None:
        drawn["pool"] = rows
        images = images if config.backbone else take(images, rows)
    drawn = {name: value for name, value in drawn.items() if value is not None}
    folder.start(checksum, strategy.training_note)
    rounds = Rounds(config, data, rows, folder, drawn, on_round)
    if not rounds.complete:
        loop = RecordedLoop(
            estimator,
            strategy,
            batch_size=config.batch_size,
            n_initial=config.n_initial,
            initial=_initial(config),
            n_rounds=config.n_rounds,
            classes=np.arange(len(data.classes)),
            embedding_layer=_layer(config),
            random_state=config.seed,
            memory_limit=memory_limit,
            precision=config.precision,
        )
        loop.rounds_ = rounds
        try:
            with _threads(config.threads):
                loop.fit(images, data.y_train[rows])
        except DamagedImageError as error:  # a file that no check has read whole
            raise UsageError(str(error)) from error
        except OneClassError as error:
            raise UsageError(
                f"{config.title}: all {len(loop.labeled_indices_)} labels of the plan "
                "are of one class, and nothing can be trained on them; pass --initial "
                "balanced, or a larger --n-initial or --n-rounds."
            ) from error
    folder.finish(_picture(config, rounds.records))
    notes = [*rounds.notes, *folder.training_notes]
    return RunResult(config, folder.path, rounds.records, notes)


def _initial(config):
    if config.initial != "auto":
        return config.initial
    # To this network the pixels of an image are a row of features.
    return "herding" if config.model == "mlp" else None


def _layer(config):
    # The model is inside another one, which standardises.
    layer = config.embedding_layer
    return layer if layer == "auto" else f"network.{layer}"


def _try_outputs(config, estimator, strategy, data, memory_limit):
    """Raise, while there is no folder yet, what the loop would raise in it."""
    try:
        try_estimator(
            estimator,
            data.X_train,
            strategy,
            n_classes=len(data.classes),
            embedding_layer=_layer(config),
            random_state=config.seed,
            memory_limit=memory_limit,
        )
    except (TypeError, ValueError) as error:
        message = str(error).replace("embedding_layer=", "--embedding-layer ")
        message = message.replace("memory_limit=", "--memory-limit ")
        raise UsageError(
            f"--model {config.model!r} with --strategy {config.strategy}: "
            + message.replace("network.", "")
        ) from error


def _finished(folder):
    """Read a finished run; None where it is not finished."""
    folder.check()
    if not folder.done:
        return None
    notes = ["already done: these are the stored results", *folder.training_notes]
    return RunResult(folder.config, folder.path, folder.read_stored(), notes)


@contextmanager
def _threads(n_threads):
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        with threadpool_limits(n_threads):  # BLAS and scikit-learn, too
            yield
    finally:
        torch.set_num_threads(before)


def _picture(config, records):
    points = [(record["n_labeled"], record["accuracy"]) for record in records]
    return sketch_curve(*zip(*points, strict=True), title=config.title)
