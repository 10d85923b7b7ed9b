"""Pools under a memory limit: anonymous memory while a strategy picks, and seconds.

The rows are a file of float32 that is mapped, and so are all outputs beyond 64 MB. A
million rows, a thousand picks: `pytest benchmarks/bench_bounded_memory.py --profile
large -k large`; what is in memory all the time of a run is shown at ten moments of it.
Beside it the same picks with all outputs in memory.
"""

import os
import threading
import time

import numpy as np
import pytest
import torch
from measuring import in_new_process, resident
from skorch import NeuralNetClassifier
from torch.utils.data import Dataset

from skal import BadgeQuery, EntropyQuery, KCenterGreedyQuery, MaxHerdingQuery, PoolView
from skal.models import MLP

SIZES = {"fast": (5_000, 64, 50), "regular": (100_000, 256, 500)}
SIZES["large"] = (1_000_000, 256, 1_000)
STRATEGIES = {
    "BADGE": BadgeQuery,
    "k-center": KCenterGreedyQuery,
    "herding": MaxHerdingQuery,
    "entropy, Dataset": EntropyQuery,
}
N_LABELED, LIMIT = 1_000, 64 * 2**20


class Items(Dataset):
    """Rows that are read one by one."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, position):
        return torch.from_numpy(self.rows[position].copy())


def make_rows(path, n, d):
    """Write clustered rows to a file, some at a time."""
    rng = np.random.default_rng(0)
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (n, d))
    centers = 3 * rng.standard_normal((200, d), dtype=np.float32)
    for part in np.array_split(rows, max(1, n // 10_000)):
        part[:] = centers[rng.integers(200, size=len(part))]
        part += rng.standard_normal(part.shape, dtype=np.float32)
    rows.flush()


def pick(name, path, n_samples, limits):
    """Run under each limit: picks, seconds, and bytes of anonymous memory in time."""
    torch.set_num_threads(2)
    torch.manual_seed(0)
    X = np.load(path, mmap_mode="r")
    net = NeuralNetClassifier(
        MLP,
        module__n_inputs=X.shape[1],
        module__n_classes=10,
        module__hidden=(X.shape[1],),
        criterion=torch.nn.CrossEntropyLoss,
        classes=list(range(10)),
        iterator_valid__batch_size=1024,
        verbose=0,
    ).initialize()

    def query(rows, k, limit):
        labeled = {"X_labeled": X[:N_LABELED], "y_labeled": np.arange(N_LABELED) % 10}
        pool = PoolView(net, rows, random_state=0, memory_limit=limit, **labeled)
        return STRATEGIES[name]().query(pool, k)

    query(X[:3000], 20, limits[0])  # loads what it needs
    rows = Items(X) if "Dataset" in name else X
    return [
        watched(lambda limit=limit: query(rows, n_samples, limit)) for limit in limits
    ]


def watched(function):
    trace, done = [resident("RssAnon")], threading.Event()

    def watch():
        while not done.wait(0.05):
            trace.append(resident("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    result = function()
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    return result, seconds, np.array(trace) - trace[0]


@pytest.fixture(scope="module")
def rows(profile, tmp_path_factory):
    n, d, n_samples = SIZES[profile]
    path = tmp_path_factory.mktemp("rows") / "rows.npy"
    make_rows(path, n, d)
    yield path, n, d, n_samples
    os.remove(path)


@pytest.mark.parametrize("name", STRATEGIES)
def test_bounded_memory(rows, profile, table, name):
    path, n, d, n_samples = rows

    limits = [LIMIT if n > 10**5 else LIMIT // 64, None]
    found = in_new_process(pick, name, path, n_samples, limits)
    (picks, seconds, trace), (expected, in_memory, whole) = found
    np.testing.assert_array_equal(picks, expected)
    title = f"{name}, {n:,} x {d}, {n_samples:,} picks"
    moments = trace[np.linspace(0, len(trace) - 1, 11).astype(int)[1:]] / 1e6
    table(title, seconds, "in memory", in_memory, goal="<= 1.5x")
    table(
        f"{name}: anonymous memory",
        beside=f"{whole.max() / 1e6:,.0f} MB in memory",
        goal="<= 600 MB",
        memory=int(trace.max()),
        n_input=4 * n * d,
        note="MB in time: " + " ".join(f"{m:.0f}" for m in moments),
    )
