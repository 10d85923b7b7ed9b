"""The network that predicts losses, and the loss that ranks them."""

from collections.abc import Sequence

import torch
from torch import nn


class LossPrediction(nn.Module):
    """Predict the loss of a row from the hidden units of another network.

    Each layer's means go through ``Linear(n, width)`` and ReLU, all of them together
    through ``Linear(., 1)`` [1]_.

    Parameters
    ----------
    n_features : sequence of int
        Number of channels or units of each layer.
    width : int, default=128
        Number of units a layer.

    References
    ----------
    .. [1] Yoo and Kweon, "Learning loss for active learning", CVPR 2019, section 3.2.

    Examples
    --------
    >>> import torch
    >>> from skal.models import LossPrediction
    >>> LossPrediction([8, 3])([torch.zeros(5, 8), torch.zeros(5, 3)]).shape
    torch.Size([5])
    """

    def __init__(self, n_features: Sequence[int], width: int = 128):
        super().__init__()
        self.branches = nn.ModuleList([nn.Linear(n, width) for n in n_features])
        self.head = nn.Linear(len(self.branches) * width, 1)

    def forward(self, means: Sequence[torch.Tensor]) -> torch.Tensor:
        """Predict.

        Parameters
        ----------
        means : sequence of tensors of shape (n_samples, n_features[i])
            What each layer gives, averaged over all places of an image.

        Returns
        -------
        predicted : tensor of shape (n_samples,)
            Higher where a higher loss is expected; on no scale.
        """
        parts = zip(self.branches, means, strict=True)
        hidden = [torch.relu(branch(mean)) for branch, mean in parts]
        return self.head(torch.cat(hidden, dim=1)).squeeze(1)


class RankingLoss(nn.Module):
    """Hinge loss of predictions that should be in the order of their targets.

    Rows i and n - 1 - i are a pair, of n or n - 1 rows, an even number; the mean over
    the pairs is that of ``max(0, margin - sign(l_i - l_j) (p_i - p_j))`` [1]_.

    Parameters
    ----------
    margin : float, default=1.0
        The paper's xi, by which predictions should be apart.

    Notes
    -----
    Of equal targets neither is to be higher: the pair gives no gradient. The paper
    leaves that open, the authors' code wants the second to be higher. There an odd
    number of rows is an error.

    References
    ----------
    .. [1] Yoo and Kweon, "Learning loss for active learning", CVPR 2019, equation 2.

    Examples
    --------
    >>> import torch
    >>> from skal.models import RankingLoss
    >>> predicted, losses = torch.tensor([3.0, 1.0, 1.5, 1.0]), torch.arange(4.0)
    >>> RankingLoss()(predicted, losses)  # (3 + 0.5) / 2
    tensor(1.7500)
    """

    def __init__(self, margin: float = 1.0):
        super().__init__()
        self.margin = margin

    def forward(self, predicted: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
        """Compute the loss; 0 where there is no pair.

        Parameters
        ----------
        predicted, losses : tensors of shape (n_samples,)
            No gradient reaches `losses`.

        Returns
        -------
        loss : tensor, a scalar
        """
        half = len(predicted) // 2
        if half == 0:
            return predicted.sum() * 0
        last = slice(half, 2 * half)
        signs = (losses[:half] - losses[last].flip(0)).detach().sign()
        return nn.functional.margin_ranking_loss(
            predicted[:half], predicted[last].flip(0), signs, margin=self.margin
        )
