"""What a run is made of, and a grid of runs; loads nothing heavy."""

import hashlib
import json
import os
import re
from typing import Annotated, Any

from pydantic import BeforeValidator as Check
from pydantic import Field, PlainValidator, StrictBool, model_validator

from skal.experiment import names
from skal.experiment.options import (
    Options,
    UsageError,
    each,
    number,
    one_of,
    share,
    size,
    table,
    text,
    whole,
)


def _is_source(value):
    path = bool(re.search(r"[/\\]|\.\w+$", value)) or os.path.exists(value)
    return path or bool(re.fullmatch(r"openml:\d+", value))


def _is_module(value):
    return bool(re.fullmatch(r"[^\W\d][\w.]*:[^\W\d][\w.]*", value))


def _column(value):
    found = text(value)
    return int(found) if re.fullmatch(r"-?\d+", found) else found


def _backbone(value):
    if re.fullmatch(r"(torchvision|timm|transformers):.+", str(value)):
        return value
    raise ValueError(
        "must be torchvision:NAME, timm:NAME or transformers:NAME, as in "
        f"torchvision:resnet18, got {value!r}"
    )


def _test_size(value):
    is_whole = re.fullmatch(r"\d+", str(value))
    return (whole(1) if is_whole else number(above=0, below=1))(value)


def _memory(value):
    from skal.utils.sizes import parse_size  # skal.utils loads NumPy

    try:
        parse_size(value)
    except ValueError as error:
        raise ValueError(str(error).removeprefix("memory_limit ").rstrip(".")) from None
    return value


def _address(value):
    if value == "auto" or re.fullmatch(
        r"(\w+://)?(\[[\da-fA-F:]+\]|[\w.-]+):\d{1,5}", str(value)
    ):
        return value
    raise ValueError(f"must be HOST:PORT, as in 127.0.0.1:8786, got {value!r}")


def _jobs(value):
    return -1 if str(value) == "-1" else _cores(value)


_cores = whole(1, hint="; or -1 for one a core")

Count = Annotated[int, Check(whole(1))]
Whole = Annotated[int, Check(whole(0))]
Size = Annotated[int | str, Check(size)]
Text = Annotated[str, Check(text)]
Share = Annotated[float, Check(number(least=0, below=1))]
Threads = Annotated[int, Check(whole(1, 256))]
Backbone = Annotated[str, Check(_backbone)]
_data_set = Check(one_of(names.DATASETS, lambda: ["openml:ID", "a path"], _is_source))
_model = Check(one_of(names.MODELS, lambda: ["package.module:attribute"], _is_module))
_strategy = one_of(names.STRATEGIES, names.other_strategies, names.is_other_strategy)
_NAMES = ", ".join(names.STRATEGIES)
# Never behind random, and first in mean rank: benchmarks/label_efficiency/proof.md.
DEFAULT = "u-herding"


