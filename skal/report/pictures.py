"""What runs say, in pictures: PNG, as text that a page can hold."""

import io
from base64 import b64encode
from importlib.util import find_spec

from PIL import Image

from skal.plotting import LearningCurveDisplay, PairwiseComparisonDisplay
from skal.report.provenance import BASELINE


def draw_panels(rounds, full=None):
    """Draw what changes with the number of labels.

    Parameters
    ----------
    rounds : pandas.DataFrame
        A line for each round of each run.
    full : float, default=None
        Accuracy with all labels.

    Returns
    -------
    panels : list of (str, str)
        Pictures and what they show; None without matplotlib.
    """
    if not find_spec("matplotlib"):
        return None
    names = set(rounds["strategy"])
    text = "Accuracy: mean and, of several seeds, its 95 % t interval."
    panels = [(_curves(rounds, "accuracy", full=full), text)]
    if BASELINE in names and len(names) > 1:
        text = "Accuracy minus random's, seed by seed: mean and paired 95 % t interval."
        panels.append((_curves(rounds, "accuracy", gain=True), text))
    others = {
        "balanced_accuracy": "Mean of the recalls of the classes.",
        "nll": "Negative log-likelihood of the test rows: lower is better.",
        "ece": "Expected calibration error: lower is better.",
        "class balance": "Entropy of the classes bought, over its maximum.",
    }
    if (abs(rounds["accuracy"] - rounds["balanced_accuracy"]) <= 0.01).all():
        del others["balanced_accuracy"]
    return panels + [(_curves(rounds, name), text) for name, text in others.items()]


def _curves(rounds, score_name, *, full=None, gain=False):
    from matplotlib.figure import Figure

    rows = -(-(rounds["strategy"].nunique() + 1) // 2)
    figure = Figure(figsize=(5, 3.3 + 0.19 * rows), layout="constrained")
    ax = figure.subplots()
    options = {"score_name": score_name, "baseline": BASELINE, "full_data": full}
    display = LearningCurveDisplay.from_records(
        rounds, ax=Figure().subplots() if gain else ax, **options
    )
    if gain:
        display.plot(ax, gain=True)
    if score_name in ("nll", "ece"):
        ax.set_ylabel(score_name.upper())
    low, high = ax.get_ylim()
    if not gain:  # an interval can leave the range of its score
        high = high if score_name == "nll" else min(high, 1.02)
        ax.set_ylim(max(low, -0.02), high)
    ax.get_legend().remove()
    handles = ax.get_legend_handles_labels()
    style = {"ncols": 2, "fontsize": 8.5, "frameon": False}
    figure.legend(*handles, loc="outside lower center", **style)
    return encode(figure)


def draw_matrix(wins):
    """Draw who beats whom.

    Parameters
    ----------
    wins : pandas.DataFrame of shape (n_strategies, n_strategies)

    Returns
    -------
    picture : dict
        image; width, in pixels of a screen. None without matplotlib.
    """
    if not find_spec("matplotlib"):
        return None
    from matplotlib.figure import Figure

    n = len(wins)
    figure = Figure(figsize=(2 + 0.5 * n, 1.6 + 0.4 * n), layout="constrained")
    PairwiseComparisonDisplay(wins.index, wins).plot(figure.subplots())
    return {"image": encode(figure), "width": round(96 * figure.get_size_inches()[0])}


def encode(figure):
    """Write a figure as a PNG in base 64.

    Parameters
    ----------
    figure : matplotlib Figure

    Returns
    -------
    text : str
    """
    drawn, buffer = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=160)
    # 256 colours, none off by more than is seen, take a quarter of the bytes.
    picture = Image.open(drawn).convert("RGB")
    kept = {"method": Image.Quantize.MAXCOVERAGE, "dither": Image.Dither.NONE}
    picture.quantize(256, **kept).save(buffer, "png", optimize=True)
    return b64encode(buffer.getvalue()).decode()
