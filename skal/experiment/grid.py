"""A grid of runs: several strategies over several seeds."""

import os
import pickle
from collections import Counter, namedtuple
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

from skal.experiment.config import GridConfig, RunConfig, RunOptions
from skal.experiment.data import forget_loads, load_data, pool_rows, shared_loads
from skal.experiment.features import few_rows, with_features
from skal.experiment.networks import build_estimator
from skal.experiment.options import UsageError
from skal.experiment.results import RunFolder, read_run
from skal.experiment.run import run_experiment
from skal.experiment.strategies import build_strategy, taken_options
from skal.experiment.workers import check_workers, workers
from skal.utils.parallel import call_all

Comparison = namedtuple("Comparison", "results failures notes")


def compare(
    strategies: Sequence[str],
    seeds: int | Sequence[int] = 5,
    *,
    watch: Callable[..., AbstractContextManager] | None = None,
    **options: Any,
) -> Comparison:
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
    watch : callable, default=None
        Called with the configurations of all runs; gives a context manager that is open
        while they run.
    **options : dict
        Other fields of `GridConfig`: where and how to run, `out`, `data_root`,
        `n_jobs`, `backend`, `scheduler`; and what all runs share. `threads` is 1 by
        default; each of `strategy_options` goes to the strategies that have it.

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
    which = "seed_list" if isinstance(seeds, Iterable) else "seeds"
    grid = GridConfig(strategies=strategies, **{which: seeds, **options})
    check_workers(grid.backend, grid.scheduler)
    configs, notes = plan(grid)
    # Workers may be in another folder.
    places = grid.out, grid.data_root, grid.backbone_cache
    places = [place and os.path.abspath(place) for place in places]
    name = uuid4().hex
    with ExitStack() as stack:
        stack.callback(forget_loads)
        if watch:
            stack.enter_context(watch(configs))
        stack.enter_context(workers(grid.backend, grid.scheduler, grid.n_jobs))
        errors = call_all(
            _run_cell,
            lambda number: (name, configs[number], *places, grid.memory_limit),
            len(configs),
        )
    failures = [(c, error) for c, error in zip(configs, errors, strict=True) if error]
    failed = [c for c, _ in failures]
    paths = [RunFolder(grid.out, c).path for c in configs if c not in failed]
    if not all(path.exists() for path in paths):
        raise UsageError(
            f"--out {grid.out!r} has no results of some runs: all machines of "
            f"--backend {grid.backend} must have this folder under the same path."
        )
    return Comparison([read_run(path) for path in paths], failures, notes)


def plan(grid):
    """Make the configurations of a grid, and check all that can be checked at once.

    Parameters
    ----------
    grid : GridConfig

    Returns
    -------
    configs : list of RunConfig
        Resolved; all strategies of a seed before the next seed.
    notes : list of str
    """
    names, seeds, notes = list(grid.strategies), grid.seed_list, []
    seeds = list(range(grid.seeds)) if seeds is None else seeds
    for flag, values in (("--strategies", names), ("--seed-list", seeds)):
        twice = [value for value, count in Counter(values).items() if count > 1]
        if twice:
            raise UsageError(f"{flag} has {twice[0]!r} more than once; name it once.")
    if "random" not in names:
        names.insert(0, "random")
        notes.append("random is added: strategies are compared with it")
    common = RunConfig(**grid.model_dump(include=set(RunOptions.model_fields)))
    common = common.resolve()
    own = {name: taken_options(name, common.strategy_options) for name in names}
    for option in common.strategy_options:
        if not any(option in taken for taken in own.values()):
            raise UsageError(
                f"--strategy-option {option}: none of {', '.join(names)} has it."
            )
    configs = [
        common.model_copy(
            update={"strategy": name, "seed": seed, "strategy_options": own[name]}
        )
        for seed in seeds
        for name in names
    ]
    for config in configs[: len(names)]:
        build_strategy(config)
    if not common.sizes_known:
        n_samples = _try_data(configs[0], grid.data_root)
        configs = [config.resolve_sizes(n_samples) for config in configs]
    folders = [RunFolder(grid.out, config) for config in configs]
    for folder in folders:
        folder.check()
    if not all(folder.done for folder in folders):
        _check_writable(grid.out)
        if common.sizes_known:
            _try_data(configs[0], grid.data_root)
    return configs, notes


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
    rows = pool_rows(config, len(data.X_train))
    n_samples = len(rows)
    if config.backbone is not None:
        data = with_features(config, few_rows(data), rows[:2], cache="")
    build_estimator(config.resolve_sizes(n_samples), data)
    return n_samples


def _run_cell(grid, config, out, data_root, cache, limit):
    """Run one cell; returns the exception it ended with, or None."""
    try:
        places = {"data_root": data_root, "backbone_cache": cache}
        with shared_loads(grid):
            run_experiment(config, out=out, memory_limit=limit, **places)
    except Exception as error:  # whatever it is, the other cells go on
        try:  # as what comes back from another process
            return pickle.loads(pickle.dumps(error))
        except Exception:  # its class or its arguments cannot be pickled
            return RuntimeError(f"{type(error).__name__}: {error}")
    return None
