"""A graph network that tells labelled rows from unlabelled ones, and its graph."""

from math import inf
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import softplus

# A row whose similarities to all others sum to less has no neighbours.
LEAST_DEGREE = 1e-3

# Similarities held at a time in the search for neighbours: 64 MB in float32.
N_SIMILARITIES = 2**24


class SimilarityGraph(NamedTuple):
    """Normalised similarities ``A`` of rows: ``graph @ x`` averages over neighbours.

    ``A = D^-1 (S - diag(S)) + I``, where ``D`` has the row sums of ``S - diag(S)``
    [1]_. ``S`` is sparse, or a Gram matrix ``V V^T`` that is never formed:
    ``A x = (V (V^T x) - diag(S) x) / D + x``.

    Parameters
    ----------
    similarity : tensor of shape (n_nodes, n_features)
        ``V``; or ``S`` itself, a sparse COO tensor of shape (n_nodes, n_nodes).
    own : tensor of shape (n_nodes, 1)
        The diagonal of ``S``.
    scale : tensor of shape (n_nodes, 1)
        ``1 / D``; 0 for an isolated row, which keeps its own values alone.

    References
    ----------
    .. [1] Caramalau, Bhattarai and Kim, "Sequential graph convolutional network for
       active learning", CVPR 2021.

    Examples
    --------
    >>> import torch
    >>> from skal.models import similarity_graph
    >>> graph = similarity_graph(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 0.0]]))
    >>> graph @ torch.tensor([[1.0], [2.0], [3.0]])
    tensor([[3.],
            [3.],
            [3.]])
    """

    similarity: torch.Tensor
    own: torch.Tensor
    scale: torch.Tensor

    def __matmul__(self, x):
        s = self.similarity
        total = s @ x if s.is_sparse else s @ (s.T @ x)
        return total.addcmul_(self.own, x, value=-1).mul_(self.scale).add_(x)


def similarity_graph(
    nodes: torch.Tensor, graph: str = "auto", n_neighbors: int = 10
) -> SimilarityGraph:
    """Build the graph of rows by their cosine similarities.

    Parameters
    ----------
    nodes : tensor of shape (n_nodes, n_features)
        Rows of length 1, or 0.
    graph : {"auto", "gram", "knn"}, default="auto"
        "gram": all similarities, as in the paper, in memory O(1) beyond `nodes`. "knn":
        those to the nearest rows, negative ones set to 0, the mean of both directions.
        "auto": "gram" where no entry is negative, else "knn".
    n_neighbors : int, default=10
        Of "knn"; all other rows where there are fewer.

    Returns
    -------
    graph : SimilarityGraph
        A row whose similarities to the others sum to less than 0.001 is isolated.

    Raises
    ------
    ValueError
        Where "gram" finds a sum of similarities that is negative.
    """
    if graph == "auto":
        graph = "knn" if bool((nodes < 0).any()) else "gram"
    if graph == "gram":
        similarity, own = nodes, torch.linalg.vector_norm(nodes, dim=1, keepdim=True)
        own = own.square_()
        degree = nodes @ nodes.sum(0, keepdim=True).T - own
    else:
        similarity, own = _nearest(nodes, n_neighbors), torch.zeros_like(nodes[:, :1])
        degree = similarity @ torch.ones_like(own)
    negative = degree < -LEAST_DEGREE
    if bool(negative.any()):
        raise ValueError(
            f"graph='gram' needs embeddings without negative entries: the similarities "
            f"of {int(negative.sum())} of {len(nodes)} rows sum to less than 0 (least: "
            f"{float(degree.min()):.3g}); pass graph='auto' or 'knn'."
        )
    scale = torch.where(degree < LEAST_DEGREE, 0, 1 / degree)
    return SimilarityGraph(similarity, own, scale)


