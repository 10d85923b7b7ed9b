"""Where the numbers of a report come from: files, machines, pairs and commands."""

import json
import shlex
from collections import Counter, namedtuple

from skal.experiment.config import RunConfig, options_hash
from skal.experiment.options import UsageError
from skal.experiment.results import open_run, purchase_name
from skal.experiment.strategies import taken_options

BASELINE = "random"
# Options in which runs that are compared may differ.
OWN = {"strategy", "seed", "device", "threads", "strategy_options"}
_NUMBERS = (
    "seed round n_labeled n_queried accuracy balanced_accuracy nll ece train_s query_s"
).split()
_KINDS = {
    **dict.fromkeys(_NUMBERS, int | float),
    "acquired_class_counts": list,
    "strategy": str,
}
# What the runs of a seed must share, and what is said where they do not.
_SHARED = {
    "data_fingerprint": "data",
    "test": "test rows",
    "pool": "rows to buy from",
    "initial": "first labels",
}

Cell = namedtuple("Cell", "config path records stored purchases done")


def gather(things, key):
    """Gather what has the same key.

    Parameters
    ----------
    things : iterable
    key : callable
        Gives the key of a thing.

    Returns
    -------
    groups : dict of list
        In order of appearance.
    """
    groups = {}
    for thing in things:
        groups.setdefault(key(thing), []).append(thing)
    return groups


def strategy_of(cell):
    """Name the strategy of a run.

    Parameters
    ----------
    cell : Cell

    Returns
    -------
    name : str
    """
    return cell.config.strategy


def read_cell(path):
    """Read all files of a run, and refuse what does not belong together.

    Parameters
    ----------
    path : path-like
        Its folder.

    Returns
    -------
    cell : Cell
        config; path; records; stored, the content of config.json; purchases, the arrays
        of queries.npz; done, whether the run has ended.

    Raises
    ------
    UsageError
        Where a file is damaged, or was changed after the run.
    """
    folder = open_run(path)
    config, records, stored = folder.config, folder.read_stored(), folder.read_config()
    kinds = {"strategy": str, "seed": int}
    if not all(isinstance(stored["options"].get(k), kinds[k]) for k in kinds):
        _refuse(folder.path / "config.json", "is not of a run")
    if "hash" in stored:
        hashes = {stored["hash"], options_hash(stored["options"])}
        if folder.done:
            hashes.add(folder.done_path.read_text("utf-8").partition("\n")[0])
        if len(hashes) > 1:
            _refuse(folder.path / "config.json", "was changed after the run")
    own = {"strategy": config.strategy, "seed": config.seed}
    for number, record in enumerate(records, start=1):
        for name, kind in _KINDS.items():
            found = record.get(name)
            if not isinstance(found, kind) or found != own.get(name, found):
                what = f"has no right {name} in line {number}"
                _refuse(folder.rounds_path, what)
    bought, drawn = folder.stored_purchases()
    purchases = {purchase_name(k): rows for k, rows in enumerate(bought)}
    purchases |= drawn
    return Cell(config, folder.path, records, stored, purchases, folder.done)


def _refuse(path, what):
    raise UsageError(f"{str(path)!r} {what}; move it away, or run it again.")


def name_cells(cells):
    """Name runs, shortly.

    Parameters
    ----------
    cells : iterable of Cell

    Returns
    -------
    text : str
        Strategies and their seeds.
    """
    texts = []
    for name, mine in sorted(gather(cells, strategy_of).items()):
        seeds = ", ".join(map(str, sorted(cell.config.seed for cell in mine)))
        texts.append(f"{name} (seed{'s' * (len(mine) > 1)} {seeds})")
    return ", ".join(texts)


def environments(cells):
    """Gather where runs took place.

    Parameters
    ----------
    cells : list of Cell

    Returns
    -------
    places : dict of str to list of Cell
        By device, threads and versions; that of most runs first. The processor counts
        where all runs name it.
    """
    named = all("processor" in cell.stored for cell in cells)

    def place(cell):
        config, stored = cell.config, cell.stored
        versions = (f"{k} {v}" for k, v in stored.get("versions", {}).items())
        threads = f"{config.threads} thread{'s' * (config.threads != 1)}"
        device = f"{config.device} ({stored.get('device_name')}"
        device += f", {stored['processor']})" if named else ")"
        return f"{device}, {threads}; {', '.join(versions)}"

    places = gather(cells, place)
    return dict(sorted(places.items(), key=lambda item: -len(item[1])))


