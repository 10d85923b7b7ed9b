"""Profiles, threads and measurements that all benchmarks share."""

import statistics
import threading
import time
from pathlib import Path

import pytest
import torch

PROFILES = ("fast", "regular", "large")


def pytest_addoption(parser):
    parser.addoption("--profile", choices=PROFILES, default="regular")


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


def resident_bytes():
    """Resident memory of this process, from /proc (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/self/status has no VmRSS")


@pytest.fixture(scope="session")
def extra_memory():
    """Peak of the resident memory while a function runs, less that before, in bytes.

    A thread samples it every millisecond, so a shorter peak can be missed, and memory
    that earlier calls left with the allocator is not counted: call it first.
    """

    def measure(function):
        before, peak, done = resident_bytes(), 0, threading.Event()

        def sample():
            nonlocal peak
            while not done.wait(0.001):
                peak = max(peak, resident_bytes())

        sampler = threading.Thread(target=sample)
        sampler.start()
        try:
            function()
        finally:
            done.set()
            sampler.join()
        return max(0, max(peak, resident_bytes()) - before)

    return measure
