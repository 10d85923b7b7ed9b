"""Strategies that train a network on a neighbour graph of the embeddings.

References
----------
.. [Caramalau2021] Caramalau, Bhattarai and Kim, "Sequential graph convolutional network
   for active learning", CVPR 2021.
"""

from copy import deepcopy
from dataclasses import dataclass
from numbers import Integral, Real
from operator import itemgetter
from typing import Self

import numpy as np
import torch
from skorch import NeuralNet
from torch.utils.data import Subset

from skal.models import GCN, GCNLoss, similarity_graph
from skal.pool import PoolView
from skal.query._base import AuxiliaryQuery
from skal.selection import k_center_greedy, top_k
from skal.utils.seeds import isolated_rng
from skal.utils.validation import (
    Interval,
    StrOptions,
    check_is_fitted,
)


class _GcnQuery(AuxiliaryQuery):
    """What both share: the graph of pool and labelled rows, and its network."""

    requires = ("embeddings", "labeled.embeddings")
    _parameter_constraints = {
        **AuxiliaryQuery._parameter_constraints,
        "graph": [StrOptions({"auto", "gram", "knn"})],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "subset": [Interval(Integral, 1, None, closed="left"), None],
    }

    def _default_aux(self):
        return NeuralNet(
            GCN,
            criterion=GCNLoss,
            optimizer=torch.optim.Adam,
            optimizer__weight_decay=5e-4,
            lr=1e-3,
            max_epochs=200,
            verbose=0,
        )

    def fit(self, pool: PoolView) -> Self:
        """Train the graph network to tell labelled rows from those of the pool.

        Parameters
        ----------
        pool : PoolView
            With labelled rows.

        Returns
        -------
        self : QueryStrategy

        Raises
        ------
        ValueError
            Where a parameter is wrong, there are no labelled rows, embeddings are not
            finite, or "gram" meets negative ones.
        """
        self.seed_ = self._begin(pool)
        candidates, nodes = self._nodes(pool, 1)
        nodes = nodes.float()
        is_labeled = torch.arange(len(nodes), device=nodes.device) >= len(candidates)
        # One batch is all there is, so no part of it can be held out.
        self._fit_aux(
            Subset([(self._inputs(nodes), is_labeled)], [0]),
            seed=self.seed_,
            device=nodes.device,
            defaults={"module__n_inputs": nodes.shape[1]},
            train_split=None,
            iterator_train__collate_fn=itemgetter(0),
            iterator_valid__collate_fn=itemgetter(0),
        )
        return self

    def _nodes(self, pool, n_least):
        """Positions of the candidates; their embeddings, then the labelled ones."""
        candidates, embeddings = np.arange(len(pool)), pool.embeddings
        if self.subset is not None and max(self.subset, n_least) < len(pool):
            order = np.random.default_rng(self.seed_).permutation(len(pool))
            candidates = order[: max(self.subset, n_least)]
            embeddings = embeddings[torch.from_numpy(candidates).to(embeddings.device)]
        nodes = torch.cat([embeddings, pool.labeled.embeddings])
        if nodes.device.type == "mps":  # no float64 there
            nodes = nodes.cpu()
        if not bool(torch.isfinite(nodes).all()):
            raise ValueError(
                "the embeddings have NaN or infinite entries; check that the estimator "
                "converged, or clean and rescale the rows."
            )
        tiny = torch.finfo(nodes.dtype).tiny
        nodes /= nodes.abs().amax(1, keepdim=True).clamp_(min=tiny)  # no overflow
        nodes /= torch.linalg.vector_norm(nodes, dim=1, keepdim=True).clamp_(min=tiny)
        return candidates, nodes

    def _inputs(self, nodes):
        """Build what the graph network takes."""
        graph = similarity_graph(nodes, self.graph, self.n_neighbors)
        return {"averaged": graph @ nodes, **graph._asdict()}

    def _outputs(self, pool, n_samples):
        """Positions of the candidates, and logits and hidden units of all nodes."""
        check_is_fitted(self, "aux_")
        candidates, nodes = self._nodes(pool, n_samples)
        nodes = nodes.double()
        module = deepcopy(self.aux_.module_).to(nodes.device).double().eval()
        with torch.no_grad(), isolated_rng(self.seed_):
            outputs = module(**self._inputs(nodes))
        if not all(bool(torch.isfinite(output).all()) for output in outputs):
            raise ValueError(
                "the graph network diverged, its outputs are not finite; lower its "
                f"learning rate, aux__lr={self.aux_.lr}."
            )
        # Rounded, so that rows with equal embeddings tie wherever they stand.
        logits, hidden = (output.float() for output in outputs)
        return candidates, logits, hidden


