import csv
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from skal import ActiveLearningLoop
from skal.analysis import learning_curves
from skal.callbacks import (
    CSVLogger,
    MLflowLogger,
    RoundCallback,
    TensorBoardLogger,
    WandbLogger,
)

X = np.random.default_rng(0).normal(size=(60, 2))
Y = (X[:, 0] > 0).astype(int)


def fit(*callbacks, strategy="margin", seed=0, **options):
    options = {"n_initial": 6, "batch_size": 4, "n_rounds": 2, **options}
    loop = ActiveLearningLoop(
        LogisticRegression(), strategy, random_state=seed, **options
    )
    return loop.set_callbacks(*callbacks).fit(X, Y, X_test=X, y_test=Y)


def numbers(loop):
    """Rows of `history_`, as dicts."""
    return pd.DataFrame(loop.history_).to_dict("records")


def test_csv_has_the_history_of_all_fits(tmp_path):
    path = tmp_path / "rounds.csv"
    loops = [
        fit(CSVLogger(path), strategy=name, seed=seed)
        for name in ("margin", "k-means")
        for seed in (3, 4)
    ]
    # pandas 2 reads floats to the last bit only where it is asked to, pandas 3 always.
    exact = dict.fromkeys(["fit_time", "query_time", "test_score"], float)
    table = pd.read_csv(path, converters=exact)
    wanted = pd.concat([pd.DataFrame(loop.history_) for loop in loops])
    pd.testing.assert_frame_equal(
        table[list(wanted)], wanted.reset_index(drop=True), check_exact=True
    )
    # What is read is what is analysed.
    curves = learning_curves(table, "test_score")
    assert list(curves) == [(n, k) for n in ("margin", "k-means") for k in (3, 4)]
    assert curves.index.tolist() == [6, 10, 14]
    for loop, (_, run) in zip(loops, curves.items(), strict=True):
        np.testing.assert_array_equal(run, loop.history_["test_score"])


def test_csv_takes_names_and_columns(tmp_path):
    path = tmp_path / "rounds.csv"
    fit(CSVLogger(path, strategy='mine, "new"', fold=2), n_rounds=0)
    with path.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["strategy"], row["seed"], row["fold"]) == ('mine, "new"', "0", "2")


def test_csv_keeps_what_is_there(tmp_path):
    path = tmp_path / "rounds.csv"
    fit(CSVLogger(path), n_rounds=0)
    whole = path.read_text()
    with pytest.raises(ValueError, match=r"rounds.csv' has other columns than strat"):
        fit(CSVLogger(path, fold=1))
    assert path.read_text() == whole
    path.write_text(whole[:-5])  # torn by a crash
    fit(CSVLogger(path), n_rounds=0)
    lines = path.read_text().splitlines()
    assert len(lines) == 3 and lines[1] == whole[:-5].splitlines()[1]


def test_csv_has_each_round_once_where_a_fit_goes_on(tmp_path):
    path, checkpoint = tmp_path / "rounds.csv", tmp_path / "checkpoint"
    fit(CSVLogger(path), checkpoint=checkpoint, n_rounds=1)
    loop = fit(CSVLogger(path), checkpoint=checkpoint, n_rounds=2)
    assert pd.read_csv(path)["round"].tolist() == [0, 1, 2]
    assert len(loop.history_["round"]) == 3


def test_csv_goes_on_over_answers_of_people(tmp_path):
    path = tmp_path / "rounds.csv"
    y = np.full(60, -1)
    y[:8] = Y[:8]
    loop = ActiveLearningLoop(
        LogisticRegression(), "margin", oracle="ask", batch_size=4, classes=[0, 1]
    ).set_callbacks(CSVLogger(path))
    for _ in range(3):
        loop.fit(X, y)
        y = loop.label(y, loop.next_query_, Y[loop.next_query_])
    assert pd.read_csv(path)["n_labeled"].tolist() == [8, 12, 16]


def test_tensorboard_has_a_point_a_round(tmp_path):
    events = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path) as writer:
        loop = fit(TensorBoardLogger(writer, prefix="a/"))
    written = events.EventAccumulator(str(tmp_path)).Reload()
    tags = {f"a/{name}" for name in loop.history_ if name != "n_labeled"}
    assert set(written.Tags()["scalars"]) == tags
    points = [(each.step, each.value) for each in written.Scalars("a/test_score")]
    columns = loop.history_["n_labeled"], loop.history_["test_score"]
    np.testing.assert_allclose(points, np.stack(columns, axis=1), rtol=1e-6)


class Recorded:
    """Stands in for the library of a tracker."""

    def __init__(self):
        self.calls = []

    def log(self, record):
        self.calls.append(record)

    def log_metrics(self, record, *, step, run_id):
        self.calls.append({"n_labeled": step, "run": run_id, **record})


def test_wandb_and_mlflow_get_the_rounds(monkeypatch):
    run, mlflow = Recorded(), Recorded()
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    rows = numbers(fit(WandbLogger(run), MLflowLogger("ab")))
    assert run.calls == rows
    assert mlflow.calls == [{"run": "ab", **row} for row in rows]


def test_a_callback_of_ones_own_stops_the_loop():
    seen = []

    class Enough(RoundCallback):
        def on_round(self, loop):
            seen.append(len(loop.labeled_indices_))
            return seen[-1] >= 10

    loop = fit(Enough(), n_rounds=5)
    assert seen == [6, 10] == loop.history_["n_labeled"].tolist()
    assert loop.termination_condition_ == "callback"
