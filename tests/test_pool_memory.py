"""Under a memory limit a `PoolView` gives the same outputs, which lie in files."""

import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from torch import nn
from torch.utils.data import Dataset

from skal import (
    ActiveLearningLoop,
    BadgeQuery,
    BaitQuery,
    BaldQuery,
    EntropyQuery,
    FalcunQuery,
    KCenterGreedyQuery,
    LearningLossQuery,
    MarginQuery,
    MaxHerdingQuery,
    SubsampleQuery,
    UHerdingQuery,
)
from skal.models import MLP
from skal.pool import PoolView
from skal.posterior import MCDropout
from skal.selection import k_center_greedy, kmeans_plusplus
from skal.testing._pools import make_data, make_estimator, make_pool
from skal.utils.seeds import isolated_rng

OUTPUTS = ("proba", "log_proba", "logits", "embeddings", "decision_values")


class Items(Dataset):
    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, position):
        return self.rows[position]


class Binary(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(6, 5), nn.Linear(5, 1)

    def forward(self, x):
        return self.head(self.body(x).relu())[:, 0]


def binary_net():
    with isolated_rng(0):
        net = NeuralNetBinaryClassifier(Binary, batch_size=16, train_split=None)
        return net.initialize()


def scaled(model):
    scaler = StandardScaler(with_mean=False).fit(make_data()[0])
    if isinstance(model, NeuralNetClassifier):
        pipeline = make_pipeline(scaler, model)
        pipeline.fitted_ = True
        return pipeline
    return make_pipeline(scaler, model).fit(*make_data()[:2])


def read_only(rows, folder):
    np.save(folder / "rows.npy", rows)
    return np.load(folder / "rows.npy", mmap_mode="r")


ESTIMATORS = {
    "net": make_estimator,
    "net of one output": binary_net,
    "net behind a scaler": lambda: scaled(make_estimator()),
    "linear": lambda: LogisticRegression().fit(*make_data()[:2]),
    "linear behind a scaler": lambda: scaled(LogisticRegression()),
    "decisions": lambda: LinearSVC().fit(*make_data()[:2]),
}
CONTAINERS = {
    "array": lambda rows, _: rows,
    "memmap": read_only,
    "Dataset": lambda rows, _: Items(rows),
    "sparse": lambda rows, _: sparse.csr_array(rows),
    "frame": lambda rows, _: pd.DataFrame(rows),
}


def lies_in_a_file(tensor):
    """Whether a file that has no name is mapped where the tensor lies."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            start, stop = (int(x, 16) for x in line.split()[0].split("-"))
            if start <= tensor.data_ptr() < stop:
                return "(deleted)" in line
    raise AssertionError("not mapped at all")


def crowd(pool):
    """Take all the memory, and read a few rows at a time."""
    scratch = pool._scratch
    scratch.n_bytes, scratch.n_numbers, scratch.n_rows = scratch.limit, 40, 7
    return pool


@pytest.mark.parametrize("some", [False, True])
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("name", ESTIMATORS)
def test_outputs_are_the_same_and_lie_in_files(name, container, some, tmp_path):
    with_proba = name != "decisions"
    if container == "Dataset" and ("scaler" in name or "net" not in name):
        pytest.skip("takes no Dataset")
    X = CONTAINERS[container](make_data()[2], tmp_path)
    rows = np.arange(60)[::-3] if some else None
    model = ESTIMATORS[name]()
    kwargs = {"classes": model.classes_, "random_state": 0}
    whole = PoolView.of_rows(model, X, rows, **kwargs)
    view = crowd(PoolView.of_rows(model, X, rows, memory_limit="4K", **kwargs))
    names = [n for n in OUTPUTS if with_proba or n in ("embeddings", "decision_values")]
    for output in names:
        expected, found = getattr(whole, output), getattr(view, output)
        if expected is None:
            assert found is None
            continue
        assert found.dtype == expected.dtype
        # Of an estimator without a network, products of other shapes are rounded anew.
        error = 0 if "net" in name else 1e-12
        torch.testing.assert_close(found, expected, rtol=error, atol=error)
        shared = output == "embeddings" and isinstance(X, np.ndarray)
        assert lies_in_a_file(found) or (shared and X.flags.writeable)
    if with_proba and "net" in name:
        assert torch.equal(view.head_weight, whole.head_weight)


def test_samples_lie_in_files():
    posterior = MCDropout(n_draws=4)
    whole, view = make_pool(), crowd(make_pool(memory_limit="4K"))
    samples = view.sample_proba(posterior)
    assert torch.equal(samples, whole.sample_proba(posterior))
    assert lies_in_a_file(samples)
    for name, means in view.hidden_means().items():
        assert torch.equal(means, whole.hidden_means()[name])
        assert lies_in_a_file(means)


def test_labelled_rows_share_the_limit():
    view = make_pool(memory_limit="4K")
    assert not lies_in_a_file(view.embeddings)  # 1,920 bytes of 4,096
    assert lies_in_a_file(view.labeled.embeddings)


def test_a_limit_too_small_for_a_batch():
    with pytest.raises(ValueError, match="memory_limit=500 bytes is less than"):
        make_pool(memory_limit=500).embeddings  # noqa: B018


@pytest.mark.parametrize(
    "strategy, n_bytes",
    [
        (EntropyQuery(), 90 * 3 * 4),
        (BadgeQuery(), 90 * 8 * 4),
        (SubsampleQuery(LearningLossQuery()), 90 * 8 * 4),
    ],
)
def test_a_limit_too_small_for_a_batch_is_said_before_a_label_is_bought(
    strategy, n_bytes
):
    net = clone(make_estimator()).set_params(iterator_valid__batch_size=-1)
    bought = []
    loop = ActiveLearningLoop(
        net,
        strategy,
        oracle=lambda rows: bought.append(rows),
        memory_limit=n_bytes - 1,
    )
    message = rf"memory_limit={n_bytes - 1} bytes .* {n_bytes} bytes for 90 rows; raise"
    with pytest.raises(ValueError, match=message):
        loop.fit(make_data()[0])
    assert bought == []


def test_a_strategy_that_reads_nothing_has_room_in_any_limit():
    loop = ActiveLearningLoop(make_estimator(), "random", n_rounds=1, memory_limit=1)
    assert len(loop.fit(*make_data()[:2]).labeled_indices_) == 20


@pytest.mark.parametrize("limit", ["2X", -1, 0, 1.5])
def test_what_is_no_limit(limit):
    with pytest.raises(ValueError, match="memory_limit must be a positive number"):
        make_pool(memory_limit=limit)


@pytest.mark.parametrize("name", ["badge", "entropy", "max-herding"])
def test_a_loop_buys_the_same_rows(name):
    X, y, _ = make_data()
    bought = [
        ActiveLearningLoop(
            make_estimator(),
            name,
            n_initial=12,
            batch_size=5,
            n_rounds=2,
            random_state=0,
            memory_limit=limit,
        )
        .fit(X, y)
        .labeled_indices_
        for limit in (None, "2K")
    ]
    np.testing.assert_array_equal(*bought)


def test_a_loop_with_a_limit_that_is_none():
    loop = ActiveLearningLoop(LogisticRegression(), "margin", memory_limit="2X")
    with pytest.raises(ValueError, match="memory_limit must be .* got '2X'"):
        loop.fit(*make_data()[:2])


def test_a_checkpoint_goes_on_under_another_limit(tmp_path):
    X, y, _ = make_data()
    loop = ActiveLearningLoop(
        LogisticRegression(),
        "margin",
        n_rounds=1,
        random_state=0,
        checkpoint=tmp_path / "loop.npz",
    ).fit(X, y)
    first = loop.labeled_indices_
    loop.set_params(memory_limit="3K", n_rounds=2).fit(X, y)
    np.testing.assert_array_equal(loop.labeled_indices_[:20], first)
    assert len(loop.labeled_indices_) == 30


def anonymous():
    """Bytes of this process that lie in no file."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no RssAnon")


