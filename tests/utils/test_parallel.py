"""Calls by number, in this process and in others."""

from types import SimpleNamespace

import pytest
from joblib import parallel_config, register_parallel_backend
from joblib.parallel import SequentialBackend

from skal.utils import parallel
from skal.utils.parallel import N_TRIES, call_all


class TerminatedWorkerError(Exception):
    """Named as that of loky."""


def test_results_come_in_the_order_of_the_numbers():
    assert call_all(pow, lambda n: (n, 2), 5) == [0, 1, 4, 9, 16]
    with parallel_config("threading", n_jobs=2):
        assert call_all(pow, lambda n: (n, 2), 5) == [0, 1, 4, 9, 16]
    assert call_all(pow, lambda n: (n, 2), 0) == []


def test_only_what_did_not_come_back_is_called_again():
    called = []

    def fragile(number):
        called.append(number)
        if called.count(2) == 1 and number == 2:
            raise TerminatedWorkerError
        return -number

    assert call_all(fragile, lambda n: (n,), 4) == [0, -1, -2, -3]
    assert called == [0, 1, 2, 2, 3]


def test_workers_that_always_end_are_given_up():
    tries = []

    def ending(number):
        tries.append(number)
        raise TerminatedWorkerError

    with pytest.raises(RuntimeError, match=f"one of 2 calls, {N_TRIES} times"):
        call_all(ending, lambda n: (n,), 2)
    assert tries == [0] * N_TRIES


def test_other_errors_are_those_of_the_call():
    def wrong(number):
        raise KeyError(number)

    with pytest.raises(KeyError):
        call_all(wrong, lambda n: (n,), 2)


def test_engines_that_give_all_results_at_once(monkeypatch):
    made = parallel.Parallel

    def plain(*args, **options):
        if "return_as" in options:
            raise ValueError
        return made(*args, **options)

    monkeypatch.setattr(parallel, "Parallel", plain)
    assert call_all(pow, lambda n: (n, 2), 3) == [0, 1, 4]


@pytest.mark.parametrize("status", ["connecting", "closed", "running"])
def test_a_scheduler_that_is_gone(status):
    """What joblib raises then is of the engine's insides."""

    class Gone(SequentialBackend):
        client = SimpleNamespace(status=status)

        def configure(self, *args, **kwargs):
            raise AttributeError("'NoneType' object has no attribute 'ncores'")

    register_parallel_backend("gone", Gone)
    kind = AttributeError if status == "running" else ConnectionError
    with parallel_config("gone"), pytest.raises(kind) as error:
        call_all(pow, lambda n: (n, 2), 3)
    if status != "running":
        assert "the scheduler of dask is gone (AttributeError: 'No" in str(error.value)
        assert "start a cluster again" in str(error.value)
