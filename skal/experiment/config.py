"""What a run is made of; loads nothing heavy."""

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction

MODELS = ("mlp", "cnn", "resnet")
# Names on the command line and in torch.optim.
OPTIMIZERS = {"adam": "Adam", "sgd": "SGD", "adamw": "AdamW", "nadam": "NAdam"}
INITIALS = ("uniform", "balanced")
# Where the runs of a grid may take place.
BACKENDS = ("loky", "dask", "ray")


class UsageError(Exception):
    """A request that cannot be met, said in one message for the user."""


@dataclass(frozen=True)
class RunConfig:
    """Options that decide the numbers of a run.

    Parameters
    ----------
    data : str, default="digits"
        Name or path of the data set, see :func:`skal.datasets.load_dataset`.
    test_data : str or None, default=None
        Path of the test split, where the data set has none of its own.
    test_size : float or int, default=0.2
        Share or number of the rows that are split off where there is no test split.
    label_column : int or str, default=-1
        Column of the labels in a text file.
    header : bool or None, default=None
        Whether the first line of a text file names the columns; None finds out.
    model : str, default="mlp"
        "mlp", "cnn", "resnet" or "package.module:attribute", see `build_estimator`.
    embedding_layer : str, default="auto"
        Layer of the model whose input is the embedding, see :class:`skal.PoolView`.
    dropout : float or None, default=None
        Probability of dropout in the model; None takes the model's own: 0.2 for "mlp",
        0.5 for "cnn", 0 for "resnet".
    strategy : str, default="badge"
        Name of the strategy on the command line.
    strategy_options : dict, default={}
        Parameters of the strategy.
    initial : {"uniform", "balanced"}, default="uniform"
        How the first labelled set is drawn: "balanced" takes as many rows of each
        class.
    n_initial : int or str, default=20
        Size of the first labelled set: a number, or percent of the pool as in "2%".
    batch_size : int or str, default=20
        Labels bought in a round, likewise.
    n_rounds : int, default=10
        Rounds after the initial one.
    epochs : int, default=100
        Epochs of training in each round, at most.
    patience : int, default=0
        Stop training after so many epochs without a lower training loss; 0 never.
    optimizer : {"adam", "sgd", "adamw", "nadam"}, default="adam"
        How the network is trained.
    lr : float, default=0.001
        Learning rate.
    momentum : float, default=0.0
        Momentum, for "sgd" only.
    weight_decay : float or None, default=None
        Weight decay; None takes the optimizer's own: 0.01 for "adamw", else 0.
    seed : int, default=0
        Everything random follows from it.
    device : str, default="auto"
        Torch's name of a device; "auto" takes a GPU where there is one.
    threads : int or None, default=None
        Threads of torch on the CPU; None takes one a usable core, eight at most.
    pool_size : int or None, default=None
        Size of the random part of the training rows to buy from; None takes all.
    """

    data: str = "digits"
    test_data: str | None = None
    test_size: float | int = 0.2
    label_column: int | str = -1
    header: bool | None = None
    model: str = "mlp"
    embedding_layer: str = "auto"
    dropout: float | None = None
    strategy: str = "badge"
    strategy_options: dict = field(default_factory=dict)
    initial: str = "uniform"
    n_initial: int | str = 20
    batch_size: int | str = 20
    n_rounds: int = 10
    epochs: int = 100
    patience: int = 0
    optimizer: str = "adam"
    lr: float = 0.001
    momentum: float = 0.0
    weight_decay: float | None = None
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    pool_size: int | None = None

    def resolve(self):
        """Replace "auto" and None by what this machine makes of them.

        Returns
        -------
        config : RunConfig
        """
        import torch

        if self.momentum and self.optimizer != "sgd":
            raise UsageError(
                f"--momentum {self.momentum} needs --optimizer sgd, got "
                f"{self.optimizer!r}."
            )
        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            torch.zeros(1, device=device).item()
        # What torch raises for a device it was built without, lacks, or does not know.
        except (AssertionError, NotImplementedError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(
                f"--device {device!r} cannot be used here ({reason}); take 'cpu' or "
                "'auto'."
            ) from error
        threads = self.threads or min(_n_cores(), 8)
        return replace(self, device=device, threads=threads)

    @property
    def sizes_known(self):
        """Whether all sizes are numbers."""
        return not isinstance(self.n_initial, str) | isinstance(self.batch_size, str)

    def resolve_sizes(self, n_samples):
        """Replace percentages by numbers, at least 1.

        Parameters
        ----------
        n_samples : int
            Size of the pool.

        Returns
        -------
        config : RunConfig
        """
        sizes = {"n_initial": self.n_initial, "batch_size": self.batch_size}
        for name, size in sizes.items():
            if isinstance(size, str):
                try:
                    size = max(int(share(size) * n_samples), 1)
                except ValueError as error:
                    flag = name.replace("_", "-")
                    raise UsageError(f"--{flag} {error}.") from error
            sizes[name] = size
        if sizes["n_initial"] > n_samples:
            raise UsageError(
                f"--n-initial {sizes['n_initial']} is larger than the pool of "
                f"{n_samples} rows."
            )
        return replace(self, **sizes)

    @property
    def data_name(self):
        """Name of the data set; of a file or folder, the last part of the path."""
        if re.search(r"[/\\]", self.data):
            return os.path.basename(os.path.abspath(self.data))
        return self.data

    @property
    def title(self):
        """What was run, in a line."""
        return f"{self.strategy} on {self.data_name}, {self.model}, seed {self.seed}"

    @property
    def run_id(self):
        """Folder of the run below the folder of all results."""
        data, model = (
            re.sub(r"[^\w.+-]", "-", name) for name in (self.data_name, self.model)
        )
        sizes = f"{self.n_initial}+{self.n_rounds}x{self.batch_size}"
        return f"{data}/{model}/{sizes}/{self.strategy}/seed={self.seed}"

    @property
    def hash(self):
        """Fingerprint of the options."""
        return options_hash(asdict(self))


def options_hash(options):
    """Compute the fingerprint of options.

    Parameters
    ----------
    options : dict
        As a configuration or its config.json has them.

    Returns
    -------
    fingerprint : str
    """
    text = json.dumps(options, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def share(text):
    """Read a percentage.

    Parameters
    ----------
    text : str
        Above 0 %, 100 % at most.

    Returns
    -------
    share : Fraction
        Exact, so that 29 % of 100 are 29.

    Examples
    --------
    >>> from skal.experiment.config import share
    >>> int(share("0.29%") * 10_000)
    29
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?%", text)
    value = Fraction(found[1]) / 100 if found else 0
    if not 0 < value <= 1:
        raise ValueError(f"must be a percentage above 0% and up to 100%, got {text!r}")
    return value


def _n_cores():
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
