"""The first labelled set: which rows, in which order."""

import warnings

import numpy as np
from scipy import sparse
from sklearn.base import clone
from sklearn.preprocessing import StandardScaler, normalize

from skal.loop.trial import check_comparable
from skal.pool import PoolView
from skal.query import QueryStrategy
from skal.selection import herding
from skal.utils.labels import known_labels
from skal.utils.rows import is_dataset, n_rows, stack_rows, take, telling_rows
from skal.utils.seeds import check_generator
from skal.utils.validation import check_row_numbers

# Of more rows or numbers a sample of the rows is herded, and no more are chosen.
N_HERDED, N_NUMBERS, N_CHOSEN = 10_000, 20_000_000, 1_000
N_WIDE = 100
N_COLUMNS = 1_000  # Sparse rows of more are texts: standardised, rare words rule them.


class OneClassError(ValueError):
    """Raised where all labels that a plan allows are of one class."""


def check_initial(initial, X, mode):
    """Raise where a loop in this mode cannot begin as `initial` says."""
    if initial is None or (isinstance(initial, str) and initial == "uniform"):
        return
    if isinstance(initial, str) and initial == "herding":
        rows = take(X, telling_rows(X))
        try:
            rows = stack_rows(rows)
        except ValueError as error:
            raise ValueError(
                f"initial='herding' compares rows, but {error}; or pass "
                "initial='uniform'."
            ) from error
        check_comparable(rows, "initial='herding'")
    elif isinstance(initial, str):
        if mode != "simulate":
            raise ValueError(
                "initial='balanced' needs to know all labels, which only a simulation "
                "does; pass initial=None, rows or a strategy."
            )
    elif isinstance(initial, QueryStrategy):
        needs = sorted(set(initial.requires) - {"embeddings", "features"})
        needs = [name for name in needs if not name.startswith("labeled.")]
        if needs:
            raise ValueError(
                f"initial={type(initial).__name__}() reads {needs} of a model, and "
                "there is none yet; pass a strategy that needs none, such as "
                "RandomQuery() or KMeansQuery()."
            )
        if is_dataset(X) and initial.requires:
            raise ValueError(
                f"initial={type(initial).__name__}() compares raw rows, but X is a "
                "Dataset, whose items are no rows of numbers; pass initial=None or "
                "RandomQuery()."
            )
        if initial.requires:
            rows = take(X, telling_rows(X))
            check_comparable(rows, f"initial={type(initial).__name__}()")
    else:
        check_row_numbers(initial, n_rows(X), "initial")


def initial_size(initial, n_initial, n_samples):
    """Size of the first set."""
    given = initial is not None and not isinstance(initial, str | QueryStrategy)
    return len(initial) if given else min(n_initial, n_samples)


def initial_order(initial, size, X, y, skipped, seed, memory_limit=None):
    """Order all rows for the time before there is a model.

    Parameters
    ----------
    initial : None, str, QueryStrategy or array-like of int
        As in `ActiveLearningLoop`.
    size : int
        Of the first set.
    X : rows
    y : array of shape (n_samples,)
        Read where `initial` is "balanced".
    skipped : bool array of shape (n_samples,)
        Rows that are not wanted.
    seed : int
    memory_limit : int or str, default=None
        Of a strategy's view of the rows; see `skal.PoolView`.

    Returns
    -------
    first : int64 array
        The first set, without skipped rows.
    rest : int64 array
        All other rows, shuffled.
    """
    rng = check_generator(seed)
    shuffled = rng.permutation(len(skipped))
    wanted = shuffled[~skipped[shuffled]]
    kind = initial if isinstance(initial, str) else None
    if initial is None:
        kind = "herding" if _has_features(X) else "uniform"
    if kind == "herding":
        first = _herded(X, wanted, size, rng, required=initial is not None)
    elif kind == "uniform":
        first = wanted[:size]
    elif kind == "balanced":
        _, codes = np.unique(known_labels(y, wanted), return_inverse=True)
        rank = np.empty(len(wanted), dtype=np.int64)
        for code in np.unique(codes):
            (of_class,) = np.nonzero(codes == code)
            rank[of_class] = np.arange(len(of_class))
        first = wanted[np.lexsort((rng.permutation(len(wanted)), rank))[:size]]
    elif isinstance(initial, QueryStrategy):
        rows = np.flatnonzero(~skipped) if skipped.any() else None
        options = {"random_state": seed, "memory_limit": memory_limit}
        view = PoolView.of_rows(None, X, rows, **options)
        first = view.indices[clone(initial).fit(view).query(view, size)]
    else:
        first = np.asarray(initial, dtype=np.int64)
        first = first[~skipped[first]]
    return first, shuffled[~np.isin(shuffled, first)]