@dataclass(kw_only=True, eq=False, repr=False)
class UncertainGcnQuery(_GcnQuery):
    """Take rows whose probability of being labelled is near a margin.

    A network on the graph of the embeddings learns ``p``, the probability that a row is
    labelled; the rows with the smallest ``|p - s_margin|`` are taken [1]_.

    Parameters
    ----------
    aux : skorch.NeuralNet, default=None
        The graph network, trained afresh by each `fit`. None is the paper's: 128 hidden
        units, dropout .3, loss weight 1.2, Adam with a rate of .001, 200 epochs. Set
        them as in ``aux__max_epochs=50``, ``aux__lr``, ``aux__module__n_hidden``,
        ``aux__module__dropout``, ``aux__criterion__unlabeled_weight``. A net of your
        own has a module with the arguments and outputs of `skal.models.GCN`. Trained on
        the device of the estimator, unless `device` is another than "cpu".
    s_margin : float or "quantile", default=0.1
        A probability; or "quantile": the .1-quantile of ``p`` over the pool, which
        follows as the range of ``p`` moves with the number of labels.
    graph : {"auto", "gram", "knn"}, default="auto"
        All cosine similarities, as in the paper, or those to the nearest rows; "auto"
        takes the first where no embedding has a negative entry. See
        `skal.models.similarity_graph`.
    n_neighbors : int, default=10
        Of "knn"; all other rows where there are fewer.
    subset : int, default=None
        Choose among so many rows of the pool, drawn at random, but at least as many as
        are asked for. None takes all; the paper has 10,000.
    random_state : int, default=None
        Seeds the network and the subset, and breaks ties; see `QueryStrategy`.

    Attributes
    ----------
    aux_ : skorch.NeuralNet
        The graph network of the last `fit`, with its `history`.
    seed_ : int
        Its seed.

    Notes
    -----
    The matrix of similarities, a Gram matrix, is never formed, so the paper's subset is
    not needed: memory is O(n_features) a row.

    Negative embeddings, as of tanh or GELU, make degrees negative in the paper's graph;
    hence "knn". There ``p`` is nearly 0 for rows unlike all labelled ones, so that an
    ``s_margin`` of .1 may pass them over: prefer "quantile". An embedding of zeros, or
    one with nothing in common with any other, has no neighbours and stands for itself
    alone. The loss is computed from logits:
    the authors' ``log(sigmoid)`` can be infinite.

    References
    ----------
    .. [1] Caramalau, Bhattarai and Kim, "Sequential graph convolutional network for
       active learning", CVPR 2021.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skal import PoolView, UncertainGcnQuery
    >>> X, y = load_digits(return_X_y=True)
    >>> pool = PoolView(None, X[50:300], X_labeled=X[:50], random_state=0)
    >>> query = UncertainGcnQuery().set_params(aux__max_epochs=20).fit(pool)
    >>> query.query(pool, 3).shape, len(query.aux_.history)
    ((3,), 20)
    """

    aux: NeuralNet | None = None
    s_margin: float | str = 0.1
    graph: str = "auto"
    n_neighbors: int = 10
    subset: int | None = None
    random_state: int | None = None

    _parameter_constraints = {
        **_GcnQuery._parameter_constraints,
        "s_margin": [Interval(Real, 0, 1, closed="both"), StrOptions({"quantile"})],
    }

    def _query(self, pool, n_samples, rng):
        candidates, logits, _ = self._outputs(pool, n_samples)
        proba = logits[: len(candidates)].double().sigmoid().float()
        margin = self.s_margin
        if margin == "quantile":
            margin = proba.quantile(0.1)
        picks = top_k(-(proba - margin).abs(), n_samples, random_state=rng)
        return candidates[picks]


@dataclass(kw_only=True, eq=False, repr=False)
class CoreGcnQuery(_GcnQuery):
    """Take rows far from the labelled ones in the space of a graph network.

    A network on the graph of the embeddings learns which rows are labelled; over its
    hidden units and logit, each pick is the row farthest from all labelled and picked
    ones [1]_.

    Parameters
    ----------
    aux : skorch.NeuralNet, default=None
        See `UncertainGcnQuery`, as for the other parameters.
    graph : {"auto", "gram", "knn"}, default="auto"
        All cosine similarities, or those to the nearest rows.
    n_neighbors : int, default=10
        Of "knn"; all other rows where there are fewer.
    subset : int, default=None
        Choose among so many rows of the pool, drawn at random, but at least as many as
        are asked for.
    random_state : int, default=None
        Seeds the network and the subset, and breaks exact ties; see `QueryStrategy`.

    Attributes
    ----------
    aux_ : skorch.NeuralNet
        The graph network of the last `fit`, with its `history`.
    seed_ : int
        Its seed.

    Notes
    -----
    As for `UncertainGcnQuery`. The picks are those of `skal.selection.k_center_greedy`.

    References
    ----------
    .. [1] Caramalau, Bhattarai and Kim, "Sequential graph convolutional network for
       active learning", CVPR 2021.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skal import CoreGcnQuery, PoolView
    >>> X, y = load_digits(return_X_y=True)
    >>> pool = PoolView(None, X[50:300], X_labeled=X[:50], random_state=0)
    >>> query = CoreGcnQuery().set_params(aux__max_epochs=20).fit(pool)
    >>> query.query(pool, 3).shape
    (3,)
    """

    aux: NeuralNet | None = None
    graph: str = "auto"
    n_neighbors: int = 10
    subset: int | None = None
    random_state: int | None = None

    def _query(self, pool, n_samples, rng):
        candidates, logits, hidden = self._outputs(pool, n_samples)
        points = torch.cat([hidden, logits[:, None]], dim=1)
        chosen, centers = points.split([len(candidates), len(points) - len(candidates)])
        picks = k_center_greedy(chosen, n_samples, centers=centers, random_state=rng)
        return candidates[picks]
