"""`ActiveLearningLoop`: buy labels round by round, for a model that uses them well."""

from collections.abc import Callable
from numbers import Integral
from os import PathLike
from time import perf_counter
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.metrics import check_scoring

from skal.loop.answers import fingerprint, write_answers
from skal.loop.checkpoint import open_checkpoint, resume
from skal.loop.codes import Labels
from skal.loop.data_checks import check_data
from skal.loop.initial import buy_second_class, first_rows, initial_order
from skal.loop.model import print_round, print_training, score_model, train_model
from skal.loop.prediction import CodedClassifierMixin
from skal.loop.stateless import behind, in_front, rows_behind
from skal.loop.trial import check_choices, named_strategy, try_estimator
from skal.net.training import private_clone, warn_of_instances
from skal.pool import PoolView
from skal.query import QueryStrategy
from skal.utils.seeds import check_seed, derive_seed
from skal.utils.validation import (
    CallbackSupportMixin,
    HasMethods,
    Interval,
    StrOptions,
    callback_task,
    check_is_fitted,
    check_params,
    fit_context,
    routed_params,
    with_callbacks,
)


class ActiveLearningLoop(
    CodedClassifierMixin,
    CallbackSupportMixin,
    MetaEstimatorMixin,
    BaseEstimator,
):
    """Train a classifier on labels bought round by round with a query strategy.

    In each round the strategy chooses `batch_size` unlabelled rows, their labels are
    bought, and a fresh clone of the estimator is trained on all labels so far. The
    labels come from a complete `y` (simulation), from a callable (oracle), or from a
    person, whose answers ``y = loop.label(y, loop.next_query_, answers)`` takes before
    a further `fit` (ask). Rows are told by position, never by an index.

    Parameters
    ----------
    estimator : estimator
        Any scikit-learn classifier: a skorch net, a Pipeline or search object that ends
        in one, LogisticRegression, a forest. Cloned, never touched.
    strategy : QueryStrategy or str
        Chooses the rows. Cloned, never touched. A name of `skal list`, such as
        "badge" or "margin-ensemble", stands for that strategy with its defaults.
    batch_size : int, default=10
        Labels bought a round; the last batch may be short.
    n_initial : int, default=10
        Size of the first labelled set.
    initial : None, str, QueryStrategy or array-like of int, default=None
        How the first set is chosen. "herding": rows that cover the others (up to
        1,000, of a sample where there are more than 10,000 rows or 20 million numbers;
        further ones at random), see :func:`skal.selection.herding`, all columns
        standardised; those of more than 100 columns by the angle between them.
        "uniform": at random. None: herding where the rows of `X` are vectors of finite
        numbers (sparse ones of 1,000 columns at most), else uniform. "balanced":
        equally many rows of each class, which only a simulation can. Or a strategy that
        needs no model. All look at the raw rows, or at the features of
        `FrozenFeatures` at the head of a Pipeline. Or the given rows (then `n_initial`
        is ignored).
    n_rounds : int or None, default=10
        Rounds after the initial one; None goes on until the pool is empty. Where the
        first set has one class only, whole batches are bought in random order until
        there are two; they count as initial, and as many rounds fewer are made: never
        are more than ``n_initial + n_rounds * batch_size`` labels bought.
    oracle : None, "ask" or callable, default=None
        None simulates with a complete `y`, and asks where some labels are missing.
        "ask" always asks. A callable ``oracle(indices) -> labels`` answers; an answer
        may be `missing_label`: that row is not asked for again in this fit.
    missing_label : object, default=-1
        Marks missing labels in `y`: a number, NaN, None or a string.
    classes : array-like, default=None
        All classes. None takes those of `y`: of the whole `y` in a simulation, else of
        the labels so far, and warns where one appears after a model was trained.
    scoring : str, callable, list, tuple, dict or None, default=None
        Scores of `X_test` after each round, as in scikit-learn; None uses the
        estimator's own `score`.
    embedding_layer : str, default="auto"
        Name of the layer whose input is the embedding; see `PoolView`.
    warm_start : bool, default=False
        Train on from the last round's model instead of a fresh clone; the estimator
        needs a `warm_start` parameter. In ask mode a further `fit` goes on from
        `estimator_`.
    checkpoint : path-like, default=None
        A file, such as "loop.npz", that keeps what was bought, written anew after every
        purchase and every round of a simulation or of a callable oracle. A further
        `fit` with the same data and parameters, in another process after this one was
        killed, too, goes on from it: nothing that was answered is asked again, and
        purchases and predictions are those of a fit that was not interrupted. Only
        `n_rounds` may grow. See Notes.
    memory_limit : int or str, default=None
        Bytes of the pool's outputs in memory, as "500M" or "2G"; what is beyond goes to
        files without a name, and purchases are the same. See `PoolView`.
    precision : {None, "bfloat16", "float16"}, default=None
        What a network multiplies in while the strategy looks at the pool, for a GPU;
        training and scores are as without it. See `PoolView`.
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
        The classes, in the order of their codes: sorted, but those that appear after
        the first model was trained, in ask or oracle mode without `classes`, come
        last, since a code never changes.
    next_query_ : int64 array
        Positions of the rows to label next, best first; empty unless a person is
        asked.
    labeled_indices_ : int64 array of shape (n_labeled,)
        Positions of the labelled rows in order of purchase; sorted in ask mode.
    labeled_iter_ : int64 array of shape (n_samples,)
        Round in which a row was labelled: 0 initial, k round k, -1 never. In ask mode
        each `fit` with new labels is a round.
    transduction_ : array of shape (n_samples,)
        The labels bought so far, `missing_label` elsewhere; kept up to date, so that an
        interrupted fit loses none: pass it as `y` with the same oracle to go on.
    history_ : dict of arrays of one entry a round
        `round, n_labeled, n_queried, fit_time, query_time` (seconds) and
        `test_<scorer>`. `n_queried` and `query_time` describe the purchase that led to
        the round. It goes on over the fits of ask mode.
    n_iter_ : int
        Rounds after the initial one.
    termination_condition_ : str
        Why `fit` ended: "n_rounds", "pool_exhausted", "query_pending", "callback", or
        the name of a stopping rule, as "StabilizingPredictions"; see
        :mod:`skal.callbacks`.
    pool_ : PoolView or None
        While `fit` runs, for callbacks: the unlabelled rows under the model of the
        round, as the strategy sees them.
    seed_ : int
        The seed from which all others are derived.
    n_features_in_ : int
        Number of features; where `X` has them.
    feature_names_in_ : array of shape (n_features,)
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

    Searches and `cross_val_score` over partly labelled `y` need their ``scoring=None``:
    then `score` leaves rows without a label out, while ``scoring="accuracy"`` counts
    their mark -1 as a class that nobody predicts. A mark NaN makes scikit-learn warn.

    What a parameter of the estimator says of classes, it says of the caller's labels:
    the keys of `class_weight` are labels, ``criterion__weight`` is in sorted order.

    A `checkpoint` is whole at any moment. It holds answers and records, no model: that
    of the last round is trained again, with `warm_start` those of all rounds. A batch
    that the oracle was about to answer when the process was killed is asked for again.
    Callbacks see the last round again. Nothing in the file is unpickled. Of a Dataset
    its length, its labels and a few items tell whether it is the same one.

    Before anything is bought or trained, a bare net's fresh clone is shown two rows, so
    that a missing embedding layer or outputs that are no distribution are found early.

    `score` ignores rows whose label is missing; a `scoring=` string of GridSearchCV
    cannot know them, so leave it at the default there.

    Transformers at the head of a Pipeline that need no fit
    (:class:`skal.models.FrozenFeatures`, Normalizer, ...) are applied once in a `fit`,
    before the rounds, where each row comes out of them the same whatever rows are
    beside it; `predict` runs the whole Pipeline. Under a `memory_limit` only
    `FrozenFeatures` are: what others give of all rows is never in memory.

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
        "strategy": [QueryStrategy, str],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "n_initial": [Interval(Integral, 1, None, closed="left")],
        "initial": [
            None,
            StrOptions({"balanced", "herding", "uniform"}),
            QueryStrategy,
            "array-like",
        ],
        "n_rounds": [Interval(Integral, 0, None, closed="left"), None],
        "oracle": [None, StrOptions({"ask"}), callable],
        "missing_label": "no_validation",
        "classes": ["array-like", None],
        "scoring": [str, callable, list, tuple, dict, None],
        "embedding_layer": [str],
        "warm_start": ["boolean"],
        "checkpoint": [str, PathLike, None],
        "memory_limit": [Integral, str, None],
        "precision": [StrOptions({"bfloat16", "float16"}), None],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    pool_: PoolView | None = None

    def __init__(
        self,
        estimator: BaseEstimator,
        strategy: QueryStrategy,
        *,
        batch_size: int = 10,
        n_initial: int = 10,
        initial: str | QueryStrategy | ArrayLike | None = None,
        n_rounds: int | None = 10,
        oracle: str | Callable[[NDArray[np.int64]], Any] | None = None,
        missing_label: Any = -1,
        classes: ArrayLike | None = None,
        scoring: Any = None,
        embedding_layer: str = "auto",
        warm_start: bool = False,
        checkpoint: str | PathLike | None = None,
        memory_limit: int | str | None = None,
        precision: str | None = None,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
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
        self.checkpoint = checkpoint
        self.memory_limit = memory_limit
        self.precision = precision
        self.random_state = random_state
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=False)
    @with_callbacks
    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        X_test: Any = None,
        y_test: ArrayLike | None = None,
        skip: ArrayLike | None = None,
        skip_label: Any = None,
        **params: Any,
    ) -> Self:
        """Buy labels and train, round by round.

        In ask mode a further `fit` of the same loop goes on, also after it was
        pickled: `labeled_iter_`, `history_` and the codes of the classes are continued
        where `X` is the same and every row that was labelled still is.

        Parameters
        ----------
        X : array, DataFrame, sparse matrix, memmap, tensor or map-style Dataset
            All rows, labelled and not, shape (n_samples, ...).
        y : array-like of shape (n_samples,), default=None
            Labels of any type; complete in a simulation, with `missing_label` where a
            person or an oracle is to be asked. None reads a Dataset's own labels, or
            means that nothing is labelled where there is an oracle. Read by position,
            never by the index of a Series.
        X_test, y_test : rows and labels, default=None
            Scored after each round; never trained on, never seen by the strategy.
        skip : array-like of int, default=None
            Positions of rows that nobody can decide: not asked for, not trained on.
        skip_label : object, default=None
            A second mark, beside `missing_label`: rows where `y` holds it are skipped.
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
        for part in (self.estimator, self.strategy, self.initial):
            if isinstance(part, BaseEstimator):
                check_params(part)
        test = {"X_test": X_test, "y_test": y_test}
        skips = {"skip": skip, "skip_label": skip_label}
        data = check_data(self, X, y, **test, **skips, params=params)
        if self.scoring is not None:
            check_scoring(self, scoring=self.scoring)
        warn_of_instances(self.estimator)
        if self.warm_start:  # raises where the estimator cannot
            private_clone(self.estimator, 2, warm_start=True)
        self._start(data, skip_label, params)
        total = 0 if data.mode == "ask" else self.n_rounds
        context = self._init_callback_context(
            task_name="fit", max_subtasks=None if total is None else total + 1
        )
        try:
            with callback_task(context, self, X=data.given, y=data.y):
                if data.mode == "ask":
                    self._ask(data, fit_params, context)
                else:
                    self._buy_rounds(data, fit_params, context)
        finally:
            self.pool_ = self._labels.on_purchase = None
        return self

    def label(self, y: Any, rows: ArrayLike, answers: Any) -> Any:
        """Write a person's answers into a copy of `y`.

        Parameters
        ----------
        y : array, list, tuple, tensor or Series of shape (n_samples,)
            As in `fit`; never changed.
        rows : array-like of int
            Positions that were asked for in `next_query_`, whatever the index of `y`.
        answers : array-like of shape (n_rows,)
            Their labels, in the same order; `missing_label`, or the `skip_label` of
            the last `fit`, where there is none.

        Returns
        -------
        y : same kind as `y`
            Of a type that holds the answers.

        Raises
        ------
        TypeError, ValueError
            Where rows were not asked for, where there is not one answer a row, or
            where answers are no labels, of another type than those of `y`, or not
            among `classes`.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.linear_model import LogisticRegression
        >>> from skal import ActiveLearningLoop, MarginQuery
        >>> X, y = np.arange(20.0).reshape(10, 2), [None] * 10
        >>> loop = ActiveLearningLoop(
        ...     LogisticRegression(), MarginQuery(), n_initial=2, missing_label=None,
        ...     oracle="ask", initial=[7, 2],
        ... ).fit(X, y)
        >>> loop.label(y, loop.next_query_, ["cat", "dog"])
        [None, None, 'dog', None, None, None, None, 'cat', None, None]
        """
        check_is_fitted(self)
        return write_answers(
            y,
            rows,
            answers,
            asked=self._labels.asked,
            marks=[self.missing_label, self._skip_label],
            classes=self.classes,
        )

    def _validate_params(self):
        check_choices(self.estimator, self.strategy)
        super()._validate_params()

    # -- what is known --------------------------------------------------------------

    @property
    def labeled_indices_(self) -> NDArray[np.int64]:
        """Labelled rows in order of purchase; sorted in ask mode."""
        check_is_fitted(self)
        return self._labels.order

    @property
    def labeled_iter_(self) -> NDArray[np.int64]:
        """Round in which each row was labelled."""
        check_is_fitted(self)
        return self._labels.iteration.copy()

    @property
    def transduction_(self) -> NDArray:
        """The labels bought so far."""
        check_is_fitted(self)
        return self._labels.transduction()

    @property
    def history_(self) -> dict[str, NDArray]:
        """Dict of one array a column, with an entry for each round."""
        check_is_fitted(self)
        names = dict.fromkeys(name for record in self._records for name in record)
        return {
            name: np.array([record.get(name, np.nan) for record in self._records])
            for name in names
        }

    # -- rounds ---------------------------------------------------------------------

    def _start(self, data, skip_label, params):
        """Set up the state of a fit, or go on from that of the last one."""
        labels = Labels(
            data.y,
            np.ones_like(data.missing) if data.mode == "simulate" else data.missing,
            self.missing_label,
            data.classes if data.fixed else None,
            any_type=data.mode == "oracle",
        )
        labels.skipped |= data.skipped
        before = self.__dict__.get("_labels")
        self._checkpoint = open_checkpoint(self, data, params)
        sketch = fingerprint(data.given) if data.mode == "ask" else None
        goes_on = sketch and sketch == self.__dict__.get("_sketch")
        goes_on = goes_on and labels.continues(before)
        if not goes_on or isinstance(self.random_state, Integral):
            self.seed_ = check_seed(self.random_state)
        if self._checkpoint and self._checkpoint.seed is not None:
            self.seed_ = self._checkpoint.seed
        strategy = clone(named_strategy(self.strategy))
        rows_behind(data.head, strategy, data.X)
        try_estimator(
            behind(data.head, self.estimator),
            data.X,
            strategy,
            n_classes=len(labels.classes),
            embedding_layer=self.embedding_layer,
            random_state=self.seed_,
            X_test=None if data.test is None else data.test[0],
            n_first=None if len(labels) else data.n_first,
            memory_limit=self.memory_limit,
        )
        self.n_iter_, same_codes = 0, False
        if goes_on:
            self.n_iter_, same_codes = labels.go_on(before, len(self._records))
        else:
            self._records, self._query_time = [], 0.0
        if not (goes_on and len(labels)):
            self._first = None
        if not (self.warm_start and same_codes):
            self.__dict__.pop("estimator_", None)
        self._labels, self._sketch, self._skip_label = labels, sketch, skip_label
        self._head = data.head
        self.strategy_ = strategy
        self.next_query_ = np.empty(0, dtype=np.int64)

    def _first_set(self, data):
        """Choose the first set when it is needed, once; see `initial_order`."""
        if self._first is None:
            self._first = initial_order(
                self.initial,
                data.n_first,
                data.first,
                data.y,
                data.skipped,
                derive_seed(self.seed_, 0, "initial"),
                self.memory_limit,
            )
        return self._first

    def _buy_rounds(self, data, fit_params, context):
        """Simulate, or ask a callable."""
        labels, planned = self._labels, len(data.y)
        answer = self.oracle if data.mode == "oracle" else lambda rows: data.y[rows]
        if self.n_rounds is not None:
            planned = (len(labels) or data.n_first) + self.n_rounds * self.batch_size
        bought, query_time = 0, 0.0
        if self._checkpoint:
            answer, bought, query_time = resume(
                self, answer, lambda: self._fit_model(data, fit_params)
            )
        if self.n_iter_ == 0:
            bought += self._buy_initial(data, answer, planned)
        while True:
            stop = self._round(data, fit_params, bought, query_time, context)
            pool, n_left = labels.pool(), planned - len(labels)
            if len(pool) and (self.n_iter_ == self.n_rounds or n_left <= 0):
                self.termination_condition_ = "n_rounds"
                return
            if stop and len(pool):
                return
            bought, query_time = 0, 0.0
            while bought == 0 and len(pool):  # all rows of a batch may be skipped
                picks, seconds = self._query(data.X, min(self.batch_size, n_left))
                query_time += seconds
                self._query_time = query_time
                bought = labels.buy(picks, answer, self.n_iter_ + 1)
                pool = labels.pool()
            if bought == 0:
                self.termination_condition_ = "pool_exhausted"
                return
            self.n_iter_ += 1

    def _buy_initial(self, data, answer, planned):
        """Buy the first set, and further batches until it has two classes."""
        labels, bought = self._labels, 0
        if len(labels) == 0:
            first = self._first_set(data)[0]  # of which a checkpoint may know answers
            bought = labels.buy(first[labels.open[first]], answer, 0)
        if labels.n_seen < 2:
            rows = np.concatenate(self._first_set(data))
            bought += buy_second_class(labels, answer, rows, self.batch_size, planned)
        return bought

    def _ask(self, data, fit_params, context):
        """Train on what is labelled and choose what a person should label next."""
        labels, stop = self._labels, False
        pool = labels.pool()
        if labels.n_seen < 2:
            self.__dict__.pop("estimator_", None)
            if len(pool):
                first, rest = self._first_set(data)
                self.next_query_ = first_rows(labels, first, rest, self.batch_size)
        else:
            bought = int((labels.iteration == self.n_iter_).sum())
            stop = self._round(data, fit_params, bought, self._query_time, context)
            if len(pool):
                found = self._query(data.X, self.batch_size)
                self.next_query_, self._query_time = found
        labels.asked[self.next_query_] = True
        if not (stop and len(pool)):
            ends = "query_pending" if len(pool) else "pool_exhausted"
            self.termination_condition_ = ends

    def _round(self, data, fit_params, bought, query_time, context):
        """Train and record; tell whether a callback wants to stop."""
        self.termination_condition_ = "callback"  # unless that names itself
        with callback_task(context and context.subcontext("round"), self) as stop:
            self._train(data, fit_params, bought, query_time)
            self._view(data.X)
        return bool(stop)

    def _seed(self, purpose):
        return derive_seed(self.seed_, len(self._labels), purpose)

    def _train(self, data, fit_params, n_queried, query_time):
        """Train on all labels so far, score the model, record the round."""
        start = perf_counter()
        self._fit_model(data, fit_params)
        record = {
            "round": self.n_iter_,
            "n_labeled": len(self._labels),
            "n_queried": n_queried,
            "fit_time": perf_counter() - start,
            "query_time": query_time,
        }
        if data.test is not None:
            record.update(score_model(self, *data.test, self._seed("test")))
        self._after_round(record)

    def _fit_model(self, data, fit_params):
        self._tail = train_model(
            self, data.X, self._labels, fit_params=fit_params, seed=self._seed("fit")
        )
        self.estimator_ = in_front(self._head, self._tail)
        self._first = None  # was for the time without a model

    def _after_round(self, record):
        """Take note of a round; `experiment` extends this."""
        if self._checkpoint:
            record = self._checkpoint.keep(record)
        # Asked again without a new label, the round is the same one.
        self._records = [r for r in self._records if r["round"] < record["round"]]
        self._records.append(record)
        if self.verbose:
            print_round(record)

    def _view(self, X):
        """Let strategy and callbacks look at the unlabelled rows, in one pass."""
        labeled, codes = self._labels.labeled()
        self.pool_ = PoolView.of_rows(
            self._tail,
            X,
            self._labels.pool(),
            labeled_rows=labeled,
            y_labeled=codes,
            classes=np.arange(len(self.classes_)),
            embedding_layer=self.embedding_layer,
            random_state=self._seed("query"),
            run_seed=derive_seed(self.seed_, 0, "query"),
            memory_limit=self.memory_limit,
            precision=self.precision,
        )
        self.pool_.prefetch(self.strategy_.requires)

    def _query(self, X, n_samples):
        """Let the strategy choose from the pool; returns rows of X and seconds."""
        start = perf_counter()
        if len(self.pool_) > len(self._labels.pool()):  # answers were skipped
            self._view(X)
        known = getattr(self.strategy_, "aux_", None)
        self.strategy_.fit(self.pool_)
        aux = getattr(self.strategy_, "aux_", None)
        if self.verbose and aux is not known and len(aux.history):
            print_training(self.strategy_, aux, perf_counter() - start)
        picks = self.strategy_.query(self.pool_, n_samples)
        return self.pool_.indices[picks], perf_counter() - start
