"""What runs say, in tables and pictures of HTML."""

import io
from base64 import b64encode
from html import escape

import numpy as np
from PIL import Image

from skal.analysis import (
    area_under_curve,
    class_balance,
    label_quartiles,
    labels_saved,
    labels_to_target,
    learning_curves,
    mean_curve,
    mean_interval,
    overlap,
    penalties,
    penalty_matrix,
    rank_strategies,
)
from skal.plotting import LearningCurveDisplay, PairwiseComparisonDisplay
from skal.report.provenance import BASELINE

_FEW = 5  # seeds, below which a paired test says little


def numbers(cells, full_data=()):
    """Compare the strategies of one data set, network and sizes.

    Parameters
    ----------
    cells : list of Cell
        That have ended.
    full_data : list of Cell, default=()
        Runs that bought all labels at once.

    Returns
    -------
    html : str
    """
    curves = learning_curves(record for cell in cells for record in cell.records)
    parts = [_pictures(cells, curves, full_data), _summary(cells, curves)]
    if len(curves) > 1:
        parts += [_penalties(curves), _ranks(_areas(curves)), _overlap(cells)]
    return "\n".join(parts)


def all_together(groups):
    """Compare the strategies over several data sets, networks or sizes.

    Parameters
    ----------
    groups : dict of str to list of Cell
        By title, the runs that have ended.

    Returns
    -------
    html : str
        Empty where there are not several, or they share fewer than two strategies.
    """
    curves = {
        title: learning_curves(record for cell in cells for record in cell.records)
        for title, cells in groups.items()
        if cells
    }
    shared = [
        name
        for name in next(iter(curves.values()), ())
        if all(name in each for each in curves.values())
    ]
    if len(curves) < 2 or len(shared) < 2:
        return ""
    values, total = {name: {} for name in shared}, 0
    for title, each in curves.items():
        mine = {name: each[name] for name in shared}
        total = total + penalty_matrix(mine).wins
        for name, by_seed in _areas(mine).items():
            values[name] |= {(title, seed): area for seed, area in by_seed.items()}
    text = (
        f"Sums over the {len(curves)} comparisons above, of the strategies that are in "
        "all of them: a cell is at most that many."
    )
    return "\n".join(
        [
            "<h2>All together</h2>",
            _matrix(shared, total),
            f"<p>{text}</p>",
            _ranks(values, "pairs of a comparison and a seed"),
        ]
    )


def _pictures(cells, curves, full_data):
    records = []
    for cell in cells:
        counts = np.cumsum([r["acquired_class_counts"] for r in cell.records], axis=0)
        balances = class_balance(counts).tolist()
        for record, balance in zip(cell.records, balances, strict=True):
            records.append({**record, "class balance": balance})
    full = np.mean([c.records[-1]["accuracy"] for c in full_data] or [np.nan])
    full = None if np.isnan(full) else float(full)
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return "<p>No pictures without matplotlib: <code>skal[plot]</code>.</p>"

    def draw(score_name, text, label=None, *, gain=False):
        rows = -(-(len(curves) + 1) // 2)
        figure = Figure(figsize=(5, 3.3 + 0.19 * rows), layout="constrained")
        ax = figure.subplots()
        line = full if score_name == "accuracy" else None
        options = {"score_name": score_name, "baseline": BASELINE, "full_data": line}
        display = LearningCurveDisplay.from_records(
            records, ax=Figure().subplots() if gain else ax, **options
        )
        if gain:
            display.plot(ax, gain=True)
        if label:
            ax.set_ylabel(label)
        low, high = ax.get_ylim()
        if not gain:  # an interval can leave the range of its score
            high = high if score_name == "nll" else min(high, 1.02)
            ax.set_ylim(max(low, -0.02), high)
        ax.get_legend().remove()
        handles = ax.get_legend_handles_labels()
        style = {"ncols": 2, "fontsize": 8.5, "frameon": False}
        figure.legend(*handles, loc="outside lower center", **style)
        image = _image(figure, text)
        return f"<figure>{image}<figcaption>{text}</figcaption></figure>"

    panels = [
        draw("accuracy", "Accuracy: mean and, of several seeds, its 95 % t interval.")
    ]
    if BASELINE in curves and len(curves) > 1:
        text = "Accuracy minus random's, seed by seed: mean and paired 95 % t interval."
        panels.append(draw("accuracy", text, gain=True))
    if any(abs(r["accuracy"] - r["balanced_accuracy"]) > 0.01 for r in records):
        panels.append(draw("balanced_accuracy", "Mean of the recalls of the classes."))
    panels += [
        draw(
            "nll", "Negative log-likelihood of the test rows: lower is better.", "NLL"
        ),
        draw("ece", "Expected calibration error: lower is better.", "ECE"),
        draw("class balance", "Entropy of the classes bought, over its maximum."),
    ]
    said = ""
    if full_data:
        n_labeled = full_data[0].records[-1]["n_labeled"]
        said = f"<p>Trained on all {n_labeled} labels: {_interval_of(full_data)}.</p>"
    return f'<div class="panels">{"".join(panels)}</div>{said}'


def _interval_of(cells):
    return _interval(cell.records[-1]["accuracy"] for cell in cells)


def _image(figure, text, width=None):
    drawn, buffer = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=160)
    # 256 colours, none off by more than is seen, take a quarter of the bytes.
    picture = Image.open(drawn).convert("RGB")
    kept = {"method": Image.Quantize.MAXCOVERAGE, "dither": Image.Dither.NONE}
    picture.quantize(256, **kept).save(buffer, "png", optimize=True)
    data = b64encode(buffer.getvalue()).decode()
    size = f' width="{width}"' if width else ""
    return f'<img alt="{escape(text)}"{size} src="data:image/png;base64,{data}">'