class RunOptions(Options):
    """Options of a run, its strategy and its seed apart.

    Parameters
    ----------
    data : str, default="digits"
        A name, openml:ID, or the path of a .npz, .parquet or text file, or of a folder.
    test_data : str or None, default=None
        The test split, like data.
    test_size : float or int, default=0.2
        Share (below 1) or number of the rows split off for the test, where the data
        set has no test split.
    label_column : int or str, default=-1
        Column of the labels in a table.
    header : bool or None, default=None
        Whether the first line of a text file names the columns; None: find out.
    separator : str or None, default=None
        Between the columns of a text file: a character, tab or whitespace; None: find
        out.
    decimal : str or None, default=None
        Decimal mark of a text file, . or a comma; None: find out.
    missing_labels : str or None, default=None
        What stands for a missing label, where NA or the like is a class; "" for empty
        cells.
    background : str, default="white"
        Colour under transparent images.
    pool_size : int or None, default=None
        Buy from a random part of the training rows; None: from all.
    backbone : str or None, default=None
        torchvision:NAME, timm:NAME or transformers:NAME, a pretrained network whose
        features of the images are what the model sees; computed once.
    model : str, default="mlp"
        A name, or package.module:attribute, your own module; linear with a backbone.
    embedding_layer : str, default="auto"
        Layer of the model whose input is the embedding; auto: the one whose output it
        returns.
    dropout : float or None, default=None
        Probability of dropout in the model; None: the model's own, 0.2 for mlp, 0.5
        for cnn, 0 for linear and resnet.
    epochs : int, default=100
        Epochs of training in each round, at most.
    patience : int, default=0
        Stop training after so many epochs without lower training loss; 0: never.
    optimizer : str, default="adam"
        How the network is trained.
    lr : float, default=0.001
        Learning rate.
    momentum : float, default=0.0
        Momentum of sgd.
    weight_decay : float or None, default=None
        Weight decay; None: the optimizer's own, 0.01 for adamw, else 0.
    device : str, default="auto"
        auto, cpu, cuda, ...; auto takes a GPU where there is one.
    threads : int or None, default=None
        Threads of torch; None: one a core, 8 at most.
    precision : {"bfloat16", "float16"} or None, default=None
        What the network multiplies in while the strategy looks at the pool, faster on
        a GPU; None: float32, as in training.
    strategy_options : dict, default={}
        KEY=VALUE, a parameter of the strategy, as in first=uniform; repeatable.
    n_parts : int or None, default=None
        Let the strategy choose from so many parts of the pool, then from what it chose
        there: on a large pool, or a cluster; None: from the whole.
    max_rows : int or None, default=None
        Let the strategy choose from so many rows drawn at random in each round; None:
        from all.
    initial : str, default="auto"
        How the first labelled set is chosen: herding covers the pool, uniform draws,
        balanced takes as many rows of each class; auto: herding of rows of features,
        uniform of images.
    n_initial : int or str, default=20
        Size of the first labelled set; or percent of the pool, as 2%.
    batch_size : int or str, default=20
        Labels bought in a round; or percent of the pool.
    n_rounds : int, default=10
        Rounds after the initial one.
    """

    data: Annotated[names.DataSet | str, _data_set] = "digits"
    test_data: Text | None = None
    test_size: Annotated[float | int, Check(_test_size)] = 0.2
    label_column: Annotated[int | str, Check(_column)] = -1
    header: StrictBool | None = None
    separator: Text | None = None
    decimal: Annotated[str, Check(one_of((".", ",")))] | None = None
    missing_labels: str | None = None
    background: Text = "white"
    pool_size: Count | None = None
    backbone: Backbone | None = None
    model: Annotated[names.Model | str, _model] = "mlp"
    embedding_layer: Text = "auto"
    dropout: Share | None = None
    epochs: Count = 100
    patience: Whole = 0
    optimizer: names.Optimizer = "adam"
    lr: Annotated[float, Check(number(above=0))] = 0.001
    momentum: Share = 0.0
    weight_decay: Annotated[float, Check(number(least=0))] | None = None
    device: Text = "auto"
    threads: Threads | None = None
    precision: Annotated[str, Check(one_of(("bfloat16", "float16")))] | None = None
    strategy_options: Annotated[dict[str, Any], PlainValidator(table)] = {}
    n_parts: Count | None = None
    max_rows: Count | None = None
    initial: names.Initial = "auto"
    n_initial: Size = 20
    batch_size: Size = 20
    n_rounds: Whole = 10

    @model_validator(mode="before")
    @classmethod
    def _choose_model(cls, values):
        alone = values.get("backbone") is not None and "model" not in values
        return {**values, "model": "linear"} if alone else values

    def resolve(self):
        """Replace "auto" and None by what this machine makes of them.

        Returns
        -------
        config : RunConfig
        """
        from skal.utils.devices import usable_device  # loads torch

        if self.momentum and self.optimizer != "sgd":
            raise UsageError(
                f"--momentum {self.momentum} needs --optimizer sgd, got "
                f"{self.optimizer!r}."
            )
        try:
            device = usable_device(self.device)
        except ValueError as error:
            raise UsageError(str(error).replace("device=", "--device ")) from error
        threads = self.threads or min(_n_cores(), 8)
        return self.model_copy(update={"device": device, "threads": threads})

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
        for name, given in sizes.items():
            if isinstance(given, str):
                sizes[name] = max(int(share(given) * n_samples), 1)
        if sizes["n_initial"] > n_samples:
            raise UsageError(
                f"--n-initial {sizes['n_initial']} is larger than the pool of "
                f"{n_samples} rows."
            )
        if self.max_rows is not None and self.max_rows < sizes["batch_size"]:
            raise UsageError(
                f"--max-rows {self.max_rows} is less than --batch-size "
                f"{sizes['batch_size']}: a round chooses from at least as many."
            )
        return self.model_copy(update=sizes)


