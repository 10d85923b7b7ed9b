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
from rich.text import Text

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
        Takes the record of a round and counts it.
    """
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rounds"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[score]}"),
        console=console,
        transient=True,
    )
    title = f"{config.strategy} on {config.data_name}"
    task = bar.add_task(title, total=config.n_rounds + 1, score="")

    def advance(record):
        score = f"{record['n_labeled']} labels, accuracy {record['accuracy']:.4f}"
        bar.update(task, advance=1, score=score)

    # A bar that is merely disabled still ends with an empty line in older versions.
    with bar if console.is_terminal else nullcontext():
        yield advance


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
    table = Table(Column("strategy", no_wrap=True), "reads", "year", "paper")
    for each in descriptions:
        table.add_row(each.name, each.reads, each.year, Text(each.paper))
    Console(highlight=False).print(table)