def _has_features(X):
    """Tell whether rows are vectors of numbers, as far as a few of them tell."""
    if sparse.issparse(X) and X.shape[1] > N_COLUMNS:
        return False
    try:
        rows = stack_rows(take(X, telling_rows(X)))
    except (TypeError, ValueError):
        return False
    return rows.ndim == 2 and bool(rows.isfinite().all())


def _herded(X, shuffled, size, rng, required):
    """Choose rows that cover the others, or where it is not required any."""
    n_columns = stack_rows(take(X, shuffled[:1])).numel()
    n_chosen = min(size, N_CHOSEN, len(shuffled))
    rows = shuffled[: max(n_chosen, min(N_HERDED, N_NUMBERS // max(n_columns, 1)))]
    points = stack_rows(take(X, rows)).double().flatten(1).numpy(force=True)
    odd = rows[~np.isfinite(points).all(axis=1)]
    if len(odd) and not required:
        return shuffled[:size]
    if len(odd):
        raise ValueError(
            f"initial='herding' compares rows, but row {odd.min()} of X holds NaN or "
            "infinite entries; clean X, or pass initial='uniform'."
        )
    chosen = rows[herding(_scaled(points), n_chosen, random_state=rng)]
    others = shuffled[~np.isin(shuffled, chosen)]
    return np.concatenate([chosen, others[: size - n_chosen]])


def _scaled(points):
    """Standardise the columns; where they are many, compare directions.

    Then nine of ten columns keep their sizes, of which features and pixels that hardly
    vary are the least, and rows are of length 1.
    """
    wide = points.shape[1] > N_WIDE
    # By powers of two first, so that squares of huge entries can be summed.
    largest = np.abs(points).max(axis=None if wide else 0)
    points = np.ldexp(points, -np.frexp(largest)[1])
    scaler = StandardScaler(copy=False).fit(points)
    if wide:
        scaler.scale_ = np.maximum(scaler.scale_, np.quantile(points.std(0), 0.9))
        return normalize(scaler.transform(points), copy=False).astype(np.float32)
    return scaler.transform(points).astype(np.float32)


def first_rows(labels, first, rest, batch_size):
    """Choose what a person labels next while there is no model.

    Parameters
    ----------
    labels : Labels
    first, rest : int64 arrays
        See `initial_order`.
    batch_size : int

    Returns
    -------
    rows : int64 array
        The first set; when some of it was answered the rest, in whole batches.
    """
    n_rows = labels.open[first].sum()
    if n_rows < max(len(first), 1):
        n_rows = max(n_rows, batch_size)
    rows = np.concatenate([first, rest])
    return rows[labels.open[rows]][:n_rows]


def buy_second_class(labels, answer, rows, batch_size, planned):
    """Buy batches until there are two classes.

    Parameters
    ----------
    labels : Labels
    answer : callable
        See `Labels.buy`.
    rows : int64 array
        In this order; those that were asked for are passed over.
    batch_size : int
    planned : int
        How many labels there may be in the end.

    Returns
    -------
    n_bought : int

    Raises
    ------
    OneClassError, ValueError
        Where there are not two classes among so many labels, or in all rows.
    """
    rows, before = rows[labels.open[rows]], len(labels)
    while labels.n_seen < 2 and len(rows) and len(labels) < planned:
        batch, rows = np.split(rows, [min(batch_size, planned - len(labels))])
        labels.buy(batch, answer, 0)
    if labels.n_seen < 2 and len(rows):
        raise OneClassError(
            f"{len(labels)} labels, all that n_initial, n_rounds and batch_size="
            f"{batch_size} plan, are of one class, and nothing can be trained on them; "
            "pass initial='balanced', a larger n_initial or more rounds. They are in "
            "transduction_."
        )
    if labels.n_seen < 2:
        raise ValueError(
            "the oracle was asked for every row and gave fewer than two classes; its "
            "answers are in transduction_."
        )
    bought = len(labels) - before
    warnings.warn(
        f"the initial set of {before} rows held one class only, so {bought} more were "
        "bought, at the cost of later rounds; initial='balanced' or a larger n_initial "
        "avoids this.",
        UserWarning,
        stacklevel=2,
    )
    return bought
