"""Rounds of a loop in a file, or in a tracker by its own library."""

import csv
import io
import os
from pathlib import Path
from typing import Any

from skal.callbacks._base import RoundCallback
from skal.utils import append_line, command_line_name


class _Logger(RoundCallback):
    def on_round(self, loop: Any) -> None:
        """Log the last line of `history_`."""
        record = {name: column[-1].item() for name, column in loop.history_.items()}
        self._log(loop, record)


class CSVLogger(_Logger):
    """Append a line to a CSV file after each round.

    Several fits may share a file: each line names its strategy and its seed, so the
    file is what :mod:`skal.analysis` and :mod:`skal.plotting` read. Nothing that is in
    the file is ever changed.

    Parameters
    ----------
    path : path-like
        The file; made where there is none.
    **columns : object
        Further columns with one value each, such as ``fold=3``, or other names for
        `strategy` (by default as on the command line) and `seed` (`loop.seed_`).

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import pandas as pd
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skal import ActiveLearningLoop
    >>> from skal.callbacks import CSVLogger
    >>> X, y = np.arange(40.0).reshape(20, 2), np.arange(20) % 2
    >>> loop = ActiveLearningLoop(
    ...     LogisticRegression(), "margin", n_rounds=1, batch_size=5, random_state=0
    ... )
    >>> path = tempfile.mkdtemp() + "/rounds.csv"
    >>> _ = loop.set_callbacks(CSVLogger(path)).fit(X, y)
    >>> pd.read_csv(path)[["strategy", "seed", "round", "n_labeled"]]
      strategy  seed  round  n_labeled
    0   margin     0      0         10
    1   margin     0      1         15
    """

    def __init__(self, path: str | os.PathLike, **columns: Any):
        self.path, self.columns = Path(path), columns

    def _log(self, loop, record):
        name = command_line_name(type(loop.strategy_))
        record = {"strategy": name, "seed": loop.seed_, **self.columns, **record}
        header, there = _line(record), ""
        if self.path.exists():
            there = self.path.read_text(encoding="utf-8")
        if not there:
            append_line(self.path, header)
        elif there.partition("\n")[0] != header:
            raise ValueError(
                f"{str(self.path)!r} has other columns than {header}; give CSVLogger "
                "another path."
            )
        elif not there.endswith("\n"):  # torn
            append_line(self.path, "")
        line = _line(record.values())
        if not there.endswith(f"\n{line}\n"):  # a fit from a checkpoint tells it again
            append_line(self.path, line)


class TensorBoardLogger(_Logger):
    """Write the numbers of each round for TensorBoard, by the number of labels.

    Parameters
    ----------
    writer : torch.utils.tensorboard.SummaryWriter
        From ``pip install "skal[tensorboard]"``; who made it closes it.
    prefix : str, default="loop/"
        Put before the names of `history_`.
    """

    def __init__(self, writer: Any, *, prefix: str = "loop/"):
        self.writer, self.prefix = writer, prefix

    def _log(self, loop, record):
        step = record.pop("n_labeled")
        for name, value in record.items():
            self.writer.add_scalar(self.prefix + name, value, step)
        self.writer.flush()


class MLflowLogger(_Logger):
    """Log the numbers of each round with MLflow; the number of labels is the step.

    Parameters
    ----------
    run_id : str, default=None
        The run of MLflow; None takes the active one, and starts one where none is.
        From ``pip install "skal[mlflow]"``.
    """

    def __init__(self, run_id: str | None = None):
        self.run_id = run_id

    def _log(self, loop, record):
        import mlflow

        step = record.pop("n_labeled")
        mlflow.log_metrics(record, step=step, run_id=self.run_id)


class WandbLogger(_Logger):
    """Log the numbers of each round with Weights & Biases.

    Parameters
    ----------
    run : wandb.Run
        As `wandb.init` gives it, from ``pip install "skal[wandb]"``.
    """

    def __init__(self, run: Any):
        self.run = run

    def _log(self, loop, record):
        self.run.log(record)


def _line(values):
    file = io.StringIO()
    csv.writer(file, lineterminator="").writerow(values)
    return file.getvalue()
