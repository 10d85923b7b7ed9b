"""A report of all runs below a folder: report.html or report.md, and results.csv."""

import json
import os
import re
from collections import namedtuple
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from skal.experiment.options import UsageError
from skal.plotting import looks
from skal.report.curves import HEIGHT, WIDTH
from skal.report.provenance import (
    BASELINE,
    OWN,
    commands,
    environments,
    gather,
    name_cells,
    other_starts,
    read_cell,
    strategy_of,
    unpaired,
)
from skal.report.tables import all_together, best_first, numbers, rounds_of
from skal.utils import atomic_write

COLUMNS = (
    "dataset model strategy seed n_initial batch_size round n_labeled n_queried "
    "accuracy balanced_accuracy nll ece train_s query_s"
).split()

SHOWN = 4  # strategies that are drawn beside random's until more are asked for

Report = namedtuple("Report", "page csv notes")


def write_report(folder: str | os.PathLike, *, format: str = "html") -> Report:
    """Write report.html or report.md, and results.csv, about all runs below a folder.

    Runs of one data set, network and sizes are compared with each other, seed by seed;
    only those that have ended count, and what is missing is said. Runs that bought all
    labels at once are the full-data line of the others. What cannot be read is named
    and left out.

    Parameters
    ----------
    folder : path-like
        Holds runs at any depth.
    format : {"html", "md", "csv"}, default="html"
        Of the page; "csv" writes results.csv alone.

    Returns
    -------
    report : Report
        The paths `page`, None for "csv", and `csv`, and `notes` on what is missing or
        not alike.

    Raises
    ------
    UsageError
        Where there are no runs that can be read, or another format is asked for.
    """
    if format not in ("html", "md", "csv"):
        raise UsageError(f"format must be html, md or csv, got {format!r}.")
    folder = Path(folder)
    cells, unread = _read_all(folder)
    groups = gather(cells, lambda cell: _key(cell, OWN))
    table = rounds_of(cells).reindex(columns=COLUMNS)
    full_data = _take_full_data(groups)
    parts, notes, finished = [], list(unread), {}
    for title, mine in zip(_titles(groups), groups.values(), strict=True):
        others = unpaired([cell for cell in mine if cell.done])
        left_out = {cell.path for cell, _ in others}
        ended = [cell for cell in mine if cell.done and cell.path not in left_out]
        finished[title] = ended
        said = [*_missing(mine), *_unlike(mine, others)]
        notes += [f"{title}: {each}" for each in said]
        full = full_data.get(_key(mine[0], _LOOSE), [])
        parts.append(
            {
                "title": title,
                "said": said,
                "several": len({cell.config.strategy for cell in ended}) > 1,
                "other_starts": other_starts(ended),
                "places": {k: name_cells(v) for k, v in environments(mine).items()},
                "seeds": sorted({cell.config.seed for cell in mine}),
                "commands": [*commands(mine, folder), *commands(full, folder)],
                "full": full,
            }
        )
    order = best_first(finished.values())
    for part, ended in zip(parts, finished.values(), strict=True):
        full = part.pop("full")
        part["numbers"] = numbers(ended, order, full) if ended else None
    names = sorted({cell.config.data_name for cell in cells})
    content = {
        "title": f"Active learning on {', '.join(names)}",
        "groups": parts,
        "together": all_together(finished),
        "unread": unread,
        "order": order,
        "looks": looks(order, BASELINE),
        "shown": [name for name in order if name != BASELINE][:SHOWN],
    }
    page = None if format == "csv" else folder / f"report.{format}"
    report = Report(page, folder / "results.csv", notes)
    with atomic_write(report.csv, "w") as file:
        table.to_csv(file, index=False, lineterminator="\n")
    if page:
        with atomic_write(page, "w") as file:
            file.write(render(f"page.{format}", **content))
    return report


