"""Profiles, threads, measurements and the table that all benchmarks share."""

from functools import partial
from statistics import median
from time import perf_counter

import measuring
import pytest
import torch
from measuring import Row

# Seconds after which a benchmark measures no further round.
BUDGETS = {"fast": 0.5, "regular": 20, "large": 60}
N_ROUNDS = {"fast": 2, "regular": 7, "large": 7}
ROWS = pytest.StashKey()


def pytest_addoption(parser):
    parser.addoption("--profile", choices=BUDGETS, default="regular")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    config.stash[ROWS] = {}


def pytest_terminal_summary(terminalreporter, config):
    rows_by_file = config.stash[ROWS]
    if not rows_by_file:
        return
    profile = config.getoption("--profile")
    terminalreporter.section(f"{profile} profile, two threads, medians")
    terminalreporter.write_line(measuring.HEADING)
    for title, rows in rows_by_file.items():
        terminalreporter.write_line(f"\n{title}", bold=True)
        for row in rows:
            terminalreporter.write_line(str(row), red=row.mark == "MISSED")
    terminalreporter.write_line("")
    for line in measuring.summary(sum(rows_by_file.values(), [])):
        terminalreporter.write_line(line, bold=True)


@pytest.fixture
def table(request):
    """Add a row to the table that is printed at the end; returns whether it is `ok`.

    `beside` is what else was measured, in `other` seconds; `memory` is the extra memory
    in bytes, `n_input` that of the input; `note` is free text. A `goal` such as
    ">= 8x" (times as fast as the other), "<= 1.1x" (times as long), "<= 0.5 s" or
    "<= 600 MB" is shown with a mark; for other units, as in "<= 2 %", give `value`.
    A missed goal does not fail: how long things take depends on what else runs.
    """
    title = request.module.__doc__.splitlines()[0]

    def add(name, seconds=None, beside="", other=None, **more):
        row = Row(name, seconds, beside, other, **more)
        request.config.stash[ROWS].setdefault(title, []).append(row)
        return row.mark != "MISSED"

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
def medians_in_turn(profile):
    """Seconds of each function, see `measuring.medians_in_turn`."""
    return partial(measuring.medians_in_turn, budget=BUDGETS[profile])


@pytest.fixture
def benchmarked(benchmark, profile):
    """Seconds of a function, timed by pytest-benchmark, and of another one in turn."""

    def run(function, beside=lambda: None):
        seconds = []

        def run_beside():
            start = perf_counter()
            beside()
            seconds.append(perf_counter() - start)

        n_rounds = N_ROUNDS[profile]
        benchmark.pedantic(function, setup=run_beside, rounds=n_rounds, warmup_rounds=1)
        if benchmark.stats is None:
            pytest.skip("pytest-benchmark is disabled")
        return benchmark.stats.stats.median, median(seconds[-n_rounds:])

    return run


@pytest.fixture(scope="session")
def extra_memory():
    """Memory that a call needs at its peak, see `peak_growth`; call it once before."""
    return measuring.peak_growth
