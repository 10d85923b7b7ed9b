"""Profiles, threads, measurements and the table that all benchmarks share."""

import statistics
import time

import pytest
import torch
from measuring import peak_growth

PROFILES = ("fast", "regular", "large")
ROWS = pytest.StashKey()


def pytest_addoption(parser):
    parser.addoption("--profile", choices=PROFILES, default="regular")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    config.stash[ROWS] = []
    config.option.benchmark_quiet = True  # --benchmark-verbose brings its tables back


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash[ROWS]
    if not rows:
        return
    profile = config.getoption("--profile")
    terminalreporter.section(f"{profile} profile, two threads, medians")
    terminalreporter.write_line(
        f"{'':40}{'seconds':>9}  {'beside':<24}{'seconds':>9}{'ratio':>7}{'MB':>7}"
        f"{'% input':>9}"
    )
    for row in rows:
        terminalreporter.write_line(row)


@pytest.fixture(scope="session")
def table(request):
    """Add a row to the table that is printed at the end.

    `beside` is what else was measured, in `other` seconds; `memory` is the extra memory
    in bytes, `n_input` that of the input; `note` is free text.
    """

    def add(
        name, seconds, beside="", other=None, *, memory=None, n_input=None, note=""
    ):
        row = f"{name:40}{seconds:9.4f}  {beside:<24}"
        row += f"{'':16}" if other is None else f"{other:9.4f}{other / seconds:7.2f}"
        row += f"{'':7}" if memory is None else f"{memory / 1e6:7.0f}"
        row += f"{'':9}" if n_input is None else f"{100 * memory / n_input:9.0f}"
        request.config.stash[ROWS].append(f"{row}  {note}".rstrip())

    return add


def pytest_collect_file(file_path, parent):
    named = parent.session.isinitpath(file_path)  # Then pytest collects it anyway.
    if file_path.match("bench_*.py") and not named:
        return pytest.Module.from_parent(parent, path=file_path)
    return None


@pytest.fixture(scope="session")
def profile(request):
    return request.config.getoption("--profile")


@pytest.fixture(scope="session", autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def medians_in_turn():
    """Seconds of each function: medians over rounds that run all of them in turn."""

    def measure(functions, n_rounds=3):
        seconds = {name: [] for name in functions}
        for _ in range(n_rounds):
            for name, function in functions.items():
                start = time.perf_counter()
                function()
                seconds[name].append(time.perf_counter() - start)
        return {name: statistics.median(times) for name, times in seconds.items()}

    return measure


@pytest.fixture(scope="session")
def extra_memory():
    """Memory that a call needs at its peak, see `peak_growth`; call it once before."""
    return peak_growth
