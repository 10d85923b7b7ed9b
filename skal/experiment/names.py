"""Names that the command line knows without loading what they stand for."""

from importlib.metadata import entry_points
from typing import Literal, get_args

# Tests compare these with what is found.
STRATEGIES = (
    "asal badge bait bald bald-ensemble batch-bald batch-bald-ensemble cluster-margin "
    "core-gcn core-set deep-fool drop entropy entropy-dropout entropy-ensemble epig "
    "epig-ensemble falcun k-center-greedy k-means learning-loss least-confidence "
    "least-confidence-dropout least-confidence-ensemble margin margin-dropout "
    "margin-ensemble max-herding power-bald power-entropy power-margin prob-cover "
    "random typi-clust u-herding uncertain-gcn vaal waal"
).split()
DataSet = Literal["digits", "MNIST", "FashionMNIST", "CIFAR10", "CIFAR100", "SVHN"]
Model = Literal["linear", "mlp", "cnn", "resnet"]
Optimizer = Literal["adam", "sgd", "adamw", "nadam"]
Initial = Literal["auto", "herding", "uniform", "balanced"]
# Where the runs of a grid may take place.
Backend = Literal["loky", "dask", "ray"]
DATASETS, MODELS = get_args(DataSet), get_args(Model)


def other_strategies():
    """List the command-line names of other packages' strategies, none imported.

    Returns
    -------
    names : set of str
        See :func:`skal.utils.all_strategies`.
    """
    return {point.name for point in entry_points(group="skal.strategies")}


def is_other_strategy(name):
    """Whether a name may be another package's, perhaps with a posterior.

    Parameters
    ----------
    name : str

    Returns
    -------
    possible : bool
    """
    stem = name.removesuffix("-dropout").removesuffix("-ensemble")
    return not {name, stem}.isdisjoint(other_strategies())