def render(template, **content):
    """Write the page; whatever a text holds, it is text there.

    Parameters
    ----------
    template : {"page.html", "page.md"}
    **content : dict
        What it names.

    Returns
    -------
    text : str
    """
    page = Environment(
        loader=PackageLoader("skal.report", "."),
        autoescape=template.endswith(".html"),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    page.globals |= {"baseline": BASELINE, "width": WIDTH, "height": HEIGHT}
    page.filters["cell"] = _cell
    return page.get_template(template).render(content)


def _cell(value):
    """Write a value in Markdown, where it is no markup."""
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", " ".join(str(value).split()))


def _read_all(folder):
    """Read the runs, and say why others are left out."""
    cells, unread, known = [], [], {}
    for path in sorted(path.parent for path in folder.rglob("config.json")):
        try:
            cell = read_cell(path)
            key = cell.config.strategy, cell.config.seed, _key(cell, OWN)
            first = known.setdefault(key, path)
            if first != path:
                raise UsageError(f"{str(path)!r} is the same run as {str(first)!r}.")
            cells.append(cell)
        except Exception as error:  # of whatever another program has left there
            text = " ".join(str(error).split()) or type(error).__name__
            text = text if str(path) in text else f"{str(path)!r}: {text}"
            text = text.replace(f"{folder}{os.sep}", "").partition(" Nothing was ")[0]
            unread.append(f"left out: {text}")
    if not cells:
        raise UsageError(
            f"There are no runs below {str(folder)!r}; name the folder given to --out. "
            + " ".join(unread)
        )
    return cells, unread


# Options in which the full-data line may differ from the curves it is drawn with.
_LOOSE = {*OWN, "n_initial", "batch_size", "n_rounds", "initial"}


def _key(cell, left_out):
    return json.dumps(cell.config.model_dump(exclude=left_out))


def _titles(groups):
    """Name groups by data, model and sizes, and by what else tells them apart."""
    short = {}
    for key, (cell, *_) in groups.items():
        config = cell.config
        sizes = f"{config.n_initial} + {config.n_rounds} x {config.batch_size} labels"
        short[key] = f"{config.data_name}, {config.model_name}, {sizes}"
    for key, title in short.items():
        mine = json.loads(key)
        alike = [json.loads(other) for other in short if short[other] == title]
        differing = [k for k in mine if any(other[k] != mine[k] for other in alike)]
        yield ", ".join([title, *(f"{k} {mine[k]}" for k in differing)])


def _take_full_data(groups):
    """Take the groups out that bought all at once; their cells by the other options."""
    full = {key: all(map(_bought_all, cells)) for key, cells in groups.items()}
    rest = {_key(groups[key][0], _LOOSE) for key in groups if not full[key]}
    found = {}
    for key in [key for key in groups if full[key]]:
        loose = _key(groups[key][0], _LOOSE)
        if loose in rest:
            found.setdefault(loose, []).extend(groups.pop(key))
    return found


def _bought_all(cell):
    if cell.config.n_rounds or not cell.done:
        return False
    initial = np.sort(cell.purchases["initial"])
    # Without a pool of their own, runs buy from all training rows: 0, 1, ...
    pool = cell.purchases.get("pool", np.arange(len(initial)))
    return np.array_equal(initial, np.sort(pool))


def _missing(cells):
    """Say which runs have not ended, and which seeds a strategy lacks."""
    missing = [
        f"{cell.config.strategy}, seed {cell.config.seed}, has {len(cell.records)} of "
        f"{cell.config.n_rounds + 1} rounds and is left out"
        for cell in cells
        if not cell.done
    ]
    ended = gather((cell for cell in cells if cell.done), strategy_of)
    seeds = {name: {cell.config.seed for cell in mine} for name, mine in ended.items()}
    for name, there in sorted(seeds.items()):
        absent = sorted(set().union(*seeds.values()) - there)
        if absent:
            missing.append(f"{name} has no seed {', '.join(map(str, absent))}")
    if BASELINE not in seeds:
        missing.append("there is no random to compare with")
    return missing


def _unlike(cells, others):
    """Say what makes the runs poor pairs."""
    unlike = [
        f"{cell.config.strategy}, seed {cell.config.seed}, had other {what} than the "
        "other strategies: it is no pair with them and is left out"
        for cell, what in others
    ]
    for name, text in sorted(
        {(cell.config.strategy, cell.stored.get("training", "")) for cell in cells}
    ):
        if text:
            unlike.append(f"{name} is trained unlike the others: {text}")
    n_places = len(environments(cells))
    if n_places > 1:
        unlike.append(
            f"the runs are from {n_places} environments, see How: a machine can move "
            "scores by more than a strategy does"
        )
    for name, mine in sorted(gather(cells, strategy_of).items()):
        options = [cell.config.strategy_options for cell in mine]
        texts = sorted({json.dumps(each, sort_keys=True) for each in options})
        if len(texts) > 1:
            unlike.append(f"{name} was run with several options: {', '.join(texts)}")
    return unlike
