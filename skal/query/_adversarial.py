"""Strategies that read gradients with respect to the input of the network.

References
----------
.. [Ducoffe2018] Ducoffe and Precioso, "Adversarial active learning for deep networks: a
   margin based approach", arXiv:1802.09841, 2018.
.. [Moosavi2016] Moosavi-Dezfooli, Fawzi and Frossard, "DeepFool: a simple and accurate
   method to fool deep neural networks", CVPR 2016.
"""

from dataclasses import dataclass
from numbers import Integral, Real

import torch

from skal.query._base import ScoreQuery
from skal.utils.validation import Interval


@dataclass(kw_only=True, eq=False, repr=False)
class DeepFoolQuery(ScoreQuery):
    """Take the rows that the smallest perturbation of the input moves to another class.

    The score is minus the length of the perturbation ``r`` that DeepFool finds [1]_
    (section 3): while ``x + r`` has its old class ``y``, ``r`` goes to the nearest
    boundary of the linearised logits ``f``, that of the class ``k`` with the smallest
    ``|f_k - f_y| / |grad f_k - grad f_y|`` [2]_ (algorithm 2).

    Parameters
    ----------
    max_iter : int, default=50
        Steps at most. Rows whose class is still the old one rank last.
    overshoot : float, default=0.02
        The class is looked up at ``x + (1 + overshoot) r``, beyond the boundary; the
        length is that of ``r``.
    n_classes : int, default=None
        Look for the nearest boundary among the classes with the largest logits only,
        so many with the predicted one; each further one costs a backward pass a step.
        None takes all.
    random_state : int, default=None
        Breaks ties; see `QueryStrategy`.

    Notes
    -----
    Needs a skorch net whose input is one tensor of floating-point numbers. Lengths are
    Euclidean, in the units of that input: after the transformers of a Pipeline and the
    transforms of a Dataset.

    A batch is perturbed at once, and rows leave it when their class changes. Rows
    without a gradient, which no step can move, rank last with those of `max_iter`.

    The paper also trains on the perturbed rows, under the label of the original; a
    query only chooses rows, so this is left out, as in all public code. Public code
    steps towards the last class, not the nearest boundary.

    References
    ----------
    .. [1] Ducoffe and Precioso, "Adversarial active learning for deep networks: a
       margin based approach", arXiv:1802.09841, 2018.
    .. [2] Moosavi-Dezfooli, Fawzi and Frossard, "DeepFool: a simple and accurate method
       to fool deep neural networks", CVPR 2016.

    Examples
    --------
    >>> import torch
    >>> from sklearn.datasets import load_iris
    >>> from skorch import NeuralNetClassifier
    >>> from skal import DeepFoolQuery, PoolView
    >>> X, y = load_iris(return_X_y=True)
    >>> net = NeuralNetClassifier(
    ...     torch.nn.Linear,
    ...     module__in_features=4,
    ...     module__out_features=3,
    ...     criterion=torch.nn.CrossEntropyLoss,
    ...     verbose=0,
    ... ).fit(X.astype("float32"), y)
    >>> DeepFoolQuery().query(PoolView(net, X), 3).shape
    (3,)
    """

    max_iter: int = 50
    overshoot: float = 0.02
    n_classes: int | None = None
    random_state: int | None = None

    requires = ("input_gradients",)
    _parameter_constraints = {
        **ScoreQuery._parameter_constraints,
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "overshoot": [Interval(Real, 0, None, closed="left")],
        "n_classes": [Interval(Integral, 2, None, closed="left"), None],
    }

    def _score(self, pool):
        with pool.input_gradients() as (batches, logits):
            return -torch.cat([self._lengths(x, logits) for x in batches])

    def _lengths(self, x, logits):
        """Lengths of the perturbations of a batch, infinite where there is none."""
        lengths = x.new_full((len(x),), torch.inf)
        rows, r = torch.arange(len(x), device=x.device), torch.zeros_like(x)
        for step in range(self.max_iter):
            with torch.enable_grad():
                point = (x + r).requires_grad_()
                z = logits(point)
            if step == 0:
                order = z.argsort(dim=1, descending=True, stable=True)
                order = order[:, : self.n_classes]
            distance, direction = _nearest_boundary(point, z, order)
            movable = distance.isfinite()
            r = r + _over(x, torch.where(movable, distance, 0)) * direction
            with torch.no_grad():
                z = logits(x + (1 + self.overshoot) * r)
            changed = (z.argmax(1) != order[:, 0]) & ~z.isnan().any(1)
            found = changed | (distance == 0)  # x + r is on the boundary already
            lengths[rows[found]] = r[found].flatten(1).norm(dim=1)
            left = movable & ~found
            if not left.any():
                break
            rows, x, r, order = rows[left], x[left], r[left], order[left]
        return lengths


def _nearest_boundary(x, z, order):
    """Distance to the nearest boundary of the linearised logits, and unit direction.

    `z` has the logits of `x` with their graph, `order` the predicted class of each row
    first, then its rivals. Without a gradient to a boundary the distance is infinite.
    """
    nearest, direction = x.new_full((len(x),), torch.inf), torch.zeros_like(x)
    each = torch.arange(len(x), device=x.device)
    old, *rivals = order.unbind(1)
    for rival in rivals:
        ahead = torch.zeros_like(z)
        ahead[each, rival], ahead[each, old] = 1, -1
        # Rows do not meet in the network, so one pass gives the gradient of each.
        (w,) = torch.autograd.grad(z, x, ahead, retain_graph=True)
        norm = w.flatten(1).norm(dim=1)
        distance = (z[each, rival] - z[each, old]).detach().abs() / norm
        nearer = distance < nearest  # never where norm is 0
        nearest = torch.where(nearer, distance, nearest)
        direction = torch.where(_over(x, nearer), w / _over(x, norm), direction)
    return nearest, direction


def _over(x, values):
    """Give one value a row the dimensions of `x`."""
    return values.reshape(-1, *[1] * (x.ndim - 1))