def _summary(cells, curves):
    """Tabulate each strategy's scores, labels to target and costs."""
    areas = _areas(curves)
    baseline = curves.get(BASELINE)
    target = None
    if baseline:
        # Less what rounding may have added to a mean of equal scores.
        target = float(mean_curve(baseline.values()).scores[-1]) - 1e-12
    rows, costs = [], []
    for name, by_seed in curves.items():
        mine = [cell for cell in cells if cell.config.strategy == name]
        last = [cell.records[-1] for cell in mine]
        row = [name, _interval(areas[name].values())]
        row.append("" if name == BASELINE else _gain(areas, name))
        row.append(_interval(curve.scores[-1] for curve in by_seed.values()))
        if target is not None:
            labels = [labels_to_target(*curve, target) for curve in by_seed.values()]
            row.append(" / ".join(map(_labels, label_quartiles(labels))))
            mean = mean_curve(by_seed.values())
            saved = labels_saved(mean, mean_curve(baseline.values()), [target])[0]
            row.append("" if name == BASELINE else _share(saved))
        rows.append((np.mean(list(areas[name].values())), row))
        row = [name, len(by_seed)]
        row += [_interval(r[key] for r in last) for key in ("nll", "ece")]
        counts = [
            np.sum([r["acquired_class_counts"] for r in cell.records], axis=0)
            for cell in mine
        ]
        row.append(f"{np.mean(class_balance(counts)):.3f}")
        for key, first in (("train_s", 0), ("query_s", 1)):
            times = [r[key] for cell in mine for r in cell.records[first:]]
            row.append(f"{np.mean(times):.2f}" if times else "")
        costs.append((np.mean(list(areas[name].values())), row))
    header = ["strategy", "area under the curve", "minus random", "at the end"]
    if target is not None:
        header += [f"labels to {target:.3f}", "labels saved"]
    note = (
        "Means with 95 % t intervals over seeds; minus random is paired by seed. "
        "Labels to target are quartiles over seeds, the target being random's mean "
        "accuracy at the end."
    )
    if len(baseline or ()) > 1:
        spread = np.std(list(areas[BASELINE].values()), ddof=1)
        note += (
            f" From seed to seed, random's area has a standard deviation of "
            f"{spread:.3f}: less is noise, unless it is paired."
        )
    more = (
        "NLL and ECE at the end. Class balance is the entropy of all bought labels "
        "over its maximum; seconds are means over rounds, of machines that may have "
        "been busy with other runs."
    )
    columns = ["strategy", "seeds", "NLL", "ECE", "class balance", "train s", "query s"]
    tables = _table(header, _sorted(rows)), _table(columns, _sorted(costs))
    return f"{tables[0]}<p>{note}</p>{tables[1]}<p>{more}</p>"


