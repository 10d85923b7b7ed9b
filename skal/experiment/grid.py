"""A grid of runs: several strategies over several seeds."""

from collections import Counter, namedtuple
from contextlib import contextmanager, nullcontext
from dataclasses import replace

from joblib import Parallel, delayed, parallel_config

from skal.experiment.config import BACKENDS, RunConfig, UsageError
from skal.experiment.data import load_data, pool_rows
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
    configs, notes = plan(strategies, seeds, out=out, data_root=data_root, **options)
    with (watch or _no_watch)(configs), _workers(backend, scheduler, n_jobs) as run_all:
        errors = run_all(delayed(_run_cell)(c, out, data_root) for c in configs)
    failures = [(c, error) for c, error in zip(configs, errors, strict=True) if error]
    failed = [c for c, _ in failures]
    results = [read_run(RunFolder(out, c).path) for c in configs if c not in failed]
    return Comparison(results, failures, notes)


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
    names, seeds, notes = list(strategies), _seeds(seeds), []
    for flag, values in (("--strategies", names), ("--seed-list", seeds)):
        twice = [value for value, count in Counter(values).items() if count > 1]
        if twice:
            raise UsageError(f"{flag} has {twice[0]!r} more than once; name it once.")
    if "random" not in names:
        names.insert(0, "random")
        notes.append("random is added: strategies are compared with it")
    unknown = options.keys() - (RunConfig.__annotations__.keys() - {"strategy", "seed"})
    if unknown:
        raise UsageError(f"A comparison has no option {', '.join(sorted(unknown))}.")
    common = RunConfig(**{"threads": 1, **options}).resolve()
    if not common.sizes_known:
        n_rows = len(pool_rows(common, len(load_data(common, data_root).X_train)))
        common = common.resolve_sizes(n_rows)
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
    for config in configs:
        RunFolder(out, config).check()
    return configs, notes


def _seeds(seeds):
    if isinstance(seeds, int):
        if seeds < 1:
            raise UsageError(f"--seeds must be at least 1, got {seeds}.")
        return list(range(seeds))
    return list(seeds)


def _own_options(name, options):
    known = named_strategies()
    if name not in known:
        raise UsageError(f"Unknown strategy {name!r}; allowed are {', '.join(known)}.")
    params = known[name].get_params()
    return {key: value for key, value in options.items() if key in params}


def _run_cell(config, out, data_root):
    """Run one cell; returns the exception it ended with, or None."""
    try:
        run_experiment(config, out=out, data_root=data_root)
    except Exception as error:
        return error
    return None


def _no_watch(configs):
    return nullcontext()


@contextmanager
def _workers(backend, scheduler, n_jobs):
    """Yield what runs delayed calls and lists their results."""
    if backend == "loky":
        with parallel_config(backend="loky"):
            yield Parallel(n_jobs=n_jobs)
    elif backend == "dask":
        try:
            from distributed import Client
        except ImportError as error:
            raise _not_installed(backend) from error
        local = {"n_workers": n_jobs, "threads_per_worker": 1}
        with Client(scheduler, **({} if scheduler else local)):
            with parallel_config(backend="dask"):
                yield Parallel(n_jobs=-1)
    elif backend == "ray":
        try:
            import ray
            from ray.util.joblib import register_ray
        except ImportError as error:
            raise _not_installed(backend) from error
        ray.init(address=scheduler, num_cpus=None if scheduler else n_jobs)
        try:
            register_ray()
            with parallel_config(backend="ray"):
                yield Parallel(n_jobs=-1)
        finally:
            ray.shutdown()
    else:
        raise UsageError(
            f"Unknown backend {backend!r}; allowed are {', '.join(BACKENDS)}."
        )


def _not_installed(backend):
    return UsageError(
        f"--backend {backend} needs more packages: pip install 'skal[{backend}]'."
    )
