"""`ActiveLearningLoop`: buy labels round by round, for a model that uses them well."""

import warnings
from numbers import Integral
from time import perf_counter

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.metrics import check_scoring

from skal.loop.data_checks import DataChecksMixin
from skal.loop.ledger import LabelLedger
from skal.loop.prediction import CodedClassifierMixin
from skal.loop.trial import try_estimator
from skal.net.pool_features import PoolFeatures
from skal.net.training import (
    final_estimator,
    fit_isolated,
    is_net,
    label_dtype,
    private_clone,
    warn_of_instances,
)
from skal.pool import PoolView
from skal.query import QueryStrategy
from skal.utils.labels import encode, known_labels
from skal.utils.rows import (
    DatasetRows,
    is_dataset,
    n_rows,
    take,
)
from skal.utils.seeds import check_generator, check_seed, derive_seed, isolated_rng
from skal.utils.validation import (
    CallbackSupportMixin,
    HasMethods,
    Interval,
    StrOptions,
    callback_task,
    check_params,
    check_row_numbers,
    fit_context,
    routed_params,
    slice_rows,
    with_callbacks,
)


class ActiveLearningLoop(
    CodedClassifierMixin,
    DataChecksMixin,
    CallbackSupportMixin,
    MetaEstimatorMixin,
    BaseEstimator,
):
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
        With a `DeepEnsemble` it holds all members, and predicts with the first, or,
        where ``predict="mean"`` asks for it, with the mean of their probabilities.
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
    asking step by step buy the same rows and train bitwise the same model, unless the
    strategy keeps something of the model over rounds, as `ClusterMarginQuery`. Fits of
    networks in several threads of one process share torch's generator: use processes.

    Before anything is bought or trained, a bare net's fresh clone is shown two rows, so
    that a missing embedding layer or outputs that are no distribution are found early.

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
        for strategy in (self.strategy, self.initial):
            if isinstance(strategy, QueryStrategy):
                check_params(strategy)
        X, y, missing, mode = self._check_data(X, y)
        self._check_initial(X, mode)
        test = self._check_test(X_test, y_test)
        if self.scoring is not None:
            check_scoring(self, scoring=self.scoring)
        warn_of_instances(self.estimator)
        self._start(X, y, missing, mode)
        total = 0 if mode == "ask" else self.n_rounds
        context = self._init_callback_context(
            task_name="fit", max_subtasks=None if total is None else total + 1
        )
        with callback_task(context, self, X=X, y=y):
            if mode == "ask":
                self._ask(X, test, fit_params, context)
            else:
                answer = self.oracle if mode == "oracle" else lambda rows: y[rows]
                self._buy_rounds(X, answer, test, fit_params, context)
        return self

    # -- checks ---------------------------------------------------------------------

    def _check_initial(self, X, mode):
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
            if is_dataset(X) and initial.requires:
                raise ValueError(
                    f"initial={type(initial).__name__}() compares raw rows, but X is a "
                    "Dataset, whose items are no rows of numbers; pass initial=None or "
                    "RandomQuery()."
                )
        else:
            check_row_numbers(initial, n_rows(X), "initial")

    # -- rounds ---------------------------------------------------------------------

    def _start(self, X, y, missing, mode):
        """Set up the state of a fit; a simulation begins with nothing labelled."""
        if self.warm_start:  # raises where the estimator cannot
            private_clone(self.estimator, 2, warm_start=True)
        if not (self.warm_start and mode == "ask"):
            self.__dict__.pop("estimator_", None)
        self.seed_ = check_seed(self.random_state)
        self.strategy_ = clone(self.strategy)
        self.next_query_ = np.empty(0, dtype=np.int64)
        self.history_ = {}
        self.n_iter_ = 0
        self._ledger = LabelLedger(
            y,
            np.ones_like(missing) if mode == "simulate" else missing,
            self.missing_label,
            None if mode == "oracle" and self.classes is None else self.classes_,
            any_type=mode == "oracle",
        )
        self._publish()
        try_estimator(
            self.estimator,
            X,
            self.strategy,
            n_classes=len(self.classes_),
            embedding_layer=self.embedding_layer,
            random_state=self.seed_,
        )
        self._initial_rows = self._order_initial(X, y, mode)

    def _publish(self):
        """Show the state of the ledger, after every purchase, so that none is lost."""
        self.classes_ = self._ledger.classes
        self.labeled_indices_ = self._ledger.order
        self.labeled_iter_ = self._ledger.iteration
        self.transduction_ = known_labels(self._ledger.labels, slice(None))

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

    def _buy_rounds(self, X, answer, test, fit_params, context):
        """Simulate, or ask a callable."""
        bought, query_time = self._buy_initial(answer), 0.0
        while True:
            with callback_task(context and context.subcontext("round"), self) as stop:
                self._train(X, test, fit_params, bought, query_time)
            pool = self._ledger.pool()
            if self.n_iter_ == self.n_rounds and len(pool):
                self.termination_condition_ = "n_rounds"
                return
            if stop and len(pool):
                self.termination_condition_ = "callback"
                return
            bought, query_time = 0, 0.0
            while bought == 0 and len(pool):  # all rows of a batch may be skipped
                picks, seconds = self._query(X, pool)
                query_time += seconds
                bought = self._buy(picks, answer, self.n_iter_ + 1)
                pool = self._ledger.pool()
            if bought == 0:
                self.termination_condition_ = "pool_exhausted"
                return
            self.n_iter_ += 1

    def _buy_initial(self, answer):
        """Buy the initial set, and further rows until it has two classes."""
        rows, size = self._initial_rows
        first = rows[:size] if len(self._ledger) == 0 else rows[:0]
        bought = self._buy(first, answer, 0)
        for row in rows[len(first) :]:
            if len(self._ledger.known_classes()) >= 2:
                break
            if row in self._ledger.pool():
                bought += self._buy(row[None], answer, 0)
        if len(first) and bought > len(first):
            warnings.warn(
                f"the initial set of {len(first)} rows held one class only, so "
                f"{bought} were bought; initial='balanced' or a larger n_initial "
                "avoids this.",
                UserWarning,
                stacklevel=6,
            )
        if len(self._ledger.known_classes()) < 2:
            raise ValueError(
                "the oracle was asked for every row and gave fewer than two classes; "
                "its answers are in transduction_."
            )
        return bought

    def _ask(self, X, test, fit_params, context):
        """Train on what is labelled and choose what a person should label next."""
        pool = self._ledger.pool()
        if len(self._ledger.known_classes()) < 2:
            self.__dict__.pop("estimator_", None)
            rows, size = self._initial_rows
            rows = rows[self.labeled_iter_[rows] < 0]
            n_open = np.isin(rows, self._initial_rows[0][:size]).sum()
            # One class only after the whole initial set: one further row at a time.
            self.next_query_ = rows[: max(n_open, 1)]
        else:
            with callback_task(context and context.subcontext("round"), self):
                self._train(X, test, fit_params, len(self._ledger), 0.0)
            if len(pool):
                self.next_query_, _ = self._query(X, pool)
        self.termination_condition_ = "query_pending" if len(pool) else "pool_exhausted"

    def _buy(self, rows, answer, iteration):
        try:
            return self._ledger.buy(rows, answer, iteration)
        finally:
            self._publish()

    def _seed(self, purpose):
        return derive_seed(self.seed_, len(self._ledger), purpose)

    def _train(self, X, test, fit_params, n_queried, query_time):
        """Fit a private clone on all labels so far, score it, record the round."""
        rows, codes = self._ledger.labeled()
        start = perf_counter()
        estimator = self._model(X, codes)
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
            **slice_rows(n_rows(X), fit_params, rows),
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

    def _model(self, X, codes):
        """Make the estimator to fit: a private clone, or the last round's."""
        estimator = self._last_model(codes)
        if estimator is None:
            estimator = private_clone(
                self.estimator, len(self.classes_), self.warm_start
            )
        features = PoolFeatures(
            estimator, X, self._ledger.pool(), embedding_layer=self.embedding_layer
        )
        return self.strategy_.prepare(estimator, pool_features=features)

    def _last_model(self, codes):
        """Get the last round's model where training goes on from it, else None."""
        last = getattr(self, "estimator_", None) if self.warm_start else None
        if last is None:
            return None
        final = final_estimator(last)
        if is_net(final):
            if "classes" in final.get_params(deep=False):
                final.classes = list(range(len(self.classes_)))
            return last
        # Others have one column a class seen, and must start afresh for a new one.
        return last if np.array_equal(final.classes_, np.unique(codes)) else None

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
        labeled, codes = self._ledger.labeled()
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
        view.run_seed = derive_seed(self.seed_, 0, "query")
        known = getattr(self.strategy_, "aux_", None)
        self.strategy_.fit(view)
        aux = getattr(self.strategy_, "aux_", None)
        if self.verbose and aux is not known and len(aux.history):
            print(
                f"[ActiveLearningLoop] {type(self.strategy_).__name__} trained its "
                f"{type(aux.module_).__name__}: {len(aux.history)} epochs, train_loss "
                f"{aux.history[-1, 'train_loss']:.4f}, {perf_counter() - start:.1f} s"
            )
        picks = self.strategy_.query(view, self.batch_size)
        return pool[picks], perf_counter() - start
