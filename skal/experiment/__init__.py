"""Experiments: one run, its results on disk, and the command line.

Nothing is imported here, so that the command line answers before torch is loaded;
see `skal.experiment.run.run_experiment`.
"""
