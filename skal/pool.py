"""`PoolView`: what a strategy may ask about one fitted estimator and some rows."""

import warnings
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from scipy import sparse
from skorch.utils import to_device

from skal.net.evaluation import (
    check_has_layers,
    check_has_proba,
    predict_batches,
    running,
)
from skal.net.gradients import (
    check_differentiable,
    differentiable_logits,
    input_batch,
    parameters_frozen,
)
from skal.net.heads import (
    Collected,
    HeadProbe,
    check_distribution,
    find_logits,
    missing_head,
)
from skal.net.hidden import HiddenMeans
from skal.net.training import final_estimator, is_net, transformers_of
from skal.utils.labels import encode
from skal.utils.rows import DatasetRows, dense_rows, is_dataset, n_rows, take
from skal.utils.seeds import check_seed, isolated_rng

# Outputs that need the head of the network.
OF_HEAD = {"embeddings", "head_weight", "head_bias"}


class PoolView:
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

    Attributes
    ----------
    indices : int64 array of shape (n_samples,)
        Row numbers in the loop's `X`; 0..n_samples-1 stand-alone.
    labeled : PoolView
        The labelled rows; its `y` holds their codes 0..n_classes-1.
    run_seed : int or None
        Seed of what is made once and kept over rounds; stand-alone `random_state`.

    Notes
    -----
    Outputs are tensors on the estimator's device, float32 or float64 as the estimator
    gives them. Memory is O(n_samples (n_classes + n_features of the embedding)); rows
    of an array are sliced batch by batch, never copied as a whole for a bare net.

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
        estimator,
        X,
        *,
        X_labeled=None,
        y_labeled=None,
        classes=None,
        embedding_layer="auto",
        random_state=None,
    ):
        self.estimator = estimator
        self.embedding_layer = embedding_layer
        self.random_state = None if random_state is None else check_seed(random_state)
        self.run_seed = self.random_state
        self._X = sparse.csr_matrix(X) if sparse.issparse(X) else X
        if not hasattr(self._X, "__getitem__") or isinstance(X, list | tuple):
            self._X = np.asarray(X)
        self._rows = None
        self._final = final_estimator(estimator)
        self._net = self._final if is_net(self._final) else None
        self._classes = None if classes is None else np.asarray(classes)
        self._labeled_data = (X_labeled, y_labeled)
        self._cache = {}
        self._expected = None
        self.y = None

    @classmethod
    def of_rows(
        cls, estimator, X, rows, *, labeled_rows=None, y_labeled=None, **kwargs
    ):
        """View rows of the loop's `X` without copying them.

        Parameters
        ----------
        estimator, X, y_labeled, **kwargs
            As in the constructor.
        rows, labeled_rows : int64 arrays
            Row numbers in `X` of the pool and of the labelled set.

        Returns
        -------
        view : PoolView
        """
        view = cls(estimator, X, **kwargs)
        view._rows = np.asarray(rows, dtype=np.int64)
        if labeled_rows is not None:
            view._labeled_data = (X, y_labeled)
            view._labeled_rows = np.asarray(labeled_rows, dtype=np.int64)
        return view

    def __len__(self):
        return n_rows(self._X) if self._rows is None else len(self._rows)

    def prefetch(self, names):
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
    def indices(self):
        """Row numbers in the loop's `X`, int64 of shape (n_samples,)."""
        return np.arange(len(self)) if self._rows is None else self._rows.copy()

    @property
    def has_labeled(self):
        """Whether there are labelled rows."""
        return self._labeled_data[0] is not None

    @property
    def labeled(self):
        """The labelled rows as a PoolView; `labeled.y` holds their codes."""
        if not self.has_labeled:
            raise ValueError("this PoolView has no labelled rows; pass X_labeled.")
        if "labeled" not in self._cache:
            X, y = self._labeled_data
            view = type(self)(
                self.estimator,
                X,
                classes=self._classes,
                embedding_layer=self.embedding_layer,
                random_state=self.random_state,
            )
            view._rows = getattr(self, "_labeled_rows", None)
            if y is not None:
                view.y = encode(np.asarray(y), self.classes, name="y_labeled")
            self._cache["labeled"] = view
        return self._cache["labeled"]

    @property
    def classes(self):
        """The classes, sorted, of shape (n_classes,)."""
        if self._classes is not None:
            return self._classes
        if self.estimator is None:
            return np.unique(np.asarray(self._labeled_data[1]))
        return np.asarray(self._final.classes_)

    @property
    def features(self):
        """Rows after the transformers of a Pipeline, as the final estimator sees them.

        Lazy and row-indexable for a Dataset.
        """
        if "features" not in self._cache:
            rows = self._X if self._rows is None else take(self._X, self._rows)
            for transformers in transformers_of(self.estimator):
                with isolated_rng(self.random_state or 0):
                    rows = transformers.transform(rows)
            self._cache["features"] = rows
        return self._cache["features"]

    @property
    def proba(self):
        """Probabilities of shape (n_samples, n_classes)."""
        return self._output("proba")

    @property
    def log_proba(self):
        """Logarithms of the probabilities, from logits where there are any."""
        return self._output("log_proba")

    @property
    def logits(self):
        """Scores whose softmax is `proba`, of shape (n_samples, n_classes)."""
        return self._output("logits")

    @property
    def embeddings(self):
        """Inputs of the network's head, flattened, of shape (n_samples, n_features).

        For an estimator without a network, the transformed rows.
        """
        if self._net is None:
            if "embeddings" not in self._cache:
                self._cache["embeddings"] = dense_rows(self.features)
            return self._cache["embeddings"]
        value = self._output("embeddings")
        if value is None:
            raise missing_head(self._net.module_)
        return value

    @property
    def head_weight(self):
        """Weights of the head, (n_classes, n_features).

        None without a network, or where the named layer does not give its output. With
        `head_bias` `embeddings @ head_weight.T + head_bias == logits`.
        """
        return self._head("weight")

    @property
    def head_bias(self):
        """Bias of the head of shape (n_classes,), or None where it has none."""
        return self._head("bias")

    def sample_proba(self, posterior, *, random_state=None):
        """Probabilities under each draw of a posterior.

        Parameters
        ----------
        posterior : MCDropout or DeepEnsemble
            See :mod:`skal.posterior`.
        random_state : int, default=None
            Seed of the draws; None takes that of the pool.

        Returns
        -------
        samples : tensor of shape (n_samples, n_draws, n_classes)
            Draw t is the same model for every row. Kept: asked again with the same
            parameters and seed, they come at once.

        Raises
        ------
        ValueError
            Where the estimator cannot have the posterior.
        """
        posterior.check(self.estimator)
        if self._net is not None:
            self._net.check_is_fitted()
        seed = self.random_state if random_state is None else random_state
        key = ("sample_proba", repr(posterior.get_params()), seed)
        if key not in self._cache:
            seed = check_seed(seed)
            if len(self) == 0:
                raise ValueError("the pool is empty: X has no rows.")
            if hasattr(posterior, "draws"):
                samples = self._draw(posterior, seed)
            else:
                members = posterior.members(self.estimator, *self._training_set(), seed)
                samples = torch.stack([self._of(m).proba for m in members], dim=1)
            self._cache[key] = samples
        return self._cache[key]

    def _draw(self, posterior, seed):
        """Run the network once, and what follows its first dropout for each draw."""
        net, module = self._net, self._net.module_
        nonlinearity = net._get_predict_nonlinearity()
        samples, differ = Collected(len(self)), False
        with running(net, seed), posterior.draws(module, seed) as draws:
            for batch in self._batches():
                outputs = draws.outputs(partial(net.evaluation_step, batch))
                outputs = [z[0] if isinstance(z, tuple) else z for z in outputs]
                differ = differ or any(not z.equal(outputs[0]) for z in outputs)
                proba = nonlinearity(to_device(torch.cat(outputs), "cpu"))
                samples.add(proba.unflatten(0, (len(outputs), -1)).transpose(0, 1))
        self._check_count(samples.count)
        check_distribution(samples.rows.flatten(0, 1), net, self._classes)
        if not draws.applied:
            raise ValueError(
                "no dropout layer of the network ran in its forward pass, so all draws "
                "are the same; call one there, or use DeepEnsemble."
            )
        if not differ:
            warnings.warn(
                f"all {len(outputs)} draws gave the same outputs for {len(self)} rows: "
                "does what the network returns use what its dropout layers return? "
                "Else take more draws or a larger p.",
                UserWarning,
                stacklevel=3,
            )
        return samples.rows.to(outputs[0].device)

    def _of(self, member):
        """View the same rows with another model."""
        if member is self.estimator or member is self._final:
            return self
        view = PoolView(
            member, self._X, classes=self._classes, random_state=self.random_state
        )
        view._rows = self._rows
        view.prefetch(["proba"])
        return view

    def _training_set(self):
        """Labelled rows and labels as they were given, or (None, None)."""
        X, y = self._labeled_data
        rows = getattr(self, "_labeled_rows", None)
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
        return torch.cat([torch.zeros_like(value), value]) if len(value) == 1 else value

    def _output(self, name):
        if name not in self._cache:
            if len(self) == 0:
                raise ValueError("the pool is empty: X has no rows.")
            if self.estimator is None:
                raise ValueError(f"{name} needs a fitted estimator; there is none yet.")
            if self._net is None:
                self._predict()
            else:
                if self._expected is not None:
                    self._expected.add(name)
                self._forward()
        return self._cache[name]

    def _predict(self):
        """Probabilities of an estimator without a network, a column for each class."""
        final = self._final
        check_has_proba(final)
        with isolated_rng(self.random_state or 0):
            known = final.predict_proba(self.features)
        codes = encode(np.asarray(final.classes_), self.classes, name="classes_")
        proba = np.zeros((len(known), len(self.classes)), dtype=known.dtype)
        proba[:, codes] = known
        proba = torch.from_numpy(proba)
        check_distribution(proba, final)
        log_proba = proba.log()
        self._cache.update(proba=proba, log_proba=log_proba, logits=log_proba)

    def _forward(self):
        """Run the network once over all rows."""
        self._net.check_is_fitted()
        net, module = self._net, self._net.module_
        nonlinearity = net._get_predict_nonlinearity()
        probe = HeadProbe(module, self.embedding_layer)
        keep = self._expected is None or bool(OF_HEAD & self._expected)
        probas, outputs, heads, embeddings = (Collected(len(self)) for _ in range(4))
        with running(self._net, self.random_state or 0), probe:
            for batch in self._batches():
                output = net.evaluation_step(batch, training=False)
                output = output[0] if isinstance(output, tuple) else output
                # The nonlinearity runs on the CPU, as in skorch's predict_proba.
                probas.add(nonlinearity(to_device(output, "cpu")))
                outputs.add(output)
                embedding, head_output = probe.read(output)
                if head_output is not None and head_output is not output:
                    heads.add(head_output)
                if keep and embedding is not None:
                    embeddings.add(embedding)
        self._check_count(outputs.count)
        proba = probas.rows
        check_distribution(proba, net, self._classes)
        logits = find_logits([z.rows for z in (heads, outputs) if z.count], proba)
        self._cache.update(
            proba=proba.to(outputs.rows.device),
            logits=logits,
            log_proba=torch.log_softmax(logits, dim=1),
            head=probe.head,
        )
        if keep:
            self._cache["embeddings"] = embeddings.rows

    def hidden_means(self, layers=None, *, positions=None):
        """Average what inner layers of the network give over all places of a row.

        Parameters
        ----------
        layers : sequence of str, default=None
            Names of layers whose outputs have their channels in dimension 1, or of
            nn.Linear, in the last. None finds up to four nn.Linear and convolutions,
            not the head, evenly spread; of convolutions only what is positive counts.
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
            view = PoolView(self.estimator, self._X, random_state=self.random_state)
            view._rows = np.asarray(positions, dtype=np.int64)
            if self._rows is not None:
                view._rows = self._rows[view._rows]
            return view.hidden_means(layers)
        if len(self) == 0:
            raise ValueError("the pool is empty: X has no rows.")
        net, means = self._net, {}
        net.check_is_fitted()
        probe = HiddenMeans(net.module_, layers)
        with running(self._net, self.random_state or 0), probe:
            for batch in self._batches():
                output = net.evaluation_step(batch, training=False)
                output = output[0] if isinstance(output, tuple) else output
                for name, rows in probe.read(len(output)).items():
                    means.setdefault(name, Collected(len(self))).add(rows)
        for collected in means.values():
            self._check_count(collected.count)
        return {name: collected.rows for name, collected in means.items()}

    @contextmanager
    def input_gradients(self):
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
        net = self._net
        probe = HeadProbe(net.module_, self.embedding_layer)
        with running(self._net, self.random_state or 0) as modes:
            with parameters_frozen(modes), probe:
                net._set_training(False)
                batches = (input_batch(x, net) for x, _ in self._batches())
                yield batches, differentiable_logits(net, probe)

    def _batches(self):
        if transformers_of(self.estimator):
            return predict_batches(self._net, self.features)
        return predict_batches(self._net, self._X, self._rows)

    def _check_count(self, n_outputs):
        if n_outputs != len(self):
            raise ValueError(
                f"{type(self._net).__name__} gave {n_outputs} rows of outputs for a "
                f"pool of {len(self)} rows; leave drop_last and sampler out of "
                "iterator_valid__..., and let the network give one row a sample."
            )
