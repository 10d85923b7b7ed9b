"""Rows of the pool for strategies that train the network on them, too."""

import numpy as np

from skal.net.inputs import net_rows
from skal.net.training import final_estimator, is_net, transformers_of
from skal.utils.rows import as_rows, n_rows, take


class PoolFeatures:
    """Rows of the pool as the final estimator of a Pipeline gets them, made when asked.

    Parameters
    ----------
    estimator : estimator
        The one that is to be prepared: a net, or a Pipeline whose transformers are
        fitted by the time that rows are asked for.
    X : array, DataFrame, sparse matrix, memmap, tensor or map-style Dataset
        Never copied as a whole.
    rows : int64 array of shape (n_samples,), default=None
        Row numbers in `X` of the pool; None is all.
    embedding_layer : str, default="auto"
        See `skal.PoolView`.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skal.net.pool_features import PoolFeatures
    >>> features = PoolFeatures(LogisticRegression(), np.eye(4), [3, 1, 0])
    >>> len(features), features([0])
    (3, array([[0., 0., 0., 1.]]))
    """

    def __init__(self, estimator, X, rows=None, *, embedding_layer="auto"):
        self.estimator = estimator
        self.X = as_rows(X)
        self.rows = np.arange(n_rows(X)) if rows is None else np.asarray(rows)
        self.embedding_layer = embedding_layer

    def __len__(self):
        return len(self.rows)

    def __call__(self, positions):
        """Give rows of the pool.

        Parameters
        ----------
        positions : int64 array of shape (n_rows,)
            In the pool, not in `X`.

        Returns
        -------
        features : rows
            The kind of container that the transformers give; lazy for a Dataset.
        """
        rows = take(self.X, self.rows[positions])
        for transformer in transformers_of(self.estimator):
            rows = transformer.transform(rows)
        net = final_estimator(self.estimator)
        return net_rows(net, rows, copy=True) if is_net(net) else rows