class RunConfig(RunOptions):
    """Options that decide the numbers of a run, beside those of `RunOptions`.

    Parameters
    ----------
    strategy : str, default="u-herding"
        Name of the strategy on the command line.
    seed : int, default=0
        Everything random follows from it.
    """

    strategy: Annotated[str, Check(_strategy)] = Field(DEFAULT, description=_NAMES)
    seed: Whole = 0

    @property
    def data_name(self):
        """Name of the data set; of a file or folder, the last part of the path."""
        if re.search(r"[/\\]", self.data):
            return os.path.basename(os.path.abspath(self.data))
        return self.data

    @property
    def model_name(self):
        """Name of the model, and of the backbone before it."""
        return self.model if self.backbone is None else f"{self.backbone}+{self.model}"

    @property
    def title(self):
        """What was run, in a line."""
        model = self.model_name
        return f"{self.strategy} on {self.data_name}, {model}, seed {self.seed}"

    @property
    def run_id(self):
        """Folder of the run below the folder of all results."""
        data, model = (
            re.sub(r"[^\w.+-]", "-", name) for name in (self.data_name, self.model_name)
        )
        sizes = f"{self.n_initial}+{self.n_rounds}x{self.batch_size}"
        return f"{data}/{model}/{sizes}/{self.strategy}/seed={self.seed}"

    @property
    def hash(self):
        """Fingerprint of the options."""
        return options_hash(self.model_dump())


class Places(Options):
    """Where data and results are, and what else plays no part in them.

    Parameters
    ----------
    out : str, default="save"
        Folder of all results.
    data_root : str or None, default=None
        Folder of the data set in torchvision's layout, archives included; without it
        the data set is downloaded on first use.
    backbone_cache : str or None, default=None
        Folder that keeps the features of backbones, for all runs; None: one below
        ~/.cache/skal.
    memory_limit : int or str or None, default=None
        Bytes of outputs for the pool in memory, as 500M or 2G; what is beyond goes to
        temporary files; None: no limit.
    """

    out: Text = "save"
    data_root: Text | None = None
    backbone_cache: Text | None = None
    memory_limit: Annotated[int | str, Check(_memory)] | None = None


class Workers(Options):
    """Where runs are worked at, or the parts of the pool of one run.

    Parameters
    ----------
    n_jobs : int, default=1
        Runs at a time, or parts of one run's pool (--n-parts); -1: one a core.
    backend : {"loky", "dask", "ray"}, default="loky"
        Where they run: processes of this machine, or a cluster; with the files, for
        several runs.
    scheduler : str or None, default=None
        HOST:PORT of the cluster; None: a local one.
    """

    n_jobs: Annotated[int, Check(_jobs)] = 1
    backend: names.Backend = "loky"
    scheduler: Annotated[str, Check(_address)] | None = None


class GridConfig(Workers, Places, RunOptions):
    """Options of a grid of runs, beside those of `RunOptions` and `Places`.

    Parameters
    ----------
    strategies : list of str, default=["random", "u-herding"]
        Names of strategies on the command line; random is added where missing.
    seeds : int, default=5
        Number of seeds, 0 and on.
    seed_list : list of int or None, default=None
        The seeds themselves, instead of their number.
    threads : int or None, default=1
        Threads of torch on the CPU; None: one a usable core, eight at most.
    """

    strategies: Annotated[list[str], Check(each(_strategy))] = Field(
        ["random", DEFAULT], description=f"random is added where missing; {_NAMES}"
    )
    seeds: Count = 5
    seed_list: Annotated[list[int], Check(each(whole(0)))] | None = None
    threads: Threads | None = 1

    @model_validator(mode="after")
    def _check_seeds(self):
        if {"seeds", "seed_list"} <= self.model_fields_set:
            raise ValueError("--seed-list is not allowed with --seeds; give one")
        return self


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


def _n_cores():
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
