"""Tensors beyond a limit lie in files that nobody sees, and are the same otherwise."""

import os
import resource
import signal
import subprocess
import sys
import tempfile

import numpy as np
import pytest
import torch

from skal.utils.scratch import Scratch

ONE = torch.zeros(1)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_memory_is_counted_while_tensors_are_there():
    scratch = Scratch(1000)
    first = scratch.empty(ONE, 100, 2)
    assert scratch.n_bytes == 800
    beyond = scratch.empty(ONE, 100, 2)
    assert scratch.n_bytes == 800
    del first
    assert scratch.n_bytes == 0
    scratch.empty(ONE.double(), 125)
    beyond[:] = 7
    assert (beyond == 7).all()


def test_files_have_no_name(folder):
    rows = Scratch(1).empty(ONE, 1000, 10)
    rows[:] = 1
    assert os.listdir(folder) == []


LEFT_ALONE = """
import sys, time, torch
from skal.utils.scratch import Scratch
rows = Scratch(1).empty(torch.zeros(1), 1000, 10)
rows[:] = 1
print("ready", flush=True)
time.sleep(60)
"""


def test_nothing_is_left_of_a_process_that_was_killed(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", LEFT_ALONE],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("reserves", [True, False])
def test_a_disk_without_room_is_an_error_at_once(folder, monkeypatch, reserves):
    if not reserves:
        monkeypatch.delattr(os, "posix_fallocate")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, hard))
    try:
        with pytest.raises(OSError, match="8 MB beyond .* set TMPDIR") as error:
            Scratch(1).empty(ONE, 2**21)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error.value.errno and str(folder) in str(error.value)
    assert os.listdir(folder) == []


def test_room_is_made_where_the_system_does_not_reserve(folder, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate")
    rows = Scratch(1).empty(ONE, 3, 2**18)
    rows[:] = torch.arange(3)[:, None]
    assert rows.sum() == 3 * 2**18


@pytest.mark.parametrize("limit", [None, 100, 10**9])
@pytest.mark.parametrize("n_numbers", [1, 12, 10**6])
def test_by_rows_is_the_function_of_all_rows(limit, n_numbers):
    scratch, rng = Scratch(limit), np.random.default_rng(0)
    scratch.n_numbers = n_numbers
    x, y = torch.from_numpy(rng.normal(size=(50, 4))), torch.arange(50.0)
    sums, wide = scratch.by_rows(lambda a, b: (a.sum(1) + b, a * 2), x, y)
    assert torch.equal(sums, x.sum(1) + y)
    assert torch.equal(wide, x * 2)
    some = np.array([7, 3, 3, 49])
    assert torch.equal(scratch.by_rows(torch.exp, x, rows=some), x[some].exp())
    assert scratch.by_rows(torch.exp, x, rows=some[:0]).shape == (0, 4)
    assert scratch.by_rows(torch.exp, x[:0]).shape == (0, 4)


@pytest.mark.parametrize("limit", [None, 1])
def test_stack_copies(limit):
    x, y = torch.ones(3, 2), torch.zeros(1, 2)
    stacked = Scratch(limit).stack(x, None, y)
    assert torch.equal(stacked, torch.cat([x, y]))
    stacked[:] = 5
    assert (x == 1).all()


def test_one_chunk_must_be_within_the_limit():
    scratch = Scratch(100)
    scratch.check_chunk(torch.zeros(5, 5), 5)
    with pytest.raises(ValueError, match=r"memory_limit=100 bytes is less .* 6 rows"):
        scratch.check_chunk(torch.zeros(1, 5), 6)
    Scratch().check_chunk(torch.zeros(6, 5), 6)