def _nearest(nodes, n_neighbors):
    """Similarities to the nearest rows, clipped and symmetric, sparse (n, n)."""
    n_nodes = len(nodes)
    n_neighbors = min(n_neighbors, n_nodes - 1)
    values, columns = [], []
    points, first = nodes.float(), 0
    for block in points.split(max(1, N_SIMILARITIES // n_nodes)):
        similarities = block @ points.T
        similarities.diagonal(first).fill_(-torch.inf)  # no row is its own neighbour
        top = similarities.topk(n_neighbors, sorted=False)
        values.append(top.values.flatten())
        columns.append(top.indices.flatten())
        first += len(block)
    values, columns = torch.cat(values), torch.cat(columns)
    rows = torch.arange(n_nodes, device=nodes.device).repeat_interleave(n_neighbors)
    index = torch.stack([torch.cat([rows, columns]), torch.cat([columns, rows])])
    halves = values.clamp_(min=0).to(nodes.dtype).repeat(2) / 2
    # Some versions of torch warn without, whatever `check_invariants` says.
    with torch.sparse.check_sparse_tensor_invariants(False):
        return torch.sparse_coo_tensor(index, halves, (n_nodes, n_nodes)).coalesce()


class GCN(nn.Module):
    """Graph network of two layers that tells labelled rows from others.

    ``h = dropout(relu(A V W1 + b1))``, logits ``A h W2 + b2`` [1]_.

    Parameters
    ----------
    n_inputs : int
        Number of values in a row.
    n_hidden : int, default=128
        Number of hidden units.
    dropout : float, default=0.3
        Probability of dropping a hidden unit.

    Notes
    -----
    Weights start uniform within ``1 / sqrt(n_outputs)`` of 0, as in the authors' code.

    References
    ----------
    .. [1] Caramalau, Bhattarai and Kim, "Sequential graph convolutional network for
       active learning", CVPR 2021.

    Examples
    --------
    >>> import torch
    >>> from skal.models import GCN, similarity_graph
    >>> nodes = torch.eye(5, 3)
    >>> graph = similarity_graph(nodes)
    >>> logits, hidden = GCN(3)(graph @ nodes, *graph)
    >>> logits.shape, hidden.shape
    (torch.Size([5]), torch.Size([5, 128]))
    """

    def __init__(self, n_inputs: int, n_hidden: int = 128, dropout: float = 0.3):
        super().__init__()
        self.hidden = nn.Linear(n_inputs, n_hidden)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(n_hidden, 1)
        for layer in (self.hidden, self.head):
            for parameter in layer.parameters():
                bound = layer.out_features**-0.5
                nn.init.uniform_(parameter, -bound, bound)

    def forward(
        self,
        averaged: torch.Tensor,
        similarity: torch.Tensor,
        own: torch.Tensor,
        scale: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute logits and hidden units.

        Parameters
        ----------
        averaged : tensor of shape (n_nodes, n_inputs)
            ``A V``, which stays the same over all epochs.
        similarity, own, scale : tensors
            The parts of a `SimilarityGraph`.

        Returns
        -------
        logits : tensor of shape (n_nodes,)
            Positive where a row looks labelled.
        hidden : tensor of shape (n_nodes, n_hidden)
        """
        hidden = self.dropout(torch.relu(self.hidden(averaged)))
        graph = SimilarityGraph(similarity, own, scale)
        logits = graph @ (hidden @ self.head.weight.T) + self.head.bias
        return logits.squeeze(1), hidden


class GCNLoss(nn.Module):
    """Cross-entropy of being labelled, averaged over either kind of rows apart.

    ``-mean_labeled(log p) - weight * mean_unlabeled(log(1 - p))`` [1]_.

    Parameters
    ----------
    unlabeled_weight : float, default=1.2
        The paper's lambda, 0 or more: the larger, the lower all ``p``.

    Raises
    ------
    ValueError
        Where `unlabeled_weight` is negative, infinite or NaN.

    References
    ----------
    .. [1] Caramalau, Bhattarai and Kim, "Sequential graph convolutional network for
       active learning", CVPR 2021.

    Examples
    --------
    >>> import torch
    >>> from skal.models import GCNLoss
    >>> GCNLoss()(torch.zeros(3), torch.tensor([True, False, False]))  # 2.2 log 2
    tensor(1.5249)
    """

    def __init__(self, unlabeled_weight: float = 1.2):
        super().__init__()
        if not 0 <= unlabeled_weight < inf:
            raise ValueError(
                f"unlabeled_weight={unlabeled_weight} must be 0 or more, and finite."
            )
        self.unlabeled_weight = unlabeled_weight

    def forward(
        self, output: torch.Tensor | tuple[torch.Tensor, ...], is_labeled: torch.Tensor
    ) -> torch.Tensor:
        """Compute the loss.

        Parameters
        ----------
        output : tensor of shape (n_nodes,) or tuple that begins with one
            Logits.
        is_labeled : bool tensor of shape (n_nodes,)

        Returns
        -------
        loss : tensor, a scalar
        """
        logits = output[0] if isinstance(output, tuple) else output
        unlabeled = softplus(logits[~is_labeled]).mean()
        return softplus(-logits[is_labeled]).mean() + self.unlabeled_weight * unlabeled
