"""Calls in other processes, by whatever `joblib.parallel_config` says."""

from collections.abc import Callable, Iterable
from typing import Any

from joblib import Parallel, delayed
from joblib.parallel import get_active_backend

# A call whose process ended is made again, so many times in all.
N_TRIES = 3
# What joblib's loky, dask and ray raise where a worker ended; none is imported.
_ENDED = {
    *("BrokenProcessPool", "TerminatedWorkerError"),
    *("CancelledError", "FutureCancelledError", "KilledWorker", "FutureLostError"),
    *("ActorDiedError", "RayActorError", "WorkerCrashedError"),
}


def call_all(
    function: Callable[..., Any],
    arguments: Callable[[int], Iterable[Any]],
    n_calls: int,
    *,
    n_jobs: int | None = None,
) -> list[Any]:
    """Call a function with the arguments of each number, in processes if there are any.

    Parameters
    ----------
    function : callable
        Given equal arguments, it gives equal results.
    arguments : callable
        ``function(*arguments(number))``; asked for little before the call, and again
        for a call that is made again.
    n_calls : int
        Numbers 0 to n_calls - 1.
    n_jobs : int, default=None
        See :class:`joblib.Parallel`: None is one, here, or what a surrounding
        `joblib.parallel_config` says.

    Returns
    -------
    results : list
        In the order of the numbers.

    Raises
    ------
    ConnectionError
        Where the scheduler of dask is gone.
    RuntimeError
        Where a worker ended in each of `N_TRIES` tries; what a call raises it raises.
    """
    results, error = {}, None
    for _ in range(N_TRIES):
        left = [number for number in range(n_calls) if number not in results]
        calls = (delayed(_numbered)(n, function, *arguments(n)) for n in left)
        try:
            for number, result in _runner(n_jobs)(calls):
                results[number] = result
            return [results[number] for number in range(n_calls)]
        except Exception as raised:
            if _ENDED.isdisjoint(cls.__name__ for cls in type(raised).__mro__):
                _check_cluster(raised)
                raise
            error = raised
    raise RuntimeError(
        f"a worker ended while it ran one of {n_calls} calls, {N_TRIES} times, most "
        "likely for want of memory: make the parts smaller, or run fewer at once."
    ) from error


def _check_cluster(error):
    client = getattr(get_active_backend()[0], "client", None)  # of dask
    if client is not None and client.status != "running":
        raise ConnectionError(
            f"the scheduler of dask is gone ({type(error).__name__}: {error}); start a "
            "cluster again, and do the same again, or choose another backend."
        ) from error


def _runner(n_jobs):
    try:  # so that what has come back is kept where a worker ends
        return Parallel(n_jobs, batch_size=1, return_as="generator_unordered")
    except ValueError:  # ray gives results all at once
        return Parallel(n_jobs, batch_size=1)


def _numbered(number, function, *args):
    return number, function(*args)
