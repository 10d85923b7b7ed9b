"""The options of `skal run` and `skal compare`, also in a file; nothing heavy."""

import argparse
import ast
import difflib
import json
import os
import re
import tomllib
from dataclasses import asdict
from itertools import product
from pathlib import Path

from skal.experiment.config import (
    BACKENDS,
    INITIALS,
    MODELS,
    OPTIMIZERS,
    RunConfig,
    UsageError,
    share,
)

_NOT_IN_A_FILE = ("--config", "--debug")
# Strategies with a posterior that is not their default.
SAMPLED = [
    *product(("entropy", "least-confidence", "margin"), ("dropout", "ensemble")),
    *product(("bald", "batch-bald"), ("ensemble",)),
]


class RunOptions:
    """The parser of `skal run`, or of `skal compare`.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Empty; gets the options.
    grid : bool, default=False
        Take several strategies and seeds, and how to run them.
    """

    def __init__(self, parser, grid=False):
        self.parser, self.actions = parser, {}
        if grid:
            self._add_grid()
        self._add_data()
        self._add_model()
        self._add_rounds(grid)
        add = self._add
        add(
            "--config",
            dest="config_file",
            metavar="FILE",
            help="options in TOML, as in n-rounds = 5, or in YAML (.yaml, .yml); the "
            "command line wins",
        )
        add("--out", metavar="DIR", default="save", help="where results go")
        add("--debug", action="store_true", help="show tracebacks")
        parser.set_defaults(**asdict(RunConfig()))
        if grid:
            parser.set_defaults(strategies=["random", "badge"], threads=1)

    def _add(self, flag, check=None, text=None, place=None, **options):
        """Add an option; `check` is its type and `text` its help."""
        if check is not None:
            options = {"type": check, "metavar": "N", **options}
        options.setdefault("help", text)
        self.actions[flag] = (place or self.parser).add_argument(flag, **options)

    def _add_name(self, flag, kind, allowed, text="", **options):
        check = name_check(kind, allowed, **options)
        self._add(flag, check, ", ".join(allowed) + text, metavar="NAME")

    def _add_data(self):
        data_sets = constant("datasets/_load.py", "DATASETS")
        text = ", openml:ID, or the path of a .npz, of a text file, of a folder"
        self._add_name("--data", "data set", data_sets, text, other=_is_source)
        add = self._add
        add(
            "--data-root",
            metavar="DIR",
            help="folder of the data set in torchvision's layout, archives included; "
            "without it the data set is downloaded on first use",
        )
        add("--test-data", metavar="PATH", help="the test split, like --data")
        add(
            "--test-size",
            _test_size,
            "share (below 1) or number of the rows split off for the test, where "
            "the data set has no test split",
        )
        add("--label-column", _column, "column of the labels in a text file")
        add(
            "--header",
            action=argparse.BooleanOptionalAction,
            help="whether the first line of a text file names the columns; None: "
            "find out",
        )
        add(
            "--pool-size",
            whole(1),
            "buy from a random part of the training rows; None: from all",
        )

    def _add_model(self):
        text = ", or package.module:attribute, your own module"
        self._add_name("--model", "model", MODELS, text, other=_is_module)
        add = self._add
        add(
            "--embedding-layer",
            metavar="NAME",
            help="layer of the model whose input is the embedding; auto: the one whose "
            "output it returns",
        )
        add(
            "--dropout",
            number(least=0, below=1),
            "probability of dropout in the model; None: the model's own, 0.2 for mlp, "
            "0.5 for cnn, 0 for resnet",
        )
        add("--epochs", whole(1), "epochs of training in each round, at most")
        add(
            "--patience",
            whole(0),
            "stop training after so many epochs without lower training loss; 0: never",
        )
        self._add_name("--optimizer", "optimizer", tuple(OPTIMIZERS))
        add("--lr", number(above=0), "learning rate")
        add("--momentum", number(least=0, below=1), "momentum of sgd")
        add(
            "--weight-decay",
            number(least=0),
            "weight decay; None: the optimizer's own, 0.01 for adamw, else 0",
        )
        add("--device", metavar="NAME", help="auto, cpu, cuda, ...")
        text = "threads of torch; None: one a core, 8 at most"
        add("--threads", whole(1, 256), text)

    def _add_grid(self):
        names, add = strategy_names(), self._add
        check = name_check("strategy", names)
        text = "random is added where it is missing; " + ", ".join(names)
        add("--strategies", check, text, nargs="+", metavar="NAME")
        one = self.parser.add_mutually_exclusive_group()
        add("--seeds", whole(1), "number of seeds, 0 and on", one, default=5)
        text = "the seeds themselves, instead of --seeds"
        options = {"dest": "seeds", "default": argparse.SUPPRESS}
        add("--seed-list", whole(0), text, one, nargs="+", **options)
        add("--n-jobs", _jobs, "runs at a time; -1: one a core", default=1)
        text = "where they run: processes of this machine, or a cluster with the files"
        add("--backend", choices=BACKENDS, help=text, default="loky")
        add(
            "--scheduler", metavar="HOST:PORT", help="of the cluster; None: a local one"
        )

    def _add_rounds(self, grid):
        if not grid:
            self._add_name("--strategy", "strategy", strategy_names())
        add = self._add
        add(
            "--strategy-option",
            _key_value,
            "a parameter of the strategy, as in first=uniform; repeatable",
            action=_Collect,
            dest="strategy_options",
            metavar="KEY=VALUE",
        )
        self._add_name("--initial", "initial set", INITIALS)
        add("--n-initial", _size, "size of the first labelled set; or percent, as 2%%")
        add("--batch-size", _size, "labels bought in a round; or percent of the pool")
        add("--n-rounds", whole(0), "rounds after the initial one")
        if not grid:
            add("--seed", whole(0), "everything random follows from it")

    def nearest(self, name):
        """Find the option that a wrong name may mean.

        Parameters
        ----------
        name : str
            With or without dashes in front.

        Returns
        -------
        flag : str or None
        """
        name = "--" + name.lstrip("-").partition("=")[0].replace("_", "-")
        near = difflib.get_close_matches(name, self.actions, n=1)
        return near[0] if near else None

    def check(self, values):
        """Check values from a function's arguments as those of the command line.

        Parameters
        ----------
        values : dict
            By `dest` of the options; numbers may be those of NumPy.

        Returns
        -------
        values : dict
            As the command line gives them.
        """
        checked = {}
        may_be_none = {"data_root": None, "scheduler": None, **asdict(RunConfig())}
        for dest, value in values.items():
            value = _plain(value)
            flags = [flag for flag, each in self.actions.items() if each.dest == dest]
            flag = flags[-1 if isinstance(value, list) else 0]
            if value is not None or may_be_none.get(dest, "") is not None:
                try:
                    value = _from_file(self.actions[flag], value)
                except argparse.ArgumentTypeError as error:
                    raise UsageError(f"{flag} {error}.") from error
            checked[dest] = value
        return checked

    def read_defaults(self, path):
        """Take defaults from a file; the command line still wins.

        Parameters
        ----------
        path : path-like
            TOML or YAML; keys are the options without dashes in front.
        """
        try:
            content = _read_file(path)
        except OSError as error:
            raise UsageError(f"--config {path}: {error.strerror}.") from error
        defaults = {}
        for key, value in content.items():
            action = self._action(path, str(key))
            if action.dest in defaults:
                raise UsageError(
                    f"--config {path}: {key!r} gives {action.dest!r} a second time; "
                    "keep one."
                )
            try:
                defaults[action.dest] = _from_file(action, value)
            except argparse.ArgumentTypeError as error:
                raise UsageError(f"--config {path}, {key}: {error}.") from error
        self.parser.set_defaults(**defaults)

    def _action(self, path, key):
        allowed = {
            flag.removeprefix("--"): action
            for flag, action in self.actions.items()
            if flag not in _NOT_IN_A_FILE
        }
        name = key.replace("_", "-")
        if name not in allowed:
            near = self.nearest(name)
            hint = f"did you mean {near.removeprefix('--')!r}? " if near else ""
            raise UsageError(
                f"--config {path}: unknown key {key!r}; {hint}Allowed are "
                f"{', '.join(allowed)}."
            )
        return allowed[name]


