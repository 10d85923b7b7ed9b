"""A strategy that trains the network to see labelled and unlabelled rows alike.

References
----------
.. [Shui2020] Shui, Zhou, Gagne and Wang, "Deep active learning: unified and principled
   method for query and training", AISTATS 2020.
"""

import math
from numbers import Integral, Real
from typing import NamedTuple

import numpy as np
import torch
from skorch import NeuralNet
from skorch.dataset import get_len, unpack_data
from torch.utils.data import DataLoader

from skal.models import WassersteinCritic
from skal.query._base import AuxiliaryQuery, ScoreQuery
from skal.utils.auxiliary import device_of, private_auxiliary
from skal.utils.auxiliary_rows import AuxiliaryRows, Cycle
from skal.utils.gradients import parameters_frozen
from skal.utils.heads import HeadProbe, missing_head
from skal.utils.training import (
    check_finite_loss,
    extend_net,
    final_estimator,
    label_dtype,
    net_to_prepare,
)
from skal.utils.validation import Interval, check_is_fitted, check_params


class _Settings(NamedTuple):
    """What the strategy tells the net that it prepares."""

    aux: NeuralNet
    alpha: float
    max_pool_per_epoch: int
    pool_features: object


class MatchesPool:
    """Mixin of the private net: train it, and a critic, on pairs of batches."""

    matching_ = pairs_ = waal_critic_ = None

    def __sklearn_clone__(self):
        """Clone the settings, too."""
        other = super().__sklearn_clone__()
        other.matching_ = self.matching_
        return other

    def __getstate__(self):
        """Leave out the rows of the pool."""
        settings = self.matching_._replace(pool_features=None)
        return super().__getstate__() | {"matching_": settings, "pairs_": None}

    def initialize_module(self):
        """Make the module; a critic is made when its embeddings are known."""
        super().initialize_module()
        self.waal_critic_ = None
        return self

    def fit(self, X, y=None, **fit_params):
        """Fit, then let go of the rows of the pool."""
        try:
            return super().fit(X, y, **fit_params)
        finally:
            self.matching_ = self.matching_._replace(pool_features=None)
            self.pairs_ = None

    def on_epoch_begin(self, net, dataset_train=None, **kwargs):
        """Count the labelled rows that train."""
        super().on_epoch_begin(net, dataset_train=dataset_train, **kwargs)
        self.n_labeled_ = len(dataset_train)

    def run_single_epoch(self, iterator, training, prefix, step_fn, **fit_params):
        """Pair the batches that train with batches of the pool."""
        if training and self.matching_.pool_features:
            if self.pairs_ is None or self.pairs_.source is not iterator:
                self.pairs_ = _Pairs(self, iterator, self.n_labeled_)
            iterator = self.pairs_
        super().run_single_epoch(iterator, training, prefix, step_fn, **fit_params)

    def train_step_single(self, batch, **fit_params):
        """Run both batches as one, then update the critic, then the network."""
        if self.pairs_ is None:
            return super().train_step_single(batch, **fit_params)
        self._set_training(True)
        x, y = unpack_data(batch)
        n_labeled = get_len(x)
        with self.pairs_.probe as probe:
            output = self.infer(_join(x, self.pairs_.unlabeled), **fit_params)
            scores = output[0] if isinstance(output, tuple) else output
            z, _ = probe.read(scores)
        check_finite_loss((scores if z is None else z).sum(), self)
        if z is None:
            raise missing_head(self.module_)
        output = _first(output, n_labeled, len(scores))
        loss = self.get_loss(output, y, X=x, training=True)
        labeled, unlabeled = z[:n_labeled].float(), z[n_labeled:].float()
        critic = self._train_critic(unlabeled.detach(), labeled.detach())
        if self.matching_.alpha:
            with parameters_frozen([critic.module_]):
                distance = critic.distance(unlabeled, labeled)
            loss = loss + self.matching_.alpha * distance.to(loss)
        check_finite_loss(loss, self)
        loss.backward()
        return {"loss": loss, "y_pred": output}

    def _train_critic(self, unlabeled, labeled):
        if self.waal_critic_ is None:
            self.waal_critic_ = private_auxiliary(
                self.matching_.aux,
                device=labeled.device,
                defaults=_critic_defaults(labeled.shape[1]),
            ).initialize()
        critic = self.waal_critic_
        if self.pairs_.begins:
            critic.history.new_epoch()
            self.pairs_.begins = False
        for _ in range(critic.n_critic):
            critic.history.new_batch()
            loss = critic.update(unlabeled, labeled)
            critic.history.record_batch("train_loss", loss.item())
        return critic

    def on_epoch_end(self, net, *args, **kwargs):
        """Note the means of the critic's curves."""
        super().on_epoch_end(net, *args, **kwargs)
        if self.pairs_ is not None:
            history = self.waal_critic_.history
            for name in ("train_loss", "distance"):
                history.record(name, float(np.mean(history[-1, "batches", :, name])))


