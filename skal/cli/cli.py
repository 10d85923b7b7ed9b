"""The command line; heavy modules are imported once the options are known."""

import argparse
import errno
import os
import sys
import traceback
import warnings

from skal._version import __version__
from skal.experiment.config import RunConfig, UsageError
from skal.experiment.options import RunOptions


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
    parser = _parser()
    args = _parse(parser, argv)
    try:
        if getattr(args, "config_file", None) is not None:
            args.options.read_defaults(args.config_file)
            args = _parse(parser, argv)
        with warnings.catch_warnings():
            if not args.debug:
                warnings.showwarning = _warn
            return args.command(args)
    except KeyboardInterrupt:
        print("skal: interrupted; the same command goes on", file=sys.stderr)
        return 130
    except Exception as error:
        if args.debug:
            traceback.print_exc()
        else:
            print(f"skal: {_message(error)}", file=sys.stderr)
        return 2 if isinstance(error, UsageError | OSError) else 1


def _parse(parser, argv):
    args, unknown = parser.parse_known_args(argv)
    if unknown and hasattr(args, "options"):
        near = args.options.nearest(unknown[0])
        hint = f"; did you mean {near}?" if near else ""
        args.options.parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    elif unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    return args


def _message(error):
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"{error}. Results are whole up to the last round; make room, and the "
            "same command goes on."
        )
    return " ".join(str(error).split()) or type(error).__name__


def _warn(message, category, filename, lineno, file=None, line=None):
    print(f"skal: warning: {message}", file=sys.stderr)


def _prepare():
    # Torch's waiting threads spin by default: on shared cores ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # As `python -m` does, so that --model finds a module here.
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())


def _run(args):
    _prepare()
    from skal.cli.display import print_run, progress_bar
    from skal.experiment.run import run_experiment

    config = RunConfig(**_run_options(args))
    with progress_bar(config) as advance:
        result = run_experiment(
            config, out=args.out, data_root=args.data_root, on_round=advance
        )
    print_run(result)
    return 0


def _compare(args):
    _prepare()
    from skal.cli.display import grid_bar, print_comparison
    from skal.experiment.grid import compare

    options = _run_options(args)
    del options["strategy"], options["seed"]
    comparison = compare(
        args.strategies,
        args.seeds,
        out=args.out,
        data_root=args.data_root,
        n_jobs=args.n_jobs,
        backend=args.backend,
        scheduler=args.scheduler,
        watch=lambda configs: grid_bar(configs, args.out),
        **options,
    )
    print_comparison(comparison, args.out)
    errors = [error for _, error in comparison.failures]
    if args.debug and errors:
        traceback.print_exception(errors[0])
    usage = all(isinstance(error, UsageError | OSError) for error in errors)
    return (2 if usage else 1) if errors else 0


def _run_options(args):
    return {k: v for k, v in vars(args).items() if k in RunConfig.__annotations__}


def _list(args):
    from skal.cli.display import print_strategies
    from skal.experiment.strategies import describe_strategies

    print_strategies(describe_strategies())
    return 0


def _show(args):
    from skal.cli.display import print_run
    from skal.experiment.results import read_run

    print_run(read_run(args.folder))
    return 0


def _report(args):
    from skal.report.report import write_report

    report = write_report(args.folder)
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"report: {report.html}")
    return 0


def _parser():
    parser = argparse.ArgumentParser(
        prog="skal", description="Deep active learning experiments."
    )
    parser.add_argument("--version", action="version", version=f"skal {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    style = {
        "usage": "%(prog)s [options]",  # not all of them before each error
        "formatter_class": argparse.ArgumentDefaultsHelpFormatter,
        "allow_abbrev": False,  # --strategy is not --strategy-option
    }
    run = commands.add_parser(
        "run",
        help="one experiment: a data set, a network, a strategy, a seed",
        description="Run one experiment and write its results below a folder. "
        "A run that was interrupted goes on where it stopped.",
        **style,
    )
    run.set_defaults(command=_run, options=RunOptions(run))
    grid = commands.add_parser(
        "compare",
        help="several strategies over several seeds",
        description="Run every strategy with every seed, and compare. Seed k gives "
        "every strategy the same split, first labels and first model. What was "
        "interrupted goes on where it stopped.",
        **style,
    )
    grid.set_defaults(command=_compare, options=RunOptions(grid, grid=True))
    listing = commands.add_parser(
        "list", help="every strategy, its paper, what it reads"
    )
    listing.set_defaults(command=_list)
    show = commands.add_parser("show", help="a finished or unfinished run again")
    show.add_argument("folder", metavar="DIR", help="the folder of the run")
    show.set_defaults(command=_show)
    report = commands.add_parser(
        "report", help="compare all runs below a folder: report.html and results.csv"
    )
    report.add_argument("folder", metavar="DIR", help="the folder given to --out")
    report.set_defaults(command=_report)
    for command in (listing, show, report):
        command.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser
