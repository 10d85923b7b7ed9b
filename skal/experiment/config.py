"""What a run is made of; loads nothing heavy."""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace


class UsageError(Exception):
    """A request that cannot be met, said in one message for the user."""


@dataclass(frozen=True)
class RunConfig:
    """Options that decide the numbers of a run.

    Parameters
    ----------
    data : str, default="digits"
        Name of the data set, see :func:`skal.datasets.load_dataset`.
    model : {"mlp", "cnn", "resnet"}, default="mlp"
        The network.
    strategy : str, default="badge"
        Name of the strategy on the command line.
    n_initial : int, default=20
        Size of the first labelled set.
    batch_size : int, default=20
        Labels bought in a round.
    n_rounds : int, default=10
        Rounds after the initial one.
    epochs : int, default=100
        Epochs of training in each round.
    lr : float, default=0.001
        Learning rate of Adam.
    seed : int, default=0
        Everything random follows from it.
    device : str, default="auto"
        Torch's name of a device; "auto" takes a GPU where there is one.
    threads : int or None, default=None
        Threads of torch on the CPU; None takes one a usable core, eight at most.
    pool_size : int or None, default=None
        Size of the random part of the training images to buy from; None takes all.
    """

    data: str = "digits"
    model: str = "mlp"
    strategy: str = "badge"
    n_initial: int = 20
    batch_size: int = 20
    n_rounds: int = 10
    epochs: int = 100
    lr: float = 0.001
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

        device = self.device
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            torch.empty(1, device=device)
        except (AssertionError, NotImplementedError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(
                f"--device {device!r} cannot be used here ({reason}); take 'cpu' or "
                "'auto'."
            ) from error
        threads = self.threads or min(_n_cores(), 8)
        return replace(self, device=device, threads=threads)

    @property
    def run_id(self):
        """Folder of the run below the folder of all results."""
        sizes = f"{self.n_initial}+{self.n_rounds}x{self.batch_size}"
        return f"{self.data}/{self.model}/{sizes}/{self.strategy}/seed={self.seed}"

    @property
    def hash(self):
        """Fingerprint of the options."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _n_cores():
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
