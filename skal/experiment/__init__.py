"""Experiments: one run, grids of runs, results on disk, and the command line.

Names are loaded on first use, so that the command line answers before torch is loaded:
`compare` runs a grid, `run_experiment` one run.
"""

__all__ = ["compare", "run_experiment"]


def __getattr__(name):
    if name == "compare":
        from skal.experiment.grid import compare

        return compare
    if name == "run_experiment":
        from skal.experiment.run import run_experiment

        return run_experiment
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