def growth(function):
    trace, done = [anonymous()], threading.Event()

    def watch():
        while not done.wait(0.002):
            trace.append(anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        function()
    finally:
        done.set()
        watcher.join()
    return max(trace) - trace[0]


@pytest.mark.parametrize("kernel", [k_center_greedy, kmeans_plusplus])
def test_blocks_of_a_kernel_leave_no_holes_in_memory(kernel):
    """They take a few MB; one a hole each, as small results would, twice the rows."""
    points = torch.randn(100_000, 256, generator=torch.Generator().manual_seed(0))
    kernel(points[:3000], 10, random_state=0)  # loads what it needs
    for seed in range(3):
        assert growth(lambda seed=seed: kernel(points, 20, random_state=seed)) < 50e6


SLOW = [
    EntropyQuery(),
    MarginQuery(),
    FalcunQuery(),
    BaitQuery(),
    UHerdingQuery(max_references=100),
    BaldQuery(posterior=MCDropout(n_draws=4)),
]


@pytest.mark.parametrize(
    "strategy",
    [
        BadgeQuery(),
        KCenterGreedyQuery(),
        MaxHerdingQuery(max_references=100),
        *(pytest.param(strategy, marks=pytest.mark.slow) for strategy in SLOW),
    ],
    ids=lambda strategy: type(strategy).__name__,
)
def test_a_query_makes_no_copy_of_the_embeddings(strategy, tmp_path):
    """They are 41 MB; half of that is more than all blocks and numbers a row."""
    rng = np.random.default_rng(0)
    X = read_only(rng.standard_normal((40_000, 64), dtype=np.float32), tmp_path)
    with isolated_rng(0):
        net = NeuralNetClassifier(
            MLP,
            module__n_inputs=64,
            module__n_classes=3,
            module__hidden=(256,),
            module__dropout=0.2,
            criterion=nn.CrossEntropyLoss,
            classes=[0, 1, 2],
            iterator_valid__batch_size=512,
            train_split=None,
        ).initialize()

    def query(X):
        labeled = {"X_labeled": X[:20], "y_labeled": np.arange(20) % 3}
        pool = PoolView(net, X, random_state=0, memory_limit="2M", **labeled)
        strategy.query(pool, 10)

    query(X[:1000])  # loads what it needs
    assert growth(lambda: query(X)) < 20e6
