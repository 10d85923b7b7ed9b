"""What a run prints."""

from contextlib import contextmanager, nullcontext

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column, Table

from skal.analysis import areas_by_seed, learning_curves
from skal.experiment.results import RunFolder

_COLUMNS = {
    "round": ("round", "d"),
    "n_labeled": ("labels", "d"),
    "accuracy": ("accuracy", ".4f"),
    "balanced_accuracy": ("bal. acc.", ".4f"),
    "nll": ("NLL", ".4f"),
    "ece": ("ECE", ".4f"),
    "train_s": ("train s", ".2f"),
    "query_s": ("query s", ".2f"),
}


@contextmanager
def progress_bar(config):
    """Show a bar over the rounds of a run, on the standard error stream.

    Parameters
    ----------
    config : RunConfig

    Yields
    ------
    advance : callable
        Takes the record of a round and counts it; its `features` takes the numbers of
        rows that a backbone has seen and is to see.
    """
    console = Console(stderr=True)
    bar = _progress(console, TextColumn("{task.fields[score]}"))
    title = f"{config.strategy} on {config.data_name}"
    task = bar.add_task(title, total=config.n_rounds + 1, score="")

    def advance(record):
        score = f"{record['n_labeled']} labels, accuracy {record['accuracy']:.4f}"
        bar.update(task, advance=1, score=score)

    def count(n_done, n_rows):
        bar.update(task, score=f"{n_done} of {n_rows} rows through the backbone")

    advance.features = count

    # A bar that is merely disabled still ends with an empty line in older versions.
    with bar if console.is_terminal else nullcontext():
        yield advance


def _progress(console, *columns, kind=Progress, **options):
    return kind(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rounds"),
        TimeElapsedColumn(),
        *columns,
        console=console,
        transient=True,
        **options,
    )


@contextmanager
def grid_bar(configs, out, interval=0.5):
    """Show one bar over all rounds of a grid, and below it the runs under way.

    Runs may be in other processes and on other machines: what is shown is read from
    their folders.

    Parameters
    ----------
    configs : list of RunConfig
        Of all runs, resolved.
    out : path-like
        Folder of all results.
    interval : float, default=0.5
        Seconds between looks.
    """
    console = Console(stderr=True)
    bar = _progress(console, kind=_Watch, refresh_per_second=1 / interval)
    lengths = [config.n_rounds + 1 for config in configs]
    bar.add_task(f"{len(configs)} runs", total=sum(lengths))
    folders = {}
    for config, length in zip(configs, lengths, strict=True):
        title = f"  {config.strategy}, seed {config.seed}"
        task = bar.add_task(title, total=length, start=False, visible=False)
        folders[task] = RunFolder(out, config)
    bar.folders = folders
    with bar if console.is_terminal else nullcontext():
        yield


class _Watch(Progress):
    """Looks into the folders of its tasks, all but the first, before it is drawn."""

    folders = {}

    def get_renderables(self):
        for task, folder in self.folders.items():
            under_way = folder.path.exists() and not folder.done
            self.update(task, completed=_count_rounds(folder), visible=under_way)
            if under_way:
                self.start_task(task)
        for first in self.task_ids[:1]:
            self.update(first, completed=sum(t.completed for t in self.tasks[1:]))
        return super().get_renderables()


def _count_rounds(folder):
    try:
        return folder.rounds_path.read_bytes().count(b"\n")
    except OSError:
        return 0


def print_comparison(comparison, out):
    """Print the mean accuracies of a grid, what failed, and notes.

    Parameters
    ----------
    comparison : Comparison
    out : path-like
        Folder of all results.
    """
    import pandas as pd

    console = Console(highlight=False)
    table = Table("strategy", title="accuracy, mean and standard deviation over seeds")
    for header in ("seeds", "area under the curve", "at the end", "query s a round"):
        table.add_column(header, justify="right")
    rounds = pd.DataFrame([r for each in comparison.results for r in each.records])
    if len(rounds):
        areas = areas_by_seed(learning_curves(rounds))
        final = rounds.groupby(["strategy", "seed"])["accuracy"].last()
        query_s = rounds[rounds["round"] > 0].groupby("strategy")["query_s"].mean()
        for name in areas.mean().sort_values(ascending=False).index:
            values = areas[name].dropna()
            texts = [_mean_and_deviation(each) for each in (values, final[name])]
            seconds = f"{query_s.get(name, 0.0):.2f}"
            table.add_row(name, str(len(values)), *texts, seconds)
        console.print(table)
    for config, error in comparison.failures:
        text = f"failed: {config.strategy}, seed {config.seed}: {error}"
        Console(stderr=True, highlight=False).print(text, markup=False, soft_wrap=True)
    said = {
        note
        for result in comparison.results
        for note in result.notes
        if note.startswith(f"{result.config.strategy}: ")  # of its training
    }
    notes = [*comparison.notes, *sorted(said), f"results: {out}"]
    if comparison.failures:
        notes.append("the same command runs what failed again")
    for line in notes:
        console.print(line, markup=False, soft_wrap=True)


def _mean_and_deviation(values):
    mean = f"{values.mean():.4f}"
    return f"{mean} ± {values.std():.4f}" if len(values) > 1 else mean


def print_run(result):
    """Print the table of a run's rounds.

    Parameters
    ----------
    result : RunResult
    """
    table = Table(title=result.config.title)
    for header, _ in _COLUMNS.values():
        table.add_column(header, justify="right")
    for record in result.records:
        table.add_row(
            *(format(record[key], form) for key, (_, form) in _COLUMNS.items())
        )
    console = Console(highlight=False)
    console.print(table)
    for line in (*result.notes, f"results: {result.path}"):
        console.print(line, markup=False, soft_wrap=True)


def print_strategies(descriptions):
    """Print a table of the strategies.

    Parameters
    ----------
    descriptions : list of Description
    """
    table = Table(Column("strategy", no_wrap=True), "needs of a model")
    table.add_column("ahead from", justify="right")
    table.add_column("query s", justify="right")
    table.add_column("year")
    for each in descriptions:
        table.add_row(each.name, each.needs, each.labels, each.query_s, each.year)
    console = Console(highlight=False)
    console.print(table)
    notes = (
        "ahead from: labels a class from which it was ahead of random, on the mean of "
        "several data sets; - never, empty: not measured. query s: of 4,000 rows, "
        "the median.",
        "skal list NAME says more of one. With --n-parts or --max-rows any chooses "
        "from parts, or from a random part, of a large pool.",
    )
    for note in notes:
        console.print(note)


def print_strategy(each):
    """Print the docstring, paper and options of a strategy.

    Parameters
    ----------
    each : Description
    """
    options = (
        f"  --strategy-option {name}={value}"
        for name, value in each.options.items()
        if not any(other.startswith(f"{name}__") for other in each.options)
    )
    lines = (
        f"{each.name}: {each.doc}",
        "",
        f"Reads: {each.reads or 'nothing'}",
        f"Paper: {each.paper or 'none'}",
        "Options and their defaults:",
        *options,
    )
    for line in lines:
        Console(highlight=False).print(line, markup=False, soft_wrap=True)