def _sorted(rows):
    """Sort rows by the numbers they come with, highest first."""
    return [row for _, row in sorted(rows, key=lambda pair: -pair[0])]


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
    checkpoints = ", ".join(map(str, result.checkpoints))
    note = (
        "How often the row beats the column: share of the checkpoints "
        f"({checkpoints} labels) with p &lt; 0.05 in a t test paired by seed, not "
        "corrected for the number of tests. The last line is the mean of the column, "
        "itself included as 0: lower is better."
    )
    fewest = min(map(len, curves.values()))
    if fewest < _FEW:
        note += (
            f" With no more than {fewest} seed{'s' * (fewest > 1)} this says little: "
            "five are the least, ten for differences below a point."
        )
    return f"<h3>Pairwise</h3>{_matrix(result.names, result.wins)}<p>{note}</p>"


def _matrix(names, wins):
    """Draw a penalty matrix, and tabulate it."""
    rows = [
        [name, *("" if i == j else _cell(w) for j, w in enumerate(row))]
        for i, (name, row) in enumerate(zip(names, wins, strict=True))
    ]
    beaten = ("-" if np.isnan(p) else f"{p:.2f}" for p in penalties(wins))
    rows.append(["is beaten", *beaten])
    table = _table(["better", *names], rows, "wide turned")
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return table
    figure = Figure(figsize=(2 + 0.5 * len(names), 1.6 + 0.4 * len(names)))
    figure.set_layout_engine("constrained")
    PairwiseComparisonDisplay(names, wins).plot(figure.subplots())
    width = round(96 * figure.get_size_inches()[0])
    image = _image(figure, "How often each strategy beats each other one.", width)
    return (
        f'<div class="wide matrix">{image}</div>'
        f"<details><summary>As a table</summary>{table}</details>"
    )


def _cell(value):
    return "not paired" if np.isnan(value) else f"{value:.2f}"


def _ranks(areas, unit="seeds that all strategies have"):
    try:
        ranking = rank_strategies(areas)
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
        f"Ranks of the area under the curve over {ranking.n_blocks} {unit}. Friedman's "
        f"test: {_p_value(ranking.p_value)}. The columns are p of Wilcoxon's "
        "signed-rank test, corrected as Holm does; with n of them none is below "
        "2 / 2^n, 0.0625 for five."
    )
    return f"<h3>Ranks</h3>{_table(header, rows, 'wide turned')}<p>{note}</p>"


def _p_value(p):
    if np.isnan(p):
        return "not with fewer than three strategies or two seeds"
    return f"p = {p:.4f}" if p >= 0.0001 else "p &lt; 0.0001"


def _overlap(cells):
    picks = {}
    for cell in cells:
        rows = [
            cell.purchases[name] for name in cell.purchases if name.startswith("round_")
        ]
        bought = np.concatenate([np.empty(0, dtype=np.int64), *rows])
        picks.setdefault(cell.config.strategy, {})[cell.config.seed] = bought
    matrix = overlap(picks)
    rows = [
        [name, *("" if np.isnan(v) else f"{v:.2f}" for v in row)]
        for name, row in zip(picks, matrix, strict=True)
    ]
    note = "Rows that both bought over rows that either did, mean over shared seeds."
    table = _table(["overlap", *picks], rows, "wide turned")
    return f"<h3>What they bought</h3>{table}<p>{note}</p>"


def _table(header, rows, kind="wide"):
    head = "".join(f"<th>{escape(str(each))}</th>" for each in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(str(each))}</td>" for each in row) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="{kind}"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def items(texts):
    """Write a list.

    Parameters
    ----------
    texts : iterable of str

    Returns
    -------
    html : str
    """
    lines = "".join(f"<li>{escape(each)}</li>" for each in texts)
    return f"<ul>{lines}</ul>"
