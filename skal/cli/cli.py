"""The command line; heavy modules are imported once the options are known."""

import errno
import inspect
import os
import sys
import traceback
import warnings
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter, UnusedCliTokensError
from pydantic import SkipValidation

from skal._version import __version__
from skal.cli.serve import label
from skal.experiment.config import GridConfig, Places, RunConfig, Workers
from skal.experiment.options import UsageError, flag, pairs, read_options, unknown

app = App(
    name="skal",
    help="Deep active learning experiments.",
    version=f"skal {__version__}",
    help_format="plaintext",
    result_action="return_value",
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(
        consume_multiple=True,
        allow_repeating=True,
        negative_iterable=(),
        json_list=False,
    ),
)
app.command(label)
_FILE = (
    "FILE with options in TOML, as in n-rounds = 5, or in YAML (.yaml, .yml); the "
    "command line wins."
)
File = Annotated[str | None, Parameter(help=_FILE)]
Tracebacks = Annotated[
    bool, Parameter(negative="", show_default=False, help="Show tracebacks.")
]
_SEEDS = {"seeds", "seed_list"}


class _Run(Workers, Places, RunConfig):
    pass


def _takes(options):
    """Give a command the options of a model, which checks the texts: those given."""

    def add(command):
        own = inspect.signature(command)
        taken = [_parameter(*item) for item in options.model_fields.items()]
        after = [each for each in own.parameters.values() if each.name != "values"]
        command.__signature__ = own.replace(parameters=taken + after)
        return command

    return add


def _parameter(name, field):
    kind, how = field.annotation, {"converter": _texts}
    if name == "strategy_options":
        kind, how = list[str], {"consume_multiple": False, "show_default": False}
    elif "bool" in str(kind):
        how = {}
    how = Parameter(flag(name), help=field.description, **how)
    hint = Annotated[kind, SkipValidation, how]
    where = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, where, default=field.default, annotation=hint)


def _texts(kind, tokens):
    texts = [token.value for token in tokens]
    return texts if "list" in str(kind) else texts[0]


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
    argv = sys.argv[1:] if argv is None else argv
    debug = "--debug" in argv
    try:
        _check_words(argv)
        with warnings.catch_warnings():
            if not debug:
                warnings.showwarning = _warn
            return app(argv, exit_on_error=False, print_error=False) or 0
    except KeyboardInterrupt:
        print("skal: interrupted; the same command goes on", file=sys.stderr)
        return 130
    except Exception as error:  # the last stop of all errors
        if debug:
            traceback.print_exc()
        else:
            print(f"skal: {_message(error)}", file=sys.stderr)
        return 2 if isinstance(error, UsageError | CycloptsError | OSError) else 1


def _check_words(argv):
    """Refuse what cyclopts would let pass."""
    if not argv:
        commands = ", ".join(name for name in app if name[0] != "-")
        raise UsageError(f"a COMMAND is missing: {commands}; see skal --help.")
    names = [word.partition("=")[0] for word in argv]
    for word, name in zip(argv, names, strict=True):
        _, equals, value = word.partition("=")
        if name in ("--strategies", "--seed-list") and names.count(name) > 1:
            raise UsageError(f"{name} is given more than once; list all behind one.")
        if name in ("--debug", "--header", "--no-header") and equals:
            raise UsageError(f"{name} takes no value, got {value!r}.")
        if name.startswith("--") and "_" in name:
            raise UsageError(
                f"Unknown option: {name}. Did you mean {name.replace('_', '-')}?"
            )


def _message(error):
    if isinstance(error, UnusedCliTokensError):
        words = " ".join(error.unused_tokens)
        return f"unexpected arguments: {words}; options start with --, see --help."
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


def _with_file(options, values, path):
    """Values of the command line, and of a file what is not given there."""
    if "strategy_options" in values:
        values["strategy_options"] = pairs(values["strategy_options"])
    stored = {} if path is None else read_options(path, options)
    if values.keys() & _SEEDS:
        stored = {k: v for k, v in stored.items() if k not in _SEEDS}
    name = "strategy_options"
    table = {name: {**stored.get(name, {}), **values.get(name, {})}}
    return options(**{**stored, **values, **table})


@app.command
@_takes(_Run)
def run(*, config: File = None, debug: Tracebacks = False, **values):
    """Run one experiment: a data set, a network, a strategy, a seed.

    Its results are written below a folder. A run that was interrupted goes on
    where it stopped.
    """
    given = _with_file(_Run, values, config)
    elsewhere, where = set(Workers.model_fields), set(Places.model_fields)
    run_config = RunConfig(**given.model_dump(exclude=elsewhere | where))
    places = given.model_dump(include=where)
    if run_config.n_parts is None and given.model_fields_set & elsewhere:
        raise UsageError(
            "--n-jobs, --backend and --scheduler of one run need --n-parts: it is the "
            "parts of its pool that are worked at elsewhere."
        )
    _prepare()
    from skal.cli.display import print_run, progress_bar
    from skal.experiment.run import run_experiment
    from skal.experiment.workers import check_workers, workers

    check_workers(given.backend, given.scheduler)
    at = workers(given.backend, given.scheduler, given.n_jobs)
    with at, progress_bar(run_config) as advance:
        result = run_experiment(
            run_config, on_round=advance, on_features=advance.features, **places
        )
    print_run(result)


@app.command
@_takes(GridConfig)
def compare(*, config: File = None, debug: Tracebacks = False, **values):
    """Run several strategies over several seeds, and compare them.

    Seed k gives every strategy the same split, first labels and first model. What
    was interrupted goes on where it stopped.
    """
    grid = _with_file(GridConfig, values, config)
    _prepare()
    from skal.cli.display import grid_bar, print_comparison
    from skal.experiment.grid import compare

    comparison = compare(
        seeds=grid.seeds if grid.seed_list is None else grid.seed_list,
        watch=lambda configs: grid_bar(configs, grid.out),
        **grid.model_dump(exclude=_SEEDS),
    )
    print_comparison(comparison, grid.out)
    errors = [error for _, error in comparison.failures]
    if debug and errors:
        traceback.print_exception(errors[0])
    usage = all(isinstance(error, UsageError | OSError) for error in errors)
    return (2 if usage else 1) if errors else 0


@app.command(name="list")
def list_strategies(name: str | None = None, /, *, debug: Tracebacks = False):
    """Print every strategy: what it needs, when it pays, what it costs.

    Parameters
    ----------
    name : str, default=None
        Print the paper and the options of this one.
    """
    from skal.cli.display import print_strategies, print_strategy
    from skal.experiment.strategies import describe_strategies

    found = {each.name: each for each in describe_strategies()}
    if name is None:
        return print_strategies(list(found.values()))
    if name not in found:
        raise UsageError(f"NAME cannot be {unknown(name, found)}.")
    print_strategy(found[name])


@app.command
def show(folder: str, /, *, debug: Tracebacks = False):
    """Print a finished or unfinished run again.

    Parameters
    ----------
    folder : str
        The folder of the run.
    """
    from skal.cli.display import print_run
    from skal.experiment.results import read_run

    print_run(read_run(folder))


@app.command
def report(
    folder: str,
    /,
    *,
    format: Literal["html", "md", "csv"] = "html",
    debug: Tracebacks = False,
):
    """Compare all runs below a folder: report.html and results.csv.

    Parameters
    ----------
    folder : str
        The folder given to --out.
    format : {"html", "md", "csv"}, default="html"
        report.html, or report.md; csv writes results.csv alone.
    """
    from skal.report.report import write_report

    result = write_report(folder, format=format)
    for note in result.notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"report: {result.page or result.csv}")
