"""A report of all runs below a folder: report.html and results.csv."""

import csv
import io
import json
from base64 import b64encode
from collections import namedtuple
from dataclasses import asdict
from html import escape
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from skal.experiment.config import RunConfig, UsageError
from skal.experiment.results import read_run
from skal.plotting import LearningCurveDisplay
from skal.utils import atomic_write
from skal.utils.comparison import penalties, penalty_matrix, rank_strategies
from skal.utils.statistics import (
    area_under_curve,
    class_balance,
    label_quartiles,
    labels_saved,
    labels_to_target,
    learning_curves,
    mean_curve,
    mean_interval,
    overlap,
)

COLUMNS = (
    "dataset model strategy seed n_initial batch_size round n_labeled n_queried "
    "accuracy balanced_accuracy nll ece train_s query_s"
).split()
BASELINE = "random"
# Options in which runs that are compared may differ.
_OWN = ("strategy", "seed", "device", "threads", "strategy_options")

Report = namedtuple("Report", "html csv notes")

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem;
  padding: 0 1rem 3rem; color: #222; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; margin: 0.5rem 0; }
th, td { padding: 0.2rem 0.6rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 1px solid #888; vertical-align: bottom; }
img { max-width: 100%; height: auto; }
.missing { background: #fff3cd; padding: 0.5rem 1rem; }
code { overflow-wrap: anywhere; }
"""


def write_report(folder):
    """Write report.html and results.csv about all runs below a folder.

    Runs of one data set, network and sizes are compared with each other, seed by seed;
    only those that have ended count, and what is missing is said.

    Parameters
    ----------
    folder : path-like
        Holds runs at any depth.

    Returns
    -------
    report : Report
        The paths `html` and `csv`, and `notes` on what is missing.

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
    groups = {}
    for path in paths:
        run = read_run(path)
        config = run.config
        sizes = (config.n_initial, config.batch_size, config.n_rounds)
        common = json.dumps({k: v for k, v in asdict(config).items() if k not in _OWN})
        key = (config.data_name, config.model, *sizes, common)
        group, own = groups.setdefault(key, []), (config.strategy, config.seed)
        for other in group:
            if (other.config.strategy, other.config.seed) == own:
                raise UsageError(
                    f"Two runs are the same, {str(other.path)!r} and {str(path)!r}; "
                    "move one of them away."
                )
        group.append(run)
    table = _csv_text(groups)
    sections, notes = [], []
    for key, runs in groups.items():
        missing = _missing(runs)
        title = "{}, {}, {} + {} labels a round, {} rounds".format(*key[:5])
        notes += [f"{title}: {each}" for each in missing]
        sections.append(_section(title, runs, missing))
    names = ", ".join(
        sorted({run.config.data_name for run in sum(groups.values(), [])})
    )
    page = _page(f"Active learning on {names}", sections)
    for name, text in (("results.csv", table), ("report.html", page)):
        with atomic_write(folder / name, "w") as file:
            file.write(text)
    return Report(folder / "report.html", folder / "results.csv", notes)


def _csv_text(groups):
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for run in sum(groups.values(), []):
        sizes = {"n_initial": run.config.n_initial, "batch_size": run.config.batch_size}
        writer.writerows({**record, **sizes} for record in run.records)
    return text.getvalue()


def _ended(run):
    return (run.path / "DONE").exists()


def _missing(runs):
    """Say which runs have not ended, and which seeds a strategy lacks."""
    missing = [
        f"{run.config.strategy}, seed {run.config.seed}, has {len(run.records)} of "
        f"{run.config.n_rounds + 1} rounds and is left out"
        for run in runs
        if not _ended(run)
    ]
    seeds = {}
    for run in filter(_ended, runs):
        seeds.setdefault(run.config.strategy, set()).add(run.config.seed)
    for name, there in sorted(seeds.items()):
        absent = sorted(set().union(*seeds.values()) - there)
        if absent:
            missing.append(f"{name} has no seed {', '.join(map(str, absent))}")
    if BASELINE not in seeds:
        missing.append("there is no random to compare with")
    return missing


def _section(title, runs, missing):
    parts = [f"<h2>{escape(title)}</h2>"]
    if missing:
        items = "".join(f"<li>{escape(each)}</li>" for each in missing)
        parts.append(f'<div class="missing">Missing: <ul>{items}</ul></div>')
    runs = [run for run in runs if _ended(run)]
    if not runs:
        return "\n".join(parts)
    records = [record for run in runs for record in run.records]
    curves = learning_curves(records)
    parts.append(_picture(records))
    parts.append(_summary(runs, curves))
    if len(curves) > 1:
        parts += [_penalties(curves), _ranks(curves), _overlap(runs)]
    parts.append(_environment(runs))
    return "\n".join(parts)


def _picture(records):
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return "<p>No picture without matplotlib: <code>skal[plot]</code>.</p>"
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    ax = figure.subplots()
    LearningCurveDisplay.from_records(records, ax=ax)
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    data = b64encode(buffer.getvalue()).decode()
    text = "accuracy against labels, mean and 95 % interval of the mean over seeds"
    return f'<p><img alt="{text}" src="data:image/png;base64,{data}"><br>{text}</p>'


def _summary(runs, curves):
    """Tabulate each strategy's scores, labels to target and costs."""
    areas = _areas(curves)
    baseline = curves.get(BASELINE)
    target = None
    if baseline:
        target = float(mean_curve(baseline.values()).scores[-1])
    rows = []
    for name, by_seed in curves.items():
        mine = [run for run in runs if run.config.strategy == name]
        last = [run.records[-1] for run in mine]
        row = [name, len(by_seed), _interval(areas[name].values())]
        row.append("" if name == BASELINE else _gain(areas, name))
        row.append(_interval(curve.scores[-1] for curve in by_seed.values()))
        if target is not None:
            labels = [labels_to_target(*curve, target) for curve in by_seed.values()]
            row.append(" / ".join(map(_labels, label_quartiles(labels))))
            mean = mean_curve(by_seed.values())
            saved = labels_saved(mean, mean_curve(baseline.values()), [target])[0]
            row.append("" if name == BASELINE else _share(saved))
        row += [f"{np.mean([r[key] for r in last]):.3f}" for key in ("nll", "ece")]
        counts = [
            np.sum([r["acquired_class_counts"] for r in run.records], axis=0)
            for run in mine
        ]
        row.append(f"{np.mean(class_balance(counts)):.3f}")
        for key in ("train_s", "query_s"):
            row.append(f"{np.mean([r[key] for run in mine for r in run.records]):.2f}")
        rows.append((np.mean(list(areas[name].values())), row))
    header = ["strategy", "seeds", "area under the curve", "minus random", "at the end"]
    if target is not None:
        header += [f"labels to {target:.3f}", "labels saved"]
    header += ["NLL", "ECE", "class balance", "train s", "query s"]
    rows = [row for _, row in sorted(rows, key=lambda pair: -pair[0])]
    note = (
        "Means with 95 % t intervals over seeds; minus random is paired by seed. "
        "Labels to target are quartiles over seeds, the target being random's mean "
        "accuracy at the end. Class balance is the entropy of all bought labels over "
        "its maximum; seconds are means over rounds."
    )
    return _table(header, rows) + f"<p>{note}</p>"


def _areas(curves):
    return {
        name: {seed: area_under_curve(*curve) for seed, curve in by_seed.items()}
        for name, by_seed in curves.items()
    }


def _interval(values):
    mean, half = mean_interval(list(values))
    return f"{mean:.3f}" if np.isnan(half) else f"{mean:.3f} ± {half:.3f}"


def _gain(areas, name):
    random = areas.get(BASELINE, {})
    shared = sorted(areas[name].keys() & random)
    if not shared:
        return "no seed in common"
    mean, half = mean_interval([areas[name][k] - random[k] for k in shared])
    if np.isnan(half):
        return f"{mean:+.3f}"
    return f"{mean - half:+.3f} to {mean + half:+.3f}"


def _labels(number):
    return f"{number:.0f}" if np.isfinite(number) else "never"


def _share(saved):
    return f"{saved:.0%}" if np.isfinite(saved) else "never there"


def _penalties(curves):
    result = penalty_matrix(curves)
    rows = [
        [name, *("" if i == j else _cell(w) for j, w in enumerate(row))]
        for i, (name, row) in enumerate(zip(result.names, result.wins, strict=True))
    ]
    paired = (result.n_seeds >= 2).sum(0) > 1  # with more than itself
    beaten = penalties(result.wins)
    cells = (
        f"{p:.2f}" if known else "-" for p, known in zip(beaten, paired, strict=True)
    )
    rows.append(["beaten", *cells])
    checkpoints = ", ".join(map(str, result.checkpoints))
    note = (
        "How often the row beats the column: share of the checkpoints "
        f"({checkpoints} labels) with p &lt; 0.05 in a t test paired by seed, not "
        "corrected for the number of tests. The last line is the mean of the column: "
        "lower is better."
    )
    header = ["better", *result.names]
    return f"<h3>Pairwise</h3>{_table(header, rows)}<p>{note}</p>"


def _cell(value):
    return "not paired" if np.isnan(value) else f"{value:.2f}"


def _ranks(curves):
    try:
        ranking = rank_strategies(_areas(curves))
    except ValueError:
        return "<p>No ranks: no seed has all strategies.</p>"
    order = np.argsort(ranking.mean_ranks, kind="stable")
    rows = [
        [
            ranking.names[i],
            f"{ranking.mean_ranks[i]:.2f}",
            *("" if i == j else f"{ranking.p_pairs[i, j]:.3f}" for j in order),
        ]
        for i in order
    ]
    header = ["strategy", "mean rank", *(ranking.names[j] for j in order)]
    note = (
        f"Ranks of the area under the curve over {ranking.n_blocks} seeds. Friedman's "
        f"test: {_p_value(ranking.p_value)}. The columns are p of Wilcoxon's "
        "signed-rank test, corrected as Holm does; with n seeds none is below "
        "2 / 2^n, 0.0625 for five."
    )
    return f"<h3>Ranks</h3>{_table(header, rows)}<p>{note}</p>"


def _p_value(p):
    if np.isnan(p):
        return "not with fewer than three strategies or two seeds"
    return f"p = {p:.4f}"


def _overlap(runs):
    picks = {}
    for run in runs:
        try:
            with np.load(run.path / "queries.npz") as queries:
                names = [name for name in queries if name.startswith("round_")]
                rows = [queries[name] for name in names]
        except (EOFError, OSError, ValueError, BadZipFile) as error:
            raise UsageError(
                f"{str(run.path / 'queries.npz')!r} cannot be read ({error}); move the "
                "run away, or run it again."
            ) from error
        bought = np.concatenate([np.empty(0, dtype=np.int64), *rows])
        picks.setdefault(run.config.strategy, {})[run.config.seed] = bought
    matrix = overlap(picks)
    rows = [
        [name, *("" if np.isnan(v) else f"{v:.2f}" for v in row)]
        for name, row in zip(picks, matrix, strict=True)
    ]
    note = "Rows that both bought over rows that either did, mean over shared seeds."
    table = _table(["overlap", *picks], rows)
    return f"<h3>What they bought</h3>{table}<p>{note}</p>"


def _environment(runs):
    content = json.loads((runs[0].path / "config.json").read_text(encoding="utf-8"))
    versions = ", ".join(f"{k} {v}" for k, v in content.get("versions", {}).items())
    devices = sorted({run.config.device for run in runs})
    threads = sorted({str(run.config.threads) for run in runs})
    seeds = sorted({run.config.seed for run in runs})
    names = list(dict.fromkeys(run.config.strategy for run in runs))
    options = {k: v for k, v in content["options"].items() if k not in _OWN}
    return (
        f"<h3>How</h3><p>Seeds {', '.join(map(str, seeds))}; device "
        f"{', '.join(devices)} ({escape(str(content.get('device_name')))}), threads "
        f"{', '.join(threads)}; {escape(versions)}.</p><p><code>skal compare "
        f"--strategies {' '.join(names)} --seed-list {' '.join(map(str, seeds))} "
        f"{escape(_flags(options))}</code></p>"
    )


def _flags(options):
    default = RunConfig()
    flags = []
    for key, value in options.items():
        if value == getattr(default, key, None) or value is None:
            continue
        flag = f"--{key.replace('_', '-')}"
        if isinstance(value, bool):
            flags.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            flags.append(f"{flag} {value}")
    return " ".join(flags)


def _table(header, rows):
    head = "".join(f"<th>{escape(str(each))}</th>" for each in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(each))}</td>" for each in row) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _page(title, sections):
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style></head>\n<body>"
        f"<h1>{escape(title)}</h1>\n" + "\n".join(sections) + "\n</body></html>\n"
    )
