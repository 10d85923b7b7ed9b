"""Fits that go on from a file: interrupted anywhere, killed, damaged, refused."""

import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from skorch.callbacks import EarlyStopping
from torch import nn
from torch.utils.data import TensorDataset

from skal import ActiveLearningLoop, ClusterMarginQuery, MarginQuery, RandomQuery
from skal.callbacks import ScorePlateau, StabilizingPredictions
from skal.loop import checkpoint as checkpoint_module
from skal.loop.identity import digest
from skal.models import FrozenFeatures

pytestmark = [
    pytest.mark.filterwarnings("ignore:the initial set of"),
    pytest.mark.filterwarnings("ignore:.* appeared when a model"),
]
X, Y = load_digits(return_X_y=True)
X, Y = (X[:200] / 16).astype(np.float32), Y[:200]
NAMES = np.array([f"digit {k}" for k in range(10)], dtype=object)[Y]


class Net(nn.Module):
    def __init__(self, hidden=16):
        super().__init__()
        self.hidden, self.drop = nn.Linear(64, hidden), nn.Dropout(0.2)
        self.head = nn.Linear(hidden, 10)

    def forward(self, x):
        return self.head(self.drop(torch.relu(self.hidden(x))))


def make_net(**options):
    options = {"max_epochs": 2, "lr": 0.01, "verbose": 0, **options}
    return NeuralNetClassifier(
        Net, criterion=nn.CrossEntropyLoss, optimizer=torch.optim.Adam, **options
    )


class Stopped(Exception):
    pass


class Oracle:
    """Answers so many times, and keeps a list of what it was asked."""

    def __init__(self, labels=Y, skips=(), asked=None, n_answers=np.inf):
        self.labels, self.skips, self.n_answers = labels, set(skips), n_answers
        self.asked = [] if asked is None else asked

    def __call__(self, rows):
        if self.n_answers <= 0:
            raise Stopped
        self.n_answers -= 1
        self.asked.append(rows.tolist())
        return [-1 if k in self.skips else self.labels[k] for k in rows.tolist()]


def make_loop(path=None, estimator=None, oracle=None, strategy=None, **options):
    estimator = LogisticRegression(max_iter=300) if estimator is None else estimator
    strategy = MarginQuery() if strategy is None else strategy
    options = {"n_rounds": 4, "batch_size": 7, "random_state": 0} | options
    return ActiveLearningLoop(
        estimator, strategy, oracle=oracle, checkpoint=path, **options
    )


def fit_in_parts(path, make, n_answers=1):
    """Fit again and again, in a new loop each time, after so many answers."""
    asked = []
    while True:
        oracle = Oracle(asked=asked, n_answers=n_answers)
        loop, fit = make(path, oracle)
        try:
            return fit(loop), asked
        except Stopped:
            assert oracle.n_answers == 0 and len(asked) < 99


def assert_same(loop, other):
    np.testing.assert_array_equal(loop.labeled_indices_, other.labeled_indices_)
    np.testing.assert_array_equal(loop.labeled_iter_, other.labeled_iter_)
    np.testing.assert_array_equal(loop.transduction_, other.transduction_)
    np.testing.assert_array_equal(loop.classes_, other.classes_)
    np.testing.assert_array_equal(loop.predict_proba(X), other.predict_proba(X))
    assert loop.termination_condition_ == other.termination_condition_
    assert loop.n_iter_ == other.n_iter_ and loop.seed_ == other.seed_
    assert list(loop.history_) == list(other.history_)
    for name in set(loop.history_) - {"fit_time", "query_time"}:
        np.testing.assert_array_equal(loop.history_[name], other.history_[name])


