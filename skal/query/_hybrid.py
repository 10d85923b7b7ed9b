"""Strategies that read predictions and embeddings.

References
----------
.. [Ash2020] Ash, Zhang, Krishnamurthy, Langford and Agarwal, "Deep batch active
   learning by diverse, uncertain gradient lower bounds", ICLR 2020.
"""

import torch

from skal.query._base import QueryStrategy
from skal.selection import kmeans_plusplus
from skal.utils.validation import StrOptions


class BadgeQuery(QueryStrategy):
    """Take rows by k-means++ seeding over the gradients of the last layer.

    With the predicted class as label, the gradient of the cross-entropy with respect to
    the head is ``g = (p - e_argmax(p)) x [h, 1]`` [1]_ (equation 1): long where the
    model is unsure, and spread by D^2 sampling (algorithm 1).

    Parameters
    ----------
    first : {"norm", "uniform"}, default="norm"
        The first pick: the longest gradient, as in the authors' code, or a random one,
        as in the paper. Among equally long ones "norm" takes the lowest position.
    random_state : int, default=None
        See `QueryStrategy`.

    Notes
    -----
    The outer product is never formed: extra memory is one copy of the embeddings, not
    n_classes of them. The 1 stands for the bias and is left out where the head has
    none, as in the authors' network. For an estimator without a network, ``h`` are its
    rows, and the 1 is there.

    References
    ----------
    .. [1] Ash, Zhang, Krishnamurthy, Langford and Agarwal, "Deep batch active learning
       by diverse, uncertain gradient lower bounds", ICLR 2020.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skal import BadgeQuery, PoolView
    >>> X, y = load_iris(return_X_y=True)
    >>> pool = PoolView(LogisticRegression(max_iter=1000).fit(X, y), X)
    >>> BadgeQuery(random_state=0).query(pool, 3).shape
    (3,)
    """

    requires = ("proba", "embeddings", "head_bias")
    _parameter_constraints = {
        **QueryStrategy._parameter_constraints,
        "first": [StrOptions({"norm", "uniform"})],
    }

    def __init__(self, *, first="norm", random_state=None):
        super().__init__(random_state=random_state)
        self.first = first

    def _query(self, pool, n_samples, rng):
        proba, h = pool.proba, pool.embeddings
        residual = proba.clone()
        residual.scatter_add_(
            1, proba.argmax(1, keepdim=True), -torch.ones_like(proba[:, :1])
        )
        if pool.head_bias is not None or pool.head_weight is None:
            h = torch.cat([h, torch.ones_like(h[:, :1])], dim=1)
        return kmeans_plusplus(
            (residual, h), n_samples, first=self.first, random_state=rng
        )