class _Pairs:
    """The labelled batches of an epoch, each with one of the pool in `unlabeled`."""

    def __init__(self, net, labeled, n_labeled):
        self.net, self.source, self.labeled = net, labeled, self._cycle(labeled)
        pool = self.features = net.matching_.pool_features
        self.probe = HeadProbe(net.module_, pool.embedding_layer, keep_graph=True)
        self.order = Cycle(torch.arange(len(pool)))
        self.n_rows = min(
            len(pool),
            net.matching_.max_pool_per_epoch,
            max(n_labeled, math.ceil(len(pool) / 4)),
        )
        share = max(1, self.n_rows / n_labeled)
        self.n_batches = math.ceil(len(labeled) * share)
        if self.n_batches == 0:
            raise ValueError(
                f"the iterator_train of the net makes no batch of {n_labeled} rows; "
                f"lower its batch size, batch_size={net.batch_size}, or leave "
                "drop_last out."
            )

    def __len__(self):
        return self.n_batches

    def __iter__(self):
        self.begins = True
        for batch in self._pool_batches():
            self.unlabeled, _ = unpack_data(batch)
            yield next(self.labeled)

    @staticmethod
    def _cycle(batches):
        while True:
            yield from batches

    def _pool_batches(self):
        """Let the net's own loader options make batches of the next rows."""
        positions = self.order.take(self.n_rows).numpy()
        positions = np.resize(positions, max(self.n_rows, self.n_batches))
        labels = np.zeros(len(positions), dtype=label_dtype(self.net))
        dataset = self.net.get_dataset(self.features(positions), labels)
        options = self.net.get_params_for("iterator_train")
        kept = ("collate_fn", "num_workers", "pin_memory", "worker_init_fn")
        return DataLoader(
            dataset,
            batch_sampler=np.array_split(np.arange(len(positions)), self.n_batches),
            **{name: options[name] for name in kept if name in options},
        )


def _join(first, second):
    if isinstance(first, dict):
        return {key: _join(value, second[key]) for key, value in first.items()}
    if isinstance(first, tuple | list):
        return type(first)(map(_join, first, second))
    return torch.cat([first, second])


def _first(output, n, n_rows):
    """Take the first rows of what a network returns, and what has none as it is."""
    if isinstance(output, tuple):
        return tuple(_first(part, n, n_rows) for part in output)
    has_rows = isinstance(output, torch.Tensor) and output.shape[:1] == (n_rows,)
    return output[:n] if has_rows else output


def _critic_defaults(n_features):
    width = max(50, min(512, n_features))
    return {"module__shape": (n_features,), "module__hidden": (width, width)}