PARTLY = np.where(np.arange(200) % 20 == 0, Y, -1)
CASES = {
    "plain": {},
    "net": {"estimator": make_net()},
    "warm net": {
        "estimator": make_net(callbacks=[EarlyStopping(monitor="train_loss")]),
        "warm_start": True,
        "n_rounds": 3,
    },
    "warm logistic": {"warm_start": True},
    "pipeline": {"estimator": make_pipeline(StandardScaler(), LogisticRegression())},
    "forest": {"estimator": RandomForestClassifier(10), "strategy": RandomQuery()},
    "strategy with state": {"strategy": ClusterMarginQuery()},
    "given first rows": {"initial": [3, 50, 1, 77]},
    "first rows by strategy": {"initial": RandomQuery(), "n_initial": 5},
    "one class at first": {"initial": np.flatnonzero(Y == 3)[:4], "batch_size": 1},
    "all classes known": {"classes": range(10)},
    "until none is left": {"n_rounds": None, "batch_size": 60},
}


@pytest.mark.parametrize("case", CASES)
def test_interrupted_anywhere_it_is_the_same_fit(case, tmp_path):
    options = CASES[case]

    def make(path, oracle):
        loop = make_loop(path, oracle=oracle, **options)
        return loop, lambda loop: loop.fit(X, X_test=X[:50], y_test=Y[:50])

    oracle = Oracle()
    loop, fit = make(None, oracle)
    whole = fit(loop)
    parts, asked = fit_in_parts(tmp_path / "loop.npz", make)
    assert asked == oracle.asked
    assert_same(parts, whole)
    assert os.listdir(tmp_path) == ["loop.npz"]
    # And once more, when all is done.
    loop, fit = make(tmp_path / "loop.npz", Oracle(n_answers=0))
    assert_same(fit(loop), whole)


@pytest.mark.parametrize("skips", [range(0, 200, 2), range(150)])
def test_skipped_rows_are_not_asked_for_again(skips, tmp_path):
    """Half are, at random; or whole batches of them."""
    oracle, asked = Oracle(skips=skips), []
    whole = make_loop(oracle=oracle, batch_size=3, n_rounds=8).fit(X)
    assert any(set(batch) <= set(skips) for batch in oracle.asked) or skips.step == 2
    loop = None
    while loop is None:
        again = Oracle(skips=skips, asked=asked, n_answers=1)
        try:
            path = tmp_path / "a"
            loop = make_loop(path, oracle=again, batch_size=3, n_rounds=8).fit(X)
        except Stopped:
            pass
    assert asked == oracle.asked
    assert_same(loop, whole)


def test_labels_in_y_and_names_as_labels(tmp_path):
    y = np.where(PARTLY >= 0, NAMES, None)

    def run(path, n_answers=np.inf, asked=None):
        oracle = Oracle(NAMES, asked=asked, n_answers=n_answers)
        loop = make_loop(path, oracle=oracle, missing_label=None)
        return loop.fit(X, y), oracle

    whole, oracle = run(None)
    asked = []
    with pytest.raises(Stopped):
        run(tmp_path / "a", 2, asked)
    parts, _ = run(tmp_path / "a", asked=asked)
    assert asked == oracle.asked
    assert_same(parts, whole)
    assert parts.transduction_.dtype == whole.transduction_.dtype


def test_a_simulation_goes_on_too(tmp_path, monkeypatch):
    whole = make_loop().fit(X, NAMES)
    train, n_fits = LogisticRegression.fit, []

    def stop(self, X, y):
        n_fits.append(len(y))
        if len(n_fits) == 3:
            raise Stopped
        return train(self, X, y)

    monkeypatch.setattr(LogisticRegression, "fit", stop)
    with pytest.raises(Stopped):
        make_loop(tmp_path / "a").fit(X, NAMES)
    parts = make_loop(tmp_path / "a").fit(X, NAMES)
    assert_same(parts, whole)
    # No round that was finished is trained again.
    assert n_fits == [10, 17, 24, 24, 31, 38]


