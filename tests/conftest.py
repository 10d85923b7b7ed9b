"""Fixtures that several tests share."""

import os
import signal
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from skal.testing._pools import make_estimator, make_pool
from skal.utils.scratch import Scratch

collect_ignore = ["example_package"]

# On arrays this small, threads mostly wait for each other.
threadpool_limits(1)
torch.set_num_threads(1)


def pytest_generate_tests(metafunc):
    """Train with one seed; with 20 where they are swept, by one thread and by two."""
    if "training_seed" in metafunc.fixturenames:
        swept = [
            pytest.param((seed, n_threads), marks=pytest.mark.sweep)
            for n_threads in (1, 2)
            for seed in range(20)
        ]
        metafunc.parametrize(
            "training_seed",
            [(0, 1), *swept],
            indirect=True,
            ids=lambda run: "seed{}-threads{}".format(*run),
        )


def pytest_terminal_summary(terminalreporter, config):
    if "sweep" not in config.option.markexpr.replace("not sweep", ""):
        return
    margins = {}
    for report in chain.from_iterable(terminalreporter.stats.values()):
        for kind, (value, *bounds) in getattr(report, "user_properties", ()):
            if kind == "margin" and report.when == "call":
                test = report.nodeid.partition("::")[2].partition("[")[0]
                margins.setdefault((test, *bounds), []).append(value)
    terminalreporter.section("margins of trained nets")
    terminalreporter.line("| test | what | runs | least | greatest | above | below |")
    for (test, name, above, below), values in sorted(margins.items()):
        spread = f"{len(values)} | {min(values):.4g} | {max(values):.4g}"
        terminalreporter.line(f"| {test} | {name} | {spread} | {above} | {below} |")


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


@pytest.fixture
def training_seed(request):
    """A seed to train with, on as many threads as the run says; see `margin`."""
    seed, n_threads = request.param
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    yield seed
    torch.set_num_threads(before)


@pytest.fixture
def margin(request):
    """Assert what a trained net gives, with room: `pytest -m sweep` lists how much."""

    def check(name, value, above=-np.inf, below=np.inf):
        margin = float(value), name, above, below
        request.node.user_properties.append(("margin", margin))
        assert above < value < below, name

    return check


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

    decision_values = weights = None
    by_rows, stack = Scratch().by_rows, Scratch().stack

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
