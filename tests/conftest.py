"""Fixtures that several tests share."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from skal.testing._pools import make_estimator, make_pool

collect_ignore = ["example_package"]

# On arrays this small, threads mostly wait for each other.
threadpool_limits(1)
torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    for item in items:
        if "check_same_picks_on_gpu" in item.name:
            item.add_marker("gpu")


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session", autouse=True)
def ctrl_c():
    """Python's own reaction to Ctrl-C, which a shell takes from background jobs."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def data_root():
    """Folder of the data sets for tests, from SKAL_TEST_DATA."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SKAL_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no data sets in {folder}; set SKAL_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def fitted_net():
    """A small net with BatchNorm and Dropout, fitted to 90 rows of 3 classes."""
    return make_estimator()


@pytest.fixture
def pool():
    """60 rows and 90 labelled ones under a net like `fitted_net`, of its own."""
    return make_pool()


class FakePool:
    """A pool whose outputs are made by hand; reading one not given raises.

    `logits` alone give `log_proba` and `proba`; `proba` alone gives `log_proba`.
    """

    decision_values = None

    def __init__(self, *, labeled=None, random_state=0, **outputs):
        for name, value in outputs.items():
            if value is not None and name != "y":
                value = torch.as_tensor(value)
            setattr(self, name, value)
        if "logits" in outputs:
            self.log_proba = self.logits.log_softmax(1)
            self.proba = self.logits.softmax(1)
        elif "proba" in outputs:
            self.log_proba = self.proba.log()
        arrays = [value for name, value in outputs.items() if "head_" not in name]
        self._n_samples = len(arrays[0])
        self.has_labeled = labeled is not None
        if self.has_labeled:
            self.labeled = labeled
        self.random_state = random_state
        self.indices = np.arange(len(self))

    def __len__(self):
        return self._n_samples

    def prefetch(self, names):
        pass


@pytest.fixture
def fake_pool():
    """The class `FakePool`."""
    return FakePool