class WaalQuery(AuxiliaryQuery, ScoreQuery):
    """Train the network on the pool, too; take rows that are uncertain and unlike.

    A critic ``g`` estimates how far the embeddings of labelled and unlabelled rows are
    apart (Wasserstein distance ``W``), and the network learns to bring them together
    while it learns the labels. Rows are taken that are uncertain, and that ``g`` finds
    unlike the labelled ones [1]_ (sections 3.2 and 3.3).

    Parameters
    ----------
    aux : WassersteinCritic, default=None
        The critic. None has two hidden layers as wide as the embedding, but 50 at least
        and 512 at most. Set its parameters as in ``aux__lr``, ``aux__n_critic`` (steps
        for each of the network) or ``aux__module__hidden=(64, 64)``; `aux__max_iter`
        and `aux__max_epochs` matter for a network that was fitted before.
    alpha : float, default=1e-3
        Of ``W`` in the loss of the network. With 1e-2 and more accuracy may drop by 5
        to 15 points, where the labelled rows are not drawn like the others.
    uncertainty_weight, diversity_weight : float, default=1.0
        Of the uncertainty and of the critic in the score. Where both are 0, rows are
        random: what the choice of rows adds to the training is seen beside that.
    max_pool_per_epoch : int, default=1000
        So many rows of the pool, at most, are seen in an epoch, others in the next.
    random_state : int, default=None
        Breaks ties, and seeds the critic of a network that was fitted before; see
        `QueryStrategy`.

    Attributes
    ----------
    aux_ : WassersteinCritic
        The critic of the last round; its `history` has the `distance` by epoch.

    Notes
    -----
    Training is semi-supervised: the network sees unlabelled rows, and its labelled ones
    several times an epoch. Compare its accuracy with that of random rows and the same
    training (both weights 0), not with that of a network trained on labels alone.

    `ActiveLearningLoop` prepares its network; it needs a skorch net, or a Pipeline that
    ends in one, and switches its `compile` off. For a network that was not prepared,
    `fit` trains a critic on its embeddings and leaves the network alone.

    An epoch shows as many rows of the pool as of the labelled ones, which return until
    a quarter of the pool was seen, or `max_pool_per_epoch` rows: with critic, at most
    n_unlabeled / n_labeled + 2 times the work of a plain epoch. The paper goes through
    the whole pool, at twice that. Both kinds of rows go through the network as one
    batch, so that BatchNorm cannot tell them apart.

    The uncertainty is the paper's, half the 1-norm and half the 2-norm of the losses
    ``-log p`` of all classes, smallest where the classes are equally probable. It has
    no upper bound, and the authors' critic at most 1, so both are standardised over
    the pool before they are added. The authors' code maximises the gradient penalty,
    which makes the critic flat, and multiplies its loss by `alpha`.

    References
    ----------
    .. [1] Shui, Zhou, Gagne and Wang, "Deep active learning: unified and principled
       method for query and training", AISTATS 2020.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skorch import NeuralNetClassifier
    >>> from skal import ActiveLearningLoop, WaalQuery
    >>> from skal.models import MLP
    >>> from torch.nn import CrossEntropyLoss
    >>> X, y = load_digits(return_X_y=True)
    >>> net = NeuralNetClassifier(
    ...     MLP, module__n_inputs=64, module__n_classes=10, criterion=CrossEntropyLoss,
    ...     verbose=0,
    ... )
    >>> loop = ActiveLearningLoop(net, WaalQuery(), n_rounds=1, random_state=0)
    >>> loop.fit(X[:300].astype("float32"), y[:300]).history_["n_labeled"]
    array([10, 20])
    """

    requires = ("log_proba", "embeddings", "labeled.embeddings")
    training_note = "semi-supervised: the network is trained on unlabelled rows, too"
    _parameter_constraints = {
        **AuxiliaryQuery._parameter_constraints,
        "aux": [WassersteinCritic, None],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "uncertainty_weight": [Interval(Real, 0, None, closed="left")],
        "diversity_weight": [Interval(Real, 0, None, closed="left")],
        "max_pool_per_epoch": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        *,
        aux=None,
        alpha=1e-3,
        uncertainty_weight=1.0,
        diversity_weight=1.0,
        max_pool_per_epoch=1000,
        random_state=None,
    ):
        super().__init__(aux=aux, random_state=random_state)
        self.alpha = alpha
        self.uncertainty_weight = uncertainty_weight
        self.diversity_weight = diversity_weight
        self.max_pool_per_epoch = max_pool_per_epoch

    def _default_aux(self):
        return WassersteinCritic()

    def prepare(self, estimator, *, pool_features=None):
        """Let a network train on rows of the pool, too, in place.

        Parameters
        ----------
        estimator : skorch net, or Pipeline that ends in one
            A private clone, or that of the last round.
        pool_features : PoolFeatures, default=None
            The rows, made when asked; dropped after the next fit. None changes nothing.

        Returns
        -------
        estimator : the same estimator

        Raises
        ------
        ValueError
            Where a parameter is wrong, or the estimator is something else.
        """
        super().prepare(estimator)
        net = net_to_prepare(estimator, type(self).__name__)
        if pool_features is not None:
            extend_net(net, MatchesPool)
            aux = self._default_aux() if self.aux is None else self.aux
            net.matching_ = _Settings(
                aux, self.alpha, self.max_pool_per_epoch, pool_features
            )
            if net.compile:
                net.set_params(compile=False)
        return estimator

    def fit(self, pool):
        """Take the critic that was trained with the network, or train one now.

        Parameters
        ----------
        pool : PoolView
            With labelled rows, where the network was not prepared.

        Returns
        -------
        self : WaalQuery

        Raises
        ------
        ValueError
            Where a parameter is wrong, or the network was not prepared and there are no
            labelled rows; where embeddings or losses are not finite.
        """
        check_params(self)
        critic = getattr(final_estimator(pool.estimator), "waal_critic_", None)
        if critic is not None:
            self.aux_ = critic
            return self
        self._check_labeled(pool)
        pool.prefetch(self.requires)
        rows = AuxiliaryRows(pool.embeddings, pool.labeled.embeddings, paired=True)
        rows.statistics()  # raises where they are not finite
        self._fit_aux(
            rows,
            seed=int(self._generator(pool).integers(2**32)),
            device=device_of(pool.estimator),
            defaults=_critic_defaults(*rows.shape),
        )
        return self

    def _score(self, pool):
        check_is_fitted(self, "aux_")
        certainty = _certainty(pool.log_proba.cpu().double())
        unlike = self.aux_.scores(pool.embeddings.float()).cpu().double()
        score = self.diversity_weight * _standardized(unlike)
        score -= self.uncertainty_weight * _standardized(certainty)
        # Rounded, so that equal rows tie wherever they stand.
        return (score * 4096).round()


def _certainty(log_proba):
    """Half the 1-norm and half the 2-norm of the losses of all classes."""
    losses = -log_proba.clamp_min(-1e3)  # that of probability 0
    return (losses.norm(p=1, dim=1) + losses.norm(p=2, dim=1)) / 2


def _standardized(values):
    """Shift and scale to mean 0 and deviation 1, or to 0 what differs by rounding."""
    deviation = values.std(correction=0)
    if deviation <= 1e-5 * values.abs().max():
        return torch.zeros_like(values)
    return (values - values.mean()) / deviation