def _read_file(path):
    kind = "YAML" if str(path).endswith((".yaml", ".yml")) else "TOML"
    try:
        text = Path(path).read_text(encoding="utf-8")
        if kind == "TOML":
            return tomllib.loads(text)
    except ValueError as error:
        raise UsageError(f"--config {path} is not {kind}: {error}.") from error
    try:
        import yaml
    except ImportError as error:
        raise UsageError(
            f"--config {path}: YAML needs another package, pip install pyyaml; or "
            "write TOML."
        ) from error
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UsageError(f"--config {path} is not YAML: {reason}.") from error
    if not isinstance(content, dict):
        raise UsageError(f"--config {path} must be a table of options.")
    return content


def strategy_names():
    """List the command-line names of all strategies without importing them.

    Returns
    -------
    names : list of str
        Those that sample predictions also with -dropout and -ensemble.
    """
    stems = [
        name.removesuffix("Query")
        for name in constant("query/__init__.py", "__all__")
        if name.endswith("Query") and name != "ScoreQuery"
    ]
    names = [re.sub(r"(?<=.)(?=[A-Z])", "-", stem).lower() for stem in stems]
    return sorted(names + [f"{name}-{kind}" for name, kind in SAMPLED])


def constant(file, name):
    """Read a literal from one of skal's source files.

    Parameters
    ----------
    file : str
        Path below the package.
    name : str
        The constant.

    Returns
    -------
    value : object
    """
    source = Path(__file__).parents[1].joinpath(file).read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    raise LookupError(f"skal/{file} has no constant {name}")