def test_rules_go_on_from_where_they_were(tmp_path):
    def run(path, n_answers=np.inf, asked=None):
        rules = [StabilizingPredictions(0.6, patience=2), ScorePlateau(cv=2)]
        loop = make_loop(path, n_rounds=20, oracle=Oracle(Y, (), asked, n_answers))
        return loop.set_callbacks(*rules).fit(X), rules

    whole, rules = run(None)
    asked = []
    for _ in range(whole.n_iter_):
        with pytest.raises(Stopped):
            run(tmp_path / "a", 1, asked)
    parts, others = run(tmp_path / "a", asked=asked)
    assert parts.termination_condition_ == type(rules[0]).__name__
    assert_same(parts, whole)
    for rule, other in zip(rules, others, strict=True):
        assert (rule.rounds_, rule.reason_) == (other.rounds_, other.reason_)
        np.testing.assert_array_equal(rule.values_, other.values_)


def test_of_a_batch_with_a_wrong_answer_only_that_is_asked_again(tmp_path):
    oracle, asked = Oracle(), []
    whole = make_loop(oracle=oracle, classes=range(10)).fit(X)

    for wrong in (None, 12):

        def answer(rows, wrong=wrong):
            asked.append(rows.tolist())
            labels = Y[rows].tolist()
            labels[-1] = wrong
            return labels

        loop = make_loop(tmp_path / "a", oracle=answer, classes=range(10))
        with pytest.raises(ValueError, match="oracle"):
            loop.fit(X)
        assert (loop.transduction_ != -1).sum() == (9 if wrong is None else 10)
    right = Oracle(asked=asked)
    loop = make_loop(tmp_path / "a", oracle=right, classes=range(10)).fit(X)
    assert_same(loop, whole)
    first = oracle.asked[0]
    assert asked[:3] == [first, first[-1:], first[-1:]]
    assert asked[3:] == oracle.asked[1:]


def test_without_a_seed_that_of_the_file_is_taken(tmp_path):
    loop = make_loop(tmp_path / "a", random_state=None, oracle=Oracle(n_answers=2))
    with pytest.raises(Stopped):
        loop.fit(X)
    again = make_loop(tmp_path / "a", random_state=None, oracle=Oracle()).fit(X)
    assert_same(again, make_loop(random_state=loop.seed_, oracle=Oracle()).fit(X))


def test_more_rounds_go_on_fewer_are_refused(tmp_path):
    make_loop(tmp_path / "a", oracle=Oracle(), n_rounds=2).fit(X)
    oracle = Oracle()
    longer = make_loop(tmp_path / "a", oracle=oracle, n_rounds=4).fit(X)
    assert_same(longer, make_loop(oracle=Oracle(), n_rounds=4).fit(X))
    assert len(oracle.asked) == 2
    with pytest.raises(ValueError, match="holds 4 rounds, more than n_rounds=3"):
        make_loop(tmp_path / "a", oracle=Oracle(), n_rounds=3).fit(X)


# -- refused ------------------------------------------------------------------------

OTHER_X = X.copy()
OTHER_X[150, 20] += 1e-3
TEST = {"X_test": X[:9], "y_test": Y[:9]}


