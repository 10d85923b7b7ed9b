"""A strategy that trains the network to see labelled and unlabelled rows alike.

References
----------
.. [Shui2020] Shui, Zhou, Gagne and Wang, "Deep active learning: unified and principled
   method for query and training", AISTATS 2020.
"""

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Self

import torch
from sklearn.base import BaseEstimator
from skorch import NeuralNet

from skal.models import WassersteinCritic
from skal.net.joint_training import MatchesPool, MatchingSettings
from skal.net.pool_features import PoolFeatures
from skal.net.training import extend_net, net_to_prepare
from skal.pool import PoolView
from skal.query._base import AuxiliaryQuery, ScoreQuery, trained_along
from skal.utils.validation import Interval, check_is_fitted, check_params


@dataclass(kw_only=True, eq=False, repr=False)
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
        for each of the network) or ``aux__module__hidden=(64, 64)``.
    alpha : float, default=1e-3
        Of ``W`` in the loss of the network. With 1e-2 and more accuracy may drop by 5
        to 15 points, where the labelled rows are not drawn like the others.
    uncertainty_weight, diversity_weight : float, default=1.0
        Of the uncertainty and of the critic in the score. Where both are 0, rows are
        random: what the choice of rows adds to the training is seen beside that.
    max_pool_per_epoch : int, default=1000
        An epoch has a step for each batch of labelled rows, and more of them until so
        many rows of the pool were seen, or all; the next one begins with others. More
        than there are make an epoch of the whole pool, as the authors' is.
    random_state : int, default=None
        Breaks ties; see `QueryStrategy`.

    Attributes
    ----------
    aux_ : WassersteinCritic
        The critic of the last round. The `history` of a prepared network has the
        `distance` of each epoch and, where the network has a `train_split`, the
        `held_out_distance` from the pool to labelled rows that train neither.

    Notes
    -----
    Worth it from some thousand labels on: at 2,000 + 4 x 1,000 labels of Fashion-MNIST,
    pool 20,000, the mean accuracy of five seeds was .004 to .006 above that of random
    rows with a plain training of as many steps, and .004 to .010 above random rows with
    a plain fit, of which `MarginQuery` was .009 to .014 ahead. With fewer it did no
    better: at 500 + 4 x 500 it was -.001 from random rows with as many steps, -.002
    with `alpha` .01 and -.008 with .03; at 1,000 + 4 x 500 of letter -.001, +.002 and
    -.003, where `MarginQuery` with the steps of a plain fit was .014 and .027 ahead.

    Training is semi-supervised: the network sees unlabelled rows, and its labelled ones
    several times an epoch. Compare its accuracy with that of random rows and the same
    training (both weights 0), not with that of a network trained on labels alone.

    `ActiveLearningLoop` prepares its network; it needs a skorch net, or a Pipeline that
    ends in one, and switches its `compile` off.

    In a step a batch of labelled rows and one of the pool, as large as the network's
    batches, go through the network as one, so that BatchNorm cannot tell its rows
    apart. So with few labels an epoch has many more steps than a plain one, and a
    higher accuracy may come of these alone: compare with a plain training of as many
    steps. The critic learns labelled rows by heart: with 100 labels of Fashion-MNIST
    its `distance` was 5 to 8, from labelled rows that it had not seen -1 to 0.

    The embeddings are what goes into the last layer. The authors cut their networks
    before the last but one; name that layer as `embedding_layer` of the loop.

    The uncertainty is the paper's, half the 1-norm and half the 2-norm of the losses
    ``-log p`` of all classes, smallest where the classes are equally probable. It has
    no upper bound, and the authors' critic at most 1, so both are standardised over
    the pool before they are added. The authors' code maximises the gradient penalty,
    which makes the critic flat, multiplies its loss by `alpha`, ends it in a sigmoid,
    and weighs the labelled rows by their share; here the critic is linear, has a weight
    of the penalty that keeps `distance` within about 5 % (see
    `skal.models.WassersteinCritic`), and Adam.

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

    aux: NeuralNet | None = None
    alpha: float = 1e-3
    uncertainty_weight: float = 1.0
    diversity_weight: float = 1.0
    max_pool_per_epoch: int = 1000
    random_state: int | None = None

    requires = ("log_proba", "embeddings")
    _step = 2**-12
    training_note = "semi-supervised: the network is trained on unlabelled rows, too"
    _parameter_constraints = {
        **AuxiliaryQuery._parameter_constraints,
        "aux": [WassersteinCritic, None],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "uncertainty_weight": [Interval(Real, 0, None, closed="left")],
        "diversity_weight": [Interval(Real, 0, None, closed="left")],
        "max_pool_per_epoch": [Interval(Integral, 1, None, closed="left")],
    }

    def _default_aux(self):
        return WassersteinCritic()

    def prepare(
        self, estimator: BaseEstimator, *, pool_features: PoolFeatures | None = None
    ) -> BaseEstimator:
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
            net.matching_ = MatchingSettings(
                self._active_aux, self.alpha, self.max_pool_per_epoch, pool_features
            )
        return estimator

    def fit(self, pool: PoolView) -> Self:
        """Take the critic that was trained with the network.

        Parameters
        ----------
        pool : PoolView
            Of a network that `prepare` changed before its fit.

        Returns
        -------
        self : WaalQuery

        Raises
        ------
        ValueError
            Where a parameter is wrong, or the network was not prepared.
        """
        check_params(self)
        self.aux_ = trained_along(self, pool, "waal_critic_")
        return self

    def _score(self, pool):
        check_is_fitted(self, "aux_")
        certainty = pool.by_rows(lambda p: _certainty(p.cpu().double()), pool.log_proba)
        unlike = pool.by_rows(lambda z: self.aux_.scores(z.float()), pool.embeddings)
        score = self.diversity_weight * _standardized(unlike.cpu().double())
        score -= self.uncertainty_weight * _standardized(certainty)
        return score


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
