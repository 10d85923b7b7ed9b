"""How much faster two dask workers choose from parts of a pool than one.

    python benchmarks/large_pools/workers.py

starts a scheduler and one worker, then a second one, as processes of one thread each.
The pool is a dask array, each block of it read from a file where it is worked at.
"""

import argparse
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter

import dask.array as da
import numpy as np
import torch
from distributed import Client
from joblib import parallel_config
from skorch import NeuralNetClassifier

from skal import KCenterGreedyQuery, PartitionedQuery, PoolView
from skal.models import MLP

N_COLUMNS, N_CLASSES = 256, 10


def read(path, shape, block_info=None):
    (start, stop), _ = block_info[None]["array-location"]
    rows = np.memmap(path, dtype=np.float32, mode="r", shape=shape)
    return np.array(rows[start:stop])


def write(path, n_rows):
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((500, N_COLUMNS)).astype(np.float32)
    with open(path, "wb") as file:
        for _ in range(n_rows // 10_000):
            rows = centers[rng.integers(500, size=10_000)]
            rows = rows + 0.5 * rng.standard_normal(rows.shape, dtype=np.float32)
            file.write(rows.tobytes())


@contextmanager
def process(*words):
    started = subprocess.Popen(
        [sys.executable, "-m", *words, "--no-dashboard"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        started.terminate()
        started.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--picks", type=int, default=1000)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--port", type=int, default=18790)
    options = parser.parse_args()
    torch.set_num_threads(1)
    net = NeuralNetClassifier(
        MLP,
        module__n_inputs=N_COLUMNS,
        module__n_classes=N_CLASSES,
        module__hidden=(options.hidden, 128),
        criterion=torch.nn.CrossEntropyLoss,
        batch_size=1024,
        classes=list(range(N_CLASSES)),
        callbacks="disable",
    ).initialize()
    address = f"127.0.0.1:{options.port}"
    worker = ["distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.f32"
        write(path, options.rows)
        X = da.map_blocks(
            partial(read, str(path), (options.rows, N_COLUMNS)),
            chunks=((12_500,) * (options.rows // 12_500), (N_COLUMNS,)),
            dtype=np.float32,
            meta=np.empty((0, N_COLUMNS), np.float32),
        )

        def seconds():
            pool = PoolView(net, X, random_state=0)
            strategy = PartitionedQuery(KCenterGreedyQuery(), n_parts=8)
            start = perf_counter()
            with parallel_config("dask"):
                picks = strategy.query(pool, options.picks)
            return perf_counter() - start, picks

        host, port = address.split(":")
        scheduler = "distributed.cli.dask_scheduler", "--host", host, "--port", port
        with process(*scheduler), process(*worker):
            with Client(address, timeout=60) as client:
                client.wait_for_workers(1)
                seconds()  # imports
                one = [seconds() for _ in range(options.rounds)]
                with process(*worker):
                    client.wait_for_workers(2)
                    seconds()
                    two = [seconds() for _ in range(options.rounds)]
    assert all(np.array_equal(picks, one[0][1]) for _, picks in one + two)
    first, second = (min(s for s, _ in found) for found in (one, two))
    print(
        f"{options.rows:,} x {N_COLUMNS} rows, a network with {options.hidden} hidden "
        f"units, {options.picks} picks of k-center in 8 parts: one worker "
        f"{first:.1f} s, two {second:.1f} s, {first / second:.2f} times as fast; the "
        "same picks."
    )


if __name__ == "__main__":
    main()