class _Collect(argparse.Action):
    """Gather key=value pairs, without touching the default."""

    def __call__(self, parser, namespace, values, option_string=None):
        key, value = values
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, {**before, key: value})


def _from_file(action, value):
    """Check a value of a file as one of the command line would be."""
    if isinstance(action, argparse.BooleanOptionalAction):
        if isinstance(value, bool):
            return value
        raise argparse.ArgumentTypeError(f"must be true or false, got {value!r}")
    if isinstance(action, _Collect):
        if isinstance(value, dict):
            return {key: _storable(each, each) for key, each in value.items()}
        raise argparse.ArgumentTypeError(f"must be a table, got {value!r}")
    if action.nargs == "+":
        if isinstance(value, list) and value:
            return [action.type(str(each)) for each in value]
        raise argparse.ArgumentTypeError(f"must be a list, got {value!r}")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise argparse.ArgumentTypeError(f"must be a number or text, got {value!r}")
    if action.choices and value not in action.choices:
        raise argparse.ArgumentTypeError(
            f"must be one of {', '.join(action.choices)}, got {value!r}"
        )
    return action.type(str(value)) if action.type else str(value)


def _plain(value):
    """Turn what Python users have into what a file gives."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # of NumPy
        return value.tolist()
    if isinstance(value, tuple | range):
        value = list(value)
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _jobs(text):
    if text == "-1":
        return -1
    try:
        return whole(1)(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{error}; or -1 for one a core") from None


def _key_value(text):
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"must look like key=value, got {text!r}")
    try:
        parsed = ast.literal_eval(value)
    except (ValueError, SyntaxError):
        parsed = value
    return key, _storable(parsed, text)


def _storable(value, given):
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise argparse.ArgumentTypeError(
            f"must be a number, a text, a list or None, got {given!r}"
        ) from None
    return value


def name_check(kind, allowed, other=None):
    """Make the check of an option that takes names.

    Parameters
    ----------
    kind : str
        What they name.
    allowed : sequence of str
        The names.
    other : callable, default=None
        Tells what else is taken.

    Returns
    -------
    check : callable
    """

    def check(value):
        if value in allowed or (other and other(value)):
            return value
        by_folded = {name.casefold(): name for name in allowed}
        near = difflib.get_close_matches(value.casefold(), by_folded, n=1)
        hint = f"; did you mean {by_folded[near[0]]!r}?" if near else ""
        raise argparse.ArgumentTypeError(
            f"unknown {kind} {value!r}, allowed are {', '.join(allowed)}{hint}"
        )

    return check


def _is_source(value):
    path = bool(re.search(r"[/\\]|\.\w+$", value)) or os.path.exists(value)
    return path or bool(re.fullmatch(r"openml:\d+", value))


def _is_module(value):
    return bool(re.fullmatch(r"[^\W\d][\w.]*:[^\W\d][\w.]*", value))


def whole(lowest, highest=2**32 - 1):
    """Make the check of a whole number.

    Parameters
    ----------
    lowest, highest : int

    Returns
    -------
    check : callable
    """

    def check(value):
        if re.fullmatch(r"\d+", value) and lowest <= int(value) <= highest:
            return int(value)
        raise argparse.ArgumentTypeError(
            f"must be a whole number of at least {lowest}, got {value!r}"
            + f" (at most {highest})" * (value.isdigit() and int(value) > highest)
        )

    return check


def number(*, above=None, least=None, below=float("inf")):
    """Make the check of a finite number.

    Parameters
    ----------
    above, least : float, default=None
        Lowest number, itself excluded or included.
    below : float, default=inf
        Excluded.

    Returns
    -------
    check : callable
    """

    def check(value):
        try:
            found = float(value)
        except ValueError:
            found = float("nan")
        if (found >= least if above is None else found > above) and found < below:
            return found
        limits = f"above {above}" if above is not None else f"of at least {least}"
        limits += f" and below {below}" if below < float("inf") else ""
        raise argparse.ArgumentTypeError(f"must be a number {limits}, got {value!r}")

    return check


def _size(value):
    if not value.endswith("%"):
        return whole(1)(value)
    try:
        share(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return value


def _test_size(value):
    if re.fullmatch(r"\d+", value):
        return whole(1)(value)
    return number(above=0, below=1)(value)


def _column(value):
    return int(value) if re.fullmatch(r"-?\d+", value) else value