def unpaired(cells):
    """Find the runs that do not share what the runs of a seed must share.

    Parameters
    ----------
    cells : list of Cell
        Those that have ended.

    Returns
    -------
    others : list of (Cell, str)
        Runs that differ from random's of their seed, or from most where there is none,
        and in what.
    """
    others = []
    for _, mine in sorted(gather(cells, lambda cell: cell.config.seed).items()):
        baseline = [cell for cell in mine if strategy_of(cell) == BASELINE]
        usual = {
            key: Counter(_fact(cell, key) for cell in baseline or mine).most_common(1)
            for key in _SHARED
        }
        for cell in mine:
            what = [_SHARED[k] for k in _SHARED if _fact(cell, k) != usual[k][0][0]]
            if what:
                others.append((cell, " and ".join(what)))
    return others


def _fact(cell, key):
    if key == "data_fingerprint":
        return cell.stored.get(key)
    rows = cell.purchases.get(key)
    return None if rows is None else rows.tobytes()


def other_starts(cells):
    """Find the strategies whose first model scored otherwise than the baseline's.

    Parameters
    ----------
    cells : list of Cell
        Those that have a round.

    Returns
    -------
    names : list of str
    """
    first = {(c.config.strategy, c.config.seed): c.records[0]["nll"] for c in cells}
    return sorted(
        {
            name
            for (name, seed), score in first.items()
            if first.get((BASELINE, seed), score) != score
        }
    )


def commands(cells, folder):
    """Write the commands that repeat runs.

    Parameters
    ----------
    cells : list of Cell
        They differ in nothing but `OWN`.
    folder : pathlib.Path
        The folder of all of them.

    Returns
    -------
    lines : list of str
        `skal compare`, or `skal run` where random was not run in the same way, as
        `skal compare` would add it.
    """
    places = gather(
        cells, lambda c: (_out(c, folder), c.config.device, c.config.threads)
    )
    lines = []
    for (out, device, threads), mine in places.items():
        common = mine[0].config.model_dump(exclude=OWN)
        tail = [*_words(**common), "--device", device, "--threads", str(threads)]
        tail += [] if out == "." else ["--out", f"save/{out}"]
        own = {(strategy_of(c), c.config.seed): c.config.strategy_options for c in mine}
        for options, names, seeds in _rectangles(own):
            given = _words(strategy_options=options)
            added = taken_options(BASELINE, options)
            if all(own.get((BASELINE, seed)) == added for seed in seeds):
                head = ["compare", "--strategies", *names]
                counted = seeds == tuple(range(len(seeds)))
                head += ["--seeds", len(seeds)] if counted else ["--seed-list", *seeds]
                lines.append(shlex.join(map(str, ["skal", *head, *given, *tail])))
                continue
            for name, seed in ((name, seed) for name in names for seed in seeds):
                head = ["skal", "run", "--strategy", name, "--seed", str(seed)]
                lines.append(shlex.join([*head, *given, *tail]))
    return lines


def _out(cell, folder):
    """Find the --out of a run, relative to the folder."""
    root = str(cell.path.resolve()).removesuffix(f"/{cell.config.run_id}")
    inside = root.removeprefix(str(folder.resolve())).strip("/")
    return inside if root.startswith(str(folder.resolve())) and inside else "."


def _rectangles(own):
    """Split runs into (strategy_options, strategies, seeds), all seeds of each."""
    together = {
        key: value for options in own.values() for key, value in options.items()
    }
    shared = all(taken_options(name, together) == own[name, k] for name, k in own)
    seeds, rectangles = {}, {}
    for (name, seed), options in own.items():
        text = json.dumps(together if shared else options)
        seeds.setdefault((text, name), []).append(seed)
    for (text, name), mine in seeds.items():
        rectangles.setdefault((text, tuple(sorted(mine))), []).append(name)
    return [(json.loads(text), names, k) for (text, k), names in rectangles.items()]


def _words(**options):
    return RunConfig.model_construct(**options).words()
