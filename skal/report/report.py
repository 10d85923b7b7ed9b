"""A report of all runs below a folder: report.html and results.csv."""

import csv
import io
import json
from collections import namedtuple
from html import escape
from pathlib import Path

import numpy as np

from skal.experiment.options import UsageError
from skal.report.provenance import (
    BASELINE,
    OWN,
    commands,
    environments,
    name_cells,
    other_starts,
    read_cell,
    unpaired,
)
from skal.report.tables import all_together, items, numbers
from skal.utils import atomic_write

COLUMNS = (
    "dataset model strategy seed n_initial batch_size round n_labeled n_queried "
    "accuracy balanced_accuracy nll ece train_s query_s"
).split()
_SIZES = ("n_initial", "batch_size", "n_rounds")

Report = namedtuple("Report", "html csv notes")

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 64rem;
  padding: 0 1rem 3rem; color: #222; }
h1, h2, h3 { line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
.wide { overflow-x: auto; margin-top: 1rem; }
table { border-collapse: collapse; font-size: 0.9rem; margin: 0.5rem 0; }
th, td { padding: 0.2rem 0.6rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0;
  background: white; }
thead th { vertical-align: bottom; white-space: normal; }
tbody tr:first-child td { border-top: 1px solid #888; }
.panels { display: grid; gap: 1.5rem 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); }
figure { margin: 0; }
figure img { width: 100%; height: auto; }
figcaption, p { max-width: 50rem; }
.turned thead th + th { writing-mode: vertical-rl; transform: rotate(180deg);
  text-align: left; padding: 0.3rem; white-space: nowrap; }
.matrix img { max-width: none; height: auto; }
.missing { background: #fff3cd; padding: 0.1rem 1rem; margin-bottom: 1rem;
  overflow-wrap: anywhere; }
pre { white-space: pre-wrap; overflow-x: auto; background: #f5f5f5; padding: 0.5rem; }
pre code { display: block; padding-left: 2ch; text-indent: -2ch; }
pre span { white-space: nowrap; }
@media (max-width: 40rem) {
  table { font-size: 0.8rem; }
  th, td { padding: 0.2rem 0.3rem; }
}
"""


def write_report(folder):
    """Write report.html and results.csv about all runs below a folder.

    Runs of one data set, network and sizes are compared with each other, seed by seed;
    only those that have ended count, and what is missing is said. Runs that bought all
    labels at once are the full-data line of the others.

    Parameters
    ----------
    folder : path-like
        Holds runs at any depth.

    Returns
    -------
    report : Report
        The paths `html` and `csv`, and `notes` on what is missing or not alike.

    Raises
    ------
    UsageError
        Where there are no runs, or one cannot be read.
    """
    folder = Path(folder)
    paths = sorted(path.parent for path in folder.rglob("config.json"))
    if not paths:
        raise UsageError(
            f"There are no runs below {str(folder)!r}; name the folder given to --out."
        )
    groups = _groups(paths)
    table = _csv_text(groups)
    full_data = _take_full_data(groups)
    sections, notes, finished = [], [], {}
    for title, cells in zip(_titles(groups), groups.values(), strict=True):
        others = unpaired([cell for cell in cells if cell.done])
        left_out = {cell.path for cell, _ in others}
        ended = [cell for cell in cells if cell.done and cell.path not in left_out]
        finished[title] = ended
        said = [*_missing(cells), *_unlike(cells, others)]
        notes += [f"{title}: {each}" for each in said]
        sections.append(f"<h2>{escape(title)}</h2>")
        if said:
            sections.append(f'<div class="missing">{items(said)}</div>')
        full = full_data.get(_key(cells[0], _LOOSE), [])
        if ended:
            sections.append(numbers(ended, full))
        sections.append(_how(cells, ended, full, folder))
    sections.append(all_together(finished))
    names = sorted({cell.config.data_name for cell in sum(groups.values(), [])})
    page = _page(f"Active learning on {', '.join(names)}", sections)
    for name, text in (("results.csv", table), ("report.html", page)):
        with atomic_write(folder / name, "w") as file:
            file.write(text)
    return Report(folder / "report.html", folder / "results.csv", notes)


def _groups(paths):
    """Read the runs, and gather those that can be compared."""
    groups = {}
    for path in paths:
        cell = read_cell(path)
        group = groups.setdefault(_key(cell, OWN), [])
        own = cell.config.strategy, cell.config.seed
        for other in group:
            if (other.config.strategy, other.config.seed) == own:
                raise UsageError(
                    f"Two runs are the same, {str(other.path)!r} and {str(path)!r}; "
                    "move one of them away."
                )
        group.append(cell)
    return groups


# Options in which the full-data line may differ from the curves it is drawn with.
_LOOSE = (*OWN, *_SIZES, "initial")


def _key(cell, left_out):
    options = cell.config.model_dump()
    return json.dumps({k: v for k, v in options.items() if k not in left_out})


def _titles(groups):
    """Name groups by data, model and sizes, and by what else tells them apart."""
    titles = []
    for key in groups:
        config = groups[key][0].config
        titles.append(
            f"{config.data_name}, {config.model}, {config.n_initial} + "
            f"{config.n_rounds} x {config.batch_size} labels"
        )
    options = [json.loads(key) for key in groups]
    full = []
    for title, mine in zip(titles, options, strict=True):
        alike = [o for o, other in zip(options, titles, strict=True) if other == title]
        differing = (k for k in mine if any(o[k] != mine[k] for o in alike))
        full.append(", ".join([title, *(f"{k} {mine[k]}" for k in differing)]))
    return full


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


def _csv_text(groups):
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for run in sum(groups.values(), []):
        sizes = {"n_initial": run.config.n_initial, "batch_size": run.config.batch_size}
        writer.writerows({**record, **sizes} for record in run.records)
    return text.getvalue()


def _missing(cells):
    """Say which runs have not ended, and which seeds a strategy lacks."""
    missing = [
        f"{cell.config.strategy}, seed {cell.config.seed}, has {len(cell.records)} of "
        f"{cell.config.n_rounds + 1} rounds and is left out"
        for cell in cells
        if not cell.done
    ]
    seeds = {}
    for cell in cells:
        if cell.done:
            seeds.setdefault(cell.config.strategy, set()).add(cell.config.seed)
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
    options = {}
    for cell in cells:
        text = json.dumps(cell.config.strategy_options, sort_keys=True)
        options.setdefault(cell.config.strategy, set()).add(text)
    for name, found in sorted(options.items()):
        if len(found) > 1:
            texts = ", ".join(sorted(found))
            unlike.append(f"{name} was run with several options: {texts}")
    return unlike


def _how(cells, ended, full_data, folder):
    """Say where, with which seeds and by which commands."""
    names = {cell.config.strategy for cell in ended}
    said = []
    if len(names) > 1:
        said.append(
            "The strategies of a seed had the same data, test rows and first labels: "
            "checksum and rows were compared."
        )
        others = other_starts(ended)
        said.append(
            f"The first model of {', '.join(others)} scored otherwise than random's of "
            "the same seed: trained in another way, or elsewhere."
            if others
            else "Their first models scored the same."
        )
    parts = [f"<p>{escape(each)}</p>" for each in [" ".join(said)] if each]
    places = environments(cells)
    if len(places) == 1:
        parts.append(f"<p>{escape(next(iter(places)))}</p>")
    else:
        lines = (f"{name_cells(mine)}: {text}" for text, mine in places.items())
        parts.append(items(lines))
    seeds = sorted({cell.config.seed for cell in cells})
    parts.append(f"<p>Seeds {', '.join(map(str, seeds))}. The runs again:</p>")
    lines = [*commands(cells, folder), *commands(full_data, folder)]
    code = "".join(f"<code>{_unbroken(line)}\n</code>" for line in lines)
    return f"<h3>How</h3>{''.join(parts)}<pre>{code}</pre>"


def _unbroken(line):
    """Keep lines from breaking inside an option."""
    return " ".join(f"<span>{escape(word)}</span>" for word in line.split(" "))


def _page(title, sections):
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style></head>\n<body>"
        f"<h1>{escape(title)}</h1>\n" + "\n".join(sections) + "\n</body></html>\n"
    )
