"""A grid of runs: several strategies over several seeds."""

import argparse
import difflib
import os
import pickle
from collections import Counter, namedtuple
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from joblib import Parallel, cpu_count, delayed, parallel_config

from skal.experiment.config import RunConfig, UsageError
from skal.experiment.data import load_data, pool_rows
from skal.experiment.networks import build_estimator
from skal.experiment.options import RunOptions
from skal.experiment.results import RunFolder, read_run
from skal.experiment.run import run_experiment
from skal.experiment.strategies import build_strategy, named_strategies

Comparison = namedtuple("Comparison", "results failures notes")


def compare(
    strategies,
    seeds=5,
    *,
    out="save",
    data_root=None,
    n_jobs=1,
    backend="loky",
    scheduler=None,
    watch=None,
    **options,
):
    """Run every strategy with every seed, or read what has already been run.

    Seed k gives every strategy the same split, first labels and first model, so that
    strategies can be compared seed by seed. A run writes to its own folder only; one
    that was interrupted goes on from its last stored round.

    Parameters
    ----------
    strategies : list of str
        Names on the command line; "random" is added where it is missing.
    seeds : int or list of int, default=5
        A number n stands for the seeds 0 to n - 1.
    out : path-like, default="save"
        Folder of all results.
    data_root : path-like, default=None
        Folder of the data set, see :func:`skal.datasets.load_dataset`.
    n_jobs : int, default=1
        Runs at a time, as in joblib; -1 for one a core.
    backend : {"loky", "dask", "ray"}, default="loky"
        Processes of this machine, or a cluster whose machines share `out`.
    scheduler : str, default=None
        Address of the cluster; None starts a local one.
    watch : callable, default=None
        Called with the configurations of all runs; gives a context manager that is open
        while they run.
    **options : dict
        Fields of `RunConfig` for all runs. `threads` is 1 by default; each of
        `strategy_options` goes to the strategies that have it.

    Returns
    -------
    comparison : Comparison
        `results`, a `RunResult` for each run that has ended, by seed and strategy;
        `failures`, pairs of configuration and exception; `notes` for the user.

    Raises
    ------
    UsageError
        For a request that cannot be met, before anything is run.

    Examples
    --------
    >>> from skal.experiment import compare
    >>> compare(["margin"], seeds=2, n_rounds=1, epochs=1).notes  # doctest: +SKIP
    ["random is added: strategies are compared with it"]
    """
    how = {"n_jobs": n_jobs, "backend": backend, "scheduler": scheduler}
    how = _options().check(how)
    if scheduler is not None and backend == "loky":
        raise UsageError(
            f"--scheduler {scheduler!r} needs --backend dask or ray, got 'loky'."
        )
    configs, notes = plan(strategies, seeds, out=out, data_root=data_root, **options)
    # Workers may be in another folder.
    places = [None if p is None else os.path.abspath(p) for p in (out, data_root)]
    with (watch or _no_watch)(configs), _workers(**how) as run_all:
        errors = run_all(delayed(_run_cell)(c, *places) for c in configs)
    failures = [(c, error) for c, error in zip(configs, errors, strict=True) if error]
    failed = [c for c, _ in failures]
    paths = [RunFolder(out, c).path for c in configs if c not in failed]
    if not all(path.exists() for path in paths):
        raise UsageError(
            f"--out {str(out)!r} has no results of some runs: all machines of "
            f"--backend {backend} must have this folder under the same path."
        )
    return Comparison([read_run(path) for path in paths], failures, notes)


