"""The command line; heavy modules are imported once the options are known."""

import argparse
import ast
import difflib
import os
import re
import sys
import traceback
from dataclasses import asdict
from pathlib import Path

from skal._version import __version__
from skal.experiment.config import RunConfig, UsageError

MODELS = ("mlp", "cnn", "resnet")


def main(argv=None):
    """Run the command line.

    Parameters
    ----------
    argv : list of str, default=None
        Arguments; None takes those of the process.

    Returns
    -------
    code : int
        0, 1 after an error, 2 after a request that cannot be met, 130 after Ctrl-C.
    """
    args = vars(_parser().parse_args(argv))
    command, debug = args.pop("command"), args.pop("debug")
    try:
        return command(**args)
    except KeyboardInterrupt:
        print("skal: interrupted; the same command ends the run", file=sys.stderr)
        return 130
    except Exception as error:
        if debug:
            traceback.print_exc()
        else:
            print(f"skal: {error or type(error).__name__}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


def strategy_names():
    """List the command-line names of all strategies without importing them.

    Returns
    -------
    names : list of str
    """
    stems = [
        name.removesuffix("Query")
        for name in _constant("query/__init__.py", "__all__")
        if name.endswith("Query") and name != "ScoreQuery"
    ]
    return sorted(re.sub(r"(?<=.)(?=[A-Z])", "-", stem).lower() for stem in stems)


def _constant(file, name):
    """Value of a literal in one of skal's source files."""
    source = Path(__file__).parents[1].joinpath(file).read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.literal_eval(node.value)
    raise LookupError(f"skal/{file} has no constant {name}")


def _run(out, data_root, **options):
    # Torch's waiting threads spin by default: on shared cores ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from skal.experiment.display import print_run, progress_bar
    from skal.experiment.run import run_experiment

    config = RunConfig(**options)
    with progress_bar(config) as advance:
        result = run_experiment(config, out=out, data_root=data_root, on_round=advance)
    print_run(result)
    return 0


def _parser():
    parser = argparse.ArgumentParser(
        prog="skal", description="Deep active learning experiments."
    )
    parser.add_argument("--version", action="version", version=f"skal {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_run(commands)
    return parser


def _add_run(commands):
    run = commands.add_parser(
        "run",
        help="one experiment: a data set, a network, a strategy, a seed",
        description="Run one experiment and write its results below a folder.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    data_sets = _constant("datasets/_load.py", "DATASETS")

    def add_name(flag, kind, allowed):
        check = _name(kind, allowed)
        run.add_argument(flag, type=check, metavar="NAME", help=", ".join(allowed))

    def add_number(flag, check, text):
        run.add_argument(flag, type=check, metavar="N", help=text)

    add_name("--data", "data set", data_sets)
    run.add_argument(
        "--data-root",
        metavar="DIR",
        help="folder of the data set in torchvision's layout, archives included; "
        "without it the data set is downloaded on first use",
    )
    add_name("--model", "model", MODELS)
    add_name("--strategy", "strategy", strategy_names())
    add_number("--n-initial", _whole(1), "size of the first labelled set")
    add_number("--batch-size", _whole(1), "labels bought in a round")
    add_number("--n-rounds", _whole(0), "rounds after the initial one")
    add_number("--epochs", _whole(1), "epochs of training in each round")
    add_number("--lr", _positive, "learning rate of Adam")
    add_number("--seed", _whole(0), "everything random follows from it")
    run.add_argument("--device", help="auto, cpu, cuda, ...")
    add_number("--threads", _whole(1), "threads of torch; None: one a core, 8 at most")
    add_number(
        "--pool-size",
        _whole(1),
        "buy from a random part of the training images; None: from all",
    )
    run.add_argument("--out", metavar="DIR", default="save", help="where results go")
    run.add_argument("--debug", action="store_true", help="show tracebacks")
    run.set_defaults(command=_run, **asdict(RunConfig()))


def _name(kind, allowed):
    def parse(value):
        if value in allowed:
            return value
        by_folded = {name.casefold(): name for name in allowed}
        near = difflib.get_close_matches(value.casefold(), by_folded, n=1)
        hint = f"; did you mean {by_folded[near[0]]!r}?" if near else ""
        raise argparse.ArgumentTypeError(
            f"unknown {kind} {value!r}, allowed are {', '.join(allowed)}{hint}"
        )

    return parse


def _whole(lowest):
    def parse(value):
        if re.fullmatch(r"\d+", value) and int(value) >= lowest:
            return int(value)
        raise argparse.ArgumentTypeError(
            f"must be a whole number of at least {lowest}, got {value!r}"
        )

    return parse


def _positive(value):
    try:
        number = float(value)
    except ValueError:
        number = 0.0
    if 0 < number < float("inf"):
        return number
    raise argparse.ArgumentTypeError(f"must be a positive number, got {value!r}")