@pytest.mark.parametrize(
    "options, data, name",
    [
        ({"estimator": make_net(lr=0.02)}, {}, "estimator__lr was 0.01 and is 0.02"),
        ({"estimator": make_net(module__hidden=8)}, {}, "estimator__module__hidden"),
        ({"estimator": make_net(callbacks=[EarlyStopping()])}, {}, "callbacks"),
        ({"estimator": LogisticRegression()}, {}, "estimator was skorch"),
        ({"strategy": RandomQuery()}, {}, "strategy was"),
        ({"strategy": MarginQuery(random_state=1)}, {}, "strategy__random_state"),
        ({"batch_size": 8}, {}, "batch_size was 7 and is 8"),
        ({"initial": [1, 2, 3]}, {}, "initial was None"),
        ({"random_state": 1}, {}, "random_state was 0 and is 1"),
        ({"classes": range(10)}, {}, "classes"),
        ({"warm_start": True}, {}, "warm_start"),
        ({"missing_label": None}, {}, "missing_label was -1"),
        ({}, {"X": OTHER_X}, "X was ndarray of shape"),
        ({}, {"X": X[:199]}, "X was ndarray of shape"),
        ({}, {"X": torch.from_numpy(X)}, "X was ndarray of shape"),
        ({}, {"y": PARTLY}, "y was 0 labels"),
        ({}, {"skip": [5]}, "skip was 0 rows"),
        ({}, TEST, "X_test was not there"),
        ({"oracle": None}, {"y": Y}, "labels come from was the oracle and is y"),
    ],
)
def test_another_fit_is_refused(options, data, name, tmp_path):
    path = tmp_path / "loop.npz"
    options = {"estimator": make_net(), "oracle": Oracle(n_answers=1)} | options
    with pytest.raises(Stopped):
        make_loop(path, make_net(), Oracle(n_answers=1)).fit(X)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="is of another fit: ") as refused:
        make_loop(path, **options).fit(**({"X": X} | data))
    assert name in str(refused.value)
    assert path.read_bytes() == before


def test_a_backbone_of_other_layers_is_refused(tmp_path):
    def loop(layer):
        backbone = nn.Sequential(nn.Flatten(), layer)
        estimator = make_pipeline(FrozenFeatures(backbone), LogisticRegression())
        return make_loop(tmp_path / "a", estimator, Oracle(n_answers=1))

    for _ in range(2):
        with pytest.raises(Stopped):
            loop(nn.ReLU()).fit(X)
    with pytest.raises(ValueError, match="is of another fit: .*backbone"):
        loop(nn.Tanh()).fit(X)


def test_what_may_differ(tmp_path):
    for verbose in (0, 1):
        path = (
            os.path.join(os.path.relpath(tmp_path), "a") if verbose else tmp_path / "a"
        )
        oracle = Oracle(n_answers=9 * verbose + 1)
        loop = make_loop(path, oracle=oracle, verbose=verbose)
        if verbose:
            loop.fit(X.copy())
            assert len(oracle.asked) == 4
        else:
            with pytest.raises(Stopped):
                loop.fit(X)


def test_a_person_who_is_asked_needs_none(tmp_path):
    with pytest.raises(ValueError, match="the state is y"):
        make_loop(tmp_path / "a", oracle="ask").fit(X, PARTLY)
    with pytest.raises(ValueError, match="'checkpoint' parameter"):
        make_loop(3, oracle=Oracle()).fit(X)
    assert not os.listdir(tmp_path)


def test_checksums_tell_data_apart():
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]})
    items = TensorDataset(torch.arange(40.0).reshape(20, 2))
    data = [
        frame,
        frame.rename(columns={"a": "c"}),
        frame.astype({"a": "float32"}),
        frame.assign(b=["x", "z"]),
        X,
        X.astype(float),
        sparse.csr_matrix(X),
        torch.from_numpy(X),
        {"a": X, "b": X},
        {"a": X, "b": OTHER_X},
        items,
        TensorDataset(torch.arange(40.0).reshape(20, 2) + 1),
    ]
    sums = [digest(each) for each in data]
    assert len(set(sums)) == len(sums)
    for each, checksum in zip(data, sums, strict=True):
        assert digest(pickle.loads(pickle.dumps(each))) == checksum
    assert digest(frame.set_axis([5, 6])) == sums[0]  # rows go by position


def test_items_drawn_anew_are_no_checksum():
    class Noise(torch.utils.data.Dataset):
        rng = np.random.default_rng()

        def __len__(self):
            return 5

        def __getitem__(self, row):
            return self.rng.random(3)

    assert digest(Noise()) == digest(Noise()) == "Noise of 5 items "


# -- damaged ------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "loop.npz"
    with pytest.raises(Stopped):
        make_loop(path, oracle=Oracle(n_answers=2)).fit(X)
    return path