def plan(strategies, seeds, *, out, data_root=None, **options):
    """Make the configurations of a grid, and check all that can be checked at once.

    Parameters
    ----------
    strategies, seeds, out, data_root, **options
        As for `compare`.

    Returns
    -------
    configs : list of RunConfig
        Resolved; all strategies of a seed before the next seed.
    notes : list of str
    """
    allowed = RunConfig.__annotations__.keys() - {"strategy", "seed"}
    if unknown := options.keys() - allowed:
        name = sorted(unknown)[0]
        near = difflib.get_close_matches(name, [*allowed, "strategies", "seeds"], n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(
            f"A comparison has no option {name}; {hint}Allowed are "
            f"{', '.join(sorted(allowed))}."
        )
    given = {"strategies": strategies, "seeds": seeds, "data_root": data_root}
    options = _options().check({**given, **options})
    names, seeds, notes = options.pop("strategies"), options.pop("seeds"), []
    data_root = options.pop("data_root")
    if isinstance(seeds, int):
        seeds = list(range(seeds))
    for flag, values in (("--strategies", names), ("--seed-list", seeds)):
        twice = [value for value, count in Counter(values).items() if count > 1]
        if twice:
            raise UsageError(f"{flag} has {twice[0]!r} more than once; name it once.")
    if "random" not in names:
        names.insert(0, "random")
        notes.append("random is added: strategies are compared with it")
    common = RunConfig(**{"threads": 1, **options}).resolve()
    own = {name: _own_options(name, common.strategy_options) for name in names}
    for option in common.strategy_options:
        if not any(option in taken for taken in own.values()):
            raise UsageError(
                f"--strategy-option {option}: none of {', '.join(names)} has it."
            )
    configs = [
        replace(common, strategy=name, seed=seed, strategy_options=own[name])
        for seed in seeds
        for name in names
    ]
    for config in configs[: len(names)]:
        build_strategy(config)
    if not common.sizes_known:
        n_samples = _try_data(configs[0], data_root)
        configs = [config.resolve_sizes(n_samples) for config in configs]
    folders = [RunFolder(out, config) for config in configs]
    for folder in folders:
        folder.check()
    if not all(folder.done for folder in folders):
        _check_writable(out)
        if common.sizes_known:
            _try_data(configs[0], data_root)
    return configs, notes


def _options():
    return RunOptions(argparse.ArgumentParser(), grid=True)


def _check_writable(out):
    path = Path(out).absolute()
    there = next(place for place in (path, *path.parents) if place.exists())
    if not os.access(there, os.W_OK):
        raise UsageError(
            f"--out {str(out)!r}: nothing can be written in {str(there)!r}; name "
            "another folder."
        )


def _try_data(config, data_root):
    """Raise once what each run would raise; returns the size of the pool."""
    data = load_data(config, data_root)
    n_samples = len(pool_rows(config, len(data.X_train)))
    build_estimator(config.resolve_sizes(n_samples), data)
    return n_samples


def _own_options(name, options):
    params = named_strategies()[name].get_params()
    return {key: value for key, value in options.items() if key in params}


def _run_cell(config, out, data_root):
    """Run one cell; returns the exception it ended with, or None."""
    try:
        run_experiment(config, out=out, data_root=data_root)
    except Exception as error:  # whatever it is, the other cells go on
        try:  # as what comes back from another process
            return pickle.loads(pickle.dumps(error))
        except Exception:  # its class or its arguments cannot be pickled
            return RuntimeError(f"{type(error).__name__}: {error}")
    return None


def _no_watch(configs):
    return nullcontext()


@contextmanager
def _workers(backend, scheduler, n_jobs):
    """Yield what runs delayed calls and lists their results."""
    n_local = None if scheduler else cpu_count() if n_jobs == -1 else n_jobs
    if backend == "loky":
        with parallel_config(backend="loky"):
            yield Parallel(n_jobs=n_jobs)
    elif backend == "dask":
        try:
            from distributed import Client
        except ImportError as error:
            raise _not_installed(backend) from error
        local = {"n_workers": n_local, "threads_per_worker": 1}
        local["dashboard_address"] = None  # nobody looks, and its port may be taken
        with _connected(scheduler):
            client = Client(scheduler, **({} if scheduler else local))
        with client, parallel_config(backend="dask"):
            yield Parallel(n_jobs=-1)
    else:
        try:
            import ray
            from ray.util.joblib import register_ray
        except ImportError as error:
            raise _not_installed(backend) from error
        with _connected(scheduler):
            # "local": never a cluster that happens to run here.
            ray.init(address=scheduler or "local", num_cpus=n_local)
        try:
            register_ray()
            with parallel_config(backend="ray"):
                yield Parallel(n_jobs=-1)
        finally:
            ray.shutdown()


@contextmanager
def _connected(scheduler):
    try:
        yield
    except Exception as error:
        if scheduler is None:
            raise
        raise UsageError(
            f"--scheduler {scheduler!r} cannot be reached ({error}); give the "
            "HOST:PORT of a cluster that runs, or leave it out to start one here."
        ) from error


def _not_installed(backend):
    return UsageError(
        f"--backend {backend} needs more packages: pip install 'skal[{backend}]'."
    )
