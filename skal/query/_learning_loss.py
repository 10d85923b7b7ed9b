"""A strategy that trains, along with the network, a module that predicts its loss.

References
----------
.. [Yoo2019] Yoo and Kweon, "Learning loss for active learning", CVPR 2019.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from numbers import Real
from typing import Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from skorch import NeuralNet

from skal.models import LossPrediction, RankingLoss
from skal.net.auxiliary_rows import N_AT_ONCE
from skal.net.joint_training import PredictsLosses, RankingSettings
from skal.net.pool_features import PoolFeatures
from skal.net.training import extend_net, final_estimator, net_to_prepare
from skal.pool import PoolView
from skal.query._base import SubsetQuery, trained_along
from skal.utils.scratch import Scratch
from skal.utils.seeds import isolated_rng
from skal.utils.validation import Interval, check_is_fitted, check_params


def _check_module(aux):
    """Raise where the module of a net does not predict a loss for each row."""
    try:
        with isolated_rng(0), torch.no_grad():
            module = aux.module([2, 3], **aux.get_params_for("module"))
            shape = tuple(module([torch.zeros(4, 2), torch.zeros(4, 3)]).shape)
    except Exception as error:  # a module of the user's may raise anything
        shape = f"{type(error).__name__}: {error}"
    if shape != (4,):
        raise ValueError(
            f"aux: the module of LearningLossQuery must be a class like "
            "skal.models.LossPrediction, called with the widths of the layers, that "
            f"gives one number a row; {aux.module!r} for 4 rows of widths [2, 3] gave "
            f"{shape}."
        )


@dataclass(kw_only=True, eq=False, repr=False)
class LearningLossQuery(SubsetQuery):
    """Take rows with the highest loss, as a module trained with the network predicts.

    A small module reads inner layers of the network and learns to rank the losses of
    pairs of rows; its gradient also trains the network. Of a random subset of the pool,
    the rows with the highest predicted losses are taken [1]_.

    Parameters
    ----------
    aux : skorch.NeuralNet, default=None
        Its module, with the arguments and outputs of `skal.models.LossPrediction`, is
        what is trained along, by the network's optimizer; set its width by
        ``aux__module__width=64``. Its other parameters play no part.
    layers : sequence of str, default=None
        Names of the layers that the module reads; None finds up to four, see
        `PoolView.hidden_means`: of a convolutional network the last outputs at each
        size of the image, such as those of the stages of a residual one.
    weight : float, default=1.0
        The paper's lambda: of the ranking loss, added to the network's.
    margin : float, default=1.0
        The paper's xi; see `skal.models.RankingLoss`.
    detach_at : float, default=0.6
        From this fraction of `max_epochs` on, the module no longer trains the network.
    subset : int, "auto" or None, default="auto"
        Choose among so many rows of the pool, drawn at random, but at least as many as
        are asked for; "auto" is ten times as many, None all. It is all that makes a
        batch diverse.
    random_state : int, default=None
        Seeds the subset, too, and breaks ties; see `QueryStrategy`.

    Attributes
    ----------
    module_ : nn.Module
        What predicts the losses.
    layers_ : tuple of str
        The layers that it reads. The `history` of the network has the `ranking_loss` of
        each epoch.

    Notes
    -----
    `ActiveLearningLoop` prepares its network, as ``prepare(net)`` does before a fit of
    your own; it needs a skorch net, or a Pipeline that ends in one, and switches its
    `compile` off.

    Outputs of an nn.Linear are read before its activation, which may be a plain
    function; of images, only what is positive is averaged, so that those before and
    after a ReLU are the same. The module is optimised like the network, and of equal
    losses neither is ranked first.

    Worth it from some hundred labels on: at 500 + 4 x 500 of Fashion-MNIST, pool
    20,000, the mean accuracy over five seeds was +.006, +.005, +.003, -.001 and +.008
    from random's, at 2,000 + 4 x 1,000 +.004, +.010, +.008, +.010 and +.007, and +.001
    to +.009 from random rows with the same training; `MarginQuery` was .012 to .019 and
    .009 to .014 ahead of random. On letter, 1,000 + 4 x 500, it was level with random:
    to train along costs there what the choice gains.

    On plain classification, the entropy of the same network ranks losses better than
    this module does, and an independent study of five trials found `EntropyQuery` ahead
    on CIFAR-10.

    References
    ----------
    .. [1] Yoo and Kweon, "Learning loss for active learning", CVPR 2019.

    Examples
    --------
    >>> from skorch import NeuralNetClassifier
    >>> from sklearn.datasets import load_digits
    >>> from skal import LearningLossQuery, PoolView
    >>> from skal.models import MLP
    >>> from torch.nn import CrossEntropyLoss
    >>> X, y = load_digits(return_X_y=True)
    >>> net = NeuralNetClassifier(
    ...     MLP, module__n_inputs=64, module__n_classes=10, criterion=CrossEntropyLoss,
    ...     iterator_train__shuffle=True, train_split=None, verbose=0,
    ... )
    >>> query = LearningLossQuery(random_state=0)
    >>> net = query.prepare(net).fit(X[:100].astype("float32"), y[:100])
    >>> pool = PoolView(net, X[100:].astype("float32"), random_state=0)
    >>> query.fit(pool).query(pool, 3).shape, query.layers_
    ((3,), ('features.1',))
    """

    aux: NeuralNet | None = None
    layers: Sequence[str] | None = None
    weight: float = 1.0
    margin: float = 1.0
    detach_at: float = 0.6
    subset: int | str | None = "auto"
    random_state: int | None = None

    requires = ("hidden_means",)
    training_note = "the network is trained to rank losses, too"
    _parameter_constraints = {
        **SubsetQuery._parameter_constraints,
        "layers": [list, tuple, None],
        "weight": [Interval(Real, 0, None, closed="left")],
        "margin": [Interval(Real, 0, None, closed="neither")],
        "detach_at": [Interval(Real, 0, 1, closed="both")],
    }

    def _default_aux(self):
        return NeuralNet(LossPrediction, criterion=RankingLoss)

    def prepare(
        self, estimator: BaseEstimator, *, pool_features: PoolFeatures | None = None
    ) -> BaseEstimator:
        """Let a network train a module that predicts its losses, in place.

        Parameters
        ----------
        estimator : skorch net, or Pipeline that ends in one
            An unfitted private clone.
        pool_features : callable, default=None
            Plays no part.

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
        aux = self._active_aux
        _check_module(aux)
        extend_net(net, PredictsLosses)
        net.ranking_ = RankingSettings(
            aux.module,
            aux.get_params_for("module"),
            None if self.layers is None else tuple(self.layers),
            self.weight,
            RankingLoss(self.margin),
            self.detach_at,
        )
        return estimator

    def fit(self, pool: PoolView) -> Self:
        """Take the module that was trained with the network.

        Parameters
        ----------
        pool : PoolView
            Of a network that `prepare` changed before its fit.

        Returns
        -------
        self : LearningLossQuery

        Raises
        ------
        ValueError
            Where a parameter is wrong, or the network was not prepared.
        """
        check_params(self)
        self.module_ = trained_along(self, pool, "loss_module_")
        self.layers_ = final_estimator(pool.estimator).layers_
        return self

    def _score(self, pool, positions=None):
        check_is_fitted(self, "module_")
        module = deepcopy(self.module_).cpu().double().eval()
        positions = np.arange(len(pool)) if positions is None else positions

        def part_of(place):
            means = pool.hidden_means(self.layers_, positions=positions[place])
            with torch.no_grad():
                return module([mean.cpu().double() for mean in means.values()])

        scores = Scratch().gather(len(positions), N_AT_ONCE, part_of)
        if not bool(scores.isfinite().all()):
            raise ValueError(
                "the predicted losses are not finite: X holds NaN, or training "
                "diverged; clean X or lower the learning rate."
            )
        return scores