def test_a_damaged_file_is_named_and_left_alone(path):
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [b"", b"PK", b"no checkpoint", pickle.dumps([1]), whole[:-1]]
    damaged += [whole[:n] for n in rng.integers(1, len(whole), 20)]
    for place in rng.integers(0, len(whole), 60):
        damaged.append(
            whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]
        )
    n_refused = 0
    for content in damaged:
        path.write_bytes(content)
        oracle = Oracle(n_answers=0)
        try:
            make_loop(path, oracle=oracle).fit(X)
        except ValueError as error:
            n_refused += 1
            assert f"checkpoint='{path}'" in str(error) and "another file" in str(error)
            assert path.read_bytes() == content
        except Stopped:  # a date, or another byte that says nothing
            with np.load(path) as archive:
                assert len(archive["rows"]) == 17
    assert n_refused >= 70


def test_nothing_is_unpickled(path):
    class Mine:
        def __reduce__(self):
            return os.mkdir, (str(path.with_name("taken")),)

    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **{**arrays, "rows": np.array([Mine()], dtype=object)})
    np.savez(path.with_name("b.npy"), np.array([Mine()], dtype=object))
    for each in (path, path.with_name("b.npy.npz")):
        with pytest.raises(ValueError, match="cannot be read"):
            make_loop(each, oracle=Oracle()).fit(X)
    assert not path.with_name("taken").exists()


def test_places_that_cannot_be_written(tmp_path, monkeypatch):
    oracle = Oracle()
    with pytest.raises(ValueError, match="is a folder"):
        make_loop(tmp_path, oracle=oracle).fit(X)
    with pytest.raises(ValueError, match="there is no folder"):
        make_loop(tmp_path / "no" / "a", oracle=oracle).fit(X)
    monkeypatch.setattr(
        "tempfile.mkstemp", lambda **_: (_ for _ in ()).throw(PermissionError(13, "no"))
    )
    with pytest.raises(OSError, match="cannot be written .no.*"):
        make_loop(tmp_path / "a", oracle=oracle).fit(X)
    assert not oracle.asked  # before a label is paid for


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_full_disk_loses_nothing(elsewhere, path, monkeypatch):
    before, write = path.read_bytes(), checkpoint_module.atomic_write
    oracle = Oracle()
    loop, n_written = make_loop(path, oracle=oracle), []

    def fill_up(*args):
        n_written.append(1)
        if len(n_written) >= 2:  # when the fit begins there is room
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(*args)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "atomic_write", fill_up)
        with pytest.raises(OSError, match="No space left .*transduction_"):
            loop.fit(X)
    assert len(oracle.asked) == 1
    assert (loop.transduction_ != -1).sum() == 24
    with np.load(path) as archive:
        assert len(archive["rows"]) == 17 and len(before) > 0
    if elsewhere:
        loop.set_params(checkpoint=path.with_name("other.npz"))
    loop.fit(X)  # what the file lacks is known still
    assert path.with_name("other.npz").exists() == elsewhere
    assert_same(loop, make_loop(oracle=Oracle()).fit(X))
    asked = np.concatenate(oracle.asked)
    assert len(np.unique(asked)) == len(asked) == 21


def test_two_fits_do_not_write_one_file(path):
    other = Oracle(n_answers=1)

    def meanwhile(rows):
        if other.n_answers:
            with pytest.raises(Stopped):
                make_loop(path, oracle=other).fit(X)
        return Y[rows]

    loop = make_loop(path, oracle=meanwhile)
    with pytest.raises(ValueError, match="changed by something else"):
        loop.fit(X)
    assert (loop.transduction_ != -1).sum() == 24


def test_what_a_killed_write_left_is_swept(path):
    litter = path.with_name(".loop.npz.abc123_x")
    mine = path.with_name(".loop.npz.backup.old")
    for each in (litter, mine):
        each.write_bytes(b"")
    make_loop(path, oracle=Oracle()).fit(X)
    assert not litter.exists() and mine.exists()


