"""Where runs, or the parts of one run's pool, are worked at."""

import re
import socket
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec

from joblib import cpu_count, parallel_config

from skal.experiment.options import UsageError

_PACKAGES = {"dask": "distributed", "ray": "ray"}
_SECONDS = 5


def check_workers(backend, scheduler):
    """Raise, before anything else is done, where there can be no workers.

    Parameters
    ----------
    backend : {"loky", "dask", "ray"}
    scheduler : str or None
        HOST:PORT.
    """
    if scheduler is not None and backend == "loky":
        raise UsageError(
            f"--scheduler {scheduler!r} needs --backend dask or ray, got 'loky'."
        )
    if backend in _PACKAGES and find_spec(_PACKAGES[backend]) is None:
        raise UsageError(
            f"--backend {backend} needs more packages: pip install 'skal[{backend}]'."
        )
    place = re.fullmatch(r"(?:\w+://)?\[?(.+?)\]?:(\d+)", scheduler or "")
    if place is not None:
        address = place[1], int(place[2])
        try:
            with socket.create_connection(address, _SECONDS) as found:
                # A scheduler of dask speaks first; what does not, as its dashboard,
                # would be waited for without end.
                scheme = scheduler.rpartition("://")[0]
                if backend == "dask" and scheme in ("", "tcp"):
                    found.settimeout(4 * _SECONDS)
                    found.recv(1)
        except (OSError, OverflowError) as error:
            raise _unreachable(scheduler, error) from error


def _unreachable(scheduler, error):
    return UsageError(
        f"--scheduler {scheduler!r} cannot be reached ({error}); give the HOST:PORT of "
        "a cluster that runs, or leave it out to start one here."
    )


@contextmanager
def workers(backend, scheduler, n_jobs):
    """Let joblib work elsewhere within a `with` block.

    Parameters
    ----------
    backend : {"loky", "dask", "ray"}
    scheduler : str or None
        HOST:PORT of a cluster; None starts one here.
    n_jobs : int
        Workers here; -1 is one a core.
    """
    n_local = None if scheduler else cpu_count() if n_jobs == -1 else n_jobs
    with ExitStack() as stack:
        try:
            if backend == "dask":
                from distributed import Client

                # No dashboard: nobody looks, and its port may be taken.
                local = {"threads_per_worker": 1, "dashboard_address": None}
                local = {} if scheduler else {"n_workers": n_local, **local}
                stack.enter_context(Client(scheduler, **local))
            if backend == "ray":
                import ray
                from ray.util.joblib import register_ray

                # "local": never a cluster that happens to run here.
                ray.init(address=scheduler or "local", num_cpus=n_local)
                stack.callback(ray.shutdown)
                register_ray()
        except Exception as error:  # each engine raises others
            if scheduler is None:
                raise
            raise _unreachable(scheduler, error) from error
        n_jobs = n_jobs if backend == "loky" else -1
        stack.enter_context(parallel_config(backend=backend, n_jobs=n_jobs))
        yield
