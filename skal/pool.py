"""`PoolView`: what a strategy may ask about one fitted estimator and some rows."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from torch.nn.functional import linear

from skal.net.columns import decision_columns, proba_columns
from skal.net.derived import Derived
from skal.net.dropout import sample_dropout
from skal.net.evaluation import (
    check_has_layers,
    check_has_proba,
    check_precision,
    has_method,
    predict_batches,
    running,
)
from skal.net.gradients import check_differentiable
from skal.net.heads import OddRowError, missing_head
from skal.net.outputs import hidden_means, input_gradients, read_outputs
from skal.net.pool_parts import Parts
from skal.net.training import (
    casting_view,
    final_estimator,
    is_net,
    label_dtype,
    transformers_of,
)
from skal.utils.blocks import BlockRows
from skal.utils.labels import check_labels, encode, read_labels
from skal.utils.rows import (
    DatasetRows,
    as_rows,
    dense_rows,
    flat_rows,
    is_dataset,
    is_numeric,
    is_shared,
    n_rows,
    native,
    take,
)
from skal.utils.scratch import Scratch
from skal.utils.seeds import check_seed, isolated_rng

# Outputs that need the head of the network.
OF_HEAD = {"embeddings", "head_weight", "head_bias"}


class PoolView(Parts, Derived):
    """What a strategy may ask about one fitted estimator and one set of rows.

    Outputs are computed when first read and kept. For a skorch net, probabilities,
    logits and embeddings come from one hooked forward pass of the unmodified network.

    Parameters
    ----------
    estimator : estimator or None
        A fitted classifier: a skorch net, a Pipeline or search object that ends in
        one, or any scikit-learn classifier. None knows no model: `embeddings` are the
        rows.
    X : array, DataFrame, sparse matrix, memmap, tensor or map-style torch Dataset
        The rows to choose from; never changed, a Dataset is never stacked.
    X_labeled : same kind as `X`, default=None
        The labelled rows, for strategies that look at them.
    y_labeled : array-like of shape (n_labeled,), default=None
        Their labels.
    classes : array-like of shape (n_classes,), default=None
        All classes in sorted order; None takes the estimator's.
    embedding_layer : str, default="auto"
        Name of the layer of the network whose *input* is the embedding. "auto" finds
        the nn.Linear whose output the network returns.
    random_state : int, default=None
        Seed of the round; None leaves strategies to draw fresh entropy.
    memory_limit : int or str, default=None
        Bytes of outputs in memory, as "500M" or "2G"; what is beyond goes to files
        without a name in the folder for temporary ones (TMPDIR, else /var/tmp where
        there is one), and picks are the same. None keeps all in memory.
    precision : {None, "bfloat16", "float16"}, default=None
        What a network multiplies in while it predicts (`torch.autocast`): faster on a
        GPU, and picks may be others. None computes as `predict_proba` does. Outputs are
        float32 all the same, gradients of the input and training as without it.

    Attributes
    ----------
    indices : int64 array of shape (n_samples,)
        Row numbers in the loop's `X`; 0..n_samples-1 stand-alone.
    labeled : PoolView
        The labelled rows; its `y` holds their codes 0..n_classes-1.
    run_seed : int or None
        Seed of what is made once and kept over rounds; stand-alone `random_state`.
    weights : float64 tensor of shape (n_samples,) or None
        Of how many rows each stands for, where rows of a larger pool were drawn.

    Notes
    -----
    Outputs are tensors on the estimator's device, float32 or float64 as the estimator
    gives them. Memory is O(n_samples (n_classes + n_features of the embedding)); rows
    of an array are sliced batch by batch, never copied as a whole for a bare net.

    Under a `memory_limit`, tensors are on the CPU, and memory is the limit, a batch of
    the net with what it gives, and what the strategy takes for itself: mostly O(1) a
    row. An estimator without a network, and the transformers of a Pipeline, get rows a
    chunk at a time, so that their floats may differ in the last digit.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skal import MarginQuery, PoolView
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LogisticRegression(max_iter=5000).fit(X[:100], y[:100])
    >>> pool = PoolView(model, X[100:])
    >>> MarginQuery().fit(pool).query(pool, 3).shape
    (3,)
    """

    def __init__(
        self,
        estimator: BaseEstimator | None,
        X: Any,
        *,
        X_labeled: Any = None,
        y_labeled: ArrayLike | None = None,
        classes: ArrayLike | None = None,
        embedding_layer: str = "auto",
        random_state: int | None = None,
        memory_limit: int | str | None = None,
        precision: str | None = None,
    ):
        self.estimator = estimator
        self.embedding_layer = embedding_layer
        self.random_state = None if random_state is None else check_seed(random_state)
        self.run_seed = self.random_state
        self._X = as_rows(X)
        self.y = self.weights = self._rows = self._numbers = self._expected = None
        self._labeled_data = (X_labeled, None, y_labeled)
        self._final = final_estimator(estimator)
        self._classes = None if classes is None else np.asarray(classes)
        self._cache = {}
        self._scratch = Scratch(memory_limit)
        self.precision = check_precision(precision)

    @classmethod
    def of_rows(
        cls,
        estimator: BaseEstimator | None,
        X: Any,
        rows: ArrayLike,
        *,
        labeled_rows: ArrayLike | None = None,
        y_labeled: ArrayLike | None = None,
        run_seed: int | None = None,
        **kwargs: Any,
    ) -> Self:
        """View rows of the loop's `X` without copying them.

        Parameters
        ----------
        estimator, X, y_labeled, **kwargs
            As in the constructor.
        rows, labeled_rows : int64 arrays
            Row numbers in `X` of the pool and of the labelled set; `rows` None is all.
        run_seed : int, default=None
            See the attribute; None takes `random_state`.

        Returns
        -------
        view : PoolView
        """
        view = cls(estimator, X, **kwargs)
        view._rows = None if rows is None else np.asarray(rows, dtype=np.int64)
        if labeled_rows is not None:
            labeled_rows = np.asarray(labeled_rows, dtype=np.int64)
            view._labeled_data = (X, labeled_rows, y_labeled)
        if run_seed is not None:
            view.run_seed = run_seed
        return view

    def _view(self, X, rows, estimator):
        """View rows of `X` under an estimator, all else being as it is here."""
        view = type(self).of_rows(
            estimator,
            X,
            rows,
            classes=self._classes,
            embedding_layer=self.embedding_layer,
            random_state=self.random_state,
            run_seed=self.run_seed,
            precision=self.precision,
        )
        view._scratch = self._scratch
        return view

    @cached_property
    def _net(self):
        return casting_view(self._final) if is_net(self._final) else None

    def __len__(self):
        return n_rows(self._X) if self._rows is None else len(self._rows)

    def prefetch(self, names: Iterable[str]) -> None:
        """Say which outputs will be read, so that the one pass keeps no others.

        Parameters
        ----------
        names : iterable of str
            As in `QueryStrategy.requires`.
        """
        self._expected = {*names, *(self._expected or ())}
        for_labeled = [n.removeprefix("labeled.") for n in names if "labeled." in n]
        if for_labeled and self.has_labeled:
            self.labeled.prefetch(for_labeled)

    @property
    def has_labeled(self) -> bool:
        """Whether there are labelled rows."""
        return self._labeled_data[0] is not None

    @cached_property
    def labeled(self) -> Self:
        """The labelled rows as a PoolView; `labeled.y` holds their codes."""
        if not self.has_labeled:
            raise ValueError("this PoolView has no labelled rows; pass X_labeled.")
        X, rows, y = self._labeled_data
        view = self._view(X, rows, self.estimator)
        if y is not None:
            view.y = encode(read_labels(y), self.classes, name="y_labeled")
        return view

    @property
    def classes(self) -> NDArray:
        """The classes, sorted, of shape (n_classes,)."""
        if self._classes is not None:
            return self._classes
        if self.estimator is None:
            return np.unique(check_labels(self._labeled_data[2], None)[0])
        return np.asarray(self._final.classes_)

    @property
    def _chunked(self):
        """Whether rows go through estimators a chunk at a time."""
        return self._scratch.limit is not None or isinstance(self._X, BlockRows)

    @cached_property
    def features(self) -> Any:
        """Rows after the transformers of a Pipeline, as the final estimator sees them.

        Lazy and row-indexable for a Dataset. Transformers get a copy of the rows, since
        those with ``copy=False`` write to what they are given.
        """
        if self._rows is None and not transformers_of(self.estimator):
            return self._X
        with isolated_rng(self.random_state or 0):
            if self._chunked and len(self):
                if is_numeric(self._transformed(np.arange(1))):
                    return self._joined(
                        lambda rows: torch.from_numpy(native(self._transformed(rows)))
                    ).numpy()
            return self._transformed(np.arange(len(self)))

    def _transformed(self, positions):
        rows = take(self._X, self._at(positions))
        for transformer in transformers_of(self.estimator):
            rows = transformer.transform(rows)
        return rows

    @property
    def flat_features(self) -> torch.Tensor:
        """The features as numbers, (n_samples, n_columns); those of a Dataset, too."""
        with isolated_rng(self.random_state or 0):  # a Dataset may augment its items
            return self._dense(flat_rows)

    def features_at(self, positions: NDArray[np.int64]) -> Any:
        """Take some of `features`, of which there is no copy as a whole for a bare net.

        Parameters
        ----------
        positions : int64 array of shape (n_rows,)

        Returns
        -------
        rows : the same kind of container
        """
        if transformers_of(self.estimator):
            return take(self.features, positions)
        return take(self._X, self._at(positions))

    @property
    def proba(self) -> torch.Tensor:
        """Probabilities of shape (n_samples, n_classes)."""
        return self._output("proba")

    @property
    def log_proba(self) -> torch.Tensor:
        """Logarithms of the probabilities, from logits where there are any."""
        return self._output("log_proba")

    @property
    def logits(self) -> torch.Tensor:
        """Scores whose softmax is `proba`, of shape (n_samples, n_classes)."""
        return self._output("logits")

    @property
    def decision_values(self) -> torch.Tensor | None:
        """Values of `decision_function` where there are no probabilities, else None.

        Of shape (n_samples, n_classes): of two classes minus and plus half the value,
        of a class that the estimator does not know minus infinity.
        """
        if self._final is None or has_method(self._final, "predict_proba"):
            return None
        if "decision_values" not in self._cache:
            check_has_proba(self._final, or_decisions=True)
            finish = partial(decision_columns, final=self._final, classes=self.classes)
            values = self._by_features(self._final.decision_function, finish)
            self._cache["decision_values"] = values
        return self._cache["decision_values"]

    @property
    def embeddings(self) -> torch.Tensor:
        """Inputs of the network's head, flattened, of shape (n_samples, n_features).

        For an estimator without a network, the transformed rows.
        """
        value = self._output("embeddings")
        if value is None:
            raise missing_head(self._net.module_)
        return value

    @property
    def head_weight(self) -> torch.Tensor | None:
        """Weights of the head, (n_classes, n_features).

        None without a network, or where the named layer does not give its output. With
        `head_bias` `embeddings @ head_weight.T + head_bias == logits`.
        """
        return self._head("weight")

    @property
    def head_bias(self) -> torch.Tensor | None:
        """Bias of the head of shape (n_classes,), or None where it has none."""
        return self._head("bias")

    def rescore(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Score embeddings other than those of the rows, without the network.

        Parameters
        ----------
        embeddings : tensor of shape (n_rows, n_features)
            As `embeddings` are.

        Returns
        -------
        scores : tensor of shape (n_rows, n_classes)
            Logits of the network's head; else `log_proba` or `decision_values` of the
            estimator.

        Raises
        ------
        ValueError
            Where no head is known that turns embeddings into logits.
        """
        if self._net is None:
            rows = embeddings.cpu().numpy()
            view = type(self)(self._final, rows, classes=self._classes)
            with warnings.catch_warnings():  # for estimators that learned from a frame
                warnings.filterwarnings("ignore", "X does not have valid feature names")
                values = view.decision_values
                return view.log_proba if values is None else values
        if self.head_weight is None:
            raise ValueError(
                f"the output of embedding_layer={self.embedding_layer!r} is not that "
                "of the network, so embeddings cannot be scored; name the nn.Linear "
                "that gives the logits."
            )
        return linear(embeddings, self.head_weight, self.head_bias)

    def sample_proba(
        self,
        posterior: Any,
        *,
        random_state: int | None = None,
        each: Callable[..., None] | None = None,
    ) -> torch.Tensor | None:
        """Probabilities under each draw of a posterior.

        Parameters
        ----------
        posterior : MCDropout or DeepEnsemble
            See :mod:`skal.posterior`.
        random_state : int, default=None
            Seed of the draws; None takes that of the pool.
        each : callable, default=None
            Gets the samples in pieces, which are not kept: ``each(piece, place,
            n_draws)``, where `place` are two slices, of rows and of draws, so that
            ``samples[place] = piece`` would make the whole.

        Returns
        -------
        samples : tensor of shape (n_samples, n_draws, n_classes)
            Draw t is the same model for every row. Kept: asked again with the same
            parameters and seed, they come at once. None where they went to `each`.

        Raises
        ------
        ValueError
            Where the estimator cannot have the posterior.
        """
        posterior.check(self.estimator)
        self._check_ready()
        seed = self.random_state if random_state is None else random_state
        if each is not None:
            posterior.sample(self, check_seed(seed), each)
            return None
        key = ("sample_proba", repr(posterior.get_params()), seed)
        if key not in self._cache:
            samples = []

            def keep(piece, place, n_draws):
                if not samples:
                    shape = (len(self), n_draws, piece.shape[2])
                    samples.append(self._scratch.empty(piece, *shape))
                samples[0][place] = piece

            posterior.sample(self, check_seed(seed), keep)
            self._cache[key] = samples[0]
        return self._cache[key]

    def sample_dropout(
        self, n_draws: int, seed: int, each: Callable[..., None]
    ) -> None:
        """Run the network once, and what follows its first dropout for each draw.

        Parameters
        ----------
        n_draws, seed : int
            See `skal.net.dropout.DropoutDraws`.
        each : callable
            As for `sample_proba`.
        """
        if self._net is not self._final:  # finds out how to cast, not while it draws
            with running(self._net, seed):
                self._net.evaluation_step(next(self._batches()), training=False)
        net, batches, n_rows, *_ = self._pass()
        more = seed, self.precision, self._classes, each
        with self._naming_rows():
            sample_dropout(net, batches, n_rows, n_draws, *more)

    def under(self, estimator: BaseEstimator) -> Self:
        """View the same rows under another model, to read its `proba`.

        Parameters
        ----------
        estimator : estimator
            Fitted to the same classes.

        Returns
        -------
        view : PoolView
            This one where the estimator is its own.
        """
        if final_estimator(estimator) is self._final:
            return self
        view = self._view(self._X, self._rows, estimator)
        view.prefetch(["proba"])
        return view

    def of_others(self, X: Any, rows: ArrayLike | None = None) -> Self:
        """View other rows as this one views its own.

        Parameters
        ----------
        X : rows
            Of the same kind.
        rows : int64 array, default=None
            Row numbers in `X`; None is all.

        Returns
        -------
        view : PoolView
        """
        view = self._view(X, rows, self.estimator)
        view._labeled_data = self._labeled_data
        return view

    def training_set(self) -> tuple[Any, Any]:
        """Give labelled rows and labels, of the type a net wants, or (None, None)."""
        X, rows, y = self._labeled_data
        if y is not None and is_net(self._final):
            y = np.asarray(y)
            y = y.astype(label_dtype(self._final)) if y.dtype.kind in "biuf" else y
        if rows is None:
            return X, y
        return DatasetRows(X, rows, y) if is_dataset(X) else take(X, rows), y

    def _head(self, name):
        if self._net is None:
            return None
        self.embeddings  # noqa: B018  # finds the head, or raises
        value = getattr(self._cache["head"], name, None)
        if value is None:
            return None
        # One output stands for two classes with logits (0, z).
        value = value.detach().clone()  # the weights are the network's
        value = value.to(self.embeddings.device)
        return torch.cat([torch.zeros_like(value), value]) if len(value) == 1 else value

    def _output(self, name):
        if name in self._cache:
            return self._cache[name]
        if self._net is not None and name == "log_proba":
            by_class = partial(torch.log_softmax, dim=1)
            self._cache[name] = self.by_rows(by_class, self.logits)
        elif self._net is not None:
            if self._expected is not None:
                self._expected.add(name)
            self._forward()
        elif name == "embeddings":
            self._cache[name] = self._dense(dense_rows)
        else:
            self._predict(name)
        return self._cache[name]

    def _check_ready(self):
        if len(self) == 0:
            raise ValueError("the pool is empty: X has no rows.")
        if self._net is not None:
            self._net.check_is_fitted()

    def _by_features(self, method, finish):
        """Call a method of an estimator without a network with the features.

        `finish` makes of the numbers it gives what is to be kept.
        """

        def of_rows(rows):
            values = np.asarray(method(rows))
            single = values.dtype == np.float32
            return finish(values if single else np.asarray(values, np.float64))

        self._check_ready()
        with isolated_rng(self.random_state or 0):
            if not self._chunked:
                return of_rows(self.features)
            return self._joined(lambda rows: of_rows(self.features_at(rows)))

    def _joined(self, of_positions):
        """Join what a function gives for chunks of the positions in the pool."""
        positions, step = np.arange(len(self)), self._scratch.n_rows
        return self._scratch.gather(
            len(self), step, lambda place: of_positions(positions[place])
        )

    def _dense(self, function):
        """Make a tensor of the features, of which in memory there is no copy."""
        features = self.features
        if self._scratch.limit is None or is_shared(features):
            return function(features)
        return self._joined(lambda rows: function(take(features, rows)))

    def _predict(self, name):
        """Probabilities of an estimator without a network, a column for each class."""
        if self.estimator is None:
            self._check_ready()
            raise ValueError(f"{name} needs a fitted estimator; there is none yet.")
        check_has_proba(self._final)
        finish = partial(proba_columns, final=self._final, classes=self.classes)
        proba, log_proba = self._by_features(self._final.predict_proba, finish)
        self._cache.update(proba=proba, log_proba=log_proba, logits=log_proba)

    def _forward(self):
        """Read everything that one pass of the network gives."""
        self._check_ready()
        keep = self._expected is None or bool(OF_HEAD & self._expected)
        with self._naming_rows():
            found = read_outputs(
                *self._pass(),
                layer=self.embedding_layer,
                classes=self._classes,
                embeddings=keep,
            )
        self._cache.update(found)

    @contextmanager
    def _naming_rows(self):
        """Say which row of X has no finite probabilities."""
        try:
            yield
        except OddRowError as error:
            raise ValueError(
                f"{type(self._final).__name__} gives NaN or infinite probabilities for "
                f"row {self.indices[error.position]} of X, and finite ones for others: "
                "does it hold NaN, infinite or huge entries? Clean it."
            ) from None

    def hidden_means(
        self,
        layers: Sequence[str] | None = None,
        *,
        positions: NDArray[np.int64] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Average what inner layers of the network give over all places of a row.

        Parameters
        ----------
        layers : sequence of str, default=None
            Names of layers whose outputs have their channels in dimension 1, or of
            nn.Linear, in the last; of images only what is positive counts. None finds
            up to four, before the head: the last part that gives maps of each size that
            a convolution gives, such as the stages of a residual network, and the
            nn.Linear after the convolutions, evenly spread.
        positions : int64 array, default=None
            The rows that the network is shown; None shows all.

        Returns
        -------
        means : dict of str to tensor of shape (n_rows, n_channels)
            In the order in which the layers ran.

        Raises
        ------
        ValueError
            Where the estimator is no network, or has no such layers.
        """
        check_has_layers(self._final)
        if positions is not None:
            rows = self._at(np.asarray(positions, dtype=np.int64))
            return self._view(self._X, rows, self.estimator).hidden_means(layers)
        self._check_ready()
        return hidden_means(*self._pass(), layers)

    @contextmanager
    def input_gradients(self) -> Iterator[Any]:
        """Differentiate the logits with respect to what the network is given.

        For a `with` block, in which the network is in evaluation mode and none of its
        parameters collects gradients.

        Yields
        ------
        batches : iterator of tensors of shape (n_batch, ...)
            The rows in order as the network sees them: after the transformers of a
            Pipeline, cast, on its device.
        logits : callable
            `logits(x)` of shape (n_batch, n_classes), with a graph behind it where `x`
            wants gradients.

        Raises
        ------
        ValueError
            Where the estimator is no network, where it does not take one tensor of
            floating-point numbers, or where its outputs do not depend on that
            differentiably.
        """
        if self.estimator is not None:
            check_differentiable(self._final)
        self.logits  # noqa: B018  # every check of the outputs is in this pass
        seed, layer = self.random_state or 0, self.embedding_layer
        with input_gradients(self._net, self._batches(), seed, layer) as found:
            yield found

    def _pass(self):
        seed = self.random_state or 0
        places = seed, self._scratch, self.precision
        return self._net, self._batches(), len(self), *places

    def _batches(self):
        if transformers_of(self.estimator):
            return predict_batches(self._net, self.features)
        return predict_batches(self._net, self._X, self._rows)