def test_labels_that_text_cannot_hold_are_refused_by_name(tmp_path):
    class Label(str):
        item = None

    loop = make_loop(tmp_path / "a", oracle=lambda rows: [b"a", b"b"] * 5)
    with pytest.raises((TypeError, ValueError), match="label|bytes"):
        loop.fit(X)


def test_a_loop_with_a_checkpoint_is_pickled(path):
    loop = make_loop(path, oracle=len)
    loop.oracle = Oracle()
    loop.fit(X)
    assert_same(pickle.loads(pickle.dumps(loop)), loop)


# -- killed -------------------------------------------------------------------------

SKIPS = range(0, 200, 9)


def make_killed_loop(case, path, oracle):
    options = {"n_rounds": 8, "batch_size": 4, **CASES[case]}
    return make_loop(path, oracle=oracle, **options)


KILLED = """
import os, random, signal, sys, time
sys.path.insert(0, sys.argv[1])
import numpy as np
import test_checkpoint as t
from skal.callbacks import StabilizingPredictions

name, path, log, n_kills = sys.argv[2:5] + [int(sys.argv[5])]
log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def oracle(rows):
    time.sleep(0.002)
    os.write(log, (" ".join(map(str, rows)) + "\\n").encode())
    return t.Oracle(skips=t.SKIPS)(rows)

def fit(path):
    loop = t.make_killed_loop(name, path, oracle)
    return loop.set_callbacks(StabilizingPredictions(1.0)).fit(t.X)

def in_child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            os.write(log, f"error {error!r}\\n".encode())
            os._exit(1)
        os._exit(0)
    return pid

start = time.monotonic()
os.waitpid(in_child(lambda: fit(None)), 0)
took = time.monotonic() - start
os.write(log, b"whole\\n")
random.seed(5)
for _ in range(n_kills):
    pid = in_child(lambda: fit(path))
    time.sleep(random.random() * took / 2)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.write(log, b"killed\\n")

def compare():
    parts, whole = fit(path), fit(None)
    os.write(log, b"compared\\n")
    t.assert_same(parts, whole)
    rules = [each._skl_callbacks[0] for each in (parts, whole)]
    np.testing.assert_array_equal(*[rule.values_ for rule in rules])
    os.write(log, b"same\\n")

os.waitpid(in_child(compare), 0)
"""


def kill_often(case, n_kills, tmp_path):
    log, path = tmp_path / "log", tmp_path / "a.npz"
    # It begins here: no address in memory, no order of a set is part of the file.
    oracle = Oracle(skips=SKIPS, n_answers=1)
    with pytest.raises(Stopped):
        make_killed_loop(case, path, oracle).fit(X)
    arguments = [case, str(path), str(log), str(n_kills)]
    command = [sys.executable, "-W", "ignore", "-c", KILLED, str(Path(__file__).parent)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "77"}
    child = subprocess.run(
        [*command, *arguments], env=env, capture_output=True, text=True
    )
    assert child.returncode == 0, child.stderr
    lines = log.read_text().splitlines()
    assert lines[-1] == "same" and not any("error" in line for line in lines), lines
    end = lines.index("whole")
    whole, rest = lines[:end], lines[end + 1 :]
    asked = [" ".join(map(str, oracle.asked[0]))]
    for before, line in zip(["", *rest], rest, strict=False):
        if line == "compared":
            break
        # Only what was being answered when it was killed is asked for again.
        if line != "killed" and not (before == "killed" and line == asked[-1]):
            asked.append(line)
    # At last it was fitted a second time without a file, to compare.
    assert asked == whole * 2 and rest.count("killed") == n_kills


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed(tmp_path):
    kill_often("warm net", 2, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("case", ["plain", "net", "warm net", "pipeline"])
def test_killed_twenty_times(case, tmp_path):
    kill_often(case, 20, tmp_path)
