"""`ActiveLearningLoop`: buy labels round by round, for a model that uses them well."""

import warnings
from numbers import Integral
from time import perf_counter

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.metrics import check_scoring
from sklearn.utils import ClassifierTags, check_consistent_length, get_tags
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping
from sklearn.utils.metaestimators import available_if

from skal.pool import PoolView
from skal.query import QueryStrategy
from skal.utils.labels import check_labels, encode, known_labels
from skal.utils.rows import DatasetRows, dataset_targets, is_dataset, n_rows, take
from skal.utils.seeds import check_generator, check_seed, derive_seed, isolated_rng
from skal.utils.training import (
    final_estimator,
    fit_isolated,
    is_net,
    label_dtype,
    private_clone,
    warn_of_instances,
)
from skal.utils.validation import (
    CallbackSupportMixin,
    HasMethods,
    Interval,
    StrOptions,
    callback_task,
    check_is_fitted,
    check_rows,
    fit_context,
    routed_params,
    slice_params,
    with_callbacks,
)


def _estimator_has(name):
    def check(self):
        getattr(getattr(self, "estimator_", self.estimator), name)
        return True

    return check


class ActiveLearningLoop(CallbackSupportMixin, MetaEstimatorMixin, BaseEstimator):
    """Train a classifier on labels bought round by round with a query strategy.

    In each round the strategy chooses `batch_size` unlabelled rows, their labels are
    bought, and a fresh clone of the estimator is trained on all labels so far. The
    labels come from a complete `y` (simulation), from a callable (oracle), or from a
    person who fills `y[loop.next_query_]` and calls `fit` again (ask).

    Parameters
    ----------
    estimator : estimator
        Any scikit-learn classifier: a skorch net, a Pipeline or search object that ends
        in one, LogisticRegression, a forest. Cloned, never touched.
    strategy : QueryStrategy
        Chooses the rows. Cloned, never touched.
    batch_size : int, default=10
        Labels bought a round; the last batch may be short.
    n_initial : int, default=10
        Size of the first labelled set.
    initial : None, "balanced", QueryStrategy or array-like of int, default=None
        How the first set is chosen: uniformly; equally many rows of each class
        (simulation only); by a strategy that needs no model, over the raw rows; or the
        given rows (then `n_initial` is ignored).
    n_rounds : int or None, default=10
        Rounds after the initial one; None goes on until the pool is empty.
    oracle : None, "ask" or callable, default=None
        None simulates with a complete `y`, and asks where some labels are missing.
        "ask" always asks. A callable ``oracle(indices) -> labels`` answers; an answer
        may be `missing_label`: that row is not asked for again in this fit.
    missing_label : object, default=-1
        Marks missing labels in `y`: a number, NaN, None or a string.
    classes : array-like, default=None
        All classes. None takes those of `y`: of the whole `y` in a simulation, else of
        the labels so far.
    scoring : str, callable, list, tuple, dict or None, default=None
        Scores of `X_test` after each round, as in scikit-learn; None uses the
        estimator's own `score`.
    embedding_layer : str, default="auto"
        Name of the layer whose input is the embedding; see `PoolView`.
    warm_start : bool, default=False
        Train on from the last round's model instead of a fresh clone; the estimator
        needs a `warm_start` parameter. In ask mode a further `fit` goes on from
        `estimator_`.
    random_state : int, RandomState instance or None, default=None
        An int makes everything reproducible, bit for bit on a CPU with the same number
        of threads.
    verbose : int, default=0
        Print a line a round.

    Attributes
    ----------
    estimator_ : estimator
        The model of the last round, fitted on the codes 0..n_classes-1 of the labels.
        Absent in ask mode while fewer than two classes are labelled.
    strategy_ : QueryStrategy
        The fitted strategy.
    classes_ : array of shape (n_classes,)
        The classes in sorted order.
    next_query_ : int64 array
        Rows to label next, best first; empty unless a person is asked.
    labeled_indices_ : int64 array of shape (n_labeled,)
        Labelled rows in order of purchase; sorted in ask mode.
    labeled_iter_ : int64 array of shape (n_samples,)
        Round in which a row was labelled: 0 initial, k round k, -1 never.
    transduction_ : array of shape (n_samples,)
        The labels bought so far, `missing_label` elsewhere; kept up to date, so that an
        interrupted fit loses none: pass it as `y` with the same oracle to go on.
    history_ : dict of arrays of shape (n_iter_ + 1,)
        `round, n_labeled, n_queried, fit_time, query_time` (seconds) and
        `test_<scorer>`. `n_queried` and `query_time` describe the purchase that led to
        the round.
    n_iter_ : int
        Rounds after the initial one.
    termination_condition_ : {"n_rounds", "pool_exhausted", "query_pending", "callback"}
        Why `fit` ended.
    seed_ : int
        The seed from which all others are derived.
    n_features_in_ : int
        Number of features; where `X` has them.
    feature_names_in_ : array of shape (n_features_in_,)
        Names of the features; where `X` is a DataFrame.

    See Also
    --------
    skal.PoolView : What a strategy sees.
    sklearn.semi_supervised.SelfTrainingClassifier : Labels rows by itself.

    Notes
    -----
    Seeds depend only on `random_state` and on the number of labels, so simulating and
    asking step by step buy the same rows and train bitwise the same model.

    `score` ignores rows whose label is missing; a `scoring=` string of GridSearchCV
    cannot know them, so leave it at the default there.

    Inside a Pipeline the test rows must pass the steps before the loop: enable metadata
    routing, call ``loop.set_fit_request(X_test=True, y_test=True)`` and give the
    Pipeline ``transform_input=["X_test"]``.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skal import ActiveLearningLoop, MarginQuery
    >>> X, y = load_digits(return_X_y=True)
    >>> loop = ActiveLearningLoop(
    ...     LogisticRegression(max_iter=5000), MarginQuery(), n_rounds=2, random_state=0
    ... ).fit(X, y)
    >>> loop.history_["n_labeled"]
    array([10, 20, 30])
    """

    _parameter_constraints = {
        "estimator": [HasMethods("fit")],
        "strategy": [QueryStrategy],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "n_initial": [Interval(Integral, 1, None, closed="left")],
        "initial": [None, StrOptions({"balanced"}), QueryStrategy, "array-like"],
        "n_rounds": [Interval(Integral, 0, None, closed="left"), None],
        "oracle": [None, StrOptions({"ask"}), callable],
        "missing_label": "no_validation",
        "classes": ["array-like", None],
        "scoring": [str, callable, list, tuple, dict, None],
        "embedding_layer": [str],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        estimator,
        strategy,
        *,
        batch_size=10,
        n_initial=10,
        initial=None,
        n_rounds=10,
        oracle=None,
        missing_label=-1,
        classes=None,
        scoring=None,
        embedding_layer="auto",
        warm_start=False,
        random_state=None,
        verbose=0,
    ):
        self.estimator = estimator
        self.strategy = strategy
        self.batch_size = batch_size
        self.n_initial = n_initial
        self.initial = initial
        self.n_rounds = n_rounds
        self.oracle = oracle
        self.missing_label = missing_label
        self.classes = classes
        self.scoring = scoring
        self.embedding_layer = embedding_layer
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=False)
    @with_callbacks
    def fit(self, X, y=None, *, X_test=None, y_test=None, **params):
        """Buy labels and train, round by round.

        Parameters
        ----------
        X : array, DataFrame, sparse matrix, memmap, tensor or map-style Dataset
            All rows, labelled and not, shape (n_samples, ...).
        y : array-like of shape (n_samples,), default=None
            Labels of any type; complete in a simulation, with `missing_label` where a
            person or an oracle is to be asked. None reads a Dataset's own labels, or
            means that nothing is labelled where there is an oracle.
        X_test, y_test : rows and labels, default=None
            Scored after each round; never trained on, never seen by the strategy.
        **params : dict
            Passed on to the estimator's `fit` by metadata routing; values with one
            entry a row are cut to the labelled rows.

        Returns
        -------
        self : ActiveLearningLoop

        Raises
        ------
        ValueError
            For data or parameters that do not fit together, before anything is trained.
        """
        fit_params = routed_params(self, "fit", params)
        X, y, missing, mode = self._check_data(X, y)
        test = self._check_test(X_test, y_test)
        self._start(X, y, missing, mode)
        total = self.n_rounds if mode != "ask" else 0
        context = self._init_callback_context(
            task_name="fit", max_subtasks=None if total is None else total + 1
        )
        with callback_task(context, self, X=X, y=y):
            if mode == "ask":
                self._ask(X, test, fit_params, context)
            else:
                answer = self.oracle if mode == "oracle" else lambda rows: y[rows]
                self._buy_rounds(X, y, answer, test, fit_params, context)
        return self

    # -- checks ---------------------------------------------------------------------

    def _check_data(self, X, y):
        """Validate X, y and what they mean together; returns X, y, missing, mode."""
        final = final_estimator(self.estimator)
        tags = get_tags(self.estimator)
        if tags.estimator_type not in (None, "classifier"):
            raise ValueError(
                f"estimator must be a classifier, got a {tags.estimator_type}: "
                f"{type(final).__name__}."
            )
        if y is None and is_dataset(X) and not callable(self.oracle):
            y = dataset_targets(X)
        if y is None and self.oracle is None:
            raise ValueError(
                "ActiveLearningLoop requires y to be passed, but the target y is None; "
                "pass labels, or an oracle."
            )
        if is_dataset(X) and not is_net(final):
            raise TypeError(
                "X is a torch Dataset, which only a skorch net can take, got "
                f"estimator {type(final).__name__}."
            )
        X = check_rows(
            self, X, self.estimator, accept_sparse=self._takes_sparse(), reset=True
        )
        n_samples = n_rows(X)
        if n_samples == 0:
            raise ValueError(
                "Found array with 0 sample(s): X has no rows to choose from."
            )
        if y is None:
            y = np.full(n_samples, self.missing_label, dtype=object)
        else:
            check_consistent_length(X, y)
        y, missing = check_labels(y, self.missing_label)
        if callable(self.oracle) and not missing.any():
            raise ValueError(
                "oracle is a callable, but y is complete: there is nothing to ask. "
                f"Mark unknown labels as {self.missing_label!r}, or pass oracle=None."
            )
        if self.oracle == "ask" or (self.oracle is None and missing.any()):
            mode = "ask"
        else:
            mode = "oracle" if callable(self.oracle) else "simulate"
        nan_marks = self.missing_label != self.missing_label
        if nan_marks and missing.all() and self.oracle is None and self.classes is None:
            raise ValueError(
                "Input y contains NaN only. If nothing is labelled yet, say so with "
                "oracle='ask' or classes=...; otherwise pass the labels."
            )
        self._check_classes(y, missing, mode)
        self._check_initial(n_samples, mode)
        return X, y, missing, mode

    def _check_classes(self, y, missing, mode):
        known = np.unique(known_labels(y, ~missing))
        if self.classes is not None:
            classes = np.unique(np.asarray(self.classes))
            if check_labels(classes, self.missing_label)[1].any():
                raise ValueError(
                    f"classes holds missing_label={self.missing_label!r}; pass another "
                    "missing_label."
                )
            if len(classes) < 2:
                raise ValueError(
                    f"classes must name at least two classes, got {classes.tolist()}."
                )
            encode(known, classes, name="y")
        else:
            classes = known
            marker = self.missing_label
            if (
                self.oracle is None
                and mode == "ask"
                and len(known) == 1
                and isinstance(marker, int)
                and marker == -1
                and known[0] == 1
            ):
                raise ValueError(
                    "y holds -1 and 1 only, and missing_label=-1: is -1 a class or a "
                    "missing label? Pass missing_label=np.nan (or None) if it is a "
                    "class, oracle='ask' or classes=... if it marks missing labels."
                )
            if mode == "simulate" and len(classes) < 2:
                raise ValueError(
                    "y must hold at least two classes, got 1 class: "
                    f"{classes.tolist()}."
                )
        self.classes_ = classes

    def _check_initial(self, n_samples, mode):
        initial = self.initial
        if initial is None:
            return
        if isinstance(initial, str):
            if mode != "simulate":
                raise ValueError(
                    "initial='balanced' needs to know all labels, which only a "
                    "simulation does; pass initial=None, rows or a strategy."
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
        else:
            rows = np.asarray(initial)
            if (
                rows.ndim != 1
                or len(rows) == 0
                or rows.dtype.kind not in "iu"
                or len(np.unique(rows)) < len(rows)
                or rows.min() < 0
                or rows.max() >= n_samples
            ):
                raise ValueError(
                    "initial must hold distinct row numbers between 0 and "
                    f"{n_samples - 1}, got {initial!r}."
                )

    def _check_test(self, X_test, y_test):
        """Validate the test rows; returns None or (X, y, codes)."""
        if X_test is None:
            if y_test is not None:
                raise ValueError("y_test is given without X_test; pass both.")
            return None
        if y_test is None and is_dataset(X_test):
            y_test = dataset_targets(X_test)
        if y_test is None:
            raise ValueError("X_test is given without y_test; pass both.")
        X_test = self._check_rows(X_test)
        check_consistent_length(X_test, y_test)
        y_test, missing = check_labels(y_test, self.missing_label)
        if missing.any():
            raise ValueError(
                f"y_test holds missing_label={self.missing_label!r}; every test row "
                "needs a label."
            )
        y_test = known_labels(y_test, slice(None))
        strict = self.classes is not None or self.oracle is None
        encode(
            y_test, self.classes_, name="y_test", strict=strict and len(self.classes_)
        )
        return X_test, y_test

    def _check_rows(self, X):
        return check_rows(
            self, X, self.estimator, accept_sparse=self._takes_sparse(), reset=False
        )

    def _takes_sparse(self):
        return is_net(self.estimator) or get_tags(self.estimator).input_tags.sparse

    # -- rounds ---------------------------------------------------------------------

    def _start(self, X, y, missing, mode):
        """Set up the state of a fit; simulations begin with nothing labelled."""
        warn_of_instances(self.estimator)
        if self.warm_start:
            private_clone(self.estimator, 2, warm_start=True)
        self.seed_ = check_seed(self.random_state)
        self.strategy_ = clone(self.strategy)
        if not (self.warm_start and mode == "ask"):
            self.__dict__.pop("estimator_", None)
        if mode == "simulate":
            missing = np.ones_like(missing)
        self._growing = self.classes is None and mode == "oracle"
        self._skipped = np.zeros(len(y), dtype=bool)
        self.labeled_indices_ = np.flatnonzero(~missing)
        self.labeled_iter_ = np.where(missing, -1, 0).astype(np.int64)
        self.transduction_ = y.copy()
        if mode == "simulate":
            self.transduction_ = _blank(y, self.missing_label)
        self.next_query_ = np.empty(0, dtype=np.int64)
        self.history_ = {}
        self.n_iter_ = 0
        self._initial_rows = self._order_initial(X, y, mode)

    def _order_initial(self, X, y, mode):
        """All rows, those of the initial set first; returns (rows, size of the set)."""
        n_samples = len(y)
        seed = derive_seed(self.seed_, 0, "initial")
        rng = check_generator(seed)
        shuffled = rng.permutation(n_samples)
        n_initial = min(self.n_initial, n_samples)
        if self.initial is None:
            return shuffled, n_initial
        if isinstance(self.initial, str):
            rank = np.empty(n_samples, dtype=np.int64)
            codes = encode(y, self.classes_)[shuffled]
            for code in range(len(self.classes_)):
                (of_class,) = np.nonzero(codes == code)
                rank[of_class] = np.arange(len(of_class))
            first = shuffled[np.lexsort((rng.permutation(n_samples), rank))[:n_initial]]
        elif isinstance(self.initial, QueryStrategy):
            view = PoolView(None, X, random_state=seed)
            first = clone(self.initial).fit(view).query(view, n_initial)
        else:
            first = np.asarray(self.initial, dtype=np.int64)
        return np.concatenate([first, np.setdiff1d(shuffled, first)]), len(first)

    def _buy_rounds(self, X, y, answer, test, fit_params, context):
        """Simulate, or ask a callable."""
        rows, size = self._initial_rows
        first = rows[:size] if len(self.labeled_indices_) == 0 else rows[:0]
        bought = self._buy(first, answer, 0)
        for row in rows[len(first) :]:
            if self._n_known_classes() >= 2:
                break
            if self.labeled_iter_[row] < 0 and not self._skipped[row]:
                bought += self._buy(row[None], answer, 0)
        if len(first) and len(self.labeled_indices_) > len(first):
            warnings.warn(
                f"the initial set of {len(first)} rows held one class only, so "
                f"{len(self.labeled_indices_)} were bought; initial='balanced' or a "
                "larger n_initial avoids this.",
                UserWarning,
                stacklevel=4,
            )
        if self._n_known_classes() < 2:
            raise ValueError(
                "the oracle was asked for every row and gave fewer than two classes; "
                "its answers are in transduction_."
            )
        query_time = 0.0
        while True:
            with callback_task(context and context.subcontext("round"), self) as stop:
                self._train(X, test, fit_params, bought, query_time, context)
            pool = np.flatnonzero((self.labeled_iter_ < 0) & ~self._skipped)
            if len(pool) == 0:
                self.termination_condition_ = "pool_exhausted"
            elif self.n_iter_ == self.n_rounds:
                self.termination_condition_ = "n_rounds"
            elif stop:
                self.termination_condition_ = "callback"
            else:
                bought, query_time = 0, 0.0
                while bought == 0 and len(pool):  # all of a batch may be skipped
                    picks, seconds = self._query(X, pool)
                    query_time += seconds
                    bought = self._buy(picks, answer, self.n_iter_ + 1)
                    pool = np.setdiff1d(pool, picks)
                if bought:
                    self.n_iter_ += 1
                    continue
                self.termination_condition_ = "pool_exhausted"
            return

    def _ask(self, X, test, fit_params, context):
        """Train on what is labelled and choose what a person should label next."""
        n_labeled = len(self.labeled_indices_)
        if self._n_known_classes() < 2:
            rows, size = self._initial_rows
            unlabeled = rows[self.labeled_iter_[rows] < 0]
            in_set = rows[:size][self.labeled_iter_[rows[:size]] < 0]
            # One class only after the whole initial set: one further row at a time.
            self.next_query_ = in_set if len(in_set) else unlabeled[:1]
            self.__dict__.pop("estimator_", None)
            self.termination_condition_ = (
                "query_pending" if len(self.next_query_) else "pool_exhausted"
            )
            return
        with callback_task(context and context.subcontext("round"), self):
            self._train(X, test, fit_params, n_labeled, 0.0, context)
        pool = np.flatnonzero(self.labeled_iter_ < 0)
        if len(pool):
            self.next_query_, _ = self._query(X, pool)
        self.termination_condition_ = "query_pending" if len(pool) else "pool_exhausted"

    def _n_known_classes(self):
        known = known_labels(self.transduction_, self.labeled_indices_)
        return len(np.unique(known))

    def _buy(self, rows, answer, iteration):
        """Get labels of rows and book them; returns how many were given."""
        if len(rows) == 0:
            return 0
        labels = answer(rows.copy())
        if len(labels) != len(rows):
            raise ValueError(
                f"oracle must answer every row it is asked for: {len(rows)} rows, "
                f"{len(labels)} answers."
            )
        labels = list(labels.tolist() if hasattr(labels, "tolist") else labels)
        given = np.array(labels, dtype=object)
        given[:] = labels
        given, skipped = check_labels(given, self.missing_label)
        self._skipped[rows[skipped]] = True
        rows, labels = rows[~skipped], given[~skipped]
        # Booked before it is checked: a paid label outlives a bad one beside it.
        if self.transduction_.dtype != object:
            self.transduction_[rows] = labels.astype(self.transduction_.dtype)
        else:
            self.transduction_[rows] = labels
        self.labeled_iter_[rows] = iteration
        self.labeled_indices_ = np.concatenate([self.labeled_indices_, rows])
        known = known_labels(self.transduction_, self.labeled_indices_)
        if self._growing:
            self.classes_ = np.unique(known)
        encode(known, self.classes_, name="the oracle's answer")
        return len(rows)

    def _seed(self, purpose):
        return derive_seed(self.seed_, len(self.labeled_indices_), purpose)

    def _train(self, X, test, fit_params, n_queried, query_time, context):
        """Fit a private clone on all labels so far, score it, record the round."""
        rows = np.sort(self.labeled_indices_)
        codes = encode(known_labels(self.transduction_, rows), self.classes_)
        estimator = getattr(self, "estimator_", None) if self.warm_start else None
        start = perf_counter()
        if estimator is None:
            estimator = private_clone(
                self.estimator, len(self.classes_), self.warm_start
            )
            estimator = self.strategy_.prepare(estimator)
        else:
            final = final_estimator(estimator)
            if is_net(final) and "classes" in final.get_params(deep=False):
                final.classes = list(range(len(self.classes_)))
        y_train = codes.astype(label_dtype(estimator))
        if is_dataset(X):
            X_train = DatasetRows(X, rows, y_train)
        else:
            X_train = self._for_estimator(take(X, rows))
        fit_isolated(
            estimator,
            X_train,
            y_train,
            self._seed("fit"),
            **slice_params(_Length(n_rows(X)), fit_params, indices=rows),
        )
        self.estimator_ = estimator
        record = {
            "round": self.n_iter_,
            "n_labeled": len(rows),
            "n_queried": n_queried,
            "fit_time": perf_counter() - start,
            "query_time": query_time,
        }
        if test is not None:
            record.update(self._score_test(*test))
        self._after_round(record)

    def _score_test(self, X_test, y_test):
        with isolated_rng(self._seed("test")):
            if self.scoring is None:
                return {"test_score": self.score(X_test, y_test)}
            scores = check_scoring(self, scoring=self.scoring)(self, X_test, y_test)
        if not isinstance(scores, dict):
            name = self.scoring if isinstance(self.scoring, str) else "score"
            scores = {name: scores}
        return {f"test_{name}": score for name, score in scores.items()}

    def _after_round(self, record):
        """Take note of a round; `experiment` extends this."""
        for name, value in record.items():
            values = self.history_.get(name, np.empty(0, dtype=np.asarray(value).dtype))
            self.history_[name] = np.append(values, value)
        if self.verbose:
            scores = [f"{k} {v:.4f}" for k, v in record.items() if k[:5] == "test_"]
            print(
                f"[ActiveLearningLoop] round {record['round']}: "
                + ", ".join([f"{record['n_labeled']} labels", *scores])
                + f", {record['fit_time']:.1f} s to train, "
                f"{record['query_time']:.1f} s to query"
            )

    def _query(self, X, pool):
        """Let the strategy choose from the pool; returns rows of X and seconds."""
        start = perf_counter()
        labeled = np.sort(self.labeled_indices_)
        codes = encode(known_labels(self.transduction_, labeled), self.classes_)
        view = PoolView.of_rows(
            self.estimator_,
            X,
            pool,
            labeled_rows=labeled,
            y_labeled=codes,
            classes=np.arange(len(self.classes_)),
            embedding_layer=self.embedding_layer,
            random_state=self._seed("query"),
        )
        picks = self.strategy_.fit(view).query(view, self.batch_size)
        return pool[picks], perf_counter() - start

    # -- prediction -----------------------------------------------------------------

    def _for_estimator(self, X):
        """Rows as the estimator takes them: a bare net gets arrays, not DataFrames."""
        if is_net(self.estimator) and hasattr(X, "iloc"):
            return X.to_numpy()
        if is_net(self.estimator) and sparse.issparse(X):
            return sparse.csr_matrix(X)  # skorch cannot index sparse arrays by row
        return DatasetRows(X, np.arange(len(X))) if is_dataset(X) else X

    def _delegate(self, method, X, params):
        """Call a method of the fitted estimator; leave global generators alone."""
        check_is_fitted(self, "estimator_")
        params = routed_params(self, method, params)
        X = self._for_estimator(self._check_rows(X))
        with isolated_rng(derive_seed(self.seed_, 0, "predict")):
            return getattr(self.estimator_, method)(X, **params)

    def _spread(self, known, fill):
        """Give every class its column; columns of unseen classes get `fill`."""
        n_classes = len(self.classes_)
        codes = np.asarray(final_estimator(self.estimator_).classes_)
        if known.shape[1] > n_classes:  # outputs that no class uses
            return known[:, :n_classes]
        if known.shape[1] == n_classes:
            return known
        spread = np.full((len(known), n_classes), fill, dtype=known.dtype)
        spread[:, codes.astype(np.int64)] = known
        return spread

    @available_if(_estimator_has("predict"))
    def predict(self, X, **params):
        """Predict classes.

        Parameters
        ----------
        X : as in `fit`
            Rows.
        **params : dict
            Passed on by metadata routing.

        Returns
        -------
        y : array of shape (n_samples,)
            In the caller's labels.
        """
        codes = np.asarray(self._delegate("predict", X, params)).astype(np.int64)
        if len(codes) and codes.max() >= len(self.classes_):
            codes = self._delegate("predict_proba", X, {})
            codes = codes[:, : len(self.classes_)].argmax(1)
        return self.classes_[codes]

    @available_if(_estimator_has("predict_proba"))
    def predict_proba(self, X, **params):
        """Predict probabilities, a column for each of `classes_`.

        Parameters
        ----------
        X : as in `fit`
            Rows.
        **params : dict
            Passed on by metadata routing.

        Returns
        -------
        proba : array of shape (n_samples, n_classes)
        """
        known = self._delegate("predict_proba", X, params)
        proba = self._spread(known, 0.0)
        if known.shape[1] > proba.shape[1]:
            proba = proba / proba.sum(1, keepdims=True)
        return proba

    @available_if(_estimator_has("predict_proba"))
    def predict_log_proba(self, X, **params):
        """Logarithms of `predict_proba`; the smallest float for an unseen class.

        Parameters
        ----------
        X : as in `fit`
            Rows.
        **params : dict
            Passed on to `predict_proba` by metadata routing.

        Returns
        -------
        log_proba : array of shape (n_samples, n_classes)
        """
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X, **params))

    @available_if(_estimator_has("decision_function"))
    def decision_function(self, X, **params):
        """Decision values; the smallest float for an unseen class.

        Parameters
        ----------
        X : as in `fit`
            Rows.
        **params : dict
            Passed on by metadata routing.

        Returns
        -------
        decision : array of shape (n_samples,) or (n_samples, n_classes)
        """
        known = self._delegate("decision_function", X, params)
        n_known = len(final_estimator(self.estimator_).classes_)
        if n_known == len(self.classes_):
            return known
        if known.ndim == 1:
            known = np.column_stack([-known, known])
        return self._spread(known, np.finfo(known.dtype).min)

    @available_if(_estimator_has("score"))
    def score(self, X, y=None, **params):
        """Score with the estimator's own `score` (accuracy), over the labelled rows.

        Parameters
        ----------
        X : as in `fit`
            Rows.
        y : array-like of shape (n_samples,), default=None
            Labels; rows whose label is missing are left out. None reads a Dataset's.
        **params : dict
            Passed on by metadata routing.

        Returns
        -------
        score : float

        Raises
        ------
        ValueError
            Where every label is missing.
        """
        check_is_fitted(self, "estimator_")
        if y is None and is_dataset(X):
            y = dataset_targets(X)
        if y is None:
            raise ValueError("score requires y to be passed, but the target y is None.")
        params = routed_params(self, "score", params)
        X = self._check_rows(X)
        check_consistent_length(X, y)
        y, missing = check_labels(y, self.missing_label)
        if missing.all():
            raise ValueError(
                f"every label of y is missing_label={self.missing_label!r}; there is "
                "nothing to score."
            )
        rows = np.flatnonzero(~missing)
        codes = encode(known_labels(y, rows), self.classes_, strict=False)
        X = X if len(rows) == n_rows(X) else take(X, rows)
        with isolated_rng(derive_seed(self.seed_, 0, "predict")):
            return self.estimator_.score(self._for_estimator(X), codes, **params)

    # -- scikit-learn ---------------------------------------------------------------

    def __sklearn_is_fitted__(self):
        return hasattr(self, "seed_")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        inner = get_tags(self.estimator)
        tags.estimator_type = "classifier"
        tags.classifier_tags = inner.classifier_tags or ClassifierTags()
        tags.input_tags = inner.input_tags
        tags.input_tags.sparse = self._takes_sparse()
        tags.target_tags.required = True
        tags.non_deterministic = inner.non_deterministic
        return tags

    def get_metadata_routing(self):
        """Say where parameters go; see scikit-learn's guide to metadata routing.

        Returns
        -------
        router : MetadataRouter
        """
        mapping = MethodMapping()
        for method in ("fit", "predict", "predict_proba", "decision_function", "score"):
            mapping.add(caller=method, callee=method)
        mapping.add(caller="predict_log_proba", callee="predict_proba")
        return (
            MetadataRouter(owner=self)
            .add_self_request(self)
            .add(estimator=self.estimator, method_mapping=mapping)
        )


class _Length:
    """Something with a length, for scikit-learn's slicing of fit parameters."""

    def __init__(self, n_samples):
        self.shape = (n_samples,)

    def __len__(self):
        return self.shape[0]


def _blank(y, missing_label):
    """Make an array like `y` with every label missing, of a type that holds the mark."""
    if y.dtype.kind in "if" and isinstance(missing_label, int | float):
        as_float = missing_label != missing_label or y.dtype.kind == "f"
        dtype = np.float64 if as_float else np.int64
        return np.full(len(y), missing_label, dtype=dtype)
    return np.full(len(y), missing_label, dtype=object)
